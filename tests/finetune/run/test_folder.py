"""One folder, one run, one writer."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.errors import AtelierError, DiskError, RecipeError
from finetune.run.folder import RunFolder


def test_a_new_run_has_its_folders(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "runs" / "cat")
    assert sorted(entry.name for entry in run.path.iterdir()) == ["checkpoints", "commands", "exports", "previews"]
    assert run.checkpoint(500) == run.path / "checkpoints" / "step-000500"
    assert run.preview(0) == run.path / "previews" / "step-000000"


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "cat")
    RunFolder.create(tmp_path / "cat")  # nothing began there
    run.recipe.write_text("name: cat\n")
    RunFolder.create(tmp_path / "cat")  # nor there: the start failed before the first step
    run.events.write_text('{"seq": 1, "time": 0, "kind": "step", "step": 1, "loss": 1.0}\n')
    with pytest.raises(RecipeError, match=r"already holds a run.*--resume.*name="):
        RunFolder.create(tmp_path / "cat")
    assert RunFolder.open(tmp_path / "cat") == run


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(RecipeError, match="no run folder"):
        RunFolder.create(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="no run folder"):
        RunFolder.create(tmp_path / "file")


@pytest.mark.parametrize("made", [True, False])
def test_opening_what_holds_no_run_is_refused(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "cat").mkdir()
    with pytest.raises(RecipeError, match="cat: "):
        RunFolder.open(tmp_path / "cat")


HOLDER = """
import sys
from finetune.run.folder import RunFolder
with RunFolder.create(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_writer_and_the_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "cat")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert run.is_locked()
        with pytest.raises(AtelierError, match="another process is training here"), run.lock():
            pass
        holder.kill()
        holder.wait(timeout=30)
    assert not run.is_locked()
    with run.lock():
        assert run.is_locked()
    assert not run.is_locked()


@pytest.mark.parametrize("name", ["cat", "below/cat"])
def test_a_folder_that_cannot_be_made_is_a_trouble_of_the_disk_and_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"cat: this folder cannot be made: .*Set output_dir"):
        RunFolder.create(tmp_path / "file" / name)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here")
def test_a_file_system_that_makes_no_folders_is_named() -> None:
    with pytest.raises(DiskError, match="/proc/x/cat: this folder cannot be made"):
        RunFolder.create("/proc/x/cat")
