"""Every kind of finding is provoked by a folder that has it, and absent from a clean one."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import imagesets.inspection.inspect as inspect_module
from imagesets.inspection import Finding, Inspection, Item, TokenCount, find_without_looking
from imagesets.inspection.findings import ranked
from imagesets.inspection.inspect import inspect_pictures
from imagesets.masks import AlphaMask, FileMask
from imagesets.samples import Note
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource
from imagesets.wording import Wording
from tests.imagesets.inspection.building import clean_folder, inspect, kinds, photo, plan_for, save
from tests.imagesets.making import orientation_exif


def of_kind(inspection: Inspection, kind: str) -> Finding:
    [finding] = [finding for finding in inspection.findings if finding.kind == kind]
    return finding


def names(finding: Finding) -> list[str]:
    return [item.name for item in finding.items]


def words(captions: list[str]) -> list[tuple[TokenCount, ...]]:
    """Count words as one tokenizer would, with begin and end; ten are read."""
    counted = []
    for caption in captions:
        parts = caption.split()
        counted.append((TokenCount("tokenizer", len(parts) + 2, " ".join(parts[8:])),))
    return counted


def test_a_clean_folder_has_nothing_wrong(tmp_path: Path) -> None:
    inspection = inspect(clean_folder(tmp_path / "clean"), tokens=words)
    assert inspection.findings == ()
    assert len(inspection.facts.pictures) == 8


def unusable(folder: Path) -> Inspection:
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:500])
    return inspect(folder)


def left_out(folder: Path) -> Inspection:
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:500])
    return inspect(folder, stops_at_bad=False)


def blown_up(folder: Path) -> Inspection:
    save(folder, "small.png", photo(50, 40, 40), "a small one")
    save(folder, "small too.png", photo(51, 32, 32), "an even smaller one")
    return inspect(folder)


def cut_away(folder: Path) -> Inspection:
    save(folder, "tall.png", photo(50, 400, 100), "a tower")
    save(folder, "tall too.png", photo(51, 400, 100), "another tower")
    return inspect(folder)


def blank(folder: Path) -> Inspection:
    save(folder, "grey.png", Image.new("RGB", (96, 96), (90, 90, 90)), "a")
    save(folder, "red.png", Image.new("RGB", (96, 96), (200, 9, 9)), "b")
    return inspect(folder)


def animation(folder: Path) -> Inspection:
    save(folder, "moving.webp", photo(50), "a", save_all=True, append_images=[photo(51), photo(52)])
    save(folder, "still.webp", photo(53), "b")
    return inspect(folder)


def see_through(folder: Path) -> Inspection:
    picture = photo(50).convert("RGBA")
    picture.putalpha(128)
    save(folder, "glass.png", picture, "a")
    save(folder, "wall.png", photo(51), "b")
    return inspect(folder, background="#102030")


def mask_file(folder: Path, name: str, box: tuple[int, int, int, int]) -> None:
    """Save the mask of a picture of 96 x 96 pixels: a white box on black."""
    mask = Image.new("L", (96, 96))
    mask.paste(255, box)
    save(folder, f"{name}-masklabel.png", mask)


def masked_folder(folder: Path) -> Path:
    for index in range(4):
        mask_file(folder, str(index), (10, 10, 60 + index, 60))
    for index in range(4, 8):
        (folder / f"{index}.png").unlink()
        (folder / f"{index}.txt").unlink()
    return folder


def missing_mask(folder: Path) -> Inspection:
    masked_folder(folder)
    (folder / "2-masklabel.png").unlink()
    return inspect(FolderSource(folder, mask=FileMask()))


def unused_mask(folder: Path) -> Inspection:
    mask_file(masked_folder(folder), "gone", (0, 0, 50, 50))
    return inspect(FolderSource(folder, mask=FileMask()))


def masks_missed(folder: Path) -> Inspection:
    save(folder, "3-Masklabel.png", photo(50), "a")  # a capital M
    save(folder, "5_mask.jpg", photo(51), "b")
    save(folder, "gone_mask.png", photo(52, 96, 160), "c")  # of no picture: it may be one of a mask
    save(folder, "a_mask_of_wood.png", photo(53, 96, 160), "d")
    return inspect(folder)


def mask_keeps_little(folder: Path) -> Inspection:
    mask_file(masked_folder(folder), "1", (0, 0, 5, 5))
    mask_file(folder, "3", (0, 0, 4, 4))
    return inspect(FolderSource(folder, mask=FileMask(0.25)))


def mask_keeps_all(folder: Path) -> Inspection:
    mask_file(masked_folder(folder), "1", (0, 0, 96, 96))
    return inspect(FolderSource(folder, mask=FileMask()))


def turned(folder: Path) -> Inspection:
    save(folder, "phone.jpg", photo(50), "a", exif=orientation_exif(6))
    save(folder, "upright.jpg", photo(51), "b", exif=orientation_exif(1))
    return inspect(folder)


def colour_mode(folder: Path) -> Inspection:
    save(folder, "old.jpg", photo(50).convert("L"), "a")
    save(folder, "print.jpg", photo(51).convert("CMYK"), "b")
    return inspect(folder)


def missing_caption(folder: Path) -> Inspection:
    save(folder, "silent.png", photo(50))
    save(folder, "loud.png", photo(51), "b")
    return inspect(folder)


def empty_caption(folder: Path) -> Inspection:
    save(folder, "silent.png", photo(50), "  \n")
    save(folder, "loud.png", photo(51), "b")
    return inspect(folder)


def missing_with_trigger(folder: Path) -> Inspection:
    save(folder, "silent.png", photo(50))
    save(folder, "loud.png", photo(51), "b")
    return inspect(FolderSource(folder, trigger="zrkx"))


def unread_caption(folder: Path) -> Inspection:
    save(folder, "one.png", photo(50))
    (folder / "one.caption").write_text("a tree", encoding="utf-8")
    save(folder, "two.png", photo(51), "b")
    return inspect(folder)


def unread_text(folder: Path) -> Inspection:
    """Read `.caption` where `.txt` lies beside: the other way round."""
    for path in folder.glob("*.txt"):
        path.rename(path.with_suffix(".caption"))
    save(folder, "one.png", photo(50), "a tree")
    save(folder, "two.png", photo(51))
    (folder / "two.caption").write_text("b", encoding="utf-8")
    return inspect(FolderSource(folder, caption_extension=".caption"))


def unread_beside_metadata(folder: Path) -> Inspection:
    lines = [f"{index}.png,a hill of number {index}" for index in range(8) if index != 3]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text", *lines]))
    for path in {*folder.glob("*.txt")} - {folder / "3.txt"}:
        path.unlink()
    return inspect(FolderSource(folder, captions="metadata"))


def other_than_metadata(folder: Path) -> Inspection:
    lines = [{"file_name": f"{index}.png", "text": (folder / f"{index}.txt").read_text()} for index in range(7)]
    lines[5]["text"] = "a hill as the metadata has it"  # the others say the same twice; 7.png has its file alone
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return inspect(folder)


def other_caption(folder: Path) -> Inspection:
    (folder / "3.caption").write_text("another description", encoding="utf-8")
    return inspect(folder)


def unused_caption(folder: Path) -> Inspection:
    (folder / "nobody.txt").write_text("a", encoding="utf-8")
    return inspect(folder)


def repeated_caption(folder: Path) -> Inspection:
    (folder / "2.txt").write_text((folder / "5.txt").read_text())
    return inspect(folder)


def long_caption(folder: Path) -> Inspection:
    (folder / "4.txt").write_text("one two three four five six seven eight nine ten", encoding="utf-8")
    return inspect(folder, tokens=words, max_tokens=10)


def trigger_elsewhere(folder: Path) -> Inspection:
    own = save(folder.parent / "own", "a.png", photo(60), "walking").parent
    save(own, "b.png", photo(61), "sitting")
    (folder / "1.txt").write_text("an old ZRKX, far away", encoding="utf-8")
    return inspect(FolderSource(own, trigger="zrkx"), folder)


def plain_wildcard(folder: Path) -> Inspection:
    (folder / "1.txt").write_text("a {red|blue} hill", encoding="utf-8")
    (folder / "2.txt").write_text("an {odd} hill, or a | b", encoding="utf-8")
    return inspect(folder)


def uneven_braces(folder: Path) -> Inspection:
    for index, caption in enumerate(
        ["a {red|blue hill", "a {red|{dark|light} blue} hill", r"a \{ and {a|b}", "a }{ b"]
    ):
        (folder / f"{index}.txt").write_text(caption, encoding="utf-8")
    return inspect(FolderSource(folder, wording=Wording(wildcards=True, variants=2)))


def common_tag(folder: Path) -> Inspection:
    for path in folder.glob("*.txt"):
        path.write_text(f"1girl, {path.read_text()}")
    return inspect(folder)


def bucket_of_one(folder: Path) -> Inspection:
    save(folder, "tall.png", photo(50, 160, 96), "a tower")
    return inspect(folder, micro_batch_size=1)


def bucket_cannot_fill(folder: Path) -> Inspection:
    save(folder, "tall.png", photo(50, 160, 96), "a tower")
    save(folder, "tall too.png", photo(51, 160, 96), "another tower")
    return inspect(folder, micro_batch_size=4)


def short_last_batch(folder: Path) -> Inspection:
    save(folder, "one more.png", photo(50), "one more")
    return inspect(folder)


def set_below_step(folder: Path) -> Inspection:
    return inspect(folder, batches_per_step=8)


def steps_below_epoch(folder: Path) -> Inspection:
    return inspect(folder, steps=3)


def beginning(folder: Path) -> Inspection:
    source = FolderSource(folder)
    report = replace(scan_sources([source]), is_beginning=True)
    return inspect_pictures("set", report, plan_for(report, [source], steps=3, batches_per_step=8), None)


def same_file(folder: Path) -> Inspection:
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "copy.txt").write_text("c")
    save(folder, "other.png", photo(51), "b")
    return inspect(folder)


def nearly_same(folder: Path) -> Inspection:
    save(folder, "copy.jpg", photo(1, 96, 96).resize((150, 150)), "c", quality=60)
    save(folder, "other.png", photo(51), "b")
    return inspect(folder)


def passed_over(folder: Path) -> Inspection:
    (folder / "readme.md").write_text("read me")
    return inspect(folder)


def setting(folder: Path) -> Inspection:
    source = FolderSource(folder)
    note = Note("set.toml", "general.batch_size", "setting", "is set in the recipe")
    report = replace(scan_sources([source]), notes=(note,))
    return inspect_pictures("set", report, plan_for(report, [source]), None)


def no_pictures(folder: Path) -> Inspection:
    for path in folder.glob("*.png"):
        path.write_bytes(b"GIF89a")
    return inspect(folder)


PROVOKED: list[tuple[Callable[[Path], Inspection], str, str, list[str]]] = [
    (beginning, "beginning_of_stream", "note", []),
    (setting, "setting", "note", ["general.batch_size"]),
    (unusable, "unusable", "error", ["cut.png"]),
    (left_out, "unusable", "warning", ["cut.png"]),
    (blown_up, "blown_up", "warning", ["small too.png", "small.png"]),
    (cut_away, "cut_away", "warning", ["tall too.png", "tall.png"]),
    (blank, "blank", "warning", ["grey.png", "red.png"]),
    (animation, "animation", "note", ["moving.webp"]),
    (see_through, "see_through", "note", ["glass.png"]),
    (missing_mask, "missing_mask", "warning", ["2.png"]),
    (masks_missed, "mask_as_picture", "warning", ["3-Masklabel.png", "5_mask.jpg"]),
    (unused_mask, "unused_mask", "warning", ["gone-masklabel.png"]),
    (mask_keeps_little, "mask_keeps_little", "warning", ["3.png", "1.png"]),
    (mask_keeps_all, "mask_keeps_all", "note", ["1.png"]),
    (turned, "turned", "note", ["phone.jpg"]),
    (colour_mode, "colour_mode", "note", ["old.jpg", "print.jpg"]),
    (missing_caption, "missing_caption", "warning", ["silent.png"]),
    (empty_caption, "empty_caption", "warning", ["silent.png"]),
    (missing_with_trigger, "missing_caption", "note", ["silent.png"]),
    (unread_caption, "unread_caption", "error", ["one.png"]),
    (unread_text, "unread_caption", "error", ["one.png"]),
    (unread_beside_metadata, "unread_caption", "error", ["3.png"]),
    (other_caption, "other_caption", "warning", ["3.png"]),
    (other_than_metadata, "other_caption", "warning", ["5.png"]),
    (unused_caption, "unused_caption", "warning", ["nobody.txt"]),
    (repeated_caption, "repeated_caption", "note", ["2.png", "5.png"]),
    (long_caption, "long_caption", "warning", ["4.png"]),
    (trigger_elsewhere, "trigger_elsewhere", "warning", ["1.png"]),
    (plain_wildcard, "plain_wildcard", "warning", ["1.png"]),
    (uneven_braces, "uneven_braces", "warning", ["0.png", "3.png"]),
    (common_tag, "common_tag", "note", ["1girl"]),
    (bucket_of_one, "bucket_of_one", "note", ["tall.png"]),
    (bucket_cannot_fill, "bucket_cannot_fill", "warning", ["80 x 48"]),
    (short_last_batch, "short_last_batch", "note", ["64 x 64"]),
    (set_below_step, "set_below_step", "warning", []),
    (steps_below_epoch, "steps_below_epoch", "warning", []),
    (same_file, "same_file", "warning", ["copy.png"]),
    (nearly_same, "nearly_same", "warning", ["1.png"]),
    (passed_over, "passed_over", "note", ["readme.md"]),
    (no_pictures, "no_pictures", "error", []),
]
ALSO_FOUND = {
    "no_pictures": {"unusable", "unused_caption"},  # the captions of the pictures that are none
    "bucket_of_one": set(),
    "unused_caption": set(),
}


@pytest.mark.parametrize(
    ("build", "kind", "severity", "concerned"), PROVOKED, ids=[row[0].__name__ for row in PROVOKED]
)
def test_what_is_wrong_is_found_and_nothing_else(
    build: Callable[[Path], Inspection], kind: str, severity: str, concerned: list[str], tmp_path: Path
) -> None:
    inspection = build(clean_folder(tmp_path / "clean"))
    finding = of_kind(inspection, kind)
    assert finding.severity == severity
    assert names(finding) == concerned
    assert inspection.has_errors == (severity == "error")
    assert finding.advice
    assert not finding.text.endswith(".")
    assert not finding.advice.endswith(".")
    assert kinds(inspection) - {kind} <= ALSO_FOUND.get(kind, set())


def test_every_kind_is_documented_and_provoked_here() -> None:
    text = (Path(__file__).parents[3] / "docs" / "inspect.md").read_text(encoding="utf-8")
    table = text.partition("## What is found")[2].partition("## The JSON")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {kind for cell in cells for kind in re.findall(r"`([a-z_]+)`", cell)}
    assert documented == {kind for _, kind, _, _ in PROVOKED} | {"changed"}
    rules = Path(inspect_module.__file__).parent.glob("rules_*.py")
    written = {kind for path in rules for kind in re.findall(r'Finding\(\s+"(\w+)",', path.read_text("utf-8"))}
    assert written <= documented
    assert len(written) > 20


def test_the_words_hold_the_numbers_that_mend_it(tmp_path: Path) -> None:
    found = of_kind(bucket_cannot_fill(clean_folder(tmp_path / "a")), "bucket_cannot_fill")
    assert "one batch of 4" in found.text
    assert found.items == (
        Item("80 x 48", "2 showings an epoch, the last batch has 2 of 4: 2 more pictures fill it, or 2 fewer"),
    )
    assert "training.micro_batch_size=2" in found.advice
    assert "data.sources.0.repeats=2" in found.advice

    found = of_kind(set_below_step(clean_folder(tmp_path / "b")), "set_below_step")
    assert "8 pictures" in found.text
    assert "takes 16" in found.text
    assert "data.sources.0.repeats=2" in found.advice

    found = of_kind(steps_below_epoch(clean_folder(tmp_path / "c")), "steps_below_epoch")
    assert "training.steps is 3, but one epoch takes 4" in found.text

    found = of_kind(unread_caption(clean_folder(tmp_path / "d")), "unread_caption")
    assert "data.sources.0.caption_extension=.caption" in found.advice
    assert ".caption where .txt is read" in found.text

    found = of_kind(blown_up(clean_folder(tmp_path / "e")), "blown_up")
    assert "at most 2 times" in found.text
    assert found.items[0].text == "blown up 2.00 times, 32 x 32 to 64 x 64"
    assert "resolution: 32" in found.advice

    found = of_kind(missing_mask(clean_folder(tmp_path / "h")), "missing_mask")
    assert "look whether data.sources.0.mask names them rightly" in found.advice

    found = of_kind(mask_keeps_little(clean_folder(tmp_path / "g")), "mask_keeps_little")
    assert "2 masks keep less than 2% of their pictures, at least 0.17%" in found.text
    assert found.items[1].text == "keeps 0.27% of it, and the rest counts 0.25"

    found = of_kind(see_through(clean_folder(tmp_path / "f")), "see_through")
    assert "#102030" in found.text


def test_transparency_that_is_the_mask_is_no_background(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "a", 4)
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            picture.putalpha(Image.linear_gradient("L").resize(picture.size))
            picture.save(path)
    assert kinds(inspect(folder)) == {"see_through"}
    inspection = inspect(FolderSource(folder, mask=AlphaMask()))
    assert inspection.findings == ()
    assert [picture.sample.mask.share for picture in inspection.facts.pictures if picture.sample.mask] == (
        pytest.approx([0.5] * 4, abs=0.01)
    )


def test_what_is_advised_mends_it(tmp_path: Path) -> None:
    """More repeats fill the bucket that could not be filled; the smaller batch does, too."""
    folder = clean_folder(tmp_path / "a")
    assert "bucket_cannot_fill" in kinds(bucket_cannot_fill(folder))
    assert "bucket_cannot_fill" not in kinds(inspect(FolderSource(folder, repeats=2), micro_batch_size=4))
    assert "bucket_cannot_fill" not in kinds(inspect(folder, micro_batch_size=2))
    folder = clean_folder(tmp_path / "b")
    for path in folder.glob("*.txt"):
        path.rename(path.with_suffix(".caption"))
    assert len(of_kind(inspect(folder), "unread_caption").items) == 8
    assert inspect(FolderSource(folder, caption_extension=".caption")).findings == ()


def test_an_uncaptioned_picture_whose_caption_is_not_read_is_told_once(tmp_path: Path) -> None:
    inspection = unread_caption(clean_folder(tmp_path / "a"))
    assert "missing_caption" not in kinds(inspection)


def test_near_copies_of_one_file_are_told_once_and_the_largest_is_kept(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "a")
    (folder / "same.png").write_bytes((folder / "1.png").read_bytes())
    save(folder, "small.jpg", photo(1).resize((70, 70)), "s")
    save(folder, "large.jpg", photo(1).resize((300, 300)), "l")
    inspection = inspect(folder)
    samples = inspection.facts.report.samples
    assert names(of_kind(inspection, "same_file")) == ["same.png"]
    [group] = inspection.facts.near
    assert [samples[index].name for index in group] == ["large.jpg", "1.png", "small.jpg"]
    assert of_kind(inspection, "nearly_same").items[0].text == "nearly large.jpg (300 x 300)"


def test_a_picture_that_changes_while_it_is_inspected_is_an_error(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "a")
    source = FolderSource(folder)
    report = scan_sources([source])
    save(folder, "3.png", photo(77), "changed")
    inspection = inspect_pictures("set", report, plan_for(report, [source]))
    assert names(of_kind(inspection, "changed")) == ["3.png"]
    assert inspection.has_errors


def test_findings_come_in_order_of_harm_and_each_picture_knows_its_own(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "a")
    save(folder, "small.png", photo(50, 40, 40), "a small one")
    save(folder, "small too.png", photo(51, 40, 40).convert("L"))
    (folder / "readme.md").write_text("")
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    inspection = inspect(folder)
    severities = [finding.severity for finding in inspection.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert set(severities) == {"error", "warning", "note"}
    [index] = [picture.index for picture in inspection.facts.pictures if picture.sample.name == "small too.png"]
    own = {inspection.findings[place].kind for place in inspection.findings_of[index]}
    assert own == {"blown_up", "colour_mode", "missing_caption"}
    assert ranked(reversed(inspection.findings)) == inspection.findings


def test_what_needs_no_pixels_is_found_without_looking(tmp_path: Path) -> None:
    """The short answer says of the set what the full one says, but for what only pixels and tokens tell."""
    folder = clean_folder(tmp_path / "a")
    save(folder, "small.png", photo(50, 40, 40))
    save(folder, "copy.jpg", photo(1).resize((150, 150)), "c")
    source = FolderSource(folder)
    report = scan_sources([source])
    plan = replace(plan_for(report, [source]), micro_batch_size=4)
    short = find_without_looking(report, plan)
    full = inspect_pictures("set", report, plan).findings
    assert set(full) - set(short) == {finding for finding in full if finding.kind == "nearly_same"}
    assert len(short) == len(full) - 1
