"""The wall's labels: each prompt on one line of the wall's width, whatever its length and its line breaks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from finetune.preview.wall import _fitted, save_wall

FONT = ImageFont.load_default(15)
DRAW = ImageDraw.Draw(Image.new("RGB", (1, 1)))


@pytest.mark.parametrize("text", ["a red cat " * 100, "i" * 5000, "\U0001f431W" * 300, "x\n" * 900])
@pytest.mark.parametrize("width", [100, 396, 2000])
def test_a_long_label_is_the_longest_that_fits(text: str, width: int) -> None:
    shown = _fitted(text, width, DRAW, FONT)
    line = " ".join(text.split())
    kept = shown.removesuffix("…")
    assert line.startswith(kept)
    assert DRAW.textlength(shown, FONT) <= width < DRAW.textlength(line[: len(kept) + 1] + "…", FONT)


def test_what_fits_is_whole_and_a_line_break_is_a_space() -> None:
    assert _fitted("a cat\nasleep", 500, DRAW, FONT) == "a cat asleep"
    assert _fitted("", 500, DRAW, FONT) == ""
    assert _fitted("a cat", 1, DRAW, FONT) == "…"


def test_a_prompt_without_end_is_measured_a_few_times_and_never_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    measure = ImageDraw.ImageDraw.textlength

    def textlength(draw: ImageDraw.ImageDraw, text: str, *more: Any) -> float:
        measured.append(len(text))
        return measure(draw, text, *more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "textlength", textlength)
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    save_wall(tmp_path / "wall.png", [("a cat\nasleep " * 10_000, [pixels]), ("two\r\nlines", [pixels])], ["base"])
    # Each letter that was cut off was once measured with all that stood before it, which took minutes.
    assert 0 < len(measured) < 30
    assert max(measured) <= 192 + 2 * 12
    with Image.open(tmp_path / "wall.png") as wall:
        assert wall.width == 192 + 2 * 12
