"""Processes by number and start: which one is meant, whether it lives, and asking it to stop."""

import signal

import psutil

from finetune.queue.items import ProcessIdentity

# The system counts a start from its own, and the clock may be set in between; a number is not given again so soon.
_SAME_START_SECONDS = 2.0


def identity_of(pid: int) -> ProcessIdentity:
    """Return who the process of a number is. It must be there."""
    return ProcessIdentity(pid=pid, started_at=psutil.Process(pid).create_time())


def is_alive(identity: ProcessIdentity | None) -> bool:
    """Whether that very process still runs. One that has ended and waits to be collected does not."""
    return _find(identity) is not None


def ask_to_stop(identity: ProcessIdentity | None) -> bool:
    """Send SIGTERM, upon which a training saves and stops; a second one ends it at once. False where it is gone."""
    process = _find(identity)
    if process is None:
        return False
    try:
        process.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return False
    return True


def _find(identity: ProcessIdentity | None) -> psutil.Process | None:
    if identity is None:
        return None
    try:
        process = psutil.Process(identity.pid)
        same = abs(process.create_time() - identity.started_at) <= _SAME_START_SECONDS
        return process if same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else None
    except psutil.NoSuchProcess:
        return None
