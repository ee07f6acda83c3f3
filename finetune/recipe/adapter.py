"""What is trained: low-rank adapters on the U-Net and the text encoders, those models' own weights, or the VAE.

Putting adapters on is the work of `finetune.adapters`, training of `finetune.training`.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import MinLen
from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from finetune.recipe.base import (
    Count,
    DefaultKind,
    Flag,
    Needs,
    NonEmptyText,
    NumberAboveZero,
    ProbabilityBelowOne,
    Rank,
    Settings,
    before,
)
from finetune.recipe.vae import VaeTraining


def _word_or_patterns(value: Any) -> str:
    return "patterns" if isinstance(value, list | tuple) else "word"


Patterns = Annotated[tuple[NonEmptyText, ...], MinLen(1), Needs("a list of at least one pattern")]
UNetTargets = Annotated[
    Annotated[Literal["attention", "attention+feedforward", "attention+feedforward+convolutions"], Tag("word")]
    | Annotated[Patterns, Tag("patterns")],
    Discriminator(_word_or_patterns),
]
TextTargets = Annotated[
    Annotated[Literal["attention", "attention+feedforward"], Tag("word")] | Annotated[Patterns, Tag("patterns")],
    Discriminator(_word_or_patterns),
]


class UNetLora(Settings):
    """The adapter on the U-Net, which draws the picture."""

    rank: Rank = 16
    """The width of the low-rank update. More can hold more, also the noise of the pictures; the file grows with it."""
    alpha: NumberAboveZero | None = None
    """The update is scaled by alpha / rank; null means equal to rank, a scale of 1."""
    learning_rate: NumberAboveZero = 1e-4
    """The size of the optimizer's steps, at its peak. With `prodigy`, which finds its own, leave it at 1.0."""
    dropout: ProbabilityBelowOne = 0.0
    """How much of the adapter's input is dropped at random while training; a little can help on few pictures."""
    targets: UNetTargets = "attention"
    """Which modules get an adapter: attention (560 in SDXL), attention+feedforward (722), \
attention+feedforward+convolutions (788), or a list of patterns: the end of a module's name ('attn2.to_k') or a glob \
('mid_block.*.to_q')."""
    stop_after_steps: Count | None = None
    """The adapter stays as it is after this many optimizer steps; null trains it to the end."""


class TextLora(Settings):
    """The adapter on a text encoder, which reads the caption."""

    rank: Rank = 8
    """The width of the low-rank update; text encoders need less than the U-Net."""
    alpha: NumberAboveZero | None = None
    """The update is scaled by alpha / rank; null means equal to rank, a scale of 1."""
    learning_rate: NumberAboveZero = 5e-5
    """The size of the optimizer's steps, at its peak; usually half of the U-Net's or less."""
    dropout: ProbabilityBelowOne = 0.0
    """How much of the adapter's input is dropped at random while training."""
    targets: TextTargets = "attention+feedforward"
    """Which modules get an adapter: attention, attention+feedforward (72 in the first encoder, 192 in the second), \
or a list of patterns: the end of a module's name ('q_proj') or a glob."""
    stop_after_steps: Count | None = None
    """The adapter stays as it is after this many optimizer steps; encoders overfit first. null trains it to the end."""


class SmallAdapter(Settings):
    """Which parts of the model get an adapter; the base's own weights never change."""

    shared_by_kinds: ClassVar[frozenset[str]] = frozenset({"unet", "text_encoder", "text_encoder_2"})

    kind: Literal["lora", "loha", "lokr"]
    """The family of adapters."""
    unet: UNetLora | None = UNetLora()
    """The adapter on the U-Net; null leaves the U-Net as it is."""
    text_encoder: TextLora | None = None
    """The adapter on the first text encoder (CLIP ViT-L); null leaves it as it is, which lets its output be cached."""
    text_encoder_2: TextLora | None = None
    """The adapter on the second text encoder (OpenCLIP ViT-bigG); null leaves it as it is."""

    @model_validator(mode="after")
    def _something_is_trained(self) -> Self:
        _require_a_part(self)
        return self


class LoraAdapter(SmallAdapter):
    """A low-rank adapter: the change of a weight is the product of two thin factors."""

    kind: Literal["lora"] = "lora"
    """The family of adapters: low-rank (LoRA, and with the switches below DoRA and rank-stabilised LoRA)."""
    use_dora: Flag = False
    """Learn each weight's magnitude apart from its direction (DoRA, arXiv 2402.09353): slower, often closer."""
    use_rslora: Flag = False
    """Scale by alpha / √rank (rank-stabilised LoRA, arXiv 2312.03732), which keeps high ranks lively."""
    init: Literal["zero", "pissa", "olora"] = "zero"
    """How the factors begin: zero changes nothing; pissa (arXiv 2404.02948) and olora (arXiv 2406.01775) begin as the \
strongest part of each weight, which can learn faster, and are exported as a plain LoRA of twice the rank."""

    @model_validator(mode="after")
    def _dora_begins_at_zero(self) -> "LoraAdapter":
        if self.use_dora and self.init != "zero":
            raise PydanticCustomError(
                "plain", f"init: {self.init} goes with use_dora: false; DoRA's norms are those of the untouched base"
            )
        return self


class LohaAdapter(SmallAdapter):
    """An adapter whose change is the product, number by number, of two low-rank ones: of rank up to rank²."""

    kind: Literal["loha"] = "loha"
    """LoHa (arXiv 2108.06098): more detail than a LoRA of the same size; only the kohya and peft formats hold it."""


class LokrAdapter(SmallAdapter):
    """An adapter whose change is the Kronecker product of a small matrix and a larger, low-rank one."""

    kind: Literal["lokr"] = "lokr"
    """LoKr (arXiv 2309.14859): very small files of full rank; only the kohya and peft formats hold it."""
    factor: Count | None = None
    """How large the small matrix's sides are, where they divide a weight's; null makes both as even as they can be."""


class FullPart(Settings):
    """One model all of whose own weights are trained."""

    learning_rate: NumberAboveZero = 1e-5
    """The size of the optimizer's steps, at its peak; a tenth of a LoRA's or less, for every weight moves."""
    stop_after_steps: Count | None = None
    """The model stays as it is after this many optimizer steps; null trains it to the end."""


class FullTraining(Settings):
    """No adapter: the models' own weights are trained, kept in fp32, and a whole model comes out."""

    kind: Literal["full"] = "full"
    """Train the models' own weights: far more memory than an adapter, and a whole model comes out."""
    unet: FullPart | None = FullPart()
    """The U-Net, which draws the picture; null leaves it as it is."""
    text_encoder: FullPart | None = None
    """The first text encoder (CLIP ViT-L); null leaves it as it is, which lets its output be cached."""
    text_encoder_2: FullPart | None = None
    """The second text encoder (OpenCLIP ViT-bigG); null leaves it as it is."""

    @model_validator(mode="after")
    def _something_is_trained(self) -> "FullTraining":
        _require_a_part(self)
        return self


def _require_a_part(section: SmallAdapter | FullTraining) -> None:
    if section.unet is None and section.text_encoder is None and section.text_encoder_2 is None:
        raise PydanticCustomError("plain", "nothing to train: needs at least one of unet, text_encoder, text_encoder_2")


# A new kind of training joins here from a module of its own, and in `finetune.training.trainer.assemble`.
Adapter = Annotated[
    LoraAdapter | LohaAdapter | LokrAdapter | FullTraining | VaeTraining,
    Field(discriminator="kind"),
    before(DefaultKind("lora")),
    DefaultKind("lora"),
]
"""What is trained: lora, loha, lokr, full or vae."""
