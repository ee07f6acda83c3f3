"""A dataset's author cannot make this machine read its other files, run code, or stop a scan half-way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from imagesets.errors import PictureError, SourceError
from imagesets.framing import make_frame
from imagesets.scan import ScanReport, scan_sources
from imagesets.sources import HuggingFaceSource
from tests.imagesets.making import encoded, noise, scene

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the library away from the user's cache and from the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def scan(path: Path) -> ScanReport:
    return scan_sources([HuggingFaceSource(str(path))])


def write_rows(path: Path, values: Sequence[dict[str, Any]]) -> Path:
    """Write a parquet file of pictures in their stored form, {'bytes': …, 'path': …}; captions are the row numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = datasets.Dataset.from_dict({"image": list(values), "text": [str(row) for row in range(len(values))]})
    # The library would copy the files it is told of into the parquet; a stranger's tool does not.
    rows.to_parquet(str(path))
    return path


def test_no_path_a_row_may_name_leads_out_or_stops_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, secret = tmp_path / "set", tmp_path / "secret.png"
    root.mkdir()
    for path in (secret, root / "own.png"):
        scene().save(path)
    (root / "link.png").symlink_to(secret)
    (root / "loop.png").symlink_to(root / "loop.png")
    monkeypatch.chdir(tmp_path)  # where a relative path would lead to the secret
    paths = [
        str(root / "own.png"),
        str(secret),
        str(root / ".." / "secret.png"),
        str(root / "link.png"),
        "secret.png",
        str(root / "loop.png"),
        str(root / "gone.png"),
        str(root / "a\x00b.png"),
        str(root / ("a" * 5000)),
        str(root),
        "https://127.0.0.1/a.png",
    ]
    rows = [*({"bytes": None, "path": path} for path in paths), {"bytes": encoded(scene()), "path": str(secret)}]
    report = scan(write_rows(root / "train.parquet", rows).parent)
    # The last row holds its picture: where it once lay is of no matter.
    assert [sample.caption for sample in report.samples] == ["0", str(len(paths))]
    assert [bad.name for bad in report.bad] == [f"row {row}" for row in range(1, len(paths))]
    for bad in report.bad[:4]:
        assert "lies outside the dataset's folder" in bad.reason
    assert all(bad.reason.isprintable() and bad.reason for bad in report.bad)


def test_a_script_in_a_dataset_is_never_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text(f"open({str(ran)!r}, 'w').close()", encoding="utf-8")
    with pytest.raises(SourceError, match="cannot be loaded"):
        scan(tmp_path / "set")
    assert not ran.exists()


@pytest.mark.parametrize(
    "content", [b"", b"PAR1" + b"\x00" * 100, b"<!DOCTYPE html>"], ids=["empty", "zeros", "web page"]
)
def test_damaged_parquet_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"set\.parquet.* cannot be loaded: .") as caught:
        scan(tmp_path / "set.parquet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "content"),
    [
        ("dataset_info.json", b""),
        ("dataset_info.json", b"{"),
        ("dataset_info.json", b'{"features": 3}'),
        ("state.json", b""),
        ("state.json", b"{"),
        ("state.json", b"[]"),
        ("state.json", b'{"_data_files": 3}'),
        ("data-00000-of-00001.arrow", b""),
        ("data-00000-of-00001.arrow", b"<html>"),
    ],
)
def test_a_damaged_saved_dataset_is_said(tmp_path: Path, damage: str, content: bytes) -> None:
    rows = datasets.Dataset.from_dict({"image": [{"bytes": encoded(scene()), "path": None}], "text": ["a"]})
    rows.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "set"))
    assert len(scan(tmp_path / "set").samples) == 1
    (tmp_path / "set" / damage).write_bytes(content)
    with pytest.raises(SourceError, match=r"dataset '.*set'"):
        scan(tmp_path / "set")


def test_a_picture_that_changes_on_disk_is_not_trained_on(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    scene().save(root / "a.png")
    (root / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a hill"}', encoding="utf-8")
    (sample,) = scan(root).samples
    frame = make_frame(sample.original_size, (32, 32), "center")
    sample.render(frame)
    noise().save(root / "a.png")
    with pytest.raises(PictureError, match="row 0: it was changed since it was scanned"):
        sample.render(frame)
