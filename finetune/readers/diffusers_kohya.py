"""How diffusers reads a file of kohya's; where that was read is told in `finetune.readers.diffusers`."""

import re
from collections import Counter
from collections.abc import Mapping

from finetune.naming.components import Component
from finetune.readers.contents import Contents, Entry
from finetune.readers.diffusers_shared import (
    DORA,
    KIND,
    NO_MODULE,
    WITHOUT_TEXT_MODEL,
    leave_without_out,
    refuse_lost_components,
)
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.reading import RIGHT, Limit, Reading, Tally, Verdict

KOHYA_PREFIXES = ("lora_te_", "lora_unet_", "lora_te1_", "lora_te2_")


_ALPHAS = Limit(
    "alphas that differ",
    "it gives every attention of a kohya file the most frequent alpha; those of another act too strong or too weak",
    "atelier lora convert FILE --to diffusers",
)


_MANY_BLOCKS = Limit(
    "a model with more than ten blocks",
    "it takes the block after the ninth for block 1, and fails at it",
    "atelier lora convert FILE --to diffusers",
)


_UPSAMPLER = Limit(
    "upsampler without attention",
    "it knows an upsampler only behind an attention",
    "atelier lora convert FILE --to diffusers",
)


_ADD_EMBEDDING = Limit(
    "size embedding under diffusers' name",
    "it loses the number of `add_embedding.linear_1` in kohya's spelling",
    "atelier lora convert FILE --to diffusers",
)


_RESNET = {
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}


_OUTER = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding.linear_1",
    "time_embed_2": "time_embedding.linear_2",
    "label_emb_0_0": "add_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2",
}


_SGM = re.compile(r"(input_blocks|output_blocks)_(\d+)_(\d+)_(.+)")


_MIDDLE = re.compile(r"middle_block_(\d+)_(.+)")


def read_kohya(contents: Contents) -> Reading:
    """Read a file of which every key begins with one of kohya's prefixes."""
    tally = Tally("diffusers", "diffusers", contents)
    names, file = contents.names, contents.file
    stems = {entry.stem for entry in contents.entries}
    has_original = any(_is_original(stem) for stem in stems)
    has_new = any(name in stem for stem in stems for name in ("down_blocks", "mid_block", "up_blocks"))
    paths = {underscored(path): path for path in names.unet_paths}
    encoders: dict[Module, str] = {(named, underscored(path)): path for named, path in names.shapes if named != "unet"}
    by_alpha: dict[Component, dict[str, tuple[Entry, Module]]] = {}
    for entry in contents.entries:
        keys = tuple(entry.keys.values())
        if has_original and has_new and _is_original(entry.stem):
            tally.leave(keys, "names of the original layout are dropped where diffusers' stand beside them")
            continue
        if entry.kind in ("lora", "empty") and "down" not in entry.keys:
            tally.refuse(f"{keys[0]}: nothing asks for it, and what is left over raises")
        elif entry.kind != "lora" or "mid" in entry.keys:
            tally.limit(KIND)
            tally.refuse(KIND.text)
            tally.leave(keys, KIND.text, is_limit=True)
            continue
        elif "up" not in entry.keys:
            tally.refuse(f"{entry.stem}: has no lora_up: a KeyError ends the loading")
        strange = [key for part, key in entry.keys.items() if part not in ("down", "up", "alpha", "dora_scale")]
        if strange:
            tally.refuse(f"{strange[0]}: it knows no such part, and what is left over raises")
        module, reason, limit = _module_of_kohya(entry.stem, names, paths, encoders)
        if module is None:
            if limit is not None:
                tally.limit(limit)
            tally.leave(keys, reason, is_limit=limit is not None)
            continue
        if entry.misfit:
            tally.leave(keys, entry.misfit)
            continue
        by_alpha.setdefault(module[0], {})[entry.stem] = (entry, module)
    for component, modules in by_alpha.items():
        _take_kohya(tally, component, modules)
        if component != "unet":
            leave_without_out(tally, component)
    refuse_lost_components(tally)
    for key in contents.others:
        tally.refuse(f"{key}: nothing asks for it, and what is left over raises")
    if _has_far_block(stems):
        tally.limit(_MANY_BLOCKS)
        tally.refuse(_MANY_BLOCKS.text)
    if "lora_adapter_metadata" in file.metadata and file.numbers:
        tally.refuse("has both alphas and lora_adapter_metadata, which it takes for a contradiction")
    if any("dora_scale" in entry.keys for entry in contents.entries):
        tally.limit(DORA)
        tally.dora = Verdict("limit", DORA.text)
        left = [entry.keys["dora_scale"] for entry in contents.entries if "dora_scale" in entry.keys]
        tally.leave(left, DORA.text, is_limit=True)
    tally.version = RIGHT
    return tally.finish()


def diffusers_path(stem: str, names: ModelNames) -> str | None:
    """Return the path diffusers makes of a U-Net's stem in a kohya file, `lora_unet_…`; None where it makes none.

    The path need not be that of a module.
    """
    name = stem.removeprefix("lora_unet_")
    if name in _OUTER:
        return _OUTER[name]
    step = names.structure.unet.layers[0] + 1
    match = _SGM.fullmatch(name)
    if match:
        index, part, rest = int(match[2]), int(match[3]), match[4]
        if match[1] == "input_blocks":
            block, layer = divmod(index - 1, step)
            if rest == "op":
                return f"down_blocks.{block}.downsamplers.0.conv"
            return _inside(f"down_blocks.{block}", part, layer, rest)
        block, layer = divmod(index, step)
        return _inside(f"up_blocks.{block}", part, layer if part < 2 else 0, rest)
    match = _MIDDLE.fullmatch(name)
    if match:
        part = int(match[1])
        return _inside("mid_block", 1 if part == 1 else 0, part // 2 if part != 1 else 0, match[2])
    return next((path for path in names.unet_paths if underscored(path) == name), None)


def _inside(block: str, part: int, layer: int, rest: str) -> str | None:
    if part > 2:
        return None
    kind = ("resnets", "attentions", "upsamplers")[part]
    inner = _RESNET.get(rest)
    if inner is None:
        inner = re.sub(r"^transformer_blocks_(\d+)_", r"transformer_blocks.\1.", rest)
        inner = re.sub(r"\b(attn[12])_(to_\w)", r"\1.\2", inner).replace("to_out_0", "to_out.0")
        inner = inner.replace("ff_net_0_proj", "ff.net.0.proj").replace("ff_net_2", "ff.net.2")
    return f"{block}.{kind}.{layer}.{inner}"


def _module_of_kohya(
    stem: str,
    names: ModelNames,
    paths: Mapping[str, str],
    encoders: Mapping[Module, str],
) -> tuple[Module | None, str, Limit | None]:
    """Return the module diffusers finds for a stem, or why it finds none, and whether that is a limit of its own."""
    if stem.startswith("lora_unet_"):
        name = stem.removeprefix("lora_unet_")
        path = paths.get(name) if name in paths else diffusers_path(stem, names)
        if name.startswith("add_embedding"):
            return None, _ADD_EMBEDDING.text, _ADD_EMBEDDING
        if path is not None and ("unet", path) in names.shapes:
            return ("unet", path), "", None
        if name.startswith("output_blocks_") and name.endswith("_1_conv"):
            return None, _UPSAMPLER.text, _UPSAMPLER
        return None, NO_MODULE, None
    number = "2" if stem.startswith("lora_te2_") else "1"
    component: Component = "text_encoder_2" if number == "2" else "text_encoder"
    name = stem.removeprefix(f"lora_te{number}_").removeprefix("lora_te_")
    if (component, name) in encoders:
        return (component, encoders[component, name]), "", None
    if (component, f"text_model_{name}") in encoders:
        return None, WITHOUT_TEXT_MODEL, None
    return None, NO_MODULE, None


def _take_kohya(tally: Tally, component: Component, modules: Mapping[str, tuple[Entry, Module]]) -> None:
    """Take one component's modules, each with the alpha that diffusers comes to (`get_peft_kwargs`)."""
    numbers = tally.contents.file.numbers
    alphas = {stem: numbers[entry.keys["alpha"]] for stem, (entry, _) in modules.items() if "alpha" in entry.keys}
    ranks = Counter(entry.rank for entry, _ in modules.values())
    most = Counter(alphas.values()).most_common(1)[0][0] if alphas else None
    for stem, (entry, module) in modules.items():
        rank = entry.rank or 1
        if most is None:
            alpha = float(rank) if len(ranks) > 1 else float(ranks.most_common(1)[0][0] or 1)
        elif alphas.get(stem, most) != most and _pattern_fits(component, module[1]):
            alpha = alphas[stem]
        else:
            alpha = most
        tally.take(entry, module, alpha / rank)
    if tally.scale.state == "wrong":
        tally.limit(_ALPHAS)
        tally.scale = Verdict("limit", tally.scale.detail)


def _pattern_fits(component: Component, path: str) -> bool:
    """Whether the pattern that diffusers writes for a module's own alpha fits the module."""
    if component == "unet":
        return not path.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    # Encoders: patterns end at the attention, not at its projections; since transformers 5.6 they keep `text_model.`,
    # which encoder 1 has no more.
    return component == "text_encoder_2" and path.endswith(("fc1", "fc2"))


def _is_original(stem: str) -> bool:
    return any(name in stem for name in ("input_blocks", "middle_block", "output_blocks"))


def _has_far_block(stems: set[str]) -> bool:
    """Whether a block's number begins another one's that is there: 1 and 10."""
    for blocks in ("input_blocks", "output_blocks"):
        found = {int(match[1]) for stem in stems if (match := re.match(rf"lora_unet_{blocks}_(\d+)_", stem))}
        found.discard(0) if blocks == "input_blocks" else None
        if any(str(other).startswith(str(one)) and other != one for one in found for other in found):
            return True
    return False
