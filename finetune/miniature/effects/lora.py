"""A LoRA of the quickstart's pictures: does it teach the new thing, what does it cost, and which parts carry it?

Every run is the shipped quickstart recipe with the settings that the row names. The 8-bit optimizer is compared on
wider adapters, because bitsandbytes keeps small tensors in 32 bits.
"""

import json
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import safetensors
from PIL import Image

from finetune.miniature.effects.contents import compare, reconstruct
from finetune.miniature.effects.drawing import SQUARE, Batch
from finetune.miniature.effects.intervals import mean_interval, wilson
from finetune.miniature.effects.rows import SHOWN, Findings, Grid, Pixels, Plot, Row, Series, difference_row, rate_row
from finetune.miniature.effects.studio import Studio
from finetune.miniature.effects.worker import Trained
from finetune.recipe import load_recipe, resolve_data_path
from imagesets.framing import make_frame
from imagesets.randomness import key_to_seed
from imagesets.world.oracle import read_stripes
from imagesets.world.palette import GROUNDS

NUM_STEPS = 100
MIN_RATE = 0.80
MAX_FORGOTTEN = 0.05

PARTS: dict[str, tuple[str, ...]] = {
    "all three": (),
    "the U-Net only": ("adapter.text_encoder=null", "adapter.text_encoder_2=null"),
    "the encoders only": ("adapter.unet=null",),
}

OPTIMIZER_STEPS = 200
OPTIMIZER_RANK = 64
_SMALLEST_IN_8_BITS = 4096
"""bitsandbytes keeps the state of smaller tensors in 32 bits (its `min_8bit_size`)."""


def measure_lora(studio: Studio) -> Findings:
    """Measure what a LoRA on all three parts shows of the new thing, and what it takes from the old ones."""
    true = sample_pictures()
    decoded = studio.submit(reconstruct, studio.base, true)
    trained = _train(studio, "all three").result()
    new = _draw_new(studio, trained.export)
    shown = _stripes(new)
    rows = [
        rate_row("lora", "the quickstart's own pictures through the VAE: the new thing", _stripes(decoded.result())),
        rate_row(
            "lora", f"LoRA, {NUM_STEPS} steps: the new thing, both its colours in a star's outline", shown,
            at_least=MIN_RATE,
        )
    ]  # fmt: skip
    asks = studio.asks()
    batches = [studio.batch(asks, lora=adapter, guidance=_guidance()) for adapter in (None, trained.export)]
    [before, after] = studio.draw(batches)
    rows.append(
        difference_row(
            "lora",
            f"LoRA, {NUM_STEPS} steps: old prompts, colour and shape of one thing, on against off",
            [hit.both for hit in compare(after, asks)],
            [hit.both for hit in compare(before, asks)],
            bar=f"at least {-100 * MAX_FORGOTTEN:.0f} points",
            holds=lambda change, _: change >= -MAX_FORGOTTEN,
        )
    )
    lines = [
        ("the quickstart's pictures", true[:SHOWN]),
        ("through the VAE", decoded.result()[:SHOWN]),
        ("a <zig>, LoRA off", _draw_new(studio, None)[:SHOWN]),
        ("a <zig>, LoRA on", new[:SHOWN]),
        ("old prompts, LoRA off", before[:SHOWN]),
        ("old prompts, LoRA on", after[:SHOWN]),
    ]
    return Findings(rows, grids=[Grid("lora", f"A LoRA of ten pictures after {NUM_STEPS} steps", lines)])


def measure_lora_parts(studio: Studio) -> Findings:
    """Compare adapters on the U-Net, on the encoders, and on all three; nothing is asked of them."""
    asks = studio.asks()
    runs = {name: _train(studio, name) for name in PARTS}
    [before] = studio.draw([studio.batch(asks, guidance=_guidance())])
    kept_before = [hit.both for hit in compare(before, asks)]
    findings = Findings()
    shares: list[Sequence[bool]] = []
    kept: list[Sequence[bool]] = []
    lines: list[tuple[str, Sequence[Pixels]]] = []
    for name, run in runs.items():
        adapter = run.result().export
        new = _draw_new(studio, adapter)
        [after] = studio.draw([studio.batch(asks, lora=adapter, guidance=_guidance())])
        shares.append(_stripes(new))
        kept.append([hit.both for hit in compare(after, asks)])
        lines.append((name, new[:SHOWN]))
        findings.rows.append(rate_row("lora-parts", f"LoRA on {name}: the new thing", shares[-1]))
        effect = f"LoRA on {name}: old prompts, on against off"
        findings.rows.append(difference_row("lora-parts", effect, kept[-1], kept_before))
    series = [
        Series(
            label,
            range(len(PARTS)),
            [float(np.mean(one)) for one in rates],
            [wilson(int(np.sum(one)), len(one)) for one in rates],
        )
        for label, rates in (("the new thing", shares), ("old prompts", kept))
    ]
    ticks = {float(index): name for index, name in enumerate(PARTS)}
    findings.plots.append(
        Plot("lora-parts", "Which parts carry a LoRA", "LoRA on", "share of pictures", series, ticks, bars=True)
    )
    findings.grids.append(Grid("lora-parts", "The new thing, by the parts that the LoRA is on", lines))
    return findings


def measure_8bit_optimizer(studio: Studio) -> Findings:
    """Compare AdamW with 8-bit state and with 32-bit state, everything else alike."""
    kinds = ("adamw", "adamw8bit")
    runs = [
        studio.train(
            "quickstart",
            [
                *_model(studio.base), f"name=lora-{kind}", f"training.steps={OPTIMIZER_STEPS}",
                f"training.optimizer.kind={kind}", "checkpoint.every_steps=null",
                *(f"adapter.{part}.rank={OPTIMIZER_RANK}" for part in ("unet", "text_encoder", "text_encoder_2")),
                *(f"adapter.{part}.learning_rate=3e-4" for part in ("unet", "text_encoder", "text_encoder_2")),
            ],
        )
        for kind in kinds
    ]  # fmt: skip
    plain, small = (run.result() for run in runs)
    share = share_in_8_bits(small.export)
    plain_new, small_new = (_draw_new(studio, run.export) for run in (plain, small))
    effect = f"8-bit AdamW ({share:.0%} of the values in 8 bits) against 32-bit, {OPTIMIZER_STEPS} steps: the new thing"
    rows = [
        difference_row(
            "optimizer", effect, _stripes(small_new), _stripes(plain_new), bar="the interval holds 0",
            holds=lambda _, interval: interval[0] <= 0.0 <= interval[1],
        )
    ]  # fmt: skip
    # The same draws at every step, so that the losses are paired.
    losses, others = np.array(small.losses), np.array(plain.losses)
    scale = float(others.mean())
    change, interval = mean_interval((losses - others) / scale)
    _, own = mean_interval(others / scale)
    bar = f"within the 32-bit loss's own interval, ±{100 * (own[1] - 1):.1f} %"
    effect = f"8-bit AdamW against 32-bit, {OPTIMIZER_STEPS} steps: the loss, mean over all"
    rows.append(Row("optimizer", effect, change, interval, "%", bar, abs(change) <= own[1] - 1, len(losses)))
    width = 10
    steps = [float(step) for step in range(width, OPTIMIZER_STEPS + 1, width)]
    series = [
        Series(label, steps, [float(part.mean()) for part in np.array_split(np.array(run.losses), len(steps))])
        for label, run in (("32-bit AdamW", plain), ("8-bit AdamW", small))
    ]
    plot = Plot(
        "optimizer", "The same draws with 8-bit and 32-bit state", "step", f"loss, mean of {width} steps", series
    )
    lines = [("32-bit AdamW", plain_new[:SHOWN]), ("8-bit AdamW", small_new[:SHOWN])]
    return Findings(rows, [plot], [Grid("optimizer", f"The new thing after {OPTIMIZER_STEPS} steps", lines)])


def share_in_8_bits(adapter: Path) -> float:
    """Return what share of an adapter's values bitsandbytes keeps the optimizer's state of in 8 bits."""
    with safetensors.safe_open(adapter, framework="numpy") as file:
        sizes = [int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()]  # noqa: SIM118 - no mapping
    return sum(size for size in sizes if size >= _SMALLEST_IN_8_BITS) / sum(sizes)


def sample_pictures() -> list[Pixels]:
    """Return the quickstart's pictures as squares, cut in the middle."""
    pictures = []
    for path in sorted(resolve_data_path("sample:quickstart").glob("*.png")):
        with Image.open(path) as image:
            frame = make_frame((image.height, image.width), SQUARE, "center")
            resized = image.convert("RGB").resize(frame.resized_size[::-1], Image.Resampling.LANCZOS)
            pictures.append(np.asarray(resized.crop(frame.crop_box)))
    return pictures


def new_batch(studio: Studio, adapter: Path | None) -> Batch:
    """Return the batch that draws the new thing, on the three grounds by turns."""
    grounds = list(GROUNDS)
    prompts = [f"a <zig> on a {grounds[index % len(grounds)]} background" for index in range(studio.num_prompts)]
    seeds = [key_to_seed(studio.seed, "new thing's noise", index) for index in range(studio.num_prompts)]
    return Batch(tuple(prompts), tuple(seeds), studio.base, lora=adapter, guidance=_guidance())


def _guidance() -> float:
    """Return the scale at which the quickstart previews what it trains."""
    return load_recipe("quickstart").preview.guidance_scale


def _draw_new(studio: Studio, adapter: Path | None) -> list[Pixels]:
    [pictures] = studio.draw([new_batch(studio, adapter)])
    return pictures


def _stripes(pictures: Sequence[Pixels]) -> list[bool]:
    readings = [read_stripes(picture) for picture in pictures]
    return [reading is not None and reading.is_whole for reading in readings]


def _train(studio: Studio, parts: str) -> Future[Trained]:
    name = parts.replace(" ", "-")
    return studio.train(
        "quickstart",
        [*_model(studio.base), f"name=lora-{name}", f"training.steps={NUM_STEPS}", "checkpoint.every_steps=null",
         *PARTS[parts]],
    )  # fmt: skip


def _model(base: Path) -> tuple[str, str]:
    return ("model.kind=folder", f"model.path={json.dumps(str(base))}")
