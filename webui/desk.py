"""What the pages share: the folders, and the processes the page has started. One for a page's whole life."""

from dataclasses import dataclass

from finetune.queue import Queue
from webui.places import Places
from webui.runs import RunList
from webui.starting import Starter
from webui.watching import Watcher


@dataclass(frozen=True)
class Desk:
    """Given to every page as it is built.

    Attributes:
        places: which folders may be read and written.
        starter: starts commands that outlive the page.
        watcher: reads the runs that are looked at.
        runs: lists them all.
        queue: of runs to come.
    """

    places: Places
    starter: Starter
    watcher: Watcher
    runs: RunList
    queue: Queue

    @classmethod
    def at(cls, places: Places) -> "Desk":
        """Return a desk for these folders."""
        return cls(places, Starter(places.runs[0]), Watcher(), RunList(places.runs), Queue(places.queue))
