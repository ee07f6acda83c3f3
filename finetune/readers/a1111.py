"""AUTOMATIC1111's stable-diffusion-webui.

Read in extensions-builtin/Lora of 1.10: networks.py (`convert_diffusers_name_to_compvis`, `load_network`,
`network_apply_weights`), network.py (`NetworkOnDisk.detect_version`, `apply_weight_decompose`), network_lora.py,
network_hada.py, network_lokr.py, network_full.py, network_norm.py, ui_extra_networks_lora.py (`create_item`).

A key is split at its first dot, so dotted names never match; they are named at debug level only. The rest must be a
module of the model as the original classes name it, with underscores, after a few replacements: diffusers' blocks by
arithmetic, `lora_te1_text_model` for the transformers encoder, `lora_te2_text_model_encoder_layers` for the layers of
OpenCLIP's. There the attention is one module with joint weights: it is changed only if all of q, k, v and out are in
the file. The upsampler of diffusers' first up block is looked for at the place it has in SD 1, so it is not found.

Keys that begin with `bundle_emb.` are loaded as embeddings.

DoRA: magnitudes are divided by norms of columns, whichever axis they belong to. A file whose strings lack an
`ss_base_model_version` beginning with `sdxl_` is taken for one of SD 1 and not shown for SDXL; one without any strings
is shown.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from finetune.naming.components import Component
from finetune.readers.contents import Contents, Entry
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.parts import LOHA_SUFFIXES, LOKR_SUFFIXES
from finetune.readers.reading import (
    RIGHT,
    Limit,
    Reading,
    Rules,
    Tally,
    Verdict,
    dora_by_first_size,
    gap_of_refiner,
    scale_by_alpha,
    tally_by_name,
)

_SUFFIXES = frozenset(
    [".lora_up.weight", ".lora_down.weight", ".lora_mid.weight", ".lora_A.weight", ".lora_B.weight", ".alpha"]
    + [".scale", ".dora_scale", ".diff", ".diff_b", ".w_norm", ".b_norm", ".oft_blocks", ".oft_diag", ".on_input"]
    + [*LOHA_SUFFIXES, *LOKR_SUFFIXES]
    + [f".{part}.weight" for part in ("a1", "a2", "b1", "b2")]
)

DORA = Limit(
    "DoRA",
    "it divides DoRA's magnitudes by the norms of columns, so those of rows act wrong",
    "atelier lora fuse, or a plain LoRA",
)
JOINT_ATTENTION = Limit(
    "encoder 2's attention",
    "it changes the attention of encoder 2 only where all of q, k, v and out are in the file",
    "train all four, or use another program",
)
_UPSAMPLER = Limit(
    "upsampler under diffusers' name",
    "it looks for the upsampler of diffusers' first up block where SD 1 has it",
    "atelier lora convert FILE --to kohya",
)
_OUTSIDE = Limit(
    "encoder 2's projection",
    "it knows no name for the projection behind encoder 2",
    "train without it, or use another program",
)

_ATTENTION = re.compile(r"(.*\.self_attn)\.(?:q|k|v|out)_proj")


def read_as_a1111(contents: Contents) -> Reading:
    """Read a file as AUTOMATIC1111's web UI does."""
    table = a1111_names(contents.names)
    rules = Rules(
        reader="a1111",
        title="A1111",
        names=table,
        suffixes=_SUFFIXES,
        kinds=frozenset(("lora", "loha", "lokr", "glora", "oft", "ia3", "full", "norm")),
        unknown="it says so at debug level only",
        gap=lambda entry: _gap(entry, table, contents),
    )
    tally = tally_by_name(contents, rules, lambda entry: scale_by_alpha(entry, contents))
    _leave_halves_of_attention(tally)
    for entry in contents.entries:
        if entry.stem in rules.names and entry.misfit.startswith("one half"):
            tally.refuse(f"{entry.stem}: {entry.misfit}: an error ends the loading")
    if any(key.startswith("bundle_emb.") for key in contents.others):
        tally.left = [left for left in tally.left if not left.key.startswith("bundle_emb.")]
        tally.notes.append("the embeddings bundled with it are loaded, too")
    tally.dora = dora_by_first_size(tally, DORA)
    tally.version = version_by_strings(contents)
    return tally.finish()


@lru_cache(maxsize=8)
def a1111_names(names: ModelNames) -> Mapping[str, Module]:
    """Return the stems A1111 knows for a model, and the modules they are."""
    known: dict[str, Module] = {}
    places = set(names.original)
    for original, path in (*names.original.items(), *names.norms.items()):
        known[f"lora_unet_{underscored(original)}"] = ("unet", path)
    for path in names.unet_paths:
        place = _place_of_diffusers_name(path)
        if place in places and names.original[place] == path:
            known[f"lora_unet_{underscored(path)}"] = ("unet", path)
    # Numbers of encoders are those of the base's embedders; the refiner's one is none of them.
    prefixes: dict[Component, str] = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
    for component, prefix in prefixes.items() if names.structure.text_encoder is not None else ():
        for path in names.text_paths(component):
            known[prefix + underscored(path)] = (component, path)
    return known


def version_by_strings(contents: Contents) -> Verdict:
    """Judge which version A1111 takes a file for, by its strings."""
    metadata = contents.file.metadata
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return RIGHT
    if not metadata:
        return Verdict("right", "without any strings it is of unknown version, and shown with every model")
    taken = "SD 2" if metadata.get("ss_v2") == "True" else "SD 1"
    given = metadata.get("ss_base_model_version")
    told = f"ss_base_model_version is {given!r:.40}" if given else "ss_base_model_version is not there"
    return Verdict("wrong", f"{told}, so it takes the file for one of {taken} and hides it from the list for SDXL")


def _place_of_diffusers_name(path: str) -> str | None:
    """Return where A1111 looks for a module under diffusers' name, in the original layout; None if nowhere."""
    if path == "conv_in":
        return "input_blocks.0.0"
    if path == "conv_out":
        return "out.2"
    match = re.fullmatch(r"time_embedding\.linear_(\d)", path)
    if match:
        return f"time_embed.{int(match[1]) * 2 - 2}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(attentions|resnets)\.(\d+)\.(.+)", path)
    if match:
        index = 3 * int(match[2]) + int(match[4]) + (1 if match[1] == "down" else 0)
        blocks = "input_blocks" if match[1] == "down" else "output_blocks"
        return f"{blocks}.{index}.{1 if match[3] == 'attentions' else 0}.{_RESNET.get(match[5], match[5])}"
    match = re.fullmatch(r"mid_block\.(attentions|resnets)\.(\d)\.(.+)", path)
    if match:
        part = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{part}.{_RESNET.get(match[3], match[3])}"
    match = re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", path)
    if match:
        return f"input_blocks.{3 * int(match[1]) + 3}.0.op"
    match = re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", path)
    if match:
        return f"output_blocks.{3 * int(match[1]) + 2}.{2 if int(match[1]) else 1}.conv"
    return None


_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def _gap(entry: Entry, table: Mapping[str, Module], contents: Contents) -> Limit | None:
    """Return which known gap of A1111's table a module falls into, if it does."""
    if entry.stem in table:
        return None
    if entry.stem == "lora_te2_text_projection":
        return _OUTSIDE
    if entry.stem.startswith("lora_unet_up_blocks_") and entry.stem.endswith("_upsamplers_0_conv"):
        return _UPSAMPLER if entry.module is not None else None
    return gap_of_refiner(entry, contents)


def _leave_halves_of_attention(tally: Tally) -> None:
    """Leave what belongs to an attention of encoder 2 of which not every part is there."""
    groups: dict[str, list[tuple[Entry, Module]]] = {}
    for entry, module in tally.taken:
        match = _ATTENTION.fullmatch(module[1]) if module[0] == "text_encoder_2" else None
        if match:
            groups.setdefault(match[1], []).append((entry, module))
    for group in groups.values():
        if len(group) == 4:
            continue
        tally.limit(JOINT_ATTENTION)
        for taken in group:
            tally.taken.remove(taken)
            tally.leave(taken[0].keys.values(), JOINT_ATTENTION.text, is_limit=True)
