"""The keeper of one item: begins its command, waits, and writes down how it ended. A runner starts it, and may die.

    python -m finetune.queue.keeper FOLDER ID ATTEMPT PROGRAM…

The command is begun once or not at all: its process is made first and waits; only when the queue has it, under the
queue's lock and against the runner's claim, is it let go. Whatever kills the keeper before that, the waiting process
finds its pipe closed and leaves. The command is a session of its own: neither a closed terminal nor a killed runner
reaches it.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence

from finetune.errors import AtelierError
from finetune.queue.items import Item, command_of
from finetune.queue.processes import identity_of
from finetune.queue.store import Queue

_GO = b"g"
_NOT_BEGUN = 125
_NO_SUCH_COMMAND = 127

_RECORD_TRIES = 60
_RECORD_AGAIN_SECONDS = 5.0


def main(arguments: Sequence[str]) -> int:
    """Keep one item from its beginning to its end."""
    folder, item_id, attempt, *program = arguments
    return keep(Queue(folder), int(item_id), attempt, program)


def keep(queue: Queue, item_id: int, attempt: str, program: Sequence[str]) -> int:
    """Begin the command of a claimed item, wait for it, record its exit code and return it."""
    item = queue.read().item(item_id)
    if item is None:
        return 0
    command = command_of(item, program)
    hold, let_go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(let_go)
        _become(command, item, hold)
    os.close(hold)
    # Only now, for the command inherits what is ignored: a shutdown's signals are for it, and the keeper outlasts it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        begun = queue.begin(item_id, attempt, identity_of(os.getpid()), identity_of(pid))
        if begun is not None:
            print("$ " + " ".join(command), flush=True)
            os.write(let_go, _GO)
    finally:
        os.close(let_go)
    _, status = os.waitpid(pid, 0)
    if begun is None:
        return 0
    code = os.waitstatus_to_exitcode(status)
    code = code if code >= 0 else 128 - code
    _record(queue, item_id, attempt, code)
    return code


def _become(command: Sequence[str], item: Item, hold: int) -> None:
    """In the new process: wait to be let go, then be the command. Never returns."""
    try:
        os.setsid()
        if os.read(hold, 1) != _GO:
            os._exit(_NOT_BEGUN)
        os.chdir(item.cwd)
        os.execv(command[0], list(command))  # noqa: S606 - the command a person would type, from a list
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started in {item.cwd}: {error}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(_NO_SUCH_COMMAND)


def _record(queue: Queue, item_id: int, attempt: str, code: int) -> None:
    """Record the end, patiently: a run that filled the disk leaves no room for it at once."""
    for left in range(_RECORD_TRIES - 1, -1, -1):
        try:
            queue.record_end(item_id, attempt, code)
            return
        except AtelierError as error:
            print(f"the exit code {code} cannot be recorded: {error}", file=sys.stderr, flush=True)
            if left:
                time.sleep(_RECORD_AGAIN_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
