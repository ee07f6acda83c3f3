"""What the pages share: the folders, and the processes the page has started. One for a page's whole life."""

from dataclasses import dataclass

from webui.places import Places
from webui.starting import Starter


@dataclass(frozen=True)
class Desk:
    """Given to every page as it is built.

    Attributes:
        places: which folders may be read and written.
        starter: starts commands that outlive the page.
    """

    places: Places
    starter: Starter

    @classmethod
    def at(cls, places: Places) -> "Desk":
        """Return a desk for these folders."""
        return cls(places, Starter(places.runs[0]))
