"""ComfyUI.

Read in Comfy-Org/ComfyUI at commit ec93dca (2026): comfy/lora.py (`load_lora`, `model_lora_keys_unet`,
`model_lora_keys_clip`), comfy/utils.py (`unet_to_diffusers`), comfy/weight_adapter/ (`lora`, `loha`, `lokr`, and
`weight_decompose` in `base`).

A table maps every name it knows to a weight of the model: `lora_unet_` and the original layout with underscores,
`diffusion_model.` and the original layout with dots, `lora_unet_` and diffusers' names with underscores, and diffusers'
names as of before peft, where `processor.` stands before `to_q` and `to_out.0` is `to_out`. Today's
`unet.….attn1.to_q` is not in it, but `unet.….proj_in` is: such a file is taken in part. An unknown key is a line in the
log. A model with one encoder, the refiner, has it under the names of the first one.

The scale is alpha / rank, 1 without alpha. DoRA: which axis magnitudes belong to is told by their first size; those of
outputs are divided by the norm of W, where training divides by that of W + ΔW. An `up` without its `down` raises a
KeyError.
"""

from collections.abc import Mapping
from functools import lru_cache

from finetune.readers.contents import Contents
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.parts import LOHA_SUFFIXES, LOKR_SUFFIXES
from finetune.readers.reading import (
    RIGHT,
    Limit,
    Reading,
    Rules,
    Tally,
    dora_by_first_size,
    gap_of_refiner,
    scale_by_alpha,
    tally_by_name,
)

_FACTORS = frozenset(
    f"{before}{half}{after}"
    for before, halves, after in (
        (".lora_", ("up", "down", "mid"), ".weight"),
        ("_lora.", ("up", "down"), ".weight"),
        (".lora_", ("A", "B"), ".weight"),
        (".lora.", ("up", "down"), ".weight"),
        (".lora_linear_layer.", ("up", "down"), ".weight"),
    )
    for half in halves
)
_LYCORIS = frozenset([*LOHA_SUFFIXES, *LOKR_SUFFIXES] + [f".{part}.weight" for part in ("a1", "a2", "b1", "b2")])
SUFFIXES = _FACTORS | _LYCORIS | {".alpha", ".dora_scale", ".diff", ".diff_b", ".w_norm", ".b_norm"}
"""The ends of keys that Forge knows too."""
_COMFYUI = frozenset(
    [
        *(".set_weight", ".reshape_weight", ".oft_blocks", ".rescale"),
        *(".lora_A", ".lora_B", ".lora_A.default.weight", ".lora_B.default.weight"),
    ]
)

DORA = Limit(
    "DoRA",
    "it divides DoRA's magnitudes by the norm of W instead of that of W + ΔW, so each row comes out wrong by the ratio "
    "of the two",
    "atelier lora fuse, or the diffusers format for programs that use it",
)


def read_as_comfyui(contents: Contents) -> Reading:
    """Read a file as ComfyUI does."""
    rules = Rules(
        reader="comfyui",
        title="ComfyUI",
        names={**comfyui_names(contents.names), **_generic_names(contents.names)},
        suffixes=SUFFIXES | _COMFYUI,
        kinds=frozenset(("lora", "loha", "lokr", "glora", "oft", "full", "norm")),
        unknown="a line in its log says so",
        gap=lambda entry: gap_of_refiner(entry, contents),
    )
    tally = tally_by_name(contents, rules, lambda entry: scale_by_alpha(entry, contents))
    refuse_halves(tally, rules)
    tally.version = RIGHT
    tally.dora = dora_by_first_size(tally, DORA)
    return tally.finish()


@lru_cache(maxsize=8)
def comfyui_names(names: ModelNames) -> Mapping[str, Module]:
    """Return the stems that ComfyUI, and Forge after it, know for a model, and the modules they are."""
    known: dict[str, Module] = {}
    for original, path in (*names.original.items(), *names.norms.items()):
        module: Module = ("unet", path)
        known[f"lora_unet_{underscored(original)}"] = module
        known[f"diffusion_model.{original}"] = module
        known[f"lora_unet_{underscored(path)}"] = module
        old = path.replace(".to_", ".processor.to_")
        old = old.removesuffix(".0") if old.endswith(".to_out.0") else old
        known[old] = known[f"unet.{old}"] = module
    # A model with one encoder (the refiner) has it under the first one's names.
    has_first = names.structure.text_encoder is not None
    for path in names.text_paths("text_encoder"):
        for stem in (f"lora_te_{underscored(path)}", f"lora_te1_{underscored(path)}", f"text_encoder.{path}"):
            known[stem] = ("text_encoder", path)
    for path in names.text_paths("text_encoder_2"):
        first = (f"lora_te_{underscored(path)}", f"text_encoder.{path}", f"lora_prior_te_{underscored(path)}")
        second = (f"lora_te2_{underscored(path)}", f"text_encoder_2.{path}")
        known |= dict.fromkeys(second if has_first else first, ("text_encoder_2", path))
    if ("text_encoder_2", "text_projection") in names.shapes:
        known["lora_te2_text_projection"] = ("text_encoder_2", "text_projection")
    return known


def _generic_names(names: ModelNames) -> dict[str, Module]:
    """Return what ComfyUI knows beyond Forge."""
    known: dict[str, Module] = {f"lycoris_{underscored(path)}": ("unet", path) for path in names.original.values()}
    for component, place in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")):
        for named, path in names.shapes:
            if named == component:
                known[f"text_encoders.{place}.transformer.{path}"] = (named, path)
    return known


def refuse_halves(tally: Tally, rules: Rules) -> None:
    """Refuse a file with an `up` that has no `down`."""
    for entry in tally.contents.entries:
        if "up" in entry.keys and "down" not in entry.keys and entry.stem in rules.names:
            tally.refuse(f"{entry.stem}: has no counterpart to {entry.keys['up']}: a KeyError ends the loading")
