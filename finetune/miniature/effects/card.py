"""Write the miniature's model card: what it is, how it was made, what it was measured to do, what it cannot."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import mean

from finetune.errors import AtelierError
from finetune.miniature.effects.facts import commit, machine, versions
from finetune.miniature.effects.report import table_lines, verdict
from finetune.miniature.effects.rows import Row
from finetune.miniature.install import weights_hash
from finetune.miniature.stages import NUM_PATTERNS, PATTERNS, PATTERNS_SEED, PHOTO_SETS, SEED, STAGES, Stage
from finetune.recipe import load_recipe
from finetune.run.events import Event, read_events
from finetune.run.folder import RunFolder

NAME = "README.md"
_LAST_STEPS = 100
_BREAK_SECONDS = 120.0
"""Nothing that a run does keeps it from its log for so long."""

_CARD = """# The miniature SDXL

Base and refiner of Stable Diffusion XL in miniature, in diffusers' own classes and layout, made from nothing by this
kit. It draws shapes on plain grounds, 64 pixels a side, on any CPU, and has SDXL's own devices: two text encoders,
original size, crop and target size as conditions, buckets of many aspects, guidance with a zeroed negative, offset
noise, and a refiner with an aesthetic score that takes over the base's latents.

```python
from diffusers import StableDiffusionXLPipeline

pipeline = StableDiffusionXLPipeline.from_pretrained("finetune/model/miniature/base")
pipeline("a red star on a grey background", num_inference_steps=25).images[0].save("star.png")
```

## What it was trained on

Photos of a world that is drawn by a program (`datasets/imagesets/world`): six shapes, eight colours, three grounds, one
thing or two, aspects up to 2.5. No picture or text of anyone's is in it, and no weights of another model. Everything
that is drawn by chance apart from the pictures has seed {seed}.

{photo_sets}

## How it was made

    atelier miniature build

{stages}

Written on {date} from the kit at commit {commit}; trained with {trained_on}.
The weights ship as fp16: base sha256 `{base_hash}`, refiner sha256 `{refiner_hash}`.

## What it does

Measured by `atelier miniature check` ({machine}; {versions}); with pictures and plots in `docs/miniature.md`.
{verdict}

{table}

## What it cannot

- Anything outside its world: it knows six shapes and a few dozen words, and makes something of these of every prompt.
- Sizes far from 64 pixels. Heights and widths are multiples of 16; its VAE's factor is 4, not SDXL's 8.
- It does not say how good a recipe is for the real SDXL. It shows that a mechanism works and in which direction, not
  how much of it your pictures need.

Licence: Apache-2.0, as the kit.
"""


@dataclass(frozen=True)
class StageFacts:
    """What one stage's run says of itself.

    Attributes:
        stage: which.
        num_steps: optimizer steps that were taken.
        num_samples: pictures that they saw.
        loss: the mean over the last steps.
        seconds: that it ran, breaks of an interrupted run left out.
        trained_on: device, threads and versions.
    """

    stage: Stage
    num_steps: int
    num_samples: int
    loss: float
    seconds: float
    trained_on: str


def write_card(build_folder: Path, rows: Sequence[Row], output: Path) -> Path:
    """Write the card beside the models.

    Args:
        build_folder: of `atelier miniature build`, with the stages' runs.
        rows: what was measured.
        output: the folder of `base` and `refiner`.

    Raises:
        AtelierError: a stage's run is not there.
    """
    facts = [stage_facts(build_folder, stage) for stage in STAGES]
    text = _CARD.format(
        photo_sets="\n".join(_photo_set_lines()),
        seed=SEED,
        stages="\n".join(_stage_lines(facts)),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        commit=commit(),
        trained_on="; ".join(sorted({fact.trained_on for fact in facts})),
        base_hash=weights_hash(output / "base"),
        refiner_hash=weights_hash(output / "refiner"),
        machine=machine(),
        versions=versions(("torch", "diffusers", "transformers", "peft")),
        verdict=verdict(rows),
        table="\n".join(table_lines(rows)),
    )
    path = output / NAME
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def stage_facts(build_folder: Path, stage: Stage) -> StageFacts:
    """Read a stage's run.

    Raises:
        AtelierError: there is none, or it has not finished.
    """
    run = RunFolder(build_folder / "runs" / stage.name)
    events, _ = read_events(run.events)
    started = [event for event in events if event["kind"] == "run_started"]
    finished = [int(event["step"]) for event in events if event.get("status") == "finished"]
    if not finished:
        raise AtelierError(f"{run.path} holds no finished run of {stage.name}. Make it: atelier miniature build")
    # A run that was interrupted went back to a checkpoint: of a step that was taken twice the second counts, and none
    # beyond the last.
    taken = {int(event["step"]): event for event in events if event["kind"] == "step"}
    steps = [taken[step] for step in range(1, finished[-1] + 1)]
    environment = started[0]["environment"]
    return StageFacts(
        stage=stage,
        num_steps=len(steps),
        num_samples=sum(int(event["samples"]) for event in steps),
        loss=mean(float(event["loss"]) for event in steps[-_LAST_STEPS:]),
        seconds=_seconds_at_work(events),
        trained_on=(
            f"torch {environment['torch']}, diffusers {environment['diffusers']}, {environment['device']}, "
            f"{environment['processes']} processes of {environment['threads']} threads"
        ),
    )


def _seconds_at_work(events: Sequence[Event]) -> float:
    """Return the time between events, together, without the gaps in which a run lay still."""
    gaps = [float(event["time"]) - float(before["time"]) for before, event in pairwise(events)]
    return sum(gap for gap in gaps if gap < _BREAK_SECONDS)


def _photo_set_lines() -> list[str]:
    """Return a table of the sets of pictures."""
    lines = ["| pictures | number | seed | shorter side, pixels | for |", "|---|---:|---:|---:|---|"]
    for photos in PHOTO_SETS:
        low, high = photos.shorter_sides
        lines.append(
            f"| {photos.name} | {photos.num_photos} | {photos.seed} | {low:g} to {high:g} | {photos.purpose} |"
        )
    purpose = "things in stripes and checks, for the decoder and the refiner"
    return [*lines, f"| {PATTERNS} | {NUM_PATTERNS} | {PATTERNS_SEED} | 64 | {purpose} |"]


def _stage_lines(facts: Sequence[StageFacts]) -> list[str]:
    """Return a table of the stages."""
    lines = ["| stage | recipe | steps | pictures seen | last loss | minutes |", "|---|---|---:|---:|---:|---:|"]
    for fact in facts:
        purpose = load_recipe(fact.stage.recipe).purpose
        lines.append(
            f"| {purpose} | `recipes/{fact.stage.recipe}.yaml` | {fact.num_steps} | {fact.num_samples} "
            f"| {fact.loss:.4f} | {fact.seconds / 60:.0f} |"
        )
    return lines
