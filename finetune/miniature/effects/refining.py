"""The refiner: a better denoiser where it was trained, crisper pictures on hand-over, and its aesthetic score."""

import numpy as np

from finetune.miniature.effects.conditions import buckets
from finetune.miniature.effects.contents import compare
from finetune.miniature.effects.drawing import SWITCH_AT, Batch
from finetune.miniature.effects.held_out import HeldOut, held_out_errors
from finetune.miniature.effects.intervals import mean_interval, ratio_interval
from finetune.miniature.effects.measures import outline_darkness, sharpness
from finetune.miniature.effects.rows import SHOWN, Findings, Grid, Pixels, Plot, Row, Series, difference_row
from finetune.miniature.effects.studio import Studio
from finetune.miniature.stages import LARGE_PHOTOS

TIMESTEPS = ((0, 50), (50, 100), (100, 150), (150, 200))
AESTHETIC_SCORES = (2.5, 4.0, 5.0, 6.0, 7.5)
USUAL_SCORE = 6.0
MAX_LOSS = 0.02
"""How much of a rate the hand-over may lose at most: what two of a hundred pictures are."""


def measure_refiner(studio: Studio) -> Findings:
    """Compare the refiner with the base below t = 200, and pictures it has finished with the base's own."""
    findings = Findings()
    sides = LARGE_PHOTOS.shorter_sides
    jobs = [
        HeldOut(model, model == studio.refiner, studio.num_prompts, buckets(), TIMESTEPS, shorter_sides=sides)
        for model in (studio.refiner, studio.base)
    ]
    refined, alone = [pending.result() for pending in [studio.submit(held_out_errors, job) for job in jobs]]
    change, interval = mean_interval((refined - alone).mean(axis=1) / float(alone.mean()))
    effect = f"refiner against base: error of the noise below t = 200, held-out photos of {sides[0]:g} pixels and more"
    findings.rows.append(Row("refiner", effect, change, interval, "%", "below 0", change < 0, len(refined)))

    asks = studio.asks()
    [base_pictures] = studio.draw([studio.batch(asks)])
    pictures = _by_score(studio)[USUAL_SCORE]
    before, after = compare(base_pictures, asks), compare(pictures, asks)
    # Edges of a picture without its thing say nothing.
    kept = [index for index, hit in enumerate(before) if hit.colour and after[index].colour]
    ratio, interval = ratio_interval(
        [sharpness(pictures[index], asks[index]) for index in kept],
        [sharpness(base_pictures[index], asks[index]) for index in kept],
    )
    effect = f"hand-over at {SWITCH_AT}: sharpness of edges against the base alone"
    findings.rows.append(Row("refiner", effect, ratio, interval, "times", "above 1 times", ratio > 1.0, len(kept)))
    for name in ("colour", "shape"):
        findings.rows.append(
            difference_row(
                "refiner", f"hand-over at {SWITCH_AT}: {name} against the base alone",
                [getattr(hit, name) for hit in after], [getattr(hit, name) for hit in before],
                bar=f"at least {-100 * MAX_LOSS:.0f} points", holds=lambda change, _: change >= -MAX_LOSS,
            )
        )  # fmt: skip
    shown = [("base alone", base_pictures[:SHOWN]), ("base, then refiner", pictures[:SHOWN])]
    findings.grids.append(Grid("refiner", f"The last {1 - SWITCH_AT:.0%} by the refiner", shown))
    return findings


def measure_aesthetic_score(studio: Studio) -> Findings:
    """Measure how dark outlines get with the score, on grounds from which an outline stands out."""
    asks = studio.asks()
    drawn = _by_score(studio)
    chosen = [index for index, ask in enumerate(asks) if ask.scene.ground != "black"]
    found = [[outline_darkness(drawn[score][index]) for index in chosen] for score in AESTHETIC_SCORES]
    kept = [index for index in range(len(chosen)) if all(values[index] is not None for values in found)]
    darkness = np.array([[values[index] for index in kept] for values in found], dtype=np.float64)
    levels = [mean_interval(values) for values in darkness]
    rises = bool(np.all(np.diff([mean for mean, _ in levels]) > 0))
    change, interval = mean_interval(darkness[-1] - darkness[0])
    row = Row(
        "aesthetic",
        f"aesthetic score {AESTHETIC_SCORES[0]} to {AESTHETIC_SCORES[-1]}: the outline gets darker (0 fill, 1 black)"
        + ("" if rises else " (not at every step)"),
        change,
        interval,
        "",
        "rising at every step",
        rises,
        len(kept),
    )
    series = Series("drawn", AESTHETIC_SCORES, [mean for mean, _ in levels], [interval for _, interval in levels])
    plot = Plot(
        "aesthetic-score",
        "The aesthetic score drives the outline",
        "aesthetic score told",
        "darkness of the outline, 0 fill to 1 black",
        [series],
    )
    shown = [(f"score {score:g}", [drawn[score][index] for index in chosen[:SHOWN]]) for score in AESTHETIC_SCORES]
    return Findings([row], [plot], [Grid("aesthetic-score", "The same latents finished with five scores", shown)])


def _by_score(studio: Studio) -> dict[float, list[Pixels]]:
    """Return the pictures of the lone things, finished by the refiner with each score."""
    asks = studio.asks()
    batch: Batch = studio.batch(asks, refiner=studio.refiner, aesthetic_scores=AESTHETIC_SCORES)
    [pictures] = studio.draw([batch])
    return {
        score: pictures[start * len(asks) : (start + 1) * len(asks)] for start, score in enumerate(AESTHETIC_SCORES)
    }
