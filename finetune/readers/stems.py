"""The names of modules in files, in every dialect: which module a stem is, of which model, and whose way of writing."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from finetune.naming.components import Component
from finetune.readers.names import ModelNames, Module, underscored

Dialect = Literal[
    "kohya", "kohya, diffusers' names", "diffusers", "old diffusers", "peft", "original", "mixed", "unknown"
]


_PREFIXES: tuple[tuple[str, Component], ...] = (
    ("lora_unet_", "unet"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "text_encoder"),
    ("lycoris_", "unet"),
    ("unet.", "unet"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder.", "text_encoder"),
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("unet/", "unet"),
    ("text_encoder_2/", "text_encoder_2"),
    ("text_encoder/", "text_encoder"),
    ("down_blocks.", "unet"),
    ("mid_block.", "unet"),
    ("up_blocks.", "unet"),
)


_PEFT = "base_model.model."


@lru_cache(maxsize=8)
def every_stem(names: ModelNames) -> Mapping[str, Module]:
    """Return every stem that any dialect has for each module."""
    found: dict[str, Module] = {}
    paths = {path: original for original, path in names.original.items()}
    for path in names.unet_paths:
        module: Module = ("unet", path)
        stems = [f"lora_unet_{underscored(path)}", f"lycoris_{underscored(path)}", f"unet/{_PEFT}{path}", path]
        stems += [f"unet.{path}", f"unet.{_PEFT}{path}", f"{_PEFT}{path}", f"unet/{path}"]
        if ".to_" in path:
            old = path.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
            stems += [old, f"unet.{old}"]
        if path in paths:
            stems += [f"lora_unet_{underscored(paths[path])}", f"diffusion_model.{paths[path]}"]
        found |= dict.fromkeys(stems, module)
    numbers: Mapping[Component, str] = {"text_encoder": "1", "text_encoder_2": "2"}
    clip = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
    for component, number in numbers.items():
        own = [path for named, path in names.shapes if named == component]
        for path in own:
            module = (component, path)
            short = path.removeprefix("text_model.")
            stems = [f"text_encoders.{clip[component]}.transformer.{path}"]
            for name in (path, short):
                stems += [f"lora_te{number}_{underscored(name)}", f"{component}.{name}"]
                stems += [f"{component}/{_PEFT}{name}", f"{component}.{_PEFT}{name}", f"{component}/{name}"]
                if "self_attn" in name:
                    old = name.replace("_proj", "").replace("self_attn.", "self_attn.to_")
                    stems.append(f"{component}.{old}")
                if component == "text_encoder" or names.structure.text_encoder is None:
                    stems.append(f"lora_te_{underscored(name)}")
                if names.structure.text_encoder is None:
                    stems.append(f"text_encoder.{name}")
            found |= dict.fromkeys(stems, module)
    return found


def component_of(stem: str) -> Component | None:
    """Return the model that a stem's beginning names; None where it names none."""
    for prefix, component in _PREFIXES:
        if stem.startswith(prefix):
            return component
    if stem.startswith(_PEFT):
        return "unet" if "blocks" in stem or "block." in stem else None
    return None


def dialect_of(stem: str, keys: Mapping[str, str]) -> Dialect:
    """Return whose way of writing a stem and its keys are."""
    if _PEFT in stem or "/" in stem:
        return "peft"
    if stem.startswith(("lora_unet_", "lycoris_")):
        is_new = any(name in stem for name in ("down_blocks_", "up_blocks_", "mid_block_"))
        return "kohya, diffusers' names" if is_new else "kohya"
    if stem.startswith(("lora_te1_", "lora_te2_", "lora_te_")):
        return "kohya"
    if stem.startswith(("diffusion_model.", "text_encoders.")):
        return "original"
    if any("lora_A" in key or "lora_B" in key for key in keys.values()):
        return "diffusers"
    if stem.startswith(("unet.", "text_encoder.", "text_encoder_2.", "down_blocks.", "up_blocks.", "mid_block.")):
        return "old diffusers"
    return "unknown"


def has_original_blocks(stem: str) -> bool:
    """Whether a stem of kohya's names a block as the original layout has it."""
    return stem.startswith(("lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_"))
