"""How it is trained: how long, how precisely, towards what. The loop itself is `finetune.training`."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from finetune.recipe.base import (
    Betas,
    Count,
    CountOrZero,
    DefaultKind,
    Flag,
    FractionInside,
    LineOfText,
    Number,
    NumberAboveZero,
    NumberOrZero,
    Probability,
    Settings,
    Steps,
    Timestep,
    before,
)


class UniformTimesteps(Settings):
    """Every timestep of a range equally often, as SDXL was trained."""

    kind: Literal["uniform"] = "uniform"
    """Draw each timestep of a range equally often."""
    min: Timestep = 0
    """The first timestep drawn; 0 is almost no noise."""
    max: Timestep = 999
    """The last timestep drawn; 999 is almost only noise. A refiner was trained on 0 to 199."""

    @field_validator("max")
    @classmethod
    def _range_is_not_empty(cls, last: int, info: ValidationInfo) -> int:
        first = info.data.get("min")
        if first is not None and last <= first:
            raise PydanticCustomError("plain", f"got {last}, needs more than min ({first})")
        return last


class LogitNormalTimesteps(Settings):
    """Timesteps from a logit-normal distribution: most of them around the middle."""

    kind: Literal["logit_normal"] = "logit_normal"
    """Draw timesteps mostly around one place."""
    mean: Number = 0.0
    """Where most are drawn: 0 is the middle, below it less noise, above it more."""
    std: NumberAboveZero = 1.0
    """How far they spread around it."""


Timesteps = Annotated[
    UniformTimesteps | LogitNormalTimesteps,
    Field(discriminator="kind"),
    before(DefaultKind("uniform")),
    DefaultKind("uniform"),
]
"""How timesteps are drawn: uniform or logit_normal."""


class Objective(Settings):
    """What the model is asked to predict and how the loss is weighted."""

    prediction_type: Literal["auto", "epsilon", "v_prediction"] = "auto"
    """What the model predicts: the noise (epsilon), or v (v_prediction). auto follows the model's own scheduler."""
    snr_gamma: NumberAboveZero | None = None
    """Weight the loss by min-SNR-gamma (arXiv 2303.09556), which evens out easy and hard timesteps; 5 is the paper's \
value, null weights all alike."""
    noise_offset: NumberOrZero = 0.0
    """How much of one random value per channel is added to the noise, so that very dark and bright pictures can be \
learned; SDXL itself used 0.05."""
    zero_terminal_snr: Flag = False
    """Rescale the noise schedule so that its last timestep is pure noise (arXiv 2305.08891); only for v_prediction."""
    timesteps: Timesteps = UniformTimesteps()
    """How the timesteps of the training steps are drawn."""


class _AdamFamily(Settings):
    """What the Adam optimizers share; not chosen by itself."""

    betas: Betas = (0.9, 0.999)
    """How slowly the running means of the gradient and of its square forget."""
    eps: NumberAboveZero = 1e-8
    """A small number that keeps a division from blowing up."""
    weight_decay: NumberOrZero = 0.01
    """How strongly the trained weights are pulled towards zero, apart from the gradient."""


class AutoOptimizer(_AdamFamily):
    """AdamW in the form that suits the machine: adamw8bit on CUDA, adamw elsewhere."""

    kind: Literal["auto"] = "auto"
    """Take adamw8bit on CUDA and adamw elsewhere."""


class AdamWOptimizer(_AdamFamily):
    """torch's fused AdamW, with state in 32 bits."""

    kind: Literal["adamw"] = "adamw"
    """Take torch's AdamW."""


class AdamW8bitOptimizer(_AdamFamily):
    """bitsandbytes' AdamW with state in 8 bits: a quarter of the state's memory."""

    kind: Literal["adamw8bit"] = "adamw8bit"
    """Take AdamW with 8-bit state."""


class PagedAdamW8bitOptimizer(_AdamFamily):
    """The 8-bit AdamW whose state moves to the machine's memory when the card is full."""

    kind: Literal["paged_adamw8bit"] = "paged_adamw8bit"
    """Take AdamW with 8-bit state that can leave the card."""


class AdafactorOptimizer(Settings):
    """Adafactor with the learning rate of the recipe (no relative steps): almost no state."""

    kind: Literal["adafactor"] = "adafactor"
    """Take Adafactor."""
    weight_decay: NumberOrZero = 0.0
    """How strongly the trained weights are pulled towards zero, apart from the gradient."""


class ProdigyOptimizer(Settings):
    """Prodigy (arXiv 2306.06101) finds the step size itself; learning rates are then factors: leave them at 1.0."""

    kind: Literal["prodigy"] = "prodigy"
    """Take Prodigy."""
    betas: Betas = (0.9, 0.999)
    """How slowly the running means of the gradient and of its square forget."""
    weight_decay: NumberOrZero = 0.01
    """How strongly the trained weights are pulled towards zero, apart from the gradient."""
    d_coef: NumberAboveZero = 1.0
    """A factor on the step size it finds: below 1 more careful, above 1 bolder."""
    use_bias_correction: Flag = True
    """Correct the running means for their start at zero, as Adam does; its authors advise it for diffusion models."""
    safeguard_warmup: Flag = True
    """Keep a warm-up from inflating the step size it finds."""


Optimizer = Annotated[
    AutoOptimizer
    | AdamWOptimizer
    | AdamW8bitOptimizer
    | PagedAdamW8bitOptimizer
    | AdafactorOptimizer
    | ProdigyOptimizer,
    Field(discriminator="kind"),
    before(DefaultKind("auto")),
    DefaultKind("auto"),
]
"""What turns gradients into steps: auto, adamw, adamw8bit, paged_adamw8bit, adafactor or prodigy."""


class ConstantSchedule(Settings):
    """The same learning rate to the end."""

    kind: Literal["constant"] = "constant"
    """Keep the learning rate to the end."""
    warmup_steps: CountOrZero = 0
    """Optimizer steps over which the learning rate rises from zero."""


class LinearSchedule(Settings):
    """A learning rate that falls in a straight line to zero at the last step."""

    kind: Literal["linear"] = "linear"
    """Let the learning rate fall in a straight line to zero."""
    warmup_steps: CountOrZero = 0
    """Optimizer steps over which the learning rate rises from zero."""


class CosineSchedule(Settings):
    """A learning rate that falls along half a cosine."""

    kind: Literal["cosine"] = "cosine"
    """Let the learning rate fall along half a cosine."""
    warmup_steps: CountOrZero = 0
    """Optimizer steps over which the learning rate rises from zero."""
    final_factor: Probability = 0.0
    """What share of the learning rate is left at the last step."""


LrSchedule = Annotated[
    ConstantSchedule | LinearSchedule | CosineSchedule,
    Field(discriminator="kind"),
    before(DefaultKind("constant")),
    DefaultKind("constant"),
]
"""How the learning rate changes over the optimizer's steps: constant, linear or cosine."""


class WeightAveraging(Settings):
    """A slow average of what is trained (EMA): smoother than the last step's weights, drawn with and exported."""

    decay: FractionInside = 0.9999
    """How much of the average each step leaves, at most: 0.9999 averages over about 10,000 steps. In early steps less \
is left, min(decay, (1 + step) / (10 + step)), so that the average follows."""


class PriorPreservation(Settings):
    """Prior preservation without pictures: the base, its adapter switched off, says what is to stay as it was."""

    weight: NumberAboveZero = 1.0
    """What the distance from the base counts beside the loss; both are weighted alike over the timesteps."""
    class_word: LineOfText = ""
    """What a source's trigger is replaced by in the captions the base is asked with: what the trigger is one of, as \
`dog`. Empty takes the trigger out; a caption without one stays as it is."""


class Training(Settings):
    """How long and how it is trained."""

    steps: Steps = 1000
    """How many optimizer steps are taken; each sees global_batch_size pictures."""
    micro_batch_size: Count = 1
    """How many pictures are in memory at once on each device."""
    global_batch_size: Annotated[Count, Field(validate_default=True)] = 1
    """How many pictures one optimizer step sees, over all devices; a multiple of micro_batch_size. The gradient is \
accumulated as often as that needs."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """The number format of the frozen model and the arithmetic; what is trained is always kept in fp32. fp16 is for \
cards without bf16."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where it is trained; auto takes CUDA, else Apple's MPS, else the CPU."""
    gradient_checkpointing: Flag = True
    """Compute parts of the forward pass twice rather than keep them: much less memory for more time."""
    max_grad_norm: NumberAboveZero | None = 1.0
    """Longer gradients are shortened to this norm; null leaves them."""
    caption_dropout: Probability = 0.1
    """How often a caption is replaced by an empty one, so that classifier-free guidance keeps working."""
    max_caption_tokens: Literal[75, 150, 225] = 225
    """How many tokens of a caption or prompt are read, in chunks of 75, which an encoder takes at once; the rest is \
cut off."""
    weighted_captions: Flag = False
    """Whether brackets in captions and prompts are weights: `(word)` is 1.1, `(word:1.3)` 1.3, `[word]` 1/1.1, and \
`\\(` a bracket. Leave it off where tags hold brackets of their own."""
    cache_latents: Literal["auto", "always", "never"] = "auto"
    """Whether the VAE's output is computed once, before the first step, and kept as `cache` says; auto: when there is \
room for it."""
    objective: Objective = Objective()
    """What the model is asked to predict and how the loss is weighted."""
    optimizer: Optimizer = AutoOptimizer()
    """What turns gradients into steps."""
    lr_schedule: LrSchedule = ConstantSchedule()
    """How the learning rate changes over the steps."""
    prior_preservation: PriorPreservation | None = None
    """Hold the adapter near the base where its trigger is not asked for, so that a class does not turn into the one \
that is learned. A step takes more than twice as long; null leaves it out. Only with `adapter.kind: lora`."""
    ema: WeightAveraging | None = None
    """Keep an exponential moving average of what is trained; previews and exports are made with it. It takes as much \
memory as the trained weights; null keeps none."""

    @field_validator("global_batch_size")
    @classmethod
    def _accumulation_is_whole(cls, size: int, info: ValidationInfo) -> int:
        micro = info.data.get("micro_batch_size")
        if micro is not None and size % micro != 0:
            raise PydanticCustomError("plain", f"got {size}, needs a multiple of micro_batch_size ({micro})")
        return size
