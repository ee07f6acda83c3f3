"""One reader a run for all browsers: whoever asks, what is new is read once. It writes nothing."""

import threading
from collections import OrderedDict
from pathlib import Path

from webui.run_reader import RunReader, Seen

_KEPT = 12


class Watcher:
    """Readers of the runs that are looked at, the longest unasked one given up first; used by many threads."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._readers: OrderedDict[Path, tuple[threading.Lock, RunReader]] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, run: Path) -> Seen:
        """Return the run at a folder as it is now.

        Raises:
            PermissionError: its log may not be read.
        """
        with self._lock:
            if run not in self._readers:
                self._readers[run] = (threading.Lock(), RunReader(run))
            lock, reader = self._readers[run]
            self._readers.move_to_end(run)
            while len(self._readers) > _KEPT:
                self._readers.popitem(last=False)
        with lock:
            return reader.update()
