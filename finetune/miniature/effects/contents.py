"""Does a picture show what its prompt says: colour, shape and ground of one thing, two things and where they lie?

The oracle itself is measured first, on true pictures and on the VAE's reconstructions of them: nothing that is drawn
can be read better than that. Guidance is measured here too, because the same prompts show it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune.miniature.effects.asking import Ask, free_prompt
from finetune.miniature.effects.drawing import SQUARE, load_base, to_pixels
from finetune.miniature.effects.intervals import wilson
from finetune.miniature.effects.measures import Hits, has_both_colours, has_relation, hits, read_all
from finetune.miniature.effects.rows import SHOWN, Findings, Grid, Pixels, Plot, Row, Series, difference_row, rate_row
from finetune.miniature.effects.studio import Studio
from imagesets.world.oracle import Reading
from imagesets.world.palette import GROUNDS
from imagesets.world.render import render_scene

GUIDANCES = (1.0, 2.0, 3.0, 5.0, 7.0)


def measure_oracle(studio: Studio) -> Findings:
    """Read true pictures, and the VAE's reconstructions of them."""
    singles = studio.asks()
    asks = [*singles, *studio.asks(2)]
    pictures = [render_scene(ask.scene, SQUARE) for ask in asks]
    rows = [
        rate_row(
            "oracle",
            "the oracle on true pictures, all of one thing or two",
            [is_read_whole(reading, ask) for reading, ask in zip(read_all(pictures), asks, strict=True)],
            at_least=1.0,
        )
    ]
    decoded = studio.submit(reconstruct, studio.base, pictures[: len(singles)]).result()
    found = compare(decoded, singles)
    for name in ("colour", "shape"):
        effect = f"the oracle on the VAE's reconstructions, {name}"
        rows.append(rate_row("oracle", effect, [getattr(hit, name) for hit in found], at_least=0.97))
    shown = [("true", pictures[:SHOWN]), ("through the VAE", decoded[:SHOWN])]
    return Findings(rows, grids=[Grid("reconstructions", "True pictures and what the VAE makes of them", shown)])


def is_read_whole(reading: Reading, ask: Ask) -> bool:
    """Whether the oracle finds all of a scene: ground, things, their colours, shapes and relation."""
    asked = sorted((thing.colour, thing.shape) for thing in ask.scene.things)
    found = sorted((thing.colour, thing.shape) for thing in reading.things)
    placed = ask.scene.relation is None or has_relation(reading, ask)
    return reading.ground == ask.scene.ground and asked == found and placed


def reconstruct(base: Path, pictures: Sequence[Pixels]) -> list[Pixels]:
    """Encode and decode pictures of one size with a base's VAE."""
    vae: Any = load_base(base).vae
    decoded: list[Pixels] = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 32):
            pixels = torch.from_numpy(np.stack(pictures[start : start + 32])).permute(0, 3, 1, 2).float()
            latents = vae.encode(pixels / 127.5 - 1.0).latent_dist.mean
            images = vae.decode(latents).sample.permute(0, 2, 3, 1).numpy() / 2.0 + 0.5
            decoded.extend(to_pixels(images))
    return decoded


def measure_one_thing(studio: Studio) -> Findings:
    """Measure colour, shape and ground of a lone thing."""
    asks = studio.asks()
    [pictures] = studio.draw([studio.batch(asks)])
    found = compare(pictures, asks)
    rows = [
        rate_row("one", "colour of one thing", [hit.colour for hit in found], at_least=0.95),
        rate_row("one", "shape of one thing (chance: 17 %)", [hit.shape for hit in found], at_least=0.85),
        rate_row("one", "ground", [hit.ground for hit in found], at_least=0.95),
    ]
    lines = []
    for ground in GROUNDS:
        chosen = [picture for ask, picture in zip(asks, pictures, strict=True) if ask.scene.ground == ground]
        lines.append((ground, chosen[:SHOWN]))
    return Findings(rows, grids=[Grid("one-thing", "One thing, the first prompts on each ground", lines)])


def measure_two_things(studio: Studio) -> Findings:
    """Measure the colours of two things, and whether they lie as the prompt says."""
    asks = studio.asks(2)
    [pictures] = studio.draw([studio.batch(asks)])
    readings = read_all(pictures)
    pairs = list(zip(readings, asks, strict=True))
    rows = [
        rate_row("two", "both colours of two things", [has_both_colours(*pair) for pair in pairs], at_least=0.80),
        rate_row(
            "two", "two things lie as the prompt says, of all prompts", [has_relation(*pair) for pair in pairs],
            at_least=0.70,
        ),
    ]  # fmt: skip
    lines = []
    for relation in ("above", "below", "left of", "right of"):
        chosen = [picture for ask, picture in zip(asks, pictures, strict=True) if ask.scene.relation == relation]
        lines.append((relation, chosen[:SHOWN]))
    return Findings(rows, grids=[Grid("two-things", "Two things, by the word between them", lines)])


def measure_guidance(studio: Studio) -> Findings:
    """Measure how colour and shape rise with the guidance scale, from the same noise.

    Prompts in a caption's form are followed without guidance, too: it is asked in forms that no caption had.
    """
    asks = studio.asks()
    prompts = [free_prompt(ask, index) for index, ask in enumerate(asks)]
    drawn = studio.draw([studio.batch(asks, prompts, guidance=guidance) for guidance in GUIDANCES])
    found = [compare(pictures, asks) for pictures in drawn]
    rows: list[Row] = []
    series: list[Series] = []
    without, usual = found[0], found[GUIDANCES.index(5.0)]
    for name in ("colour", "shape"):
        rates = [[getattr(hit, name) for hit in one] for one in found]
        rows.append(
            difference_row(
                "guidance", f"guidance 5 against none, {name}, prompts in forms that no caption had",
                [getattr(hit, name) for hit in usual], [getattr(hit, name) for hit in without],
                bar="above 0", holds=lambda change, _: change > 0,
            )
        )  # fmt: skip
        intervals = [wilson(sum(hit), len(hit)) for hit in rates]
        series.append(Series(name, GUIDANCES, [float(np.mean(hit)) for hit in rates], intervals))
    title = "Guidance: how often a prompt in a form that no caption had is followed"
    plot = Plot("guidance", title, "guidance scale", "share of pictures", series)
    lines = [(f"guidance {guidance:g}", pictures[:SHOWN]) for guidance, pictures in zip(GUIDANCES, drawn, strict=True)]
    return Findings(rows, [plot], [Grid("guidance", "The same prompts and noise at five guidance scales", lines)])


def compare(pictures: Sequence[Pixels], asks: Sequence[Ask]) -> list[Hits]:
    """Read pictures and compare each with the lone thing that was asked for."""
    return [hits(reading, ask) for reading, ask in zip(read_all(pictures), asks, strict=True)]
