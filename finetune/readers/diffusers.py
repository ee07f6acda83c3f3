"""diffusers' `load_lora_weights` for SDXL, and the peft behind it.

Read in diffusers 0.42.1: loaders/lora_pipeline.py (`StableDiffusionXLLoraLoaderMixin`), loaders/lora_base.py
(`_load_lora_into_text_encoder`), loaders/peft.py (`load_lora_adapter`), loaders/lora_conversion_utils.py
(`_maybe_map_sgm_blocks_to_diffusers`, `_convert_non_diffusers_lora_to_diffusers`), utils/state_dict_utils.py,
utils/peft_utils.py (`get_peft_kwargs`).

Two ways. If every key begins with `lora_te_`, `lora_te1_`, `lora_te2_` or `lora_unet_`, the file is one of kohya's: its
names are translated, `dora_scale` is left out, and anything that is then left over raises, as does an `up` that is
missing. Else keys are taken as they are, by component, and each must have `lora` in it; what is no module's is a
warning.

The scale of a kohya file: the most frequent alpha stands for all, others as patterns. The patterns of attentions are
written with names that fit no module (`….attn1.processor.to_q_lora.down.weight`, and for the encoders the name of the
whole attention), so an alpha that differs from the most frequent one is not seen there. In its own format the scale
comes from `lora_adapter_metadata` in the header; without it alpha is taken to be the rank. A file of kohya's with such
metadata raises.

An encoder's kind of names is told by its attentions' `out_proj` or its feed-forward parts: without either it raises,
and without `out_proj` q, k and v are left. A component of which no key is a module's raises.

transformers 5.6 and later have dropped `text_model.` from encoder 1's names. diffusers takes it off where needed, so
names with it load everywhere; names without it only there.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from finetune.naming.components import COMPONENTS, Component
from finetune.readers.contents import Contents, Entry, adapter_settings, pattern_value
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.reading import ABSENT, RIGHT, Limit, Reading, Tally, Verdict

KOHYA_PREFIXES = ("lora_te_", "lora_unet_", "lora_te1_", "lora_te2_")

DORA = Limit(
    "DoRA",
    "it leaves `dora_scale` out of kohya's files, so plain LoRA is applied",
    "atelier lora convert FILE --to diffusers",
)
_KIND = Limit(
    "kind",
    "it reads only LoRA of two factors here, and refuses this file",
    "atelier lora convert FILE --to diffusers --as-lora RANK",
)
_NO_OUT = Limit(
    "encoders without out_proj",
    "it tells old names of an encoder by its out_proj or its feed-forward parts; without out_proj it leaves q, k and v",
    "atelier lora convert FILE --to diffusers",
)
_NO_ATTENTION = Limit(
    "an encoder without attention",
    "without any attention of an encoder it cannot tell the kind of its names, and an error ends the loading",
    "atelier lora convert FILE --to kohya",
)
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
_NEW_SUFFIXES = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")
_UNET_SUFFIXES = (*_NEW_SUFFIXES, ".lora.down.weight", ".lora.up.weight", "_lora.down.weight", "_lora.up.weight")
_TEXT_SUFFIXES = (*_UNET_SUFFIXES, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")


def read_as_diffusers(contents: Contents) -> Reading:
    """Read a file as diffusers does."""
    keys = [key for key in contents.file.shapes if "dora_scale" not in key]
    if keys and all(key.startswith(KOHYA_PREFIXES) for key in keys):
        return _read_kohya(contents)
    return _read_own(contents)


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


def _read_kohya(contents: Contents) -> Reading:
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
        elif entry.kind != "lora":
            tally.limit(_KIND)
            tally.refuse(_KIND.text)
            tally.leave(keys, _KIND.text, is_limit=True)
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
            _leave_without_out(tally, component)
    _refuse_lost_components(tally)
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
        return None, _NO_MODULE, None
    number = "2" if stem.startswith("lora_te2_") else "1"
    component: Component = "text_encoder_2" if number == "2" else "text_encoder"
    name = stem.removeprefix(f"lora_te{number}_").removeprefix("lora_te_")
    if (component, name) in encoders:
        return (component, encoders[component, name]), "", None
    if (component, f"text_model_{name}") in encoders:
        return None, _WITHOUT_TEXT_MODEL, None
    return None, _NO_MODULE, None


_NO_MODULE = "no module of that name; a warning says so, or an error where the component has no other"
_WITHOUT_TEXT_MODEL = (
    "lacks `text_model.`: only transformers 5.6 and later have such names; with older ones it is no module's, and an "
    "encoder without any raises"
)


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


def _leave_without_out(tally: Tally, component: Component) -> None:
    """Leave what diffusers leaves of an encoder under names of before peft, by which it tells the kind of names."""
    own = [(entry, module) for entry, module in tally.taken if module[0] == component]
    if any(module[1].endswith("out_proj") for _, module in own):
        return
    has_feed_forward = any(module[1].endswith(("fc1", "fc2")) for _, module in own)
    tally.limit(_NO_OUT)
    if not has_feed_forward:
        tally.refuse(f"{own[0][0].stem}: {_NO_OUT.text}: an error ends the loading")
    for taken in own:
        if not (has_feed_forward and taken[1][1].endswith(("fc1", "fc2", "text_projection"))):
            tally.taken.remove(taken)
            tally.leave(taken[0].keys.values(), _NO_OUT.text, is_limit=True)


def _refuse_lost_components(tally: Tally) -> None:
    """Refuse a file of which a component has keys, but none that is a module's: peft raises there."""
    taken = {module[0] for _, module in tally.taken}
    lost = [left for left in tally.left if left.reason == _NO_MODULE]
    for component in COMPONENTS:
        stems = [entry.stem for entry in tally.contents.entries if entry.component == component]
        keys = [left.key for left in lost if left.key.startswith(tuple(stems))] if stems else []
        if keys and component not in taken:
            tally.refuse(f"{keys[0]}: no key of {component} is a module's: an error ends the loading")


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


def _read_own(contents: Contents) -> Reading:
    """Read a file whose keys are taken as they are."""
    tally = Tally("diffusers", "diffusers", contents)
    settings = _settings(tally, contents)
    strange = [key for key in contents.file.shapes if "lora" not in key and "dora_scale" not in key]
    if strange:
        tally.refuse(f"{strange[0]}: every key must have `lora` in it")
    found: dict[Component, int] = {}
    for entry in contents.entries:
        keys = tuple(key for part, key in entry.keys.items() if part != "dora_scale")
        component: Component | None = next((name for name in COMPONENTS if entry.stem.startswith(f"{name}.")), None)
        if component is None:
            tally.leave(keys, "begins with none of unet., text_encoder., text_encoder_2.: nothing asks for it")
            continue
        found[component] = found.get(component, 0) + 1
        if entry.kind != "lora":
            tally.limit(_KIND)
            tally.leave(keys, _KIND.text, is_limit=True)
            continue
        _take_own(tally, entry, component, settings.get(component))
    for key in contents.others:
        tally.leave([key], "no part of a LoRA; a warning says so")
    if not found and contents.entries:
        tally.refuse("no key begins with unet., text_encoder. or text_encoder_2.: it loads nothing, with a warning")
    for named in found:
        if named != "unet":
            _judge_text(tally, named)
    _refuse_lost_components(tally)
    dora = [entry for entry in contents.entries if entry.is_dora]
    if any("dora_scale" in entry.keys for entry in dora):
        tally.limit(DORA)
        tally.dora = Verdict("limit", DORA.text)
    elif dora:
        tally.dora = _judge_magnitudes(tally)
    tally.version = RIGHT
    return tally.finish()


def _settings(tally: Tally, contents: Contents) -> Mapping[Component, Mapping[str, Any]]:
    text = contents.file.metadata.get("lora_adapter_metadata")
    if text is None:
        if contents.entries:
            tally.notes.append(
                "without lora_adapter_metadata in the header it takes alpha to be the rank of each module"
            )
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        tally.refuse("its lora_adapter_metadata is not JSON")
        return {}
    if not isinstance(given, dict):
        tally.refuse("its lora_adapter_metadata is no JSON object")
        return {}
    return adapter_settings(contents.file)


def _take_own(tally: Tally, entry: Entry, component: Component, config: Mapping[str, Any] | None) -> None:
    keys = tuple(entry.keys.values())
    path = entry.stem.removeprefix(f"{component}.").replace(".processor.", ".")
    suffixes = _UNET_SUFFIXES if component == "unet" else _TEXT_SUFFIXES
    unknown = [key for key in keys if key.removeprefix(entry.stem) not in suffixes and "dora_scale" not in key]
    if unknown and any(entry.keys.get(part) in unknown for part in ("down", "up")):
        tally.leave(keys, f"it knows no '{unknown[0].removeprefix(entry.stem)}'; a warning says so")
        return
    if any(key.removeprefix(entry.stem).startswith("_lora.") for key in keys):
        path = _old_path(path, component)
    module: Module = (component, path)
    if module not in tally.contents.names.shapes:
        if (component, f"text_model.{path}") in tally.contents.names.shapes:
            tally.leave(keys, _WITHOUT_TEXT_MODEL)
        else:
            tally.leave(keys, _NO_MODULE)
        return
    if entry.misfit:
        tally.leave(keys, entry.misfit)
        return
    tally.leave(unknown, "it knows no such part; a warning says so")
    rank = entry.rank or 1
    if config is None:
        tally.take(entry, module, 1.0)
        return
    given = pattern_value(config.get("rank_pattern"), path, config.get("r"))
    if given is not None and given != rank:
        tally.refuse(
            f"{entry.stem}: of rank {rank}, but lora_adapter_metadata says {given:g}: an error ends the loading"
        )
    alpha = pattern_value(config.get("alpha_pattern"), path, config.get("lora_alpha"))
    alpha = float(rank) if alpha is None else alpha
    tally.take(entry, module, alpha / rank**0.5 if config.get("use_rslora") is True else alpha / rank)


def _old_path(path: str, component: Component) -> str:
    """Return the path of a module under the names of before peft: `to_out` for `to_out.0`, `to_q` for `q_proj`."""
    if component == "unet":
        return f"{path}.0" if path.endswith("to_out") else path
    head, _, last = path.rpartition(".")
    return f"{head}.{last.removeprefix('to_')}_proj" if last.startswith("to_") else path


def _judge_text(tally: Tally, component: Component) -> None:
    """Judge whether diffusers can tell the kind of an encoder's names (`convert_state_dict_to_diffusers`)."""
    own = [(entry, module) for entry, module in tally.taken if module[0] == component]
    keys = [key for entry, _ in own for key in entry.keys.values()]
    if not keys or any("to_out_lora" in key for key in keys):
        return
    if any(".lora_A.weight" in key for key in keys):
        # They become names of between first, which only attentions have.
        if not any("self_attn" in key for key in keys):
            tally.limit(_NO_ATTENTION)
            tally.refuse(f"{keys[0]}: {_NO_ATTENTION.text}")
    elif any(".to_" in key for key in keys) or not any("lora_linear_layer" in key for key in keys):
        _leave_without_out(tally, component)


def _judge_magnitudes(tally: Tally) -> Verdict:
    verdict = ABSENT
    for entry, module in tally.taken:
        key = entry.keys.get("magnitude")
        if key is None:
            continue
        if module[0] != "unet" and not key.endswith(".weight"):
            detail = f"{key}: transformers finds only names that end in .weight, and draws these magnitudes anew"
            return Verdict("wrong", detail)
        verdict = RIGHT
    return verdict
