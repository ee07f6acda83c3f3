"""Datasets through Hugging Face's library, built here and read without a network."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imagesets
from imagesets.errors import SourceError
from imagesets.framing import make_frame
from imagesets.reading.huggingface import list_dataset, stream_rows
from imagesets.scan import ScanReport, scan_sources
from imagesets.wording import Wording
from tests.imagesets.making import encoded, orientation_exif, scene

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the library away from the user's cache and from the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def scan(name: object, **options: Any) -> ScanReport:
    return scan_sources([imagesets.HuggingFaceSource(str(name), **options)])


def table(**columns: list[Any]) -> Any:
    features = {"image": datasets.Image(), "picture": datasets.Image()}
    kinds = {name: features.get(name, datasets.Value("string")) for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def embedded(content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": None}


def imagefolder(root: Path, **captions: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    lines = []
    for stem, caption in captions.items():
        scene().save(root / f"{stem}.png")
        lines.append(json.dumps({"file_name": f"{stem}.png", "text": caption}))
    (root / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_without_pictures_is_refused_in_the_same_words(streaming: bool, tmp_path: Path) -> None:
    rows = {"image": [embedded(encoded(scene()))], "text": ["a hill"], "number": [1]}
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "number": datasets.Value("int64")}
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))

    def opened(column: str) -> None:
        source = imagesets.HuggingFaceSource(str(tmp_path / "rows.parquet"), image_column=column, streaming=streaming)
        if streaming:
            stream_rows(source)
        else:
            list_dataset(source)

    opened("image")
    with pytest.raises(SourceError, match=r"image_column and caption_column are both 'text'. Its columns: image, num"):
        opened("text")
    with pytest.raises(SourceError, match=r"the column 'number' .* holds no pictures, but Value\('int64'\)"):
        opened("number")


def test_the_library_keeps_off_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table(image=[embedded(encoded(scene()))], text=["a hill"]).to_parquet(str(tmp_path / "rows.parquet"))
    hub = logging.getLogger("huggingface_hub")
    before = hub.level
    datasets.enable_progress_bars()
    capfd.readouterr()
    try:
        assert len(scan(tmp_path / "rows.parquet").samples) == 1
        assert not datasets.are_progress_bars_disabled()
    finally:
        datasets.disable_progress_bars()
    assert capfd.readouterr().err == ""
    assert hub.level == before


def test_a_saved_dataset_is_read_and_decoded_by_our_own_opener(tmp_path: Path) -> None:
    """Orientation and 16 bits show whose decoder it was: the library's would give a turned and a white picture."""
    turned = encoded(scene(48, 64), exif=orientation_exif(6))
    grey = encoded(Image.fromarray(np.full((16, 16), 32896, np.uint16)))
    rows = table(image=[embedded(turned), embedded(grey)], text=["a  hill\n", None])
    rows.save_to_disk(str(tmp_path / "saved"))
    report = scan(tmp_path / "saved", repeats=2, trigger="sks")
    assert report.bad == ()
    assert [(sample.name, sample.source, sample.caption, sample.repeats) for sample in report.samples] == [
        ("row 0", "saved", "sks, a hill", 2),
        ("row 1", "saved", "sks", 2),
    ]
    assert [sample.original_size for sample in report.samples] == [(64, 48), (16, 16)]
    assert (report.samples[1].render(make_frame((16, 16), (16, 16), "center")) == 128).all()
    assert [(note.name, note.kind) for note in report.notes] == [("row 1", "missing_caption")]


def test_lines_of_a_caption_are_kept_where_they_are_chosen(tmp_path: Path) -> None:
    table(image=[embedded(encoded(scene()))], text=["a  star\n\n on grey"]).save_to_disk(str(tmp_path / "saved"))
    [joined] = scan(tmp_path / "saved").samples
    assert joined.caption == joined.caption_of(1, ()) == "a star on grey"
    [kept] = scan(tmp_path / "saved", wording=Wording(choose_line=True), trigger="zig").samples
    assert [kept.caption_of(turn, ()) for turn in range(3)] == ["zig, a star", "zig, on grey", "zig, a star"]


def test_columns_and_split_are_named(tmp_path: Path) -> None:
    rows = table(picture=[embedded(encoded(scene()))], caption=["a star"], text=["not this"])
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "saved"))
    report = scan(tmp_path / "saved", image_column="picture", caption_column="caption")
    assert [sample.caption for sample in report.samples] == ["a star"]
    assert len(scan(tmp_path / "saved", split="validation", image_column="picture").samples) == 1
    with pytest.raises(SourceError, match=r"has no split 'test'. Its splits: train, validation"):
        scan(tmp_path / "saved", split="test", image_column="picture")
    with pytest.raises(SourceError, match=r"no column 'image' \(image_column\). Its columns: caption, picture, text"):
        scan(tmp_path / "saved")
    with pytest.raises(SourceError, match=r"no column 'prompt' \(caption_column\)"):
        scan(tmp_path / "saved", image_column="picture", caption_column="prompt")


def test_a_setting_that_a_saved_dataset_cannot_follow_is_refused(tmp_path: Path) -> None:
    """Passed over, it would train on other pictures than the recipe says."""
    table(image=[embedded(encoded(scene()))], text=["a star"]).save_to_disk(str(tmp_path / "saved"))
    assert len(scan(tmp_path / "saved").samples) == 1
    with pytest.raises(SourceError, match=r"has no split 'validation'. Its splits: train"):
        scan(tmp_path / "saved", split="validation")
    with pytest.raises(SourceError, match="leave config_name out"):
        scan(tmp_path / "saved", config_name="large")
    with pytest.raises(SourceError, match="lies on this machine and has no revision 'v2'"):
        scan(tmp_path / "saved", revision="v2")


@pytest.mark.parametrize("whole_folder", [True, False], ids=["folder", "file"])
def test_parquet_is_read_from_a_folder_and_from_a_file(tmp_path: Path, whole_folder: bool) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    rows = table(image=[embedded(encoded(scene(), kind)) for kind in ("PNG", "JPEG", "WEBP")], text=["a", "b", "c"])
    rows.to_parquet(str(folder / "train.parquet"))
    report = scan(folder if whole_folder else folder / "train.parquet")
    assert [(sample.caption, sample.facts.format) for sample in report.samples] == [
        ("a", "PNG"),
        ("b", "JPEG"),
        ("c", "WEBP"),
    ]


def test_a_dataset_without_rows_is_refused(tmp_path: Path) -> None:
    table(image=[], text=[]).to_parquet(str(tmp_path / "none.parquet"))
    with pytest.raises(SourceError, match=r"no row|no data"):
        scan(tmp_path / "none.parquet")


def test_an_imagefolder_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    report = scan(imagefolder(tmp_path / "pictures", a="one", b="two"))
    assert sorted(sample.caption for sample in report.samples) == ["one", "two"]
    assert all(sample.original_size == (48, 64) for sample in report.samples)


def test_rows_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    good = encoded(scene())
    contents = [good, b"", None, good[: len(good) // 2], encoded(scene(), "GIF"), good]
    images = [None if content is None else embedded(content) for content in contents]
    table(image=images, text=["a", "b", "c", "d", "e", "f"]).save_to_disk(str(tmp_path / "saved"))
    report = scan(tmp_path / "saved")
    assert [sample.name for sample in report.samples] == ["row 0", "row 5"]
    reasons = {bad.name: bad.reason for bad in report.bad}
    assert sorted(reasons) == ["row 1", "row 2", "row 3", "row 4"]
    assert reasons["row 1"] == reasons["row 2"] == "the row holds no picture"
    assert "cut short" in reasons["row 3"]
    assert "a GIF file: convert it to PNG" in reasons["row 4"]


def test_a_list_of_captions_takes_a_wording_that_chooses_among_them(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(
        {"image": [embedded(encoded(scene()))], "text": [["a", "b"]]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.List(datasets.Value("string"))}),
    )
    rows.save_to_disk(str(tmp_path / "saved"))
    (bad,) = scan(tmp_path / "saved").bad
    assert (bad.name, bad.reason[:40]) == ("row 0", "it has a list of captions: give the sour")
    (sample,) = scan(tmp_path / "saved", wording=Wording(choose_line=True)).samples
    assert [sample.caption_of(showing, (0,)) for showing in range(3)] == ["a", "b", "a"]


def test_a_caption_that_is_no_text_is_listed(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(
        {"image": [embedded(encoded(scene()))], "text": [3]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("int64")}),
    )
    rows.save_to_disk(str(tmp_path / "saved"))
    (bad,) = scan(tmp_path / "saved").bad
    assert (bad.name, bad.reason) == ("row 0", "its caption is no text: 3")


def test_a_file_outside_the_datasets_folder_is_never_read(tmp_path: Path) -> None:
    """A row may name a file rather than hold it, and the library opens whatever is named."""
    secret = tmp_path / "outside" / "secret.png"
    secret.parent.mkdir()
    scene().save(secret)
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "parquet"
    folder.mkdir()
    scene().save(folder / "own.png")
    rows = [{"bytes": None, "path": str(secret)}, {"bytes": None, "path": str(folder / "own.png")}]
    pq.write_table(pa.table({"image": rows, "text": ["stolen", "own"]}), folder / "train.parquet")
    report = scan(folder)
    assert [sample.caption for sample in report.samples] == ["own"]
    assert [bad.name for bad in report.bad] == ["row 0"]
    assert "lies outside the dataset's folder" in report.bad[0].reason


def test_a_link_out_of_an_imagefolder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "outside" / "secret.png"
    secret.parent.mkdir()
    scene().save(secret)
    root = imagefolder(tmp_path / "pictures", a="own", b="stolen")
    (root / "b.png").unlink()
    (root / "b.png").symlink_to(secret)
    report = scan(root)
    assert [sample.caption for sample in report.samples] == ["own"]
    assert len(report.bad) == 1
    assert "lies outside the dataset's folder" in report.bad[0].reason


@pytest.mark.parametrize("name", ["./gone", "/gone/too", "~/surely/not/there", "a/b/c", "gone.parquet"])
def test_a_path_where_nothing_is_never_becomes_a_name_on_the_hub(name: str) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        scan(name)


def test_a_hub_name_that_cannot_be_reached_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"^the dataset 'nobody/nothing' \(split 'train'\) cannot be loaded: .+"
    ) as caught:
        scan("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_column_of_something_else_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"image": [1, 2], "text": ["a", "b"]})
    rows.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(SourceError, match=r"the column 'image' of the dataset .* holds no pictures, but"):
        scan(tmp_path / "saved")
    (tmp_path / "rows.csv").write_text("image,text\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"is a \.csv file; parquet and arrow are read"):
        scan(tmp_path / "rows.csv")


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"\(split 'train'\) cannot be loaded: "):
        scan(tmp_path / "empty")
