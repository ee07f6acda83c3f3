"""The log: numbered, whole lines, never NaN, one write a line, mended after a kill."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.run.events import EVENT_KINDS, EventLog, read_events


def test_an_event_is_one_line_with_its_fields(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        event = log.emit("step", step=3, loss=0.25, note="two\nlines")
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0]) == event
    assert event["seq"] == 1
    assert event["kind"] == "step"
    assert event["step"] == 3
    assert event["loss"] == 0.25
    assert abs(event["time"] - time.time()) < 60


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        event = log.emit("step", step=1, loss=math.nan, learning_rates={"unet": math.inf}, more=[-math.inf, 1.0])
    assert event["loss"] is None
    assert event["learning_rates"] == {"unet": None}
    assert event["more"] == [None, 1.0]
    text = (tmp_path / "events.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text


def test_seq_goes_on_and_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        for step in (1, 2, 3):
            log.emit("step", step=step, loss=1.0)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        with EventLog(path) as log:
            event = log.emit("warning", message="on again")
        kept = whole[:cut].count(b"\n")
        assert event["seq"] == kept + 1
        events, offset = read_events(path)
        assert [event["seq"] for event in events] == list(range(1, kept + 2))
        assert offset == path.stat().st_size


def test_a_reader_leaves_a_torn_line_for_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.emit("step", step=1, loss=1.0)
        log.emit("step", step=2, loss=2.0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    events, offset = read_events(path)
    assert [event["step"] for event in events] == [1]
    assert read_events(path, offset) == ([], offset)
    path.write_bytes(whole)
    events, offset = read_events(path, offset)
    assert [event["step"] for event in events] == [2]
    assert offset == len(whole)


def test_a_damaged_line_is_reported_and_does_not_hide_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.emit("step", step=1, loss=1.0)
        start = path.stat().st_size
        log.emit("step", step=2, loss=1.0)
        log.emit("step", step=3, loss=1.0)
    content = bytearray(path.read_bytes())
    content[start : start + 10] = b"\0" * 10
    path.write_bytes(content)
    events, _ = read_events(path)
    assert [event["kind"] for event in events] == ["step", "warning", "step"]
    assert f"byte {start}" in events[1]["message"]
    with EventLog(path) as log:
        assert log.emit("warning", message="")["seq"] == 4


def test_a_log_that_is_not_there_is_empty_and_a_shorter_one_is_another(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ([], 0)
    with EventLog(path) as log:
        log.emit("step", step=1, loss=1.0)
    events, offset = read_events(path, offset=10_000)
    assert len(events) == 1
    assert offset == path.stat().st_size


def test_a_line_is_one_write_to_a_file_opened_for_appending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, written = [], []
    real_open, real_write = os.open, os.write
    monkeypatch.setattr(os, "open", lambda path, flags, *mode: opened.append(flags) or real_open(path, flags, *mode))
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(bytes(data)) or real_write(fd, data))
    with EventLog(tmp_path / "events.jsonl") as log:
        assert opened[0] & os.O_APPEND
        log.emit("step", step=1, loss=1.0, note="x" * 100_000)
        log.emit("step", step=2, loss=1.0)
    assert len(written) == 2
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in written)


WRITER = """
import sys
from pathlib import Path
from finetune.run.events import EventLog
with EventLog(Path(sys.argv[1])) as log:
    for step in range(1, 2001):
        log.emit("step", step=step, loss=step / 7, note="x" * (step % 300))
"""


def test_a_reader_beside_the_writer_sees_every_event_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    seen, offset, reads_with_news = [], 0, 0
    deadline = time.monotonic() + 60
    while len(seen) < 2000 and time.monotonic() < deadline:
        events, offset = read_events(path, offset)
        reads_with_news += bool(events)
        seen += events
    assert writer.wait(timeout=30) == 0
    assert [event["seq"] for event in seen] == list(range(1, 2001))
    assert seen[999]["loss"] == 1000 / 7
    assert reads_with_news > 1, "the reader never ran beside the writer, so nothing was shown"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(value=PLAIN)
def test_what_emit_returns_is_what_readers_read(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    with EventLog(path) as log:
        event = log.emit("warning", value=value)
    assert read_events(path)[0] == [event]


def test_the_kinds_are_the_protocol() -> None:
    expected = "run_started stage step preview checkpoint warning command_done run_finished"
    assert expected.split() == list(EVENT_KINDS)


def test_an_unknown_kind_is_a_slip(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log, pytest.raises(AssertionError, match="stpe"):
        log.emit("stpe")  # type: ignore[arg-type]
