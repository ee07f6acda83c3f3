"""The queue on the disk: order, states, what is refused, and what claims are for."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.cli.main import main
from finetune.errors import AtelierError, RecipeError
from finetune.queue import Queue
from finetune.queue.processes import identity_of, is_alive
from finetune.run.events import EventLog
from finetune.run.folder import RunFolder

Add = Callable[..., Any]


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


@pytest.fixture
def add(queue: Queue, tmp_path: Path) -> Add:
    def add(name: str, **more: Any) -> Any:
        return queue.add("quickstart", [f"name={name}", f"output_dir={tmp_path / 'runs'}"], **more)

    return add


def test_items_keep_their_order_and_their_numbers(queue: Queue, add: Add) -> None:
    for name in "abcd":
        add(name)
    assert [item.id for item in queue.move(4, 1).waiting()] == [4, 1, 2, 3]
    assert [item.id for item in queue.move(1, 99).waiting()] == [4, 2, 3, 1]
    assert queue.claim_next("x").id == 4  # type: ignore[union-attr]
    assert [item.id for item in queue.move(1, 1).items] == [4, 1, 2, 3], "only what waits changes its place"
    queue.remove(3)
    assert add("e").id == 5, "a number is not given again"
    assert [item.id for item in Queue(queue.folder).read().items] == [4, 1, 2, 5]


def test_a_wrong_recipe_is_refused_when_it_is_added(queue: Queue) -> None:
    with pytest.raises(RecipeError, match=r"training\.stepz"):
        queue.add("quickstart", ["training.stepz=3"])
    with pytest.raises(RecipeError, match="option"):
        queue.add("--help")
    assert queue.read().items == ()


def test_no_two_runs_in_one_folder(queue: Queue, add: Add, tmp_path: Path) -> None:
    add("a")
    with pytest.raises(RecipeError, match="name=a-2"):
        add("a")
    assert add("a", resume=True).resume, "what the first item begins, a second may go on with"
    queue.cancel(1)
    run = RunFolder.create(tmp_path / "runs" / "b")
    with EventLog(run.events) as log:
        log.emit("step", step=1, loss=1.0)
    with pytest.raises(RecipeError, match="already holds a run"):
        add("b")
    assert add("b", resume=True).resume
    with pytest.raises(RecipeError, match="no such folder"):
        add("c", resume=True)


def test_a_claim_is_for_one_keeper(queue: Queue, add: Add) -> None:
    add("a")
    add("b")
    me = identity_of(os.getpid())
    assert queue.claim_next("one").id == 1  # type: ignore[union-attr]
    assert queue.claim_next("two") is None, "one at a time"
    assert queue.begin(1, "two", me, me) is None
    queue.release(1, "one")
    assert queue.begin(1, "one", me, me) is None, "a keeper that comes late finds no claim"
    assert queue.claim_next("three").id == 1  # type: ignore[union-attr]
    assert queue.begin(1, "three", me, me) is not None
    assert queue.begin(1, "three", me, me) is not None, "asking twice changes nothing"
    queue.record_end(1, "one", 1)
    assert queue.read().item(1).state == "running"  # type: ignore[union-attr]
    queue.record_end(1, "three", 0)
    queue.record_end(1, "three", 5)
    ended = queue.read().item(1)
    assert ended is not None
    assert (ended.state, ended.exit_code) == ("finished", 0)
    assert queue.claim_next("four").id == 2  # type: ignore[union-attr]


def test_a_cancelled_claim_is_not_begun(queue: Queue, add: Add) -> None:
    add("a")
    queue.claim_next("one")
    assert queue.cancel(1).state == "cancelled"
    me = identity_of(os.getpid())
    assert queue.begin(1, "one", me, me) is None
    with pytest.raises(RecipeError, match="has ended"):
        queue.cancel(1)


def test_paused_nothing_is_claimed(queue: Queue, add: Add) -> None:
    add("a")
    queue.pause()
    assert queue.claim_next("x") is None
    queue.pause(paused=False)
    assert queue.claim_next("x") is not None


def test_the_dead_are_given_up_and_another_process_of_their_number_is_not_them(queue: Queue, add: Add) -> None:
    add("a")
    me = identity_of(os.getpid())
    reused = me.model_copy(update={"started_at": me.started_at - 60})
    assert is_alive(me)
    assert not is_alive(reused)
    queue.claim_next("x")
    queue.begin(1, "x", reused, me)
    queue.give_up_the_dead()
    assert queue.read().item(1).state == "running", "the training lives on without its keeper"  # type: ignore[union-attr]
    queue.change(
        lambda content: content.with_item(content.items[0].model_copy(update={"process": reused, "keeper": reused}))
    )
    queue.give_up_the_dead()
    lost = queue.read().item(1)
    assert lost is not None
    assert (lost.state, lost.exit_code) == ("lost", None)


def test_what_runs_is_not_removed(queue: Queue, add: Add) -> None:
    add("a")
    queue.claim_next("x")
    with pytest.raises(RecipeError, match="queue cancel 1"):
        queue.remove(1)
    with pytest.raises(RecipeError, match="There are: 1"):
        queue.remove(7)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 2}', b'{"items": [{"id": "1"}]}', b"\xff"])
def test_a_damaged_queue_is_told_and_left_as_it_is(queue: Queue, add: Add, content: bytes) -> None:
    queue.folder.mkdir()
    queue.file.write_bytes(content)
    with pytest.raises(AtelierError, match=r"queue\.json"):
        add("a")
    assert queue.file.read_bytes() == content


def test_many_at_once_lose_nothing(queue: Queue, add: Add) -> None:
    add("a")
    item = queue.read().items[0]

    def copy_item() -> None:
        for _ in range(5):
            queue.change(
                lambda content: content.with_items(
                    (*content.items, item.model_copy(update={"id": content.next_id}))
                ).model_copy(update={"next_id": content.next_id + 1})
            )

    threads = [threading.Thread(target=copy_item) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.id for each in queue.read().items] == list(range(1, 22))


def test_one_runner_at_a_time(queue: Queue) -> None:
    assert not queue.has_runner()
    with queue.runner_lock():
        assert queue.has_runner()
        with pytest.raises(AtelierError, match="already"), Queue(queue.folder).runner_lock():
            pass
    assert not queue.has_runner()


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    def atelier(*words: str) -> Any:
        assert main([*words[:2], *words[2:], "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert atelier("queue", "list")["items"] == []
    first = atelier("queue", "add", "quickstart", "training.steps=3", "name=a")["item"]
    assert (first["id"], first["state"], first["overrides"]) == (1, "waiting", ["training.steps=3", "name=a"])
    assert Path(first["run"]) == tmp_path / "runs" / "a"
    atelier("queue", "add", "quickstart", "name=b")
    assert atelier("queue", "move", "2", "1") == {"waiting": [2, 1]}
    assert atelier("queue", "pause") == {"paused": True}
    assert atelier("queue", "run", "--until-empty") == {"ended": []}
    assert atelier("queue", "resume") == {"paused": False}
    assert atelier("queue", "cancel", "2")["item"]["state"] == "cancelled"
    assert atelier("queue", "remove", "2")["item"]["id"] == 2
    listed = atelier("queue", "list")
    assert [item["id"] for item in listed["items"]] == [1]
    assert listed["folder"] == str(tmp_path / "runs" / "_queue")
    assert main(["queue", "list"]) == 0
    assert "atelier train quickstart training.steps=3 name=a" in capsys.readouterr().out
    assert main(["queue", "cancel", "9"]) == 2
