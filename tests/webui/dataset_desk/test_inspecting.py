"""The inspection's process: its report and thumbnails, being cancelled, failing in words; cuts drawn; folders found."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.errors import DataError
from webui.dataset_desk import inspecting
from webui.dataset_desk.cuts import draw_cut
from webui.dataset_desk.errors import EditError
from webui.dataset_desk.folders import find_folders
from webui.dataset_desk.inspecting import Inspector, Look
from webui.dataset_desk.report import read_report


def wait(inspector: Inspector, folder: Path, extension: str = ".txt") -> Look:
    for _ in range(600):
        look = inspector.look(folder, extension)
        if look.state != "running":
            return look
        time.sleep(0.1)
    raise AssertionError("it never ended")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = (tmp_path / "<b>pictures").resolve()
    root.mkdir()
    noise = np.random.default_rng(0)
    for index, size in enumerate([(64, 64), (64, 64), (40, 80)]):
        Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"{index}.png")
    (root / "0.caption").write_text("<script>alert(1)</script>", "utf-8")
    (root / "broken.png").write_bytes(b"none")
    return root


def test_a_folder_is_inspected_by_a_process(folder: Path, tmp_path: Path) -> None:
    inspector = Inspector(tmp_path / "scratch")
    assert inspector.look(folder, ".txt").state == "none"
    inspector.start(folder, ".caption")
    assert wait(inspector, folder, ".caption").state == "done"
    assert inspector.look(folder, ".txt").state == "none"
    report = inspector.report(folder, ".caption")
    assert report is not None
    assert [picture.name for picture in report.pictures] == ["0.png", "1.png", "2.png"]
    assert report.pictures[0].caption == "<script>alert(1)</script>"
    assert [name for name, _ in report.unusable] == ["broken.png"]
    assert sum(bucket.pictures for bucket in report.buckets) == 3
    assert sum(len(report.in_bucket(bucket.size)) for bucket in report.buckets) == 3
    assert dict(report.facts())["Cannot be used"] == "1"
    missing = next(each for each in report.findings if each.kind == "missing_caption")
    assert [report.pictures[index].name for index in missing.pictures] == ["1.png", "2.png"]
    thumbnail = report.pictures[2].thumbnail
    assert thumbnail is not None
    with Image.open(thumbnail) as shown:
        assert shown.size == (80, 40)
    first = inspector.look(folder, ".caption").number
    inspector.start(folder, ".caption")
    assert wait(inspector, folder, ".caption").number > first
    assert thumbnail.exists(), "another tab may still show it"
    inspector.start(folder, ".caption")
    assert wait(inspector, folder, ".caption").state == "done"
    assert not thumbnail.exists()


def test_an_inspection_can_be_cancelled_and_fails_in_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = Inspector(tmp_path / "scratch")
    said = "import sys, time; print('reading 16/300', file=sys.stderr, flush=True); time.sleep(60)"
    monkeypatch.setattr(inspecting, "PROGRAM", (sys.executable, "-c", said))
    inspector.start(folder, ".txt")
    for _ in range(200):
        if inspector.look(folder, ".txt").total:
            break
        time.sleep(0.05)
    look = inspector.look(folder, ".txt")
    assert (look.state, look.done, look.total) == ("running", 16, 300)
    assert look.words == "Reading the pictures: 16 of 300"
    assert inspector.report(folder, ".txt") is None
    process = inspector._jobs[(folder, ".txt")].process
    inspector.cancel(folder, ".txt")
    assert process.poll() is not None
    assert inspector.look(folder, ".txt").state == "cancelled"
    said = "import sys; print('reading 1/2\\natelier: <b>no</b> such thing', file=sys.stderr); sys.exit(3 - 1)"
    monkeypatch.setattr(inspecting, "PROGRAM", (sys.executable, "-c", said))
    inspector.start(folder, ".txt")
    look = wait(inspector, folder)
    assert (look.state, look.words) == ("failed", "<b>no</b> such thing")
    said = "import sys; print('atelier: no pictures', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(inspecting, "PROGRAM", (sys.executable, "-c", said))
    inspector.start(folder, ".txt")
    look = wait(inspector, folder)
    assert (look.state, look.words) == ("failed", "no pictures")


def test_not_too_many_run_at_once_and_all_end_with_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = Inspector(tmp_path / "scratch")
    monkeypatch.setattr(inspecting, "PROGRAM", (sys.executable, "-c", "import time; time.sleep(60)"))
    folders = [tmp_path.resolve() / name for name in ("a", "b", "c")]
    for each in folders:
        each.mkdir()
    inspector.start(folders[0], ".txt")
    inspector.start(folders[0], ".txt")
    inspector.start(folders[1], ".txt")
    with pytest.raises(EditError, match="Wait until one is done"):
        inspector.start(folders[2], ".txt")
    processes = [job.process for job in inspector._jobs.values()]
    inspector.stop()
    assert len(processes) == 2
    assert all(process.poll() is not None for process in processes)


def test_a_runs_folder_is_not_inspected_for_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {sources: [{kind: folder, path: /}]}", "utf-8")
    with pytest.raises(EditError, match=r"recipe\.yaml"):
        Inspector(tmp_path / "scratch").start(tmp_path, ".txt")


def test_a_report_that_is_cut_off_is_said() -> None:
    for text in (b"", b'{"name": "a"', b"{}", b"[]", b'{"name": 1, "summary": 2, "findings": [1]}'):
        with pytest.raises(DataError, match="Inspect again"):
            read_report(text, Path())


def test_what_is_cut_away_is_dimmed_and_the_rest_is_not(tmp_path: Path) -> None:
    Image.new("RGB", (100, 50), "#c8c8c8").save(tmp_path / "000000.webp", quality=100)
    drawn = draw_cut(tmp_path / "000000.webp", (0.25, 0.0, 0.75, 1.0))
    with Image.open(drawn) as picture:
        levels = np.asarray(picture.convert("RGB")).astype(int).mean(axis=2)
    assert levels.shape == (50, 100)
    assert levels[10:40, :20].max() < 110
    assert levels[10:40, 80:].max() < 110
    assert levels[10:40, 35:65].min() > 180
    assert draw_cut(tmp_path / "000000.webp", (0.0, 0.0, 1.0, 1.0)) == drawn
    Image.new("RGB", (100, 50), "#c8c8c8").save(tmp_path / "000001.webp", quality=100)
    with Image.open(draw_cut(tmp_path / "000001.webp", (0.0, 0.0, 1.0, 1.0))) as picture:
        assert np.asarray(picture.convert("RGB")).min() > 180


def test_folders_with_pictures_are_found_and_others_are_not(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.JPG", "a/b/3.webp", "words/a.txt", "run/recipe.yaml", "run/previews/1.png",
                 ".hidden/1.png", "kohya/10_cat/1.png", "kohya/5_dog/1.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    other = tmp_path / "words"
    (other / "c").mkdir()
    (other / "c" / "1.png").write_bytes(b"")
    found = find_folders((tmp_path.resolve(), other.resolve()))
    names = [folder.name for folder in found]
    assert names[:4] == ["a", "kohya", "a/b", "words/c"]
    assert names[4] == str(other.resolve() / "c")
    assert names[5:] == ["sample:quickstart"]
    assert found[0].label == "a (2 pictures)"


def test_no_heavy_library_is_imported() -> None:
    code = (
        "import sys, webui.dataset_desk.inspecting, webui.dataset_desk.history, webui.dataset_desk.tokens, "
        "webui.dataset_desk.cuts, webui.dataset_desk.folders, webui.dataset_desk.edits; "
        "assert not {'torch', 'gradio', 'tokenizers', 'diffusers', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
