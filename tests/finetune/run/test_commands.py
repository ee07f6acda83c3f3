"""Commands arrive whole and in order, and nonsense is set aside with its reason."""

import json
import os
import threading
from pathlib import Path

import pytest

from finetune.run.commands import discard_commands, finish_command, poll_commands, send_command
from finetune.run.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "cat")


def test_commands_come_in_the_order_they_were_sent_and_once(run: RunFolder) -> None:
    assert poll_commands(run) == []
    ids = [send_command(run, "save"), send_command(run, "preview", prompt="a cat"), send_command(run, "stop")]
    assert ids == ["0001-save", "0002-preview", "0003-stop"]
    commands = poll_commands(run)
    assert [command.id for command in commands] == ids
    assert [command.kind for command in commands] == ["save", "preview", "stop"]
    assert commands[1].data == {"prompt": "a cat"}
    finish_command(run, commands[0])
    assert [command.id for command in poll_commands(run)] == ids[1:]
    assert (run.commands / "done" / "0001-save.json").is_file()


def test_a_number_is_never_given_twice(run: RunFolder) -> None:
    for expected in ("0001-save", "0002-save"):
        assert send_command(run, "save") == expected
        finish_command(run, poll_commands(run)[0])
    (run.commands / "0007-dance.json").write_text("{}")
    poll_commands(run)
    assert send_command(run, "save") == "0008-save"


def test_numbers_sort_as_numbers(run: RunFolder) -> None:
    for name in ("10000-save", "9999-save"):
        (run.commands / f"{name}.json").write_text(json.dumps({"kind": "save"}))
    assert [command.id for command in poll_commands(run)] == ["9999-save", "10000-save"]


def test_senders_at_once_lose_nothing(run: RunFolder) -> None:
    threads = [threading.Thread(target=send_command, args=(run, "save")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [command.id for command in poll_commands(run)] == [f"{number:04d}-save" for number in range(1, 9)]


MALFORMED = {
    "0001-save.json": (b"{", "not JSON"),
    "0002-save.json": (b"", "not JSON"),
    "0003-save.json": (b"[]", "not a JSON object"),
    "0004-save.json": (b'{"kind": "stop"}', "do not agree"),
    "0005-save.json": (b'{"kind": "save", "data": 3}', "'data' is not"),
    "0006-dance.json": (b'{"kind": "dance"}', "unknown command 'dance'. Known: save, preview, stop"),
    "notes.txt": (b"hello", "named like 0003-save.json"),
    "0008-save.json": (b"[" * 60_000, "not JSON"),
    "0009-save.json": (b" " * 70_000, "70000 bytes"),
    "0010-save.json": (b"\xff\xfe\x00", "not JSON"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_set_aside_with_its_reason(run: RunFolder, name: str) -> None:
    content, reason = MALFORMED[name]
    (run.commands / name).write_bytes(content)
    good = send_command(run, "stop")
    messages: list[str] = []
    assert [command.id for command in poll_commands(run, messages.append)] == [good]
    assert len(messages) == 1
    assert name in messages[0]
    assert reason in messages[0]
    assert (run.commands / "refused" / name).read_bytes() == content
    assert reason in (run.commands / "refused" / f"{name}.reason.txt").read_text()
    assert [command.id for command in poll_commands(run, messages.append)] == [good]
    assert len(messages) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_links_and_pipes_are_not_opened(run: RunFolder, tmp_path: Path) -> None:
    os.mkfifo(run.commands / "0001-save.json")  # opening it would wait for ever
    secret = tmp_path / "elsewhere.json"
    secret.write_text(json.dumps({"kind": "save"}))
    (run.commands / "0002-save.json").symlink_to(secret)
    assert poll_commands(run) == []
    assert secret.is_file()
    assert "not a plain file" in (run.commands / "refused" / "0002-save.json.reason.txt").read_text()


def test_hidden_and_half_written_files_are_left_alone(run: RunFolder) -> None:
    (run.commands / ".0001-save.json.abc.tmp").write_text("{")
    assert poll_commands(run) == []
    assert (run.commands / ".0001-save.json.abc.tmp").exists()


def test_commands_for_the_process_before_are_discarded(run: RunFolder) -> None:
    send_command(run, "stop")
    assert discard_commands(run, "sent before the run was resumed") == ["0001-stop.json"]
    assert poll_commands(run) == []
    assert send_command(run, "save") == "0002-save"


def test_the_same_bad_name_twice_keeps_both(run: RunFolder) -> None:
    for text in ("one", "two"):
        (run.commands / "0001-save.json").write_text(text)
        poll_commands(run)
    kept = [path.read_text() for path in (run.commands / "refused").glob("*.json")]
    assert sorted(kept) == ["one", "two"]
