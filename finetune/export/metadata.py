"""The strings in an exported file's header: what readers look for, and how to train it again.

`ss_…` are kohya's keys (sd-scripts, `train_network.py`), read by A1111, Forge and model managers; `sshs_…` its two
hashes; `modelspec.…` Stability's ModelSpec 1.0.1; `atelier_…` ours. All values are strings. A1111 takes a file with
metadata for SD 1 and hides it unless `ss_base_model_version` begins with `sdxl_`.
"""

import base64
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.adapters.weights import AdaptedModule
from finetune.export.summary import NetworkSummary

MetadataLevel = Literal["full", "minimal"]

Size = tuple[int, int]

ORIGINAL_IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"
DIFFUSERS_IMPLEMENTATION = "https://github.com/huggingface/diffusers"
"""ModelSpec's words for whose names the modules have."""

_STALE = ("format", "lora_adapter_metadata", "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256",
          "modelspec.hash")  # fmt: skip
_MINIMAL = frozenset(
    f"modelspec.{name}"
    for name in ("sai_model_spec", "architecture", "implementation", "title", "author", "license", "date",
                 "resolution", "prediction_type")
)  # fmt: skip


@dataclass(frozen=True)
class ExportFacts:
    """What is known about a run, as plain values; None or empty where it is not. Sizes are (height, width).

    Attributes:
        name: the adapter's name, shown by A1111.
        recipe: the resolved recipe as YAML, which can be run again.
        title, author, license: the recipe's words about the adapter.
        trigger: the word that calls the concept up.
        tags: words for a model manager to search by.
        thumbnail: a picture of what it does, as JPEG of at most 256 pixels; None where there is none.
        base_model: the name of the model that was trained on.
        is_refiner: whether that was SDXL's refiner.
        prediction_type: what it predicts.
        resolution: the size of the square that buckets are built around.
        bucket_counts: pictures (with repeats) in each bucket.
        tag_frequency: folder → tag → count.
        folders: folder → (repeats, pictures).
        num_images: pictures with repeats.
        steps, max_steps: optimizer steps done, and planned.
        epoch, num_epochs: epochs begun, and planned.
        micro_batch_size, global_batch_size: samples in a forward pass, and in an optimizer step.
        unet_learning_rate, text_encoder_learning_rates: of the trained parts.
        optimizer, lr_schedule, warmup_steps: by the recipe's names.
        precision: of the computation.
        started_at, finished_at: seconds since 1970.
        version: of this kit.

    """

    name: str
    recipe: str = ""
    title: str = ""
    author: str = ""
    license: str = ""
    trigger: str = ""
    tags: tuple[str, ...] = ()
    thumbnail: bytes | None = None
    base_model: str = ""
    is_refiner: bool = False
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    resolution: Size = (1024, 1024)
    bucket_counts: Mapping[Size, int] = field(default_factory=dict)
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    folders: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    num_images: int | None = None
    steps: int | None = None
    max_steps: int | None = None
    epoch: int | None = None
    num_epochs: int | None = None
    micro_batch_size: int = 1
    global_batch_size: int = 1
    gradient_checkpointing: bool = False
    unet_learning_rate: float | None = None
    text_encoder_learning_rates: tuple[float, ...] = ()
    optimizer: str = ""
    lr_schedule: str = ""
    warmup_steps: int | None = None
    max_grad_norm: float | None = None
    caption_dropout: float | None = None
    max_caption_tokens: int | None = None
    weighted_captions: bool | None = None
    precision: str = ""
    seed: int | None = None
    snr_gamma: float | None = None
    noise_offset: float | None = None
    zero_terminal_snr: bool = False
    started_at: float | None = None
    finished_at: float | None = None
    version: str = ""


def build_metadata(
    facts: ExportFacts, modules: Sequence[AdaptedModule], level: MetadataLevel = "full"
) -> dict[str, str]:
    """Return the header's strings for `modules`, without the hashes, which depend on the file.

    Args:
        facts: what is known about the run.
        modules: what is written; rank, alpha and kind are taken from there, so they agree with the tensors.
        level: 'full', or 'minimal': what readers need to use the file, and nothing about the pictures, the captions,
            the folders or the recipe.
    """
    values: dict[str, Any] = _network(facts, modules) | _modelspec(facts)
    if level == "full":
        values |= _training(facts) | _pictures(facts)
        values |= {"atelier_recipe": facts.recipe or None, "atelier_version": facts.version or None}
        values |= {
            "modelspec.trigger_phrase": facts.trigger or None,
            "modelspec.tags": ", ".join(facts.tags) or None,
            "modelspec.thumbnail": None if facts.thumbnail is None else as_data_url(facts.thumbnail),
        }
    return {key: _text(value) for key, value in values.items() if value is not None}


def carried_metadata(
    source: Mapping[str, str], name: str, *, is_refiner: bool, level: MetadataLevel = "full"
) -> dict[str, str]:
    """Return a file's strings for a copy of it in another format; rank, alpha, kind and hashes are the writer's.

    Args:
        source: the strings of the file it is made from.
        name: what the copy is called.
        is_refiner: which of SDXL's models it is for.
        level: 'full', or 'minimal': what readers need to use it, and nothing about pictures, captions and training.
    """
    carried = {key: value for key, value in source.items() if key not in _STALE}
    if level == "minimal":
        carried = {key: value for key, value in carried.items() if key in _MINIMAL}
    carried["ss_base_model_version"] = base_model_version(is_refiner=is_refiner)
    carried["ss_output_name"] = name
    if "modelspec.sai_model_spec" in carried:
        carried["modelspec.architecture"] = architecture(is_refiner=is_refiner)
    return carried


def as_data_url(jpeg: bytes) -> str:
    """Return a JPEG as ModelSpec has thumbnails."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _network(facts: ExportFacts, modules: Sequence[AdaptedModule]) -> dict[str, Any]:
    """Return what A1111 and kohya's tools need to recognise the file."""
    return {
        "ss_base_model_version": base_model_version(is_refiner=facts.is_refiner),
        "ss_output_name": facts.name,
        **NetworkSummary(modules).metadata(),
    }


def base_model_version(*, is_refiner: bool) -> str:
    """Return kohya's word for the model that a file was made for."""
    return f"sdxl_{'refiner' if is_refiner else 'base'}_v1-0"


def architecture(*, is_refiner: bool) -> str:
    """Return ModelSpec's word for the same."""
    return f"stable-diffusion-xl-v1-{'refiner' if is_refiner else 'base'}/lora"


def _modelspec(facts: ExportFacts) -> dict[str, Any]:
    """Return the ModelSpec fields every level has. A file without title and date is not one of that standard."""
    height, width = facts.resolution
    date = datetime.datetime.fromtimestamp(facts.finished_at, datetime.UTC) if facts.finished_at is not None else None
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture(is_refiner=facts.is_refiner),
        "modelspec.implementation": ORIGINAL_IMPLEMENTATION,
        "modelspec.title": facts.title or facts.name,
        "modelspec.author": facts.author or None,
        "modelspec.license": facts.license or None,
        "modelspec.date": date.isoformat(timespec="seconds") if date else None,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.prediction_type": "v" if facts.prediction_type == "v_prediction" else "epsilon",
    }


def _training(facts: ExportFacts) -> dict[str, Any]:
    """Return kohya's keys about the training itself."""
    rates = facts.text_encoder_learning_rates
    return {
        "ss_sd_model_name": facts.base_model or None,
        "ss_learning_rate": facts.unet_learning_rate
        if facts.unet_learning_rate is not None
        else min(rates, default=None),
        "ss_unet_lr": facts.unet_learning_rate,
        "ss_text_encoder_lr": (rates[0] if len(set(rates)) == 1 else list(rates)) if rates else None,
        "ss_optimizer": facts.optimizer or None,
        "ss_lr_scheduler": facts.lr_schedule or None,
        "ss_lr_warmup_steps": facts.warmup_steps,
        "ss_max_grad_norm": facts.max_grad_norm,
        "ss_steps": facts.steps,
        "ss_max_train_steps": facts.max_steps,
        "ss_epoch": facts.epoch,
        "ss_num_epochs": facts.num_epochs,
        "ss_batch_size_per_device": facts.micro_batch_size,
        "ss_total_batch_size": facts.global_batch_size,
        "ss_gradient_accumulation_steps": max(1, facts.global_batch_size // facts.micro_batch_size),
        "ss_gradient_checkpointing": facts.gradient_checkpointing,
        "ss_mixed_precision": facts.precision or None,
        "ss_seed": facts.seed,
        "ss_min_snr_gamma": facts.snr_gamma,
        "ss_noise_offset": facts.noise_offset,
        "ss_zero_terminal_snr": facts.zero_terminal_snr,
        "ss_caption_dropout_rate": facts.caption_dropout,
        "ss_max_token_length": facts.max_caption_tokens,
        "ss_weighted_captions": facts.weighted_captions,
        "ss_training_started_at": facts.started_at,
        "ss_training_finished_at": facts.finished_at,
    }


def _pictures(facts: ExportFacts) -> dict[str, Any]:
    """Return kohya's keys about the pictures. Its sizes are (width, height)."""
    height, width = facts.resolution
    buckets = {
        str(index): {"resolution": [size[1], size[0]], "count": count}
        for index, (size, count) in enumerate(sorted(facts.bucket_counts.items()))
    }
    folders = {
        name: {"n_repeats": repeats, "img_count": pictures} for name, (repeats, pictures) in facts.folders.items()
    }
    return {
        "ss_num_train_images": facts.num_images,
        "ss_resolution": f"({width}, {height})",
        "ss_enable_bucket": True,
        "ss_bucket_info": {"buckets": buckets} if buckets else None,
        "ss_dataset_dirs": folders or None,
        "ss_tag_frequency": facts.tag_frequency or None,
    }


def _text(value: Any) -> str:
    """Write a value as kohya does: numbers and booleans as Python's, structures as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, (Mapping, list)) else str(value)
