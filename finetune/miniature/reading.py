"""Teach the miniature's two text encoders to read the world's captions.

SDXL takes its encoders, already taught, from CLIP and OpenCLIP, and never trains them. The miniature's are taught here
in CLIP's place, once, before anything else: whatever a caption says must be found by a plain linear reader in the
states that the U-Net will be given (the penultimate layers' and the pooled embedding), and what two captions of one
scene say must read alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.model.text import TextStack, tokenize
from imagesets.randomness import key_to_seed
from imagesets.world.captions import draw_caption
from imagesets.world.palette import COLOURS, GROUNDS
from imagesets.world.photos import PAIR_SHARE
from imagesets.world.scenes import Scene, draw_scene
from imagesets.world.shapes import SHAPES

UNSAID = "unsaid"
QUESTIONS: dict[str, tuple[str, ...]] = {
    "ground": (*GROUNDS, UNSAID),
    "size": ("small", "large", UNSAID),
    "direction": ("vertical", "horizontal", UNSAID),
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "other shape": (*SHAPES, UNSAID),
    "other colour": (*COLOURS, UNSAID),
}
"""What is asked of a caption, and the answers: 'shape' and 'colour' are the lone thing's, the upper's or the left's."""


def answers(scene: Scene, caption: str) -> dict[str, str]:
    """Return what a caption of a scene says to each question."""
    first, *others = scene.things
    if scene.relation in ("below", "right of"):
        first, others = others[0], [first]
    return {
        "ground": scene.ground if scene.ground in caption else UNSAID,
        "size": scene.size if scene.size is not None and scene.size in caption else UNSAID,
        "direction": UNSAID if not others else "vertical" if scene.relation in ("above", "below") else "horizontal",
        "shape": first.shape,
        "colour": first.colour,
        "other shape": others[0].shape if others else UNSAID,
        "other colour": others[0].colour if others else UNSAID,
    }


class Readers(nn.Module):
    """One linear reader a question and a place in the encoders; they are thrown away once the encoders can be read."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.sizes = [len(choices) for choices in QUESTIONS.values()]
        self.places = nn.ModuleList(nn.Linear(width, sum(self.sizes)) for width in widths)

    def loss(self, states: Sequence[Tensor], wanted: Tensor) -> Tensor:
        """Return the mean cross-entropy of all readers; states: (B, width) each, wanted: (B, questions)."""
        return torch.stack([
            F.cross_entropy(scores, wanted[:, index])
            for place in self._scores(states)
            for index, scores in enumerate(place)
        ]).mean()  # fmt: skip

    @torch.no_grad()
    def share_right(self, states: Sequence[Tensor], wanted: Tensor) -> float:
        """Return the share of right answers over all readers."""
        return float(
            torch.stack([
                (scores.argmax(dim=1) == wanted[:, index]).float().mean()
                for place in self._scores(states)
                for index, scores in enumerate(place)
            ]).mean()
        )  # fmt: skip

    def _scores(self, states: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Return each place's scores for the answers to each question, (B, choices) each."""
        return [place(state).split(self.sizes, dim=1) for place, state in zip(self.places, states, strict=True)]


@dataclass(frozen=True)
class ReadingSettings:
    """How long and how fast the encoders are taught."""

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 30
    rms_weight: float = 0.1


def teach_reading(
    stack: TextStack, settings: ReadingSettings, seed: int, progress: Callable[[int, int, float], None]
) -> float:
    """Train both encoders in place.

    Args:
        stack: encoders in float32 on their device; all their parameters are trained.
        settings: see there.
        seed: of the captions and the readers.
        progress: called with (steps done, steps in all, loss).

    Returns:
        The share of questions the readers answer rightly on captions they were not taught on.
    """
    assert stack.text_encoder is not None, "a base has two encoders"
    encoders = nn.ModuleList([stack.text_encoder, stack.text_encoder_2]).requires_grad_()
    first, second = stack.text_encoder.config.hidden_size, stack.text_encoder_2.config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_to_seed(seed, "readers"))
        readers = Readers([first, first, second, second, stack.text_encoder_2.config.projection_dim]).to(stack.device)
    parameters = [*encoders.parameters(), *readers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _factor(step, settings)
        states, scale, wanted = _read(stack, settings.batch_size, key_to_seed(seed, "captions", step))
        loss = readers.loss(states, wanted)
        optimizer.zero_grad(set_to_none=True)
        (loss + settings.rms_weight * scale).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        progress(step + 1, settings.steps, loss.item())
    encoders.requires_grad_(requires_grad=False)
    with torch.no_grad():
        states, _, wanted = _read(stack, 512, key_to_seed(seed, "held-out captions"))
    return readers.share_right(states, wanted)


def _factor(step: int, settings: ReadingSettings) -> float:
    """Return the share of the learning rate: a linear rise, then a cosine fall to zero."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    share = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return float(0.5 * (1.0 + np.cos(np.pi * share)))


def _read(stack: TextStack, batch_size: int, seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Encode fresh captions.

    Returns:
        The states that are read, (B, width) each; how far their scale is from 1; the right answers, (B, questions).
    """
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng, num_things=2 if rng.random() < PAIR_SHARE else 1) for _ in range(batch_size)]
    captions = [draw_caption(scene, rng) for scene in scenes]
    wanted = torch.tensor([
        [choices.index(answer) for choices, answer in zip(QUESTIONS.values(), answers(*pair).values(), strict=True)]
        for pair in zip(scenes, captions, strict=True)
    ])  # fmt: skip
    assert stack.text_encoder is not None, "a base has two encoders"
    assert stack.tokenizer is not None, "a base has two tokenizers"
    ids = tokenize(stack.tokenizer, captions).to(stack.device)
    ids_2 = tokenize(stack.tokenizer_2, captions).to(stack.device)
    hidden = stack.text_encoder(ids, output_hidden_states=True).hidden_states[-2]  # (B, 77, width)
    output = stack.text_encoder_2(ids_2, output_hidden_states=True)
    hidden_2 = output.hidden_states[-2]
    rows = torch.arange(batch_size, device=stack.device)
    ends = (ids_2 == stack.text_encoder_2.config.eos_token_id).int().argmax(dim=1)
    # Causal attention: what stands after the caption's end has read all of it, and the U-Net is given that, too.
    anywhere = torch.from_numpy(rng.integers(ends.cpu().numpy(), ids.shape[1])).to(stack.device)
    states = [hidden[rows, ends], hidden[rows, anywhere], hidden_2[rows, ends], hidden_2[rows, anywhere]]
    scales = torch.stack([(state.square().mean().sqrt() - 1.0).square() for state in [*states, output.text_embeds]])
    return [*states, output.text_embeds], scales.mean(), wanted.to(stack.device)
