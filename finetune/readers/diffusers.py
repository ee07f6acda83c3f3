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
from collections.abc import Mapping
from typing import Any

from finetune.naming.components import COMPONENTS, Component
from finetune.readers.contents import Contents, Entry, adapter_settings, pattern_value
from finetune.readers.diffusers_kohya import KOHYA_PREFIXES, read_kohya
from finetune.readers.diffusers_shared import (
    DORA,
    KIND,
    NO_MODULE,
    WITHOUT_TEXT_MODEL,
    leave_without_out,
    refuse_lost_components,
)
from finetune.readers.names import Module
from finetune.readers.reading import ABSENT, RIGHT, Limit, Reading, Tally, Verdict

_NO_ATTENTION = Limit(
    "an encoder without attention",
    "without any attention of an encoder it cannot tell the kind of its names, and an error ends the loading",
    "atelier lora convert FILE --to kohya",
)


_NEW_SUFFIXES = (".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")


_UNET_SUFFIXES = (*_NEW_SUFFIXES, ".lora.down.weight", ".lora.up.weight", "_lora.down.weight", "_lora.up.weight")


_TEXT_SUFFIXES = (*_UNET_SUFFIXES, ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")


def read_as_diffusers(contents: Contents) -> Reading:
    """Read a file as diffusers does."""
    keys = [key for key in contents.file.shapes if "dora_scale" not in key]
    if keys and all(key.startswith(KOHYA_PREFIXES) for key in keys):
        return read_kohya(contents)
    return _read_own(contents)


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
            tally.limit(KIND)
            tally.leave(keys, KIND.text, is_limit=True)
            continue
        _take_own(tally, entry, component, settings.get(component))
    for key in contents.others:
        tally.leave([key], "no part of a LoRA; a warning says so")
    if not found and contents.entries:
        tally.refuse("no key begins with unet., text_encoder. or text_encoder_2.: it loads nothing, with a warning")
    for named in found:
        if named != "unet":
            _judge_text(tally, named)
    refuse_lost_components(tally)
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
            tally.leave(keys, WITHOUT_TEXT_MODEL)
        else:
            tally.leave(keys, NO_MODULE)
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
        leave_without_out(tally, component)


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
