"""InvokeAI.

Read in the wheel invokeai 6.14.2 (PyPI): backend/model_manager/configs/lora.py (`LoRA_LyCORIS_Config_Base`,
`_state_dict_looks_like_sdxl_unet_lora`), model_manager/util/model_util.py (`lora_token_vector_length`),
model_manager/load/model_loaders/lora.py, patches/lora_conversions/sdxl_lora_conversion_utils.py
(`convert_sdxl_keys_to_diffusers_format`), sd_lora_conversion_utils.py, patches/layers/ and patches/layer_patcher.py.

What a file is for is told by its shapes, not by its strings: the inputs of the first `attn2_to_k` or `attn2_to_v` that
is met (2048 for SDXL), or of both encoders' attentions together, or block numbers that only SDXL has. Every key must
begin with `lora_unet_`, `lora_te1_` or `lora_te2_`, else the file is refused; keys that begin with `bundle_emb` are
taken off before. The original layout is translated by a fixed table, that of SDXL's base: a file of which only a part
is in it is refused. A module it has translated and does not find is a line in its log.

DoRA: `dora_scale` is taken for one of columns, whichever axis it belongs to.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from finetune.naming.structure import SDXL_BASE
from finetune.readers.adapter_file import Shape
from finetune.readers.contents import Contents
from finetune.readers.names import ModelNames, Module, underscored, walk_unet
from finetune.readers.parts import LOHA_SUFFIXES, LOKR_SUFFIXES
from finetune.readers.reading import (
    RIGHT,
    Limit,
    Reading,
    Rules,
    Tally,
    Verdict,
    is_of_rows,
    scale_by_alpha,
    tally_by_name,
)

_PREFIXES = ("lora_unet_", "lora_te1_", "lora_te2_")

_SUFFIXES = frozenset(
    [
        ".lora_up.weight",
        ".lora_down.weight",
        ".lora_mid.weight",
        ".alpha",
        ".dora_scale",
        ".diff",
        ".diff_b",
        ".w_norm",
        ".b_norm",
        ".on_input",
        ".bias_indices",
        ".bias_values",
        ".bias_size",
        *LOHA_SUFFIXES,
        *LOKR_SUFFIXES,
    ]
)

# What the kind of an adapter is told by (`any_lora_layer_from_state_dict`).
_TELLING = (".dora_scale", ".lora_up.weight", ".hada_w1_a", ".lokr_w1", ".lokr_w1_a", ".diff", ".on_input", ".w_norm")

DORA = Limit(
    "DoRA",
    "it takes DoRA's magnitudes for those of columns, so those of rows act wrong",
    "atelier lora fuse, or a plain LoRA",
)
_DORA_OF_OTHERS = Limit("DoRA", "it applies DoRA to plain LoRA only", "atelier lora fuse")
_UNSUPPORTED = Limit("kind", "it knows neither OFT nor GLoRA", "use another program")
_ENCODERS_ALONE = Limit(
    "what the file is for",
    "it tells SDXL by shapes of cross-attention, of both encoders together, or by a deep block; this file has none",
    "train the U-Net's cross-attention too, or use another program",
)
_ANOTHER_MODEL = Limit("another model than SDXL's base", "its table of names is that of the base", "use ComfyUI")

_DEEP = re.compile(
    r"lora_unet_(?:(?:down_blocks|up_blocks)_\d+_attentions_\d+|mid_block_attentions_\d+"
    r"|(?:input_blocks|output_blocks)_\d+_\d+|middle_block_\d+)_transformer_blocks_(\d+)_"
)


def read_as_invokeai(contents: Contents) -> Reading:
    """Read a file as InvokeAI does."""
    names = contents.names
    if names.structure.unet != SDXL_BASE.unet:
        return _read_for_another_model(contents)
    rules = Rules(
        reader="invokeai",
        title="InvokeAI",
        names=invokeai_names(names),
        suffixes=_SUFFIXES,
        kinds=frozenset(("lora", "loha", "lokr", "full", "norm", "ia3")),
        unknown="a line in its log says so",
        limits={"oft": _UNSUPPORTED, "glora": _UNSUPPORTED},
    )
    tally = tally_by_name(contents, rules, lambda entry: scale_by_alpha(entry, contents))
    _refuse_by_names(tally, contents)
    for entry in contents.entries:
        if not entry.stem.startswith(_PREFIXES):
            continue
        if entry.misfit.startswith("one half"):
            tally.refuse(f"{entry.stem}: {entry.misfit}: an error ends the loading")
        if not any(key.removeprefix(entry.stem) in _TELLING for key in entry.keys.values()):
            tally.refuse(f"{entry.stem}: holds nothing it knows a kind of adapter by: an error ends the loading")
        if entry.kind in rules.limits:
            tally.refuse(_UNSUPPORTED.text)
    for key in contents.others:
        if not key.startswith("bundle_emb"):
            tally.refuse(f"{key}: is no part of a LoRA: an error ends the loading")
    tally.dora = _dora(tally)
    tally.version = _version(tally, contents)
    return tally.finish()


def _read_for_another_model(contents: Contents) -> Reading:
    tally = Tally("invokeai", "InvokeAI", contents)
    tally.limit(_ANOTHER_MODEL)
    tally.refuse(_ANOTHER_MODEL.text)
    tally.leave(contents.file.shapes, _ANOTHER_MODEL.text, is_limit=True)
    return tally.finish()


@lru_cache(maxsize=8)
def invokeai_names(names: ModelNames) -> Mapping[str, Module]:
    """Return the stems InvokeAI knows for a model, and the modules they are."""
    paths = set(names.unet_paths)
    known: dict[str, Module] = {f"lora_unet_{underscored(path)}": ("unet", path) for path in paths}
    for original, path in names.norms.items():
        known |= dict.fromkeys((f"lora_unet_{underscored(name)}" for name in (original, path)), ("unet", path))
    for original, path in walk_unet(SDXL_BASE.unet):
        if path in paths:
            known[f"lora_unet_{underscored(original)}"] = ("unet", path)
    for component, prefix in (("text_encoder", "lora_te1_"), ("text_encoder_2", "lora_te2_")):
        for named, path in names.shapes:
            if named == component:
                known[prefix + underscored(path)] = (named, path)
    return known


def width_of_text(contents: Contents) -> int | None:
    """Return the width by which InvokeAI tells what a file is for; None where it finds none.

    Keys are gone through in their order in the file, and each one of an encoder's attentions replaces what the one
    before told, be it nothing: so the two encoders alone are told by hardly any file.
    """
    shapes = contents.file.shapes
    first = second = None
    for key in shapes:
        stem, _, part = key.partition(".")
        if stem.startswith("lora_unet_"):
            is_telling = stem.endswith(("_attn2_to_k", "_attn2_to_v")) or key.endswith("time_emb_proj.lora_down.weight")
            width = _width(shapes, stem, part) if is_telling else None
        elif stem.startswith("lora_te") and "_self_attn_" in key:
            told = _width(shapes, stem, part)
            first = told if stem.startswith("lora_te1_") else first
            second = told if stem.startswith("lora_te2_") else second
            width = told if stem.startswith("lora_te_") else None
            if first is not None and second is not None:
                width = first + second
        else:
            width = None
        if width is not None:
            return width
    return None


def _width(shapes: Mapping[str, Shape], stem: str, part: str) -> int | None:
    """Return the inputs that one tensor tells of (`_get_shape_1`): of LoKr only where both factors are whole."""
    if part in ("lora_down.weight", "hada_w1_b", "hada_w2_b", "diff"):
        shape = shapes[f"{stem}.{part}"]
        return shape[1] if len(shape) > 1 else None
    if "lokr_" in part:
        first, second = (shapes.get(f"{stem}.{factor}", ()) for factor in ("lokr_w1", "lokr_w2"))
        return first[1] * second[1] if len(first) > 1 and len(second) > 1 else None
    return None


def _version(tally: Tally, contents: Contents) -> Verdict:
    width = width_of_text(contents)
    if width in (2048, 1280):
        return RIGHT
    if width is not None:
        other = {768: "SD 1", 1024: "SD 2"}.get(width, "no model it knows")
        tally.refuse(f"by the width {width} of its text it takes the file for one of {other}")
        return Verdict("wrong", f"takes it for one of {other}")
    if any(int(match[1]) >= 2 for match in map(_DEEP.match, contents.file.shapes) if match):
        return RIGHT
    if all(key.startswith(_PREFIXES) for entry in contents.entries for key in entry.keys.values()):
        tally.limit(_ENCODERS_ALONE)
        tally.refuse(_ENCODERS_ALONE.text)
        return Verdict("limit", _ENCODERS_ALONE.text)
    return Verdict("wrong", _ENCODERS_ALONE.text)


def _refuse_by_names(tally: Tally, contents: Contents) -> None:
    foreign = [key for key in contents.file.shapes if not key.startswith((*_PREFIXES, "bundle_emb"))]
    if foreign:
        tally.refuse(f"{foreign[0]}: begins with none of {', '.join(_PREFIXES)}, and every key must")
    table = (*(name for name, _ in walk_unet(SDXL_BASE.unet)), *contents.names.norms)
    original = {f"lora_unet_{underscored(name)}" for name in table}
    stems = [entry.stem for entry in contents.entries if entry.stem.startswith("lora_unet_")]
    strange = [stem for stem in stems if stem not in original]
    if strange and len(strange) < len(stems):
        tally.refuse(f"{strange[0]}: is not in its table, but other names are, and then all must")


def _dora(tally: Tally) -> Verdict:
    contents = tally.contents
    verdict = Verdict("absent")
    for entry, module in tally.taken:
        if "dora_scale" not in entry.keys:
            continue
        if entry.kind != "lora":
            tally.limit(_DORA_OF_OTHERS)
            tally.refuse(f"{entry.stem}: {_DORA_OF_OTHERS.text}")
            return Verdict("limit", _DORA_OF_OTHERS.text)
        if is_of_rows(contents, entry, module):
            tally.limit(DORA)
            return Verdict("limit", DORA.text)
        verdict = RIGHT
    return verdict
