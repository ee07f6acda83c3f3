"""What can be wrong with pictures and sources. The trainer turns these into its own messages and exit codes."""


class ImagesetError(Exception):
    """The base of this package's errors."""


class PictureError(ImagesetError):
    """One picture cannot be used; the message is the reason, without the picture's name."""


class SourceError(ImagesetError):
    """A whole source cannot be read."""
