"""The list of runs: all of them, newest first, and nothing from outside the folders that were given."""

import os
from pathlib import Path

import pytest

import webui.runs
from finetune.run.events import EventLog
from finetune.run.folder import RunFolder
from webui.paths import file_inside
from webui.run_reader import RunReader
from webui.runs import RunList, find_runs, newest_preview


def make_run(path: Path, *steps: int, status: str | None = "finished", name: str = "") -> RunFolder:
    path.parent.mkdir(parents=True, exist_ok=True)
    run = RunFolder.create(path)
    with EventLog(run.events) as log:
        log.emit("run_started", name=name or path.name, total_steps=len(steps))
        for step in steps:
            log.emit("step", step=step, loss=step / 8, learning_rates={"unet": 1e-4})
        if status is not None:
            log.emit("run_finished", status=status)
    return run


def set_time(run: RunFolder, seconds: float) -> None:
    content = run.events.read_text()
    lines = [line.replace('"time": ', f'"time": {seconds}, "was": ') for line in content.splitlines(keepends=True)]
    run.events.write_text("".join(lines))


def test_every_run_is_listed_newest_first(tmp_path: Path) -> None:
    for index, name in enumerate(["b", "deep/er/c", "a"]):
        set_time(make_run(tmp_path / "runs" / name, 1, 2), 1000.0 + index)
    set_time(make_run(tmp_path / "more" / "d", 1, status=None, name="<img src=x onerror=alert(1)>"), 5000.0)
    make_run(tmp_path / "runs" / "_cache" / "no-run", 1)
    (tmp_path / "runs" / "_cache" / "CACHEDIR.TAG").touch()
    (tmp_path / "runs" / "only-a-recipe").mkdir()
    (tmp_path / "runs" / "only-a-recipe" / "recipe.yaml").write_text("name: x\n")
    os.utime(tmp_path / "runs" / "only-a-recipe" / "recipe.yaml", (10, 10))
    runs = RunList([tmp_path / "runs", tmp_path / "more", tmp_path / "runs" / "deep", tmp_path / "not-there"]).look()
    assert [run.path.name for run in runs] == ["d", "a", "c", "b", "only-a-recipe"]
    assert [run.status for run in runs] == ["interrupted", "finished", "finished", "finished", "interrupted"]
    assert runs[0].name == "<img src=x onerror=alert(1)>", "texts are handed on as they are; the page escapes them"
    assert (runs[1].step, runs[1].total_steps, runs[1].loss) == (2, 2, 0.25)
    assert runs[-1].updated_at == 10


def test_a_run_that_is_being_written_is_running(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 1, status=None)
    runs = RunList([tmp_path])
    with run.lock():
        assert runs.look()[0].status == "running"
    assert runs.look()[0].status == "interrupted"


def test_a_list_reads_only_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _second = make_run(tmp_path / "a", 1), make_run(tmp_path / "b", 1)
    runs, folded = RunList([tmp_path]), []
    monkeypatch.setattr(
        webui.runs, "fold", lambda state, events, fold=webui.runs.fold: folded.append(1) or fold(state, events)
    )
    runs.look()
    assert len(folded) == 2
    assert runs.look() == runs.look()
    assert len(folded) == 2
    with EventLog(first.events) as log:
        log.emit("step", step=7, loss=0.5)
    assert {run.path.name: run.step for run in runs.look()} == {"a": 7, "b": 1}
    assert len(folded) == 3


def test_of_a_long_log_both_ends_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "a", *range(1, 400), status="stopped")
    whole = RunReader(run).update()
    for size in (300, 1000, 5000, 1 << 20):
        monkeypatch.setattr(webui.runs, "_END_BYTES", size)
        (summary,) = RunList([tmp_path]).look()
        assert (summary.status, summary.step, summary.loss) == (whole.status, whole.state.step, whole.state.loss)
        assert (summary.total_steps, summary.name) == (399, "a")


def test_no_link_is_followed_out_of_the_roots(tmp_path: Path) -> None:
    outside = make_run(tmp_path / "outside" / "secret", 1)
    root = tmp_path / "runs"
    inside = make_run(root / "a", 1)
    (root / "link").symlink_to(outside.path)
    (root / "loop").symlink_to(root)
    fake = root / "fake"
    fake.mkdir()
    (fake / "events.jsonl").symlink_to(outside.events)
    (fake / "recipe.yaml").symlink_to(outside.events)
    assert list(find_runs([root])) == [inside.path]
    (tmp_path / "door").symlink_to(root)
    assert list(find_runs([tmp_path / "door"])) == [inside.path], "the root that was given may be a link itself"


def test_the_newest_preview_is_a_plain_file_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 1)
    assert newest_preview(run) is None
    for step, names in ((0, ["wall.png", "01.png"]), (50, ["02.png", "01.png"]), (100, ["note.txt"])):
        run.preview(step).mkdir()
        for name in names:
            (run.preview(step) / name).write_bytes(b"x")
    assert newest_preview(run) == run.preview(50) / "01.png"
    (run.preview(50) / "wall.png").symlink_to(tmp_path / "a" / "events.jsonl")
    assert newest_preview(run) == run.preview(50) / "01.png"
    (run.preview(50) / "wall.png").unlink()
    (run.preview(50) / "wall.png").write_bytes(b"x")
    assert newest_preview(run) == run.preview(50) / "wall.png"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "wall.png").write_bytes(b"x")
    (run.previews / "step-000900").symlink_to(outside)
    assert newest_preview(run) == run.preview(50) / "wall.png"


def test_a_lock_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 1, status=None)
    precious = tmp_path / "precious"
    precious.write_text("words")
    (run.path / ".lock").unlink(missing_ok=True)
    (run.path / ".lock").symlink_to(precious)
    assert RunList([tmp_path]).look()[0].status == "interrupted"
    assert precious.read_text() == "words"


@pytest.mark.parametrize(
    "relative", ["../secret", "/etc/hostname", "link", "pipe", "folder", "", "missing", "a\0b", "x/../x/file"]
)
def test_paths_of_a_log_that_are_not_to_be_opened(tmp_path: Path, relative: str) -> None:
    run = tmp_path / "run"
    (run / "folder").mkdir(parents=True)
    (run / "x").mkdir()
    (run / "x" / "file").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "run-2").mkdir()
    (run / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(run / "pipe")
    assert file_inside(run, relative) is None
    assert file_inside(run, "x/file") == (run / "x" / "file").resolve()
