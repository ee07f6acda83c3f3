"""What a mask leaves out is tinted on the page's thumbnail, and has no part in finding duplicates."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesets.inspection.looks import Look, ThumbnailLimits, look_at
from imagesets.masks import FileMask
from imagesets.scan import scan_sources
from imagesets.sources import FolderSource
from tests.imagesets.inspection.building import photo, save
from tests.imagesets.making import orientation_exif


@pytest.mark.parametrize("orientation", [1, 6])
def test_what_a_mask_leaves_out_is_tinted(tmp_path: Path, orientation: int) -> None:
    photo(1, 96, 160).save(tmp_path / "a.jpg", exif=orientation_exif(orientation))
    [plain] = look_at(scan_sources([FolderSource(tmp_path)]).samples, ThumbnailLimits(160, 2**20), 1)
    upright = (160, 96) if orientation == 6 else (96, 160)
    levels = np.zeros(upright, np.uint8)
    levels[: upright[0] // 2] = 255
    save(tmp_path, "a-masklabel.png", Image.fromarray(levels))
    [masked] = look_at(scan_sources([FolderSource(tmp_path, mask=FileMask())]).samples, ThumbnailLimits(160, 2**20), 1)
    assert isinstance(plain, Look)
    assert isinstance(masked, Look)
    assert (plain.hash, plain.grid.tolist()) == (masked.hash, masked.grid.tolist())
    difference = np.abs(pixels_of(plain).astype(int) - pixels_of(masked)).mean(axis=-1)
    assert difference.shape == upright
    half = upright[0] // 2
    assert difference[: half - 8].mean() < 6  # but for what the file's compression does
    assert difference[half + 8 :].mean() > 30


def pixels_of(look: Look) -> np.ndarray:
    assert look.thumbnail is not None
    return np.asarray(Image.open(BytesIO(look.thumbnail)).convert("RGB"))
