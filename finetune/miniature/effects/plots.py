"""Draw plots and grids of pictures as small PNG files."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from finetune.miniature.effects.rows import Grid, Plot

_COLOURS = ("#2f6db5", "#d0743c", "#7a7a7a", "#5a9367")
_INK = "#3c3c40"
_DOTS_PER_INCH = 110
_PAPER = (250, 250, 248)
_LABEL_WIDTH_PX = 132
_GAP_PX = 3
_NUM_COLOURS = 160
"""Of a file: things on plain grounds need few, and it is a third of the size."""


def save_plot(plot: Plot, path: Path) -> None:
    """Write a plot; lines with intervals as bars, or columns."""
    with mpl.rc_context({"font.size": 9, "axes.edgecolor": "#b0b0b0", "text.color": _INK, "axes.labelcolor": _INK}):
        figure = Figure(figsize=(5.6, 3.3), dpi=_DOTS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        draw = _draw_columns if plot.bars else _draw_lines
        draw(axes, plot)
        axes.set_title(plot.title, fontsize=10, loc="left")
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        if plot.ticks is not None:
            axes.set_xticks(list(plot.ticks), list(plot.ticks.values()))
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_INK, length=3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if len(plot.series) > 1:
            axes.legend(frameon=False, fontsize=8)
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
    _save(Image.open(buffer).convert("RGB"), path, 64)


def _draw_lines(axes: Any, plot: Plot) -> None:
    for series, colour in zip(plot.series, _COLOURS, strict=False):
        if series.intervals is None:
            axes.plot(series.x, series.y, color=colour, linewidth=1.2, linestyle="--", label=series.label)
        else:
            axes.errorbar(
                series.x, series.y, yerr=_reaches(series.y, series.intervals), color=colour, marker="o", markersize=3.5,
                linewidth=1.4, capsize=2.5, label=series.label,
            )  # fmt: skip


def _draw_columns(axes: Any, plot: Plot) -> None:
    width = 0.8 / len(plot.series)
    for index, (series, colour) in enumerate(zip(plot.series, _COLOURS, strict=False)):
        places = np.asarray(series.x, dtype=np.float64) + (index - (len(plot.series) - 1) / 2) * width
        reaches = None if series.intervals is None else _reaches(series.y, series.intervals)
        axes.bar(places, series.y, width * 0.92, yerr=reaches, color=colour, ecolor=_INK, capsize=2, label=series.label)
    axes.set_ylim(0.0, 1.05)


def _reaches(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> Any:
    """Return how far each interval reaches below and above its value, (2, N); endless ones are left out."""
    pairs = [(value - low, high - value) for value, (low, high) in zip(values, intervals, strict=True)]
    reaches = np.array(pairs, dtype=np.float64).T
    return np.where(np.isfinite(reaches), np.maximum(reaches, 0.0), 0.0)


def save_grid(grid: Grid, path: Path) -> None:
    """Write pictures side by side, a line a condition, each with its label at the left."""
    font = ImageFont.load_default(12)
    labelled = any(label for label, _ in grid.rows)
    left = _LABEL_WIDTH_PX if labelled else 0
    widths = [left + sum(picture.shape[1] + _GAP_PX for picture in pictures) for _, pictures in grid.rows]
    heights = [max((picture.shape[0] for picture in pictures), default=0) + _GAP_PX for _, pictures in grid.rows]
    sheet = Image.new("RGB", (max(widths), sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (label, pictures), height in zip(grid.rows, heights, strict=True):
        draw.text((2, top + height / 2), _broken(label, draw, font), _INK, font, anchor="lm")
        across = left
        for picture in pictures:
            sheet.paste(Image.fromarray(picture), (across, top))
            across += picture.shape[1] + _GAP_PX
        top += height
    _save(sheet, path, _NUM_COLOURS)


def _broken(label: str, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """Break a label into lines that fit beside the pictures."""
    lines = [""]
    for word in label.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) > _LABEL_WIDTH_PX - 8 and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _save(picture: Image.Image, path: Path, num_colours: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = picture.quantize(num_colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
