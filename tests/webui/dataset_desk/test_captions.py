"""Captions of a folder: what is read and written, what is refused, conflicts, undo to the byte."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.recipe.shipped import samples_folder
from imagesets.reading.folder import list_folder
from imagesets.sources import FolderSource
from webui.dataset_desk import captions
from webui.dataset_desk.captions import plan_puts, read_captions, reason_not_to_write
from webui.dataset_desk.errors import ConflictError, EditError
from webui.dataset_desk.history import History

FILES = {
    "a.png": b"",
    "a.txt": b"\xef\xbb\xbfred hat,  sky\r\n",
    "b.png": b"",
    "b.txt": b"tree",
    "c.png": b"",
    "sub/d.JPG": b"",
    "sub/d.txt": b"two\r\nlines\n\n",
    "sub/e.png": b"",
    "sub/metadata.jsonl": b'{"file_name": "e.png", "text": "named", "n": 1.50}\n{"file_name": "gone.png", "text": "x"}',
    "other.txt": b"nobody's",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = (tmp_path / "pictures").resolve()
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def change(folder: Path, tmp_path: Path) -> Callable[[dict[str, str]], History]:
    def apply(texts: dict[str, str]) -> History:
        history = History(folder, tmp_path / "history")
        history.apply("a change", plan_puts(read_captions(folder), texts))
        return history

    return apply


def test_captions_are_those_that_training_reads(folder: Path) -> None:
    (folder / "b.txt").unlink()
    written = {each.picture: " ".join(each.text.split()) for each in read_captions(folder)}
    trained = {entry.name: entry.caption or "" for entry in list_folder(FolderSource(folder)).entries
               if "metadata" not in entry.name}  # fmt: skip
    assert written == trained
    assert written["sub/e.png"] == "named"


def test_changes_are_written_and_undone_to_the_byte(folder: Path, change: Callable[..., History]) -> None:
    (folder / "a.txt").chmod(0o600)
    history = change({"a.png": "blue hat", "c.png": "new", "sub/d.JPG": "2\nlines", "sub/e.png": "é"})
    changed = contents(folder)
    assert changed == {
        **FILES,
        "a.txt": b"\xef\xbb\xbfblue hat\r\n",
        "c.txt": b"new\n",
        "sub/d.txt": b"2\r\nlines\n\n",
        "sub/metadata.jsonl": FILES["sub/metadata.jsonl"].replace(b"named", "é".encode()),
    }
    assert (folder / "a.txt").stat().st_mode & 0o777 == 0o600
    history.apply("another", plan_puts(read_captions(folder), {"b.png": "oak"}))
    assert [history.undo().what for _ in range(2)] == ["another", "a change"]
    assert contents(folder) == FILES
    with pytest.raises(EditError, match="nothing to undo"):
        history.undo()
    assert history.redo().num_captions == 4
    assert contents(folder) == changed
    again = History(folder, history.scratch)
    assert again.next_redo() is not None
    again.apply("third", plan_puts(read_captions(folder), {"b.png": "elm"}))
    assert again.next_redo() is None
    again.undo()
    again.undo()
    assert contents(folder) == FILES


def test_what_was_changed_elsewhere_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    read, history = read_captions(folder), History(folder, tmp_path / "history")
    (folder / "b.txt").write_bytes(b"theirs")
    (folder / "c.txt").write_bytes(b"theirs, too")
    before = contents(folder)
    with pytest.raises(ConflictError) as caught:
        history.apply("mine", plan_puts(read, {"a.png": "mine", "b.png": "mine", "c.png": "mine"}))
    assert caught.value.names == ("b.txt", "c.txt")
    assert contents(folder) == before
    assert history.next_undo() is None
    history.apply("mine", plan_puts(read_captions(folder), {"b.png": "mine"}))
    assert (folder / "b.txt").read_bytes() == b"mine"


def test_undo_is_all_or_nothing(folder: Path, change: Callable[..., History]) -> None:
    history = change({"a.png": "mine", "b.png": "mine", "sub/e.png": "mine"})
    metadata = folder / "sub/metadata.jsonl"
    metadata.write_bytes(metadata.read_bytes() + b"\n")  # another line is not this caption
    (folder / "b.txt").write_bytes(b"theirs")
    before = contents(folder)
    with pytest.raises(ConflictError, match=r"b\.txt.*all or nothing"):
        history.undo()
    assert contents(folder) == before
    (folder / "b.txt").write_bytes(b"mine")
    history.undo()
    assert contents(folder) == {**FILES, "sub/metadata.jsonl": FILES["sub/metadata.jsonl"] + b"\n"}


def test_a_failure_in_the_midst_puts_back_what_was_written(
    folder: Path, change: Callable[..., History], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = captions.write_bytes, []

    def fail_at_the_third(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(captions, "write_bytes", fail_at_the_third)
    with pytest.raises(EditError, match="No space left"):
        change({"a.png": "1", "b.png": "2", "c.png": "3"})
    assert len(calls) >= 3
    assert contents(folder) == FILES


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_links_are_not_written_through(folder: Path, tmp_path: Path, where: str) -> None:
    target = (tmp_path if where == "outside" else folder) / "secret.txt"
    target.write_bytes(b"secret")
    (folder / "b.txt").unlink()
    (folder / "b.txt").symlink_to(target)
    caption = next(each for each in read_captions(folder) if each.picture == "b.png")
    assert caption.slot is None
    assert "link" in caption.problem
    assert "secret" not in caption.text
    with pytest.raises(EditError, match="link"):
        plan_puts([caption], {"b.png": "mine"})
    assert target.read_bytes() == b"secret"


def test_a_link_that_comes_later_is_not_followed(folder: Path, tmp_path: Path) -> None:
    read = read_captions(folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "d.txt").write_bytes(FILES["sub/d.txt"])
    puts = plan_puts(read, {"sub/d.JPG": "mine"})
    (folder / "sub").rename(folder / "moved")
    (folder / "sub").symlink_to(outside)
    with pytest.raises(EditError, match="link"):
        captions.write_puts(folder, puts)
    assert (outside / "d.txt").read_bytes() == FILES["sub/d.txt"]
    (folder / "a.txt").unlink()
    os.mkfifo(folder / "a.txt")
    with pytest.raises(EditError, match="not a plain file"):
        captions.write_puts(folder, plan_puts(read, {"a.png": "mine"}))


def test_what_cannot_be_edited_says_why(folder: Path) -> None:
    (folder / "a.txt").write_bytes("é".encode("utf-16"))
    (folder / "b.jpg").write_bytes(b"")
    read = read_captions(folder)
    problems = {each.picture: each.problem for each in read}
    assert "UTF-8" in problems["a.png"]
    with pytest.raises(EditError, match="same caption file"):
        plan_puts(read, {"b.png": "1", "b.jpg": "2"})
    assert len(plan_puts(read, {"b.png": "1", "b.jpg": "1"})) == 1
    (folder / "sub/metadata.csv").write_bytes(b"file_name,text\n")
    with pytest.raises(EditError, match="two metadata files"):
        read_captions(folder)


def test_sets_that_ship_are_not_written_to(folder: Path) -> None:
    assert "Copy the folder" in reason_not_to_write((samples_folder() / "quickstart").resolve())
    assert reason_not_to_write(folder) == ""


def test_kohyas_folders_take_both_endings(tmp_path: Path) -> None:
    inner = tmp_path.resolve() / "10_zrkx cat"
    inner.mkdir()
    for name in ("a.png", "b.png", "c.png", "a.caption", "b.txt", "b.caption"):
        (inner / name).write_bytes(b"x")
    read = {each.picture: each for each in read_captions(tmp_path.resolve())}
    assert read["10_zrkx cat/a.png"].slot is not None
    assert read["10_zrkx cat/a.png"].slot.file == "10_zrkx cat/a.caption"
    assert "two captions" in read["10_zrkx cat/b.png"].problem
    assert read["10_zrkx cat/c.png"].text == ""
