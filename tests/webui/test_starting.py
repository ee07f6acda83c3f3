"""What the page starts: the real command line, in a session of its own, with its words and exit code to read."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import webui.starting
from finetune.errors import DiskError, RecipeError
from tests.jobs.conftest import child_environment
from webui.starting import LOGS, Started, Starter


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starter:
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    return Starter(tmp_path / "runs")


@pytest.fixture
def scripted(starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starter:
    """A starter of a small script, which does what its first word says."""
    script = tmp_path / "script.py"
    script.write_text("import sys\nexec(sys.argv[1])\n", encoding="utf-8")
    monkeypatch.setattr(webui.starting, "PROGRAM", (sys.executable, str(script)))
    return starter


def test_the_real_command_is_started_and_read(starter: Starter, tmp_path: Path) -> None:
    listed = starter.start(["recipes", "list"], "list")
    failed = starter.start(["train", "no such recipe"], "train", run="cat")
    assert failed.line == "atelier train 'no such recipe'"
    assert listed.process.wait(60) == 0
    assert failed.process.wait(60) == 2
    assert (listed.exit_code(), failed.exit_code()) == (0, 2)
    assert "quickstart" in listed.last_lines(100)
    assert listed.log == tmp_path / "runs" / LOGS / "list.log"
    assert listed.log.read_text(encoding="utf-8").startswith("$ atelier recipes list\n")
    assert "no such recipe" in failed.last_lines(3)
    assert starter.of_run("cat") is failed
    assert starter.of_run("dog") is None


def test_a_run_is_not_started_twice_at_once(scripted: Starter) -> None:
    first = scripted.start(["import time; time.sleep(60)"], "cat", run="cat")
    try:
        with pytest.raises(RecipeError, match="cat: it was started already"):
            scripted.start(["pass"], "cat", run="cat")
        assert scripted.of_run("cat") is first
        assert scripted.start(["pass"], "dog", run="dog").process.wait(10) == 0
        first.wait_for_end(0.01)
        assert first.exit_code() is None
    finally:
        first.process.kill()
    first.wait_for_end(10)
    assert first.exit_code() == 128 + 9
    again = scripted.start(["pass"], "cat", run="cat")
    assert again.process.wait(10) == 0
    assert scripted.of_run("cat") is again


@pytest.mark.skipif(os.name == "nt", reason="sessions are POSIX's")
def test_it_is_a_session_of_its_own_and_a_signals_exit_code_is_a_shells(scripted: Starter) -> None:
    started = scripted.start(["import time; print('up', flush=True); time.sleep(60)"], "sleep")
    try:
        assert started.exit_code() is None
        assert os.getsid(started.process.pid) == started.process.pid != os.getsid(0)
    finally:
        started.process.send_signal(signal.SIGTERM)
    started.process.wait(10)
    assert started.exit_code() == 128 + signal.SIGTERM


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX's")
def test_it_outlives_the_page(scripted: Starter, tmp_path: Path) -> None:
    """A page's process that is killed with its whole group, as a terminal's Ctrl-C would, leaves what it started."""
    mark, go = tmp_path / "mark", tmp_path / "go"
    words = (
        f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
        f"pathlib.Path({str(mark)!r}).touch()"
    )
    page = (
        "import sys, time, pathlib, webui.starting as s; "
        f"s.PROGRAM = {webui.starting.PROGRAM!r}; "
        f"started = s.Starter(pathlib.Path({str(tmp_path)!r})).start([{words!r}], 'x'); "
        "print(started.process.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", page], stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        os.killpg(process.pid, signal.SIGKILL)
    go.touch()
    give_up = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < give_up, "it died with the page"
        time.sleep(0.01)


def test_a_log_that_is_written_on_shows_only_its_own_words(scripted: Starter) -> None:
    started = []
    for word in ("one", "two"):
        started.append(scripted.start([f"print('<b>{word}</b>'); print(chr(0xfffd))"], "same"))
        assert started[-1].process.wait(20) == 0
    assert "one" in started[0].log.read_text(encoding="utf-8"), "the older words are kept"
    assert "two" in started[1].last_lines()
    assert "one" not in started[1].last_lines()
    assert started[1].last_lines(1) == "\ufffd"
    started[0].log.unlink()
    assert started[0].last_lines() == ""


def test_words_are_never_a_shells_line(scripted: Starter, tmp_path: Path) -> None:
    word = f"print(sys.argv[2:]) # ; touch {tmp_path}/owned $(touch {tmp_path}/owned)"
    started = scripted.start([word, "a b", "$HOME", "; ls"], "words")
    assert started.process.wait(20) == 0
    assert started.last_lines(1) == "['a b', '$HOME', '; ls']"
    assert not (tmp_path / "owned").exists()


def test_only_the_newest_are_remembered_and_a_log_that_cannot_be_written_is_told(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoProcess:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", NoProcess)
    made: list[Started] = [starter.start([str(index)], "x", run=str(index % 40)) for index in range(60)]
    assert starter.started == made[:9:-1]
    assert starter.of_run("5") is made[45]
    if os.name != "nt" and os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(DiskError):
            Starter(tmp_path / "closed").start(["x"], "x")
