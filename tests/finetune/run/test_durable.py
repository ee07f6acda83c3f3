"""Files are whole or absent, readable by others, and a full disk is one readable error."""

import errno
import hashlib
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.errors import DiskError
from finetune.run import durable


def test_a_written_file_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    durable.write_bytes(path, b"old")
    durable.write_bytes(path, b"x" * 3_000_000)
    assert path.read_bytes() == b"x" * 3_000_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]
    assert durable.sha256_file(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_the_mode_follows_the_umask_even_when_the_writer_replaces_the_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with durable.whole_file(tmp_path / "a") as temporary:
            other = tmp_path / "other"
            other.write_bytes(b"data")
            other.chmod(0o600)
            other.replace(temporary)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert (tmp_path / "a").read_bytes() == b"data"


def test_a_failing_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    durable.write_text(path, "old")

    def fail_half_way() -> None:
        with durable.whole_file(path) as temporary:
            temporary.write_text("half of it")
            raise KeyError("the writer's own trouble")

    with pytest.raises(KeyError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_lines_are_written_as_the_text_they_make(tmp_path: Path) -> None:
    lines = ["a\n", "", "größer \udce9\n", "no end"]
    durable.write_lines(tmp_path / "lines", iter(lines))
    durable.write_text(tmp_path / "text", "".join(lines))
    assert (tmp_path / "lines").read_bytes() == (tmp_path / "text").read_bytes()


def test_json_has_no_nan_and_keeps_any_file_name(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"a": [1.5, math.nan, (math.inf, -math.inf)], "b": tmp_path, "name": "caf\udce9 ü"}
    durable.write_json(path, value)
    content = path.read_bytes()
    assert b"NaN" not in content
    assert b"Infinity" not in content
    assert json.loads(content) == {"a": [1.5, None, [None, None]], "b": tmp_path.as_posix(), "name": "caf\udce9 ü"}


def test_what_is_not_plain_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object"):
        durable.write_json(tmp_path / "a.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_disk_trouble_is_a_disk_error_that_names_the_file(number: int) -> None:
    with pytest.raises(DiskError, match="some/file: cannot be written"), durable.disk_errors(Path("some/file")):
        raise OSError(number, os.strerror(number))


def test_other_trouble_passes_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        durable.write_text(tmp_path / "missing" / "a.txt", "text")


FULL_DISK = """
import resource, sys
from pathlib import Path
from finetune.errors import DiskError
from finetune.run import durable
from finetune.run.events import EventLog, read_events

folder = Path(sys.argv[1])
durable.write_bytes(folder / "kept.bin", b"old" * 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    durable.write_bytes(folder / "kept.bin", b"new" * 5000)
except DiskError as error:
    print("file:", error)
try:
    durable.write_lines(folder / "kept.bin", ("new\\n" for _ in range(5000)))
except DiskError as error:
    print("lines:", error)
assert (folder / "kept.bin").read_bytes() == b"old" * 100
assert [p.name for p in folder.iterdir()] == ["kept.bin"], list(folder.iterdir())

log = EventLog(folder / "events.jsonl")
emitted = []
try:
    while True:
        emitted.append(log.emit("step", step=len(emitted) + 1, loss=0.5))
except DiskError as error:
    print("log:", error)
events, offset = read_events(folder / "events.jsonl")
assert events == emitted and len(events) > 20
assert offset == (folder / "events.jsonl").stat().st_size, "a torn line was left"
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    log.emit("warning", message="x" * 500)
except DiskError:
    print("still full")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX")
def test_a_full_disk_loses_nothing_that_was_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "file: " in done.stdout
    assert "lines: " in done.stdout
    assert "log: " in done.stdout
    assert "still full" in done.stdout
    assert "larger than the system allows" in done.stdout
