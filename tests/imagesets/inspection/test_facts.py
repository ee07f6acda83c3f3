"""What is said of each picture is what training makes of it: marked pixels follow, plans agree."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesets.framing import make_frame
from imagesets.inspection.as_data import as_data
from imagesets.inspection.captions import split_tags
from imagesets.inspection.inspect import inspect_pictures
from imagesets.inspection.looks import ThumbnailLimits
from imagesets.manifest import manifest_text, read_manifest
from imagesets.plan import epoch_plan
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource
from tests.imagesets.inspection.building import clean_folder, inspect, photo, plan_for, save
from tests.imagesets.making import noise, orientation_exif


def test_frames_are_those_of_the_manifest(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "a")
    save(folder, "wide.jpg", photo(20, 100, 333), "wide", exif=orientation_exif(8))
    source = FolderSource(folder, trigger="zrkx", repeats=3)
    report = scan_sources([source])
    plan = plan_for(report, [source])
    (tmp_path / "manifest.jsonl").write_text(manifest_text(report.samples, plan.buckets), encoding="utf-8")
    data = as_data(inspect_pictures("set", report, plan))
    for line, picture in zip(read_manifest(tmp_path / "manifest.jsonl"), data["pictures"], strict=True):
        shared = line.keys() & picture.keys()
        assert shared >= {"name", "sha256", "original_size", "bucket", "resized_size", "crop_top_left", "scale"}
        assert {key: line[key] for key in shared} == {key: picture[key] for key in shared}


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("micro", [1, 2, 3, 5])
def test_batches_are_those_of_the_epoch_plan(repeats: int, micro: int, tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "a", count=7)
    save(folder, "tall.png", photo(50, 160, 96), "a tower")
    inspection = inspect(FolderSource(folder, repeats=repeats), micro_batch_size=micro)
    plan = inspection.facts.plan
    batches = epoch_plan(plan.buckets, [repeats] * len(plan.buckets), micro, seed=3, epoch=2)
    for bucket in inspection.facts.buckets:
        own = [batch for batch in batches if batch.bucket == bucket.size]
        assert bucket.batches == len(own)
        assert bucket.showings == sum(len(batch.items) for batch in own)
        assert ([bucket.left_over] if bucket.left_over else []) == [
            len(batch.items) for batch in own if len(batch.items) < micro
        ]
    assert inspection.facts.showings == sum(len(batch.items) for batch in batches)


@pytest.mark.parametrize("size", [(96, 96), (160, 90), (90, 161), (333, 100)])
def test_the_part_said_to_be_kept_is_the_part_that_is_trained(size: tuple[int, int], tmp_path: Path) -> None:
    """A picture is green where it is kept and red where it is cut, by what is said: its trained pixels are green."""
    folder = save(tmp_path / "a", "x.png", photo(1, *size), "x").parent
    [picture] = inspect(folder, micro_batch_size=1).facts.pictures
    left, top, right, bottom = picture.kept_box
    height, width = size
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    inside = ((rows > top) & (rows < bottom))[:, None] & ((columns > left) & (columns < right))[None, :]
    marked = np.where(inside[..., None], np.array((0, 200, 0)), np.array((200, 0, 0))).astype(np.uint8)
    save(tmp_path / "b", "x.png", Image.fromarray(marked), "x")
    [sample] = scan_sources([FolderSource(tmp_path / "b")]).samples
    trained = sample.render(picture.frame).astype(int)
    edge = 3  # the filter sees a little of what lies beyond
    assert (trained[edge:-edge, edge:-edge, 1] > trained[edge:-edge, edge:-edge, 0] + 100).all()
    assert picture.cut_fraction == pytest.approx(1 - inside.mean(), abs=0.02)
    assert (picture.cut_fraction > 0.01) == (not inside.all())


def test_a_frame_of_another_bucket_would_be_seen(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", "x.png", photo(1, 90, 161), "x").parent
    [picture] = inspect(folder).facts.pictures
    assert picture.frame == make_frame((90, 161), (48, 80), "center")
    assert picture.frame != make_frame((90, 161), (64, 64), "center")
    assert picture.scale == pytest.approx(picture.frame.resized_size[0] / 90, rel=0.02)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_thumbnails_are_upright_and_whole(kind: str, orientation: int, tmp_path: Path) -> None:
    quarters = np.zeros((120, 200, 3), np.uint8)
    quarters[:60, :100], quarters[:60, 100:], quarters[60:, :100] = (220, 0, 0), (0, 200, 0), (0, 0, 220)
    options = {} if kind == "png" else {"quality": 95}
    save(tmp_path / "a", f"x.{kind}", Image.fromarray(quarters), "x", exif=orientation_exif(orientation), **options)
    limits = ThumbnailLimits(48, 9000)
    [picture] = inspect(tmp_path / "a", page={"thumbnails": limits, "num_thumbnails": 1}).facts.pictures
    assert picture.look is not None
    assert picture.look.thumbnail is not None
    (tmp_path / "thumb.webp").write_bytes(picture.look.thumbnail)
    with Image.open(tmp_path / "thumb.webp") as thumbnail:
        assert max(thumbnail.size) == 48
        shown = np.asarray(thumbnail.convert("RGB").resize((8, 8)), dtype=int)
    with picture.sample.load() as trained:
        meant = np.asarray(trained.resize((8, 8)), dtype=int)
    corners = np.ix_([1, 6], [1, 6])
    assert np.abs(shown[corners] - meant[corners]).max() < 40


def test_thumbnails_keep_to_their_limit_even_of_noise(tmp_path: Path) -> None:
    save(tmp_path / "a", "x.png", noise(400, 300), "x")
    for limits in (ThumbnailLimits(320, 8000), ThumbnailLimits(144, 1600)):
        [picture] = inspect(tmp_path / "a", page={"thumbnails": limits, "num_thumbnails": 1}).facts.pictures
        assert picture.look is not None
        assert picture.look.thumbnail is not None
        assert 100 < len(picture.look.thumbnail) <= limits.num_bytes


def test_trigger_coverage_tags_and_repeats(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for index, caption in enumerate(["hill, sky", "Hill, Sky, sky", "a zrkx on a hill", "", "hill, sky"]):
        save(folder, f"{index}.png", photo(index), caption)
    other = save(tmp_path / "b", "x.png", photo(9), "zrkx, far away").parent
    facts = inspect(FolderSource(folder, trigger="zrkx"), other).facts.captions
    assert [facts.missing, facts.empty] == [(), (3,)]
    assert facts.repeated == ((0, 4),)
    [trigger] = facts.triggers
    assert (trigger.pictures, trigger.with_trigger, trigger.alone, trigger.elsewhere) == (5, 5, 1, (5,))
    assert dict(facts.tags)["sky"] == 3
    assert dict(facts.tags)["zrkx"] == 5
    assert split_tags(" A, b ,,a , c d") == ["a", "b", "c d"]
    both = inspect(FolderSource(folder, trigger="zrkx"), FolderSource(other, trigger="Zrkx")).facts.captions
    assert [(trigger.pictures, trigger.elsewhere) for trigger in both.triggers] == [(5, ()), (1, ())], "they share it"


def test_brackets_that_weigh_belong_to_no_tag(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "a", f"{index}.png", photo(index), f"(red scarf, gloves:1.{index}), [sky]")
    weighted = inspect(tmp_path / "a", weighted=True).facts.captions
    assert dict(weighted.tags) == {"red scarf": 3, "gloves": 3, "sky": 3}
    assert "(red scarf" in dict(inspect(tmp_path / "a").facts.captions.tags)


def test_the_json_is_plain_whole_and_the_same_each_time(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "a")
    save(folder, "silent.png", photo(50))
    first, second = (json.dumps(as_data(inspect(folder))) for _ in range(2))
    assert first == second
    data = json.loads(first)
    assert list(data) == ["version", "name", "summary", "findings", "buckets", "captions", "duplicates", "pictures",
                          "unusable"]  # fmt: skip
    assert data["summary"]["pictures"] == 9 == len(data["pictures"])
    assert sum(bucket["pictures"] for bucket in data["buckets"]) == 9
    [silent] = [picture for picture in data["pictures"] if picture["name"] == "silent.png"]
    assert silent["findings"] == ["missing_caption"]
