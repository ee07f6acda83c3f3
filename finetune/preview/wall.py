"""Pictures on the disk: each as a PNG that carries its settings, and all of a step side by side on one wall."""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from finetune.model.vae import Pixels
from finetune.run.durable import write_bytes

_MARGIN_PX = 12
_LABEL_PX = 22
_SMALLEST_CELL_PX = 192
_BACKGROUND = (250, 250, 248)
_INK = (60, 60, 64)


def save_picture(path: Path, pixels: Pixels, settings: Mapping[str, Any]) -> None:
    """Write a picture whole, with its settings as JSON in the PNG text `atelier` and readable in `parameters`."""
    info = PngInfo()
    info.add_itxt("atelier", json.dumps(settings, ensure_ascii=False))
    info.add_itxt("parameters", ", ".join(f"{key}: {value}" for key, value in settings.items()))
    _write_png(path, Image.fromarray(pixels), info)


def save_wall(path: Path, rows: Sequence[tuple[str, Sequence[Pixels]]], columns: Sequence[str]) -> None:
    """Write one picture of all: a row a prompt, a column a way of drawing; small pictures are enlarged to be seen."""
    largest = max(max(pixels.shape[:2]) for _, pictures in rows for pixels in pictures)
    enlarge = max(1, -(-_SMALLEST_CELL_PX // largest))
    cell = largest * enlarge
    width = _MARGIN_PX + len(columns) * (cell + _MARGIN_PX)
    height = _MARGIN_PX + _LABEL_PX + len(rows) * (cell + _LABEL_PX + _MARGIN_PX)
    wall = Image.new("RGB", (width, height), _BACKGROUND)
    draw, font = ImageDraw.Draw(wall), ImageFont.load_default(15)
    for column, title in enumerate(columns):
        draw.text((_MARGIN_PX + column * (cell + _MARGIN_PX), _MARGIN_PX), title, _INK, font)
    for row, (prompt, pictures) in enumerate(rows):
        top = _MARGIN_PX + _LABEL_PX + row * (cell + _LABEL_PX + _MARGIN_PX)
        draw.text((_MARGIN_PX, top), _fitted(prompt, width - 2 * _MARGIN_PX, draw, font), _INK, font)
        for column, pixels in enumerate(pictures):
            enlarged = np.kron(pixels, np.ones((enlarge, enlarge, 1), dtype=np.uint8))
            left = _MARGIN_PX + column * (cell + _MARGIN_PX)
            wall.paste(Image.fromarray(enlarged), (left, top + _LABEL_PX))
    _write_png(path, wall, PngInfo())


def _fitted(text: str, width: int, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """Return a text as one line, cut with an ellipsis to what fits."""
    line = " ".join(text.split())
    # No letter of a line that fits is narrower than a pixel: what a prompt has beyond need not be measured.
    kept = line[: max(0, width)]
    if kept == line and draw.textlength(line, font) <= width:
        return line
    num_fitting = bisect_right(
        range(len(kept) + 1), False, key=lambda length: draw.textlength(kept[:length] + "…", font) > width
    )
    return kept[: max(0, num_fitting - 1)] + "…"


def _write_png(path: Path, image: Image.Image, info: PngInfo) -> None:
    buffer = BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
