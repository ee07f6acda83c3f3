"""Masks in files: found for their pictures, never taken for pictures, refused by name where they cannot be meant."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imagesets.errors import SourceError
from imagesets.manifest import manifest_text
from imagesets.masks import AlphaMask, FileMask
from imagesets.opening.decoders import Decoders
from imagesets.scan import ScanReport, scan_sources
from imagesets.sources import FolderSource, HuggingFaceSource, KohyaSource
from tests.imagesets.making import png_chunk


def save(path: Path, size: tuple[int, int] = (40, 56), mode: str = "RGB", seed: int = 0) -> Path:
    """Save a picture of noise of a (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    Image.fromarray(levels.squeeze()).save(path)
    return path


def scan(path: Path, mask: Any, kind: Any = FolderSource) -> ScanReport:
    return scan_sources([kind(path, mask=mask)])


def masks_of(report: ScanReport) -> dict[str, str | None]:
    return {sample.name: sample.mask and sample.mask.name for sample in report.samples}


@pytest.mark.parametrize("kind", [FolderSource, KohyaSource])
def test_masks_beside_pictures_are_theirs_and_no_pictures(tmp_path: Path, kind: Any) -> None:
    save(tmp_path / "2_cat" / "a.jpg", seed=1)
    save(tmp_path / "2_cat" / "a-masklabel.png", mode="L")
    save(tmp_path / "2_cat" / "b.png", seed=2)
    save(tmp_path / "2_cat" / "gone-masklabel.png", mode="L")
    report = scan(tmp_path, FileMask(0.25), kind)
    assert masks_of(report) == {"2_cat/a.jpg": "2_cat/a-masklabel.png", "2_cat/b.png": None}
    assert report.bad == ()
    notes = {(note.name, note.kind) for note in report.notes if "mask" in note.kind}
    assert notes == {("2_cat/b.png", "missing_mask"), ("2_cat/gone-masklabel.png", "unused_mask")}
    mask = report.samples[0].mask
    assert mask is not None
    with Image.open(tmp_path / "2_cat" / "a-masklabel.png") as picture:
        assert mask.share == pytest.approx(np.asarray(picture).mean() / 255)
    assert len(scan(tmp_path, None, kind).samples) == 4, "without masks, all are pictures"


def test_masks_in_a_folder_lie_as_the_pictures_do_and_may_lie_among_them(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", seed=1)
    save(tmp_path / "sub" / "a.webp", seed=2)
    save(tmp_path / "masks" / "a.png", mode="L")
    save(tmp_path / "masks" / "sub" / "a.png", size=(80, 112), mode="L", seed=3)
    report = scan(tmp_path, FileMask(folder=tmp_path / "masks"))
    assert masks_of(report) == {"a.jpg": "a.png", "sub/a.webp": "sub/a.png"}
    assert not [note for note in report.notes if "mask" in note.kind]
    with pytest.raises(SourceError, match=r"masks: .* is the folder of the pictures itself"):
        scan(tmp_path, FileMask(folder=tmp_path))
    with pytest.raises(SourceError, match=r"the folder of masks .*nowhere does not exist"):
        scan(tmp_path, FileMask(folder=tmp_path / "nowhere"))


def test_masks_that_cannot_be_meant_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("aspect", "black", "broken", "out", "fine", "nearly"):
        save(tmp_path / "set" / f"{name}.png", seed=len(name))
    save(tmp_path / "set" / "aspect-masklabel.png", size=(56, 40), mode="L")
    Image.new("L", (56, 40)).save(tmp_path / "set" / "black-masklabel.png")
    (tmp_path / "set" / "broken-masklabel.png").write_bytes(b"GIF89a")
    (tmp_path / "set" / "out-masklabel.png").symlink_to(save(tmp_path / "elsewhere.png", mode="L"))
    save(tmp_path / "set" / "fine-masklabel.png", size=(20, 28), mode="L")
    save(tmp_path / "set" / "nearly-masklabel.png", size=(27, 38), mode="L")  # 27 / 38 is 40 / 56, but for rounding
    report = scan(tmp_path / "set", FileMask())
    assert {sample.name for sample in report.samples} == {"fine.png", "nearly.png"}
    reasons = {bad.name: bad.reason for bad in report.bad}
    assert reasons["aspect.png"] == (
        "its mask aspect-masklabel.png is 56 x 40 (height x width), and the picture 40 x 56, upright: another aspect. "
        "Give the mask the picture's size"
    )
    assert reasons["black.png"].startswith("its mask black-masklabel.png leaves nothing of it")
    assert reasons["broken.png"].startswith("its mask broken-masklabel.png: it holds no JPEG, PNG or WebP picture")
    assert reasons["out.png"].startswith("its mask out-masklabel.png: it is a link that leads out of the folder")
    assert len(reasons) == 4


def test_a_mask_that_ends_its_decoder_refuses_its_picture_and_no_other(
    tmp_path: Path, hostile_decoders: Decoders
) -> None:
    reasons = {
        "segfault": "decoding it ends the process that does so (SIGSEGV)",
        "lie": "decoding it ends the process that does so (it talks nonsense)",
        "stumble": "it cannot be opened: LookupError",
    }
    for index in range(12):
        save(tmp_path / f"{index:02d}.png", seed=index)
        save(tmp_path / f"{index:02d}-masklabel.png", mode="L", seed=index)
    for index, flaw in zip((0, 5, 11), reasons, strict=True):
        text = PngInfo()
        text.add_text("Comment", f"flaw: {flaw}")
        Image.new("L", (56, 40), 200).save(tmp_path / f"{index:02d}-masklabel.png", pnginfo=text)
    bomb = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0))
    (tmp_path / "07-masklabel.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb + png_chunk(b"IEND", b""))
    report = scan_sources([FolderSource(tmp_path, mask=FileMask())], decoders=hostile_decoders)
    assert [bad.name for bad in report.bad] == ["00.png", "05.png", "07.png", "11.png"]
    expected = [*list(reasons.values())[:2], "it is 100000 x 100000", reasons["stumble"]]
    for bad, reason in zip(report.bad, expected, strict=True):
        assert bad.reason.startswith(f"its mask {bad.name[:2]}-masklabel.png: {reason}"), bad.reason
    assert len(report.samples) == 8
    assert all(
        sample.mask is not None and sample.mask.name == f"{sample.name[:2]}-masklabel.png" for sample in report.samples
    )


def test_a_mask_is_as_upright_as_its_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(save(tmp_path / "a.jpg")).save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", (40, 56), 255).save(tmp_path / "a-masklabel.png")  # as a viewer shows the photo: 56 high
    (sample,) = scan(tmp_path, FileMask()).samples
    assert sample.original_size == (56, 40)


def test_transparency_as_mask(tmp_path: Path) -> None:
    save(tmp_path / "clear.png", mode="RGBA", seed=1)
    save(tmp_path / "whole.png", seed=2)
    Image.new("RGBA", (40, 40)).save(tmp_path / "nothing.png")
    report = scan(tmp_path, AlphaMask(0.1))
    masks = {sample.name: sample.mask for sample in report.samples}
    assert masks["whole.png"] is None
    clear = masks["clear.png"]
    assert clear is not None
    assert (clear.is_alpha, clear.weight_outside, clear.sha256) == (True, 0.1, report.samples[0].sha256)
    assert [(note.name, note.kind) for note in report.notes if "mask" in note.kind] == [("whole.png", "missing_mask")]
    [bad] = report.bad
    assert (bad.name, bad.reason[:50]) == ("nothing.png", "its transparency, which is its mask, leaves nothin")


def test_datasets_have_no_masks_in_files() -> None:
    with pytest.raises(SourceError, match="name: masks in files belong to folders of pictures"):
        scan_sources([HuggingFaceSource("some/name", mask=FileMask())])


def test_the_manifest_holds_masks_where_there_are_some(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "a-masklabel.png", mode="L")
    texts = []
    for mask in (None, FileMask(), FileMask(0.5)):
        samples = [sample for sample in scan(tmp_path, mask).samples if sample.name == "a.png"]
        texts.append(json.loads(manifest_text(samples, [(32, 32)])))
    plain, masked, half = texts
    assert "mask" not in plain
    sha256 = samples[0].mask.sha256 if samples[0].mask else ""
    assert masked == {**plain, "mask": {"name": "a-masklabel.png", "sha256": sha256, "weight_outside": 0.0}}
    assert half != masked
