"""Which pictures a request asks for, and in which order they are drawn. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from finetune.drawing.messages import Column, DrawRequest, LoraFile, LoraOfRun

TITLES: dict[Column, str] = {
    "base": "base",
    "base_refined": "base + refiner",
    "lora": "base + LoRA",
    "lora_refined": "base + LoRA + refiner",
}
TRAINED_TITLES: dict[Column, str] = {**TITLES, "base": "trained", "base_refined": "trained + refiner"}


@dataclass(frozen=True)
class Pass:
    """One way of the base from noise to latents, out of which one picture or two are made.

    Attributes:
        loras: those that are used, with the strengths of this cell; empty for the base alone.
        seed: of the noise.
        strength: of the first LoRA, in a grid over strengths.
        lora_step: of the first LoRA's run, in a grid over steps.
        finished: the column its own picture is for, or None where only the refined one is wanted.
        refined: the column of the refined picture, or None.
    """

    loras: tuple[LoraFile | LoraOfRun, ...]
    seed: int
    strength: float | None
    lora_step: int | None
    finished: Column | None
    refined: Column | None

    def title(self, column: Column, *, trained: bool) -> str:
        """Return how a picture was drawn, in words."""
        words = [(TRAINED_TITLES if trained else TITLES)[column]]
        words += [] if self.lora_step is None else [f"step {self.lora_step}"]
        words += [] if self.strength is None else [f"strength {self.strength:g}"]
        return ", ".join(words)


def plan_passes(request: DrawRequest) -> list[Pass]:
    """Return what is drawn, the base alone first, and each set of LoRAs once: changing them takes time."""
    return [*_without_lora(request), *_with_lora(request)]


def _without_lora(request: DrawRequest) -> Iterator[Pass]:
    finished: Column | None = "base" if "base" in request.columns else None
    refined: Column | None = "base_refined" if "base_refined" in request.columns else None
    if finished or refined:
        for seed in request.seeds:
            yield Pass((), seed, None, None, finished, refined)


def _with_lora(request: DrawRequest) -> Iterator[Pass]:
    finished: Column | None = "lora" if "lora" in request.columns else None
    refined: Column | None = "lora_refined" if "lora_refined" in request.columns else None
    if not finished and not refined:
        return
    first, *others = request.loras
    for lora_step in request.lora_steps or (None,):
        for strength in request.strengths or (None,):
            changed: dict[str, float] = {} if lora_step is None else {"step": lora_step}
            changed |= {} if strength is None else {"strength": strength}
            loras = (first.model_copy(update=changed), *others)
            for seed in request.seeds:
                yield Pass(loras, seed, strength, lora_step, finished, refined)
