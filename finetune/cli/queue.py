"""`atelier queue`: runs one after the other. What a queue is, and how it outlives its runner: `finetune.queue`."""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.arguments import add_json_argument, add_recipe_arguments
from finetune.cli.output import print_json

if TYPE_CHECKING:
    from finetune.queue import Item, Queue

DEFAULT_FOLDER = Path("runs/_queue")


def add_parser(subparsers: Any) -> None:
    """Add the group and its verbs."""
    summary = "run recipes one after the other, whoever is watching"
    parser: argparse.ArgumentParser = subparsers.add_parser("queue", help=summary, description=summary)
    verbs = parser.add_subparsers(title="what to do", metavar="WHAT", required=True)

    add = verbs.add_parser("add", help="put a run at the end; its recipe is checked now and read when its turn comes")
    add_recipe_arguments(add)
    add.add_argument("--resume", action="store_true", help="go on with the run that lies in the recipe's folder")
    add.set_defaults(run=run_add)

    listing = verbs.add_parser("list", help="the items in order, and how they are")
    listing.set_defaults(run=run_list)

    move = verbs.add_parser("move", help="put a waiting item elsewhere among those that wait")
    _add_item_argument(move)
    move.add_argument("place", metavar="PLACE", type=int, help="1 is next")
    move.set_defaults(run=run_move)

    pause = verbs.add_parser("pause", help="begin no further item; what runs is left to run")
    pause.set_defaults(run=run_pause, paused=True)
    resume = verbs.add_parser("resume", help="begin items again")
    resume.set_defaults(run=run_pause, paused=False)

    cancel = verbs.add_parser("cancel", help="drop a waiting item; let a running one save and stop (twice: at once)")
    _add_item_argument(cancel)
    cancel.set_defaults(run=run_cancel)

    remove = verbs.add_parser("remove", help="take an item that waits or has ended off the list; its run stays")
    _add_item_argument(remove)
    remove.set_defaults(run=run_remove)

    runner = verbs.add_parser("run", help="run the items, here, until interrupted; a run that is going on goes on")
    runner.add_argument("--until-empty", action="store_true", help="end when nothing is left to begin")
    runner.set_defaults(run=run_run)
    for verb in (add, listing, move, pause, resume, cancel, remove, runner):
        verb.add_argument(
            "--queue", metavar="DIR", type=Path, default=DEFAULT_FOLDER, help=f"the queue's folder ({DEFAULT_FOLDER})"
        )
        add_json_argument(verb)


def run_add(arguments: argparse.Namespace) -> int:
    """Check a recipe and queue it."""
    queue = _queue(arguments)
    item = queue.add(arguments.recipe, arguments.overrides, resume=arguments.resume)
    place = len(queue.read().waiting())
    words = f"item {item.id} waits at place {place}: {item.line}"
    if not queue.has_runner():
        words += f"\nNothing is running this queue. Start it: atelier queue run{_queue_words(arguments)}"
    return _say(arguments, {"item": _as_data(item)}, words)


def run_list(arguments: argparse.Namespace) -> int:
    """Print the queue."""
    queue = _queue(arguments)
    content, has_runner = queue.read(), queue.has_runner()
    items = [_as_data(item) for item in content.items]
    lines = [f"{item.id:>4}  {_state_words(item):<22}  {item.line}" for item in content.items]
    lines += [f"      {item.id}: {item.message}" for item in content.items if item.message]
    state = "paused" if content.paused else "going on"
    runner = "a runner is at work" if has_runner else "no runner; start one: atelier queue run"
    words = "\n".join([*lines, f"{len(content.waiting())} waiting, {state}, {runner}{_queue_words(arguments)}"])
    data = {"folder": str(queue.folder), "paused": content.paused, "has_runner": has_runner, "items": items}
    return _say(arguments, data, words)


def run_move(arguments: argparse.Namespace) -> int:
    """Order what waits."""
    waiting = [item.id for item in _queue(arguments).move(arguments.item, arguments.place).waiting()]
    return _say(arguments, {"waiting": waiting}, "next: " + ", ".join(str(item_id) for item_id in waiting))


def run_pause(arguments: argparse.Namespace) -> int:
    """Pause the queue or let it go on."""
    content = _queue(arguments).pause(paused=arguments.paused)
    active = content.active()
    words = "paused: nothing further is begun" if content.paused else "the queue goes on"
    if content.paused and active is not None:
        words += f"; item {active.id} is left to run"
    return _say(arguments, {"paused": content.paused}, words)


def run_cancel(arguments: argparse.Namespace) -> int:
    """Cancel an item."""
    item = _queue(arguments).cancel(arguments.item)
    stopping = f"item {item.id} was asked to save and stop; cancel it once more to end it at once"
    return _say(
        arguments, {"item": _as_data(item)}, stopping if item.state == "running" else f"item {item.id} is cancelled"
    )


def run_remove(arguments: argparse.Namespace) -> int:
    """Take an item off the list."""
    item = _queue(arguments).remove(arguments.item)
    return _say(arguments, {"item": _as_data(item)}, f"item {item.id} is off the list; its run folder is as it was")


def run_run(arguments: argparse.Namespace) -> int:
    """Run the queue."""
    from finetune.queue import Runner

    queue = _queue(arguments)
    ended: list[Item] = []

    def tell(item: "Item") -> None:
        if item.ended_at is not None:
            ended.append(item)
        print(f"item {item.id} {_state_words(item)}: {item.line}", file=sys.stderr, flush=True)

    if hasattr(os, "getsid") and os.getsid(0) == os.getpid():
        # In a session of its own no Ctrl-C is meant for another; who started it may have had it switched off.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        Runner(queue, listener=tell).run(until_empty=arguments.until_empty)
    except KeyboardInterrupt:
        active = queue.read().active()
        if active is not None:
            print(
                f"Item {active.id} goes on without this runner; the next one waits for it. To stop it: "
                f"atelier queue cancel {active.id}{_queue_words(arguments)}",
                file=sys.stderr,
            )
        return 130
    return _say(
        arguments, {"ended": [_as_data(item) for item in ended]}, f"{len(ended)} ended; nothing is left to begin"
    )


def _queue(arguments: argparse.Namespace) -> "Queue":
    from finetune.queue import Queue

    return Queue(arguments.queue.expanduser())


def _add_item_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("item", metavar="ITEM", type=int, help="its number, as `atelier queue list` shows it")


def _queue_words(arguments: argparse.Namespace) -> str:
    return "" if arguments.queue == DEFAULT_FOLDER else f" --queue {shlex.quote(str(arguments.queue))}"


def _state_words(item: "Item") -> str:
    if item.state == "running" and item.cancel_requested:
        return "running, to be stopped"
    return item.state if item.exit_code in (None, 0) else f"{item.state} ({item.exit_code})"


def _as_data(item: "Item") -> dict[str, Any]:
    return item.model_dump(mode="json", exclude={"attempt"})


def _say(arguments: argparse.Namespace, data: dict[str, Any], words: str) -> int:
    if arguments.json:
        print_json(data)
    else:
        print(words)
    return 0
