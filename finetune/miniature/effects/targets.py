"""The target size that the base is told: what a wrong one costs, on held-out photos and in drawn pictures."""

from finetune.miniature.effects.conditions import buckets
from finetune.miniature.effects.contents import compare
from finetune.miniature.effects.held_out import HeldOut, held_out_errors
from finetune.miniature.effects.intervals import mean_interval
from finetune.miniature.effects.rows import SHOWN, Findings, Grid, Row
from finetune.miniature.effects.studio import Studio

TIMESTEPS = ((0, 200), (200, 400), (400, 600), (600, 800), (800, 1000))
LONG_BUCKET = (48, 96)


def measure_target_size(studio: Studio) -> Findings:
    """Compare right target sizes with ones whose height and width are exchanged; no direction is asked for."""
    long = tuple(size for size in buckets() if size[0] != size[1])
    jobs = [HeldOut(studio.base, False, studio.num_prompts, long, TIMESTEPS, swap) for swap in (False, True)]
    right, wrong = [pending.result() for pending in [studio.submit(held_out_errors, job) for job in jobs]]
    scale = float(right.mean())
    cost, interval = mean_interval((wrong - right).mean(axis=1) / scale)
    findings = Findings()
    effect = "target size exchanged: error of the predicted noise, held-out photos"
    findings.rows.append(Row("target", effect, cost, interval, "%", "", None, len(right)))
    asks = studio.asks()
    told = studio.batch(asks, size=LONG_BUCKET)
    mistold = studio.batch(asks, size=LONG_BUCKET, target_size=LONG_BUCKET[::-1])
    drawn = studio.draw([told, mistold])
    overlaps = [[hit.overlap for hit in compare(pictures, asks)] for pictures in drawn]
    loss, interval = mean_interval([b - a for a, b in zip(*overlaps, strict=True)])
    effect = f"target size exchanged at {LONG_BUCKET[0]} x {LONG_BUCKET[1]}: how well a thing fills its shape"
    findings.rows.append(Row("target", effect, loss, interval, "points", "", None, len(asks)))
    shown = [("told rightly", drawn[0][:SHOWN]), ("exchanged", drawn[1][:SHOWN])]
    findings.grids.append(
        Grid("target-size", "The target size told rightly, and with height and width exchanged", shown)
    )
    return findings
