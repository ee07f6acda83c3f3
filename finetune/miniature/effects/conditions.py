"""What SDXL is told of sizes and cuts (Podell et al. 2023, section 2.2): does it act, and in the right direction?"""

from collections.abc import Sequence

import numpy as np

from finetune.miniature.effects.asking import Ask, small_prompt
from finetune.miniature.effects.contents import compare
from finetune.miniature.effects.drawing import SQUARE
from finetune.miniature.effects.intervals import Interval, mean_interval, ratio_interval, slope_interval, wilson
from finetune.miniature.effects.measures import read_all, sharpness
from finetune.miniature.effects.rows import SHOWN, Findings, Grid, Pixels, Plot, Row, Series, difference_row
from finetune.miniature.effects.studio import Studio
from finetune.miniature.stages import BASE
from finetune.recipe import load_recipe
from finetune.recipe.schema import ListedBuckets
from imagesets.framing import Size, cover

ORIGINAL_SIDES = (16, 24, 32, 48, 64, 96)
MIN_SHARPENING = 1.5
OFFSETS = (0, 8, 16, 24, 32)
LONG_ORIGINALS: dict[str, Size] = {"top": (96, 64), "left": (64, 96)}
"""Of which each cut is told: a tall and a wide photo, whose slack into the square is the largest of OFFSETS."""

MIN_SLOPE = 0.5
MAX_OFF_CENTRE_PX = 2.0
MAX_BUCKET_LOSS = 0.05


def measure_original_size(studio: Studio) -> Findings:
    """Measure whether pictures get sharper with the original size that the base is told."""
    asks = studio.asks()
    drawn = studio.draw([studio.batch(asks, original_size=(side, side)) for side in ORIGINAL_SIDES])
    found = np.array([[sharpness(*pair) for pair in zip(pictures, asks, strict=True)] for pictures in drawn])
    # A picture without its thing says nothing of edges: only prompts whose colour is there at every size count.
    kept = np.all([[hit.colour for hit in compare(pictures, asks)] for pictures in drawn], axis=0)
    found = found[:, kept]
    ratio, interval = ratio_interval(found[-1], found[0])
    means = np.exp(np.log(found).mean(axis=1)) if found.size else np.zeros(len(ORIGINAL_SIDES))
    rises = bool(np.all(np.diff(means) > 0))
    relative = [ratio_interval(values, found[0]) for values in found]
    row = Row(
        "size",
        f"original size {ORIGINAL_SIDES[0]} to {ORIGINAL_SIDES[-1]}: the edges' sharpness grows"
        + ("" if rises else " (not at every step)"),
        ratio,
        interval,
        "times",
        f"at least {MIN_SHARPENING} times, rising at every step",
        ratio >= MIN_SHARPENING and rises,
        int(kept.sum()),
    )
    series = Series("drawn", ORIGINAL_SIDES, [value for value, _ in relative], [interval for _, interval in relative])
    plot = Plot(
        "original-size",
        "Told a larger original, the base draws sharper",
        "original size told, pixels a side",
        "sharpness against the smallest",
        [series],
    )
    shown = [(f"{side} x {side}", pictures[:SHOWN]) for side, pictures in zip(ORIGINAL_SIDES, drawn, strict=True)]
    return Findings(
        [row], [plot], [Grid("original-size", "The same prompts and noise, told five original sizes", shown)]
    )


def expected_centre(original_size: Size, target_size: Size, crop_top_left: Size) -> tuple[float, float]:
    """Return where the middle of a photo lies, (y, x) in pixels, once it is resized to cover its target and cut."""
    resized = cover(original_size, target_size)
    return (resized[0] / 2 - crop_top_left[0], resized[1] / 2 - crop_top_left[1])


def measure_crop(studio: Studio) -> Findings:
    """Measure whether a thing lies where the cut that the base is told would put it."""
    asks = studio.asks()
    findings = Findings()
    series = []
    for axis, (name, original) in enumerate(LONG_ORIGINALS.items()):
        shares = [asks[start :: len(OFFSETS)] for start in range(len(OFFSETS))]
        cuts = [(offset, 0) if axis == 0 else (0, offset) for offset in OFFSETS]
        drawn = studio.draw(
            [
                studio.batch(
                    share, [small_prompt(ask) for ask in share], original_size=original, crop_top_left=cut
                )
                for share, cut in zip(shares, cuts, strict=True)
            ]
        )  # fmt: skip
        expected: list[float] = []
        centres: list[float] = []
        means: list[tuple[float, Interval]] = []
        for cut, pictures in zip(cuts, drawn, strict=True):
            found = _centres(pictures, axis)
            expected.extend([expected_centre(original, SQUARE, cut)[axis]] * len(found))
            centres.extend(found)
            means.append(mean_interval(found))
        slope, interval = slope_interval(expected, centres)
        what = f"crop {name}: how far the thing moves against geometry, {'down' if axis == 0 else 'across'}"
        findings.rows.append(
            Row("crop", what, slope, interval, "", f"at least {MIN_SLOPE}", slope >= MIN_SLOPE, len(centres))
        )
        places = [expected_centre(original, SQUARE, cut)[axis] for cut in cuts]
        series.append(Series(f"crop {name}", places, [mean for mean, _ in means], [interval for _, interval in means]))
        shown = [(f"{name} {offset}", pictures[:SHOWN]) for offset, pictures in zip(OFFSETS, drawn, strict=True)]
        title = f"Told cuts of a {'tall' if axis == 0 else 'wide'} photo, {original[0]} x {original[1]}, into a square"
        findings.grids.append(Grid(f"crop-{name}", title, shown))
    line = Series("geometry", (16.0, 48.0), (16.0, 48.0))
    findings.plots.append(
        Plot(
            "crop",
            "The cut that is told moves the thing",
            "centre by geometry, pixels",
            "mean centre as drawn, pixels",
            [*series, line],
        )
    )
    findings.rows.extend(_centred_rows(studio, asks))
    return findings


def _centred_rows(studio: Studio, asks: Sequence[Ask]) -> list[Row]:
    """Measure where things lie when a square photo is told to be uncut."""
    [pictures] = studio.draw([studio.batch(asks)])
    rows = []
    for axis, name in enumerate(("down", "across")):
        mean, interval = mean_interval([centre - SQUARE[axis] / 2 for centre in _centres(pictures, axis)])
        rows.append(
            Row(
                "crop",
                f"crop (0, 0) of a square centres the thing: mean offset {name}",
                mean,
                interval,
                "px",
                f"within {MAX_OFF_CENTRE_PX:g} px",
                abs(mean) <= MAX_OFF_CENTRE_PX,
                len(pictures),
            )
        )
    return rows


def _centres(pictures: Sequence[Pixels], axis: int) -> list[float]:
    """Return the centre of the largest thing along an axis, of the pictures that show one."""
    return [reading.things[0].centre[axis] for reading in read_all(pictures) if reading.things]


def buckets() -> tuple[Size, ...]:
    """Return the buckets of the base's last stage, the square first."""
    listed = load_recipe(BASE.recipe).data.buckets
    assert isinstance(listed, ListedBuckets), "the recipe lists them"
    others = [(int(height), int(width)) for height, width in listed.sizes if (height, width) != SQUARE]
    return (SQUARE, *others)


def measure_buckets(studio: Studio) -> Findings:
    """Measure whether things are whole and of their colour in every bucket, against the square."""
    asks = studio.asks()
    sizes = buckets()
    drawn = studio.draw([studio.batch(asks, size=size) for size in sizes])
    found = [compare(pictures, asks) for pictures in drawn]
    findings = Findings()
    series = []
    for name, what in (("colour", "colour"), ("whole", "things not cut off")):
        rates = np.array([[getattr(hit, name) for hit in one] for one in found], dtype=np.float64)
        worst = 1 + int(np.argmin(rates[1:].mean(axis=1)))
        height, width = sizes[worst]
        findings.rows.append(
            difference_row(
                "buckets", f"buckets, {what}: the worst ({height} x {width}) against the square",
                rates[worst], rates[0], bar=f"at least {-100 * MAX_BUCKET_LOSS:.0f} points",
                holds=lambda change, _: change >= -MAX_BUCKET_LOSS,
            )
        )  # fmt: skip
        intervals = [wilson(int(rate.sum()), len(rate)) for rate in rates]
        series.append(Series(what, range(len(sizes)), [float(rate.mean()) for rate in rates], intervals))
    ticks = {float(index): f"{height} x {width}" for index, (height, width) in enumerate(sizes)}
    findings.plots.append(
        Plot("buckets", "Every bucket", "bucket, height x width", "share of pictures", series, ticks, bars=True)
    )
    lines = [(f"{height} x {width}", pictures[:SHOWN]) for (height, width), pictures in zip(sizes, drawn, strict=True)]
    findings.grids.append(Grid("buckets", "The same prompts in every bucket", lines))
    return findings
