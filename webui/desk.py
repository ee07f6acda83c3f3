"""What the pages share: the folders, and the processes the page has started. One for a page's whole life."""

from dataclasses import dataclass

from webui.places import Places


@dataclass(frozen=True)
class Desk:
    """Given to every page as it is built.

    Attributes:
        places: which folders may be read and written.
    """

    places: Places
