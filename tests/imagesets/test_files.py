"""Files are read only where they lie inside the folder, are plain, and are of a bounded size."""

import os
import socket
from pathlib import Path

import pytest

from imagesets.errors import PictureError
from imagesets.files import name_problem, read_file, shown_name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def test_a_plain_file_is_read_whole(root: Path) -> None:
    (root / "a").write_bytes(b"\r\n\x1a\x00" * 1000)
    assert read_file(root / "a", root) == b"\r\n\x1a\x00" * 1000


def test_a_link_inside_is_followed_and_one_that_leads_out_is_not(root: Path) -> None:
    (root / "a").write_bytes(b"own")
    (root / "inside").symlink_to("a")
    (root / "outside").symlink_to(root.parent / "secret")
    (root / "folder").symlink_to(root.parent)
    assert read_file(root / "inside", root) == b"own"
    for path in (root / "outside", root / "folder" / "secret", root / ".." / "secret"):
        with pytest.raises(PictureError, match="it leads out of the folder"):
            read_file(path, root)


def test_a_neighbour_whose_name_begins_the_same_is_outside(root: Path) -> None:
    (root.parent / "root-of-another").mkdir()
    (root.parent / "root-of-another" / "a").write_bytes(b"x")
    with pytest.raises(PictureError, match="it leads out"):
        read_file(root / ".." / "root-of-another" / "a", root)


def test_a_root_that_is_a_link_is_the_folder_it_points_to(root: Path) -> None:
    (root / "a").write_bytes(b"own")
    link = root.parent / "link"
    link.symlink_to(root)
    assert read_file(link / "a", link) == b"own"


def test_a_pipe_does_not_hold_up_the_reader(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(PictureError, match="it is a pipe, not a plain file"):
        read_file(root / "pipe", root)


def test_a_folder_and_a_socket_are_no_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "folder").mkdir()
    with pytest.raises(PictureError, match="it is a folder, not a plain file"):
        read_file(root / "folder", root)
    monkeypatch.chdir(root)  # a socket's address must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(PictureError, match="it cannot be read: No such device"):
            read_file(root / "socket", root)


def test_what_is_not_there_is_said(root: Path) -> None:
    with pytest.raises(PictureError, match="it cannot be read: No such file or directory"):
        read_file(root / "gone", root)
    (root / "loop").symlink_to("loop")
    with pytest.raises(PictureError, match="it cannot be read: "):
        read_file(root / "loop", root)


def test_a_file_above_the_limit_is_refused_by_its_size_alone(root: Path) -> None:
    with (root / "huge").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(PictureError, match=f"the file has {2**40} bytes; at most"):
        read_file(root / "huge", root)


@pytest.mark.parametrize("name", ["星 ★.png", "a b.png", "a\u202fb.png", "%s.png", "-rf"])
def test_names_that_are_only_unusual_are_let_be(name: str) -> None:
    assert name_problem(name) is None
    assert shown_name(name) == name


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\u2028b", "caf\udce9", "\x7f"])
def test_names_that_cannot_be_shown_are_refused_and_written_out(name: str) -> None:
    assert name_problem(name) is not None
    assert shown_name(name) == ascii(name)[1:-1]
    assert shown_name(name).isascii()
