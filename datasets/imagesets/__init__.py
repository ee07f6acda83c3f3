"""Everything about pictures: reading, captions, framing, buckets, epoch plans. Knows pixels, not diffusion."""

from imagesets.errors import ImagesetError, PictureError, SourceError
from imagesets.framing import Frame, make_frame
from imagesets.sources import FolderSource, HuggingFaceSource

__all__ = [
    "FolderSource",
    "Frame",
    "HuggingFaceSource",
    "ImagesetError",
    "PictureError",
    "SourceError",
    "make_frame",
]
