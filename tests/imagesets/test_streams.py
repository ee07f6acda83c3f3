"""An epoch of streams: every showing once, in an order of its own, and what was seen is passed over unread."""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

import datasets
from imagesets.errors import SourceError
from imagesets.files import HeldBytes
from imagesets.reading import webdataset
from imagesets.reading.huggingface import list_dataset
from imagesets.scan import scan_beginning, scan_sources
from imagesets.sources import FolderSource, HuggingFaceSource, Source, WebDatasetSource
from imagesets.streams import Streamed, mixed, open_streams
from tests.imagesets.making import encoded

KEY = (0, "stream", 0)


def shards(folder: Path, *counts: int) -> Path:
    """Write shards with so many samples each; the samples are told apart by their colours and names."""
    folder.mkdir(exist_ok=True)
    number = 0
    for index, count in enumerate(counts):
        with tarfile.open(folder / f"s-{index}.tar", "w") as tar:
            for _ in range(count):
                picture = encoded(Image.new("RGB", (40, 30), (number, 0, 0)))
                for name, content in ((f"{number:04d}.png", picture), (f"{number:04d}.txt", b"number %d" % number)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
                number += 1
    return folder


def epoch(sources: Sequence[Source], index: int = 0) -> list[Streamed]:
    return list(mixed(open_streams(sources), (0, "stream", index), lambda _number: True))


def names(streamed: Iterable[Streamed]) -> list[tuple[str, int]]:
    return [(each.entry.name, each.showing) for each in streamed]


def test_an_epoch_shows_each_sample_once_a_repeat_and_has_its_own_order_of_shards(tmp_path: Path) -> None:
    source = WebDatasetSource(path=str(shards(tmp_path / "s", 3, 4, 5)), streaming=True, repeats=2)
    first, again, second = epoch([source]), epoch([source]), epoch([source], 1)
    listed = [entry.name for entry in webdataset.list_shards(source).entries]
    assert Counter(names(first)) == Counter((name, showing) for name in listed for showing in range(2))
    assert names(first) == names(again)
    assert Counter(names(first)) == Counter(names(second))
    assert names(first) != names(second)
    assert [each.number for each in first] == list(range(24))
    assert all(isinstance(each.entry.read, HeldBytes) for each in first)


def test_what_is_not_wanted_is_passed_over_unread_and_the_rest_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FolderSource(tmp_path / "f", repeats=3)
    folder.path.mkdir()
    (folder.path / "a.png").write_bytes(encoded(Image.new("RGB", (8, 8))))
    sources = [WebDatasetSource(path=str(shards(tmp_path / "s", 6, 6)), streaming=True), folder]
    whole = epoch(sources)
    read = []
    held = webdataset._held
    monkeypatch.setattr(webdataset, "_held", lambda entry, file: read.append(entry.name) or held(entry, file))
    part = list(mixed(open_streams(sources), KEY, lambda number: number in {2, 5} or number >= 9))
    assert part == [each for each in whole if each.number in {2, 5} or each.number >= 9]
    assert read == [each.entry.name for each in part if isinstance(each.entry.read, HeldBytes)]


def test_a_small_source_is_spread_over_the_epoch_where_the_number_of_the_large_is_known(tmp_path: Path) -> None:
    folder = FolderSource(tmp_path / "f", repeats=10)
    folder.path.mkdir()
    (folder.path / "a.png").write_bytes(encoded(Image.new("RGB", (8, 8))))
    path = str(shards(tmp_path / "s", 40, 50))

    def places(num_pictures: int | None) -> list[int]:
        source = WebDatasetSource(path=path, streaming=True, num_pictures=num_pictures)
        showings = epoch([source, folder])
        assert len(showings) == 100
        return [each.number for each in showings if each.source is folder]

    assert max(places(None)) < 40, "in turns it is at its end after about twenty"
    assert max(places(90)) > 60
    assert sum(places(90)) / 10 == pytest.approx(49.5, abs=20)
    assert len(places(5)) == len(places(5000)) == 10, "a wrong number loses nothing"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Parquet files of a dataset with pictures."""
    folder = tmp_path_factory.mktemp("rows")
    pictures = [{"bytes": encoded(Image.new("RGB", (40, 30), (index, 0, 0))), "path": None} for index in range(9)]
    texts = [f"row number {index}" for index in range(9)]
    features = datasets.Features({"image": datasets.Image(decode=False), "text": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": pictures, "text": texts}, features=features)
    table.select(range(5)).to_parquet(folder / "train-0.parquet")
    table.select(range(5, 9)).to_parquet(folder / "train-1.parquet")
    table.save_to_disk(folder.parent / "saved")
    return folder


@pytest.mark.parametrize("name", ["rows", "saved"])
def test_a_streamed_dataset_gives_what_a_listed_one_gives(rows: Path, name: str) -> None:
    path = rows if name == "rows" else rows.parent / "saved"
    streamed = epoch([HuggingFaceSource(str(path), streaming=True)])
    listed = list_dataset(HuggingFaceSource(str(path))).entries
    assert sorted((each.entry.caption, each.entry.read()) for each in streamed if each.entry.read) == sorted(
        (entry.caption, entry.read()) for entry in listed if entry.read
    )
    assert len({each.entry.name for each in streamed}) == 9


def test_a_stream_of_files_reads_those_of_its_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(Image.new("RGB", (8, 8))))
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a square"}), encoding="utf-8")
    (entry,) = [each.entry for each in epoch([HuggingFaceSource(str(folder), streaming=True)])]
    assert entry.caption == "a square"
    assert entry.read is not None
    assert entry.read() == (folder / "a.png").read_bytes()


def test_a_stream_without_the_column_is_refused_before_a_row_is_read(rows: Path) -> None:
    with pytest.raises(SourceError, match="no column 'words'"):
        open_streams([HuggingFaceSource(str(rows), streaming=True, caption_column="words")])


def test_the_beginning_of_a_stream_is_looked_at_as_a_scan_looks_at_all(tmp_path: Path) -> None:
    path = str(shards(tmp_path / "s", 10, 10))
    (tmp_path / "s" / "s-2.tar").write_bytes(b"no tar file" * 100)
    beginning = scan_beginning([WebDatasetSource(path=path, streaming=True)], 8)
    whole = {sample.name: sample for sample in scan_sources([WebDatasetSource(path=path)]).samples}
    assert beginning.is_beginning
    assert not scan_beginning([WebDatasetSource(path=path, streaming=True)], 50).is_beginning, "that is all of it"
    assert len(beginning.samples) + len(beginning.bad) == 8
    for sample in beginning.samples:
        assert sample == whole[sample.name]


def test_a_stream_is_read_no_further_than_it_is_asked(tmp_path: Path) -> None:
    path = shards(tmp_path / "s", 5, 5, 5)
    for shard in path.glob("*.tar"):
        content = shard.read_bytes()
        shard.write_bytes(content[: len(content) // 2])  # reading on would meet the damage
    first = list(
        islice(mixed(open_streams([WebDatasetSource(path=str(path), streaming=True)]), KEY, lambda _: True), 1)
    )
    assert first[0].entry.problem is None
