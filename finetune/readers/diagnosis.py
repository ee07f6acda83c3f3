"""What is broken or awkward about a file, in plain words: its name, what happens in which reader, what to do.

The rules of the readers say what each makes of a file; here what is behind it is told: which program or slip writes
such files. Each finding is a small function over a proof.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetune.readers.contents import Entry, adapter_settings
from finetune.readers.proof import Proof

Severity = Literal["broken", "awkward", "note"]


@dataclass(frozen=True)
class Finding:
    """Something about a file that its reader or its owner should know.

    Attributes:
        name: a short name, `bundled-embedding`.
        severity: broken (some of it acts nowhere it should, or wrong); awkward (right in some programs only); note.
        what: what it is and what happens in which reader.
        remedy: what to do.
        keys: some of the keys it is about.
        num_keys: how many it is about.
    """

    name: str
    severity: Severity
    what: str
    remedy: str
    keys: tuple[str, ...] = ()
    num_keys: int = 0

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "name": self.name,
            "severity": self.severity,
            "what": self.what,
            "remedy": self.remedy,
            "keys": list(self.keys),
            "num_keys": self.num_keys,
        }


def diagnose(proof: Proof) -> tuple[Finding, ...]:
    """Return what there is to say about a file, the worst first."""
    found = [finding for look in _LOOKS if (finding := look(proof)) is not None]
    order: Mapping[Severity, int] = {"broken": 0, "awkward": 1, "note": 2}
    return tuple(sorted(found, key=lambda finding: order[finding.severity]))


_TO_KOHYA = "atelier lora convert FILE --to kohya"
_TO_DIFFUSERS = "atelier lora convert FILE --to diffusers"
_MAX_SHOWN = 3
_KINDS: Mapping[str, str] = {
    "loha": "LoHa",
    "lokr": "LoKr",
    "full": "whole differences",
    "norm": "norms",
    "glora": "GLoRA",
    "oft": "OFT",
    "ia3": "IA3",
}

# Names that models other than SDXL have. The first one that fits decides.
_OTHER_MODELS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("Flux", re.compile(r"double_blocks|single_blocks|single_transformer_blocks|lora_transformer_")),
    ("SD 3", re.compile(r"joint_blocks|joint_transformer|lora_te3_")),
    ("Stable Cascade", re.compile(r"lora_prior_")),
    (
        "a video or another transformer model",
        re.compile(
            r"^(?:transformer\.|diffusion_model\.(?!input|middle|output|out|time|label)|lora_unet_(?:blocks|layers)_)"
        ),
    ),
)

_CROSS_ATTENTION = re.compile(r"attn2[._](?:processor[._])?to_[kv]$")
_OLDER_MODELS = {768: "SD 1", 1024: "SD 2"}


def _finding(name: str, severity: Severity, what: str, remedy: str, keys: Iterable[str] = ()) -> Finding:
    every = sorted(keys)
    return Finding(name, severity, what, remedy, tuple(every[:_MAX_SHOWN]), len(every))


def _another_model(proof: Proof) -> Finding | None:
    names = proof.file.shapes
    for model, pattern in _OTHER_MODELS:
        keys = [key for key in names if pattern.search(key)]
        if keys:
            what = f"its names are those of {model}. No program that runs SDXL can apply it"
            return _finding("another-model", "broken", what, "use it with the model it was trained on", keys)
    wide = proof.contents.names.structure.unet.text_width
    for entry in proof.contents.entries:
        width = _inputs(proof, entry)
        other = _OLDER_MODELS.get(width or 0)
        if _CROSS_ATTENTION.search(entry.stem) and other is not None and width != wide:
            keys = [key for each in proof.contents.entries if each.misfit.startswith("made for") for key in _keys(each)]
            what = f"its text is {width} wide, as that of {other}; SDXL's is {wide}. Programs refuse it or fail at it"
            return _finding("another-model", "broken", what, f"use it with {other}", keys)
    return None


def _inputs(proof: Proof, entry: Entry) -> int | None:
    """Return the inputs of the weight a module's factors are for; None for kinds that do not tell."""
    for part in ("down", "hada_w1_b", "diff"):
        shape = proof.file.shapes.get(entry.keys.get(part, ""), ())
        if len(shape) > 1:
            return shape[1]
    return None


def _shapes(proof: Proof) -> Finding | None:
    if _another_model(proof) is not None:
        return None
    entries = [entry for entry in proof.contents.entries if entry.misfit.startswith(("made for", "the factors"))]
    if not entries:
        return None
    what = f"{len(entries)} modules have shapes that do not fit: {entries[0].stem}: {entries[0].misfit}"
    remedy = "it is damaged, or for another model; get it again from where it came"
    return _finding("shapes", "broken", what, remedy, _all_keys(entries))


def _no_text_model(proof: Proof) -> Finding | None:
    entries = [
        entry
        for entry in proof.contents.entries
        if entry.stem.startswith(("lora_te1_encoder_", "lora_te_encoder_", "text_encoder.encoder."))
    ]
    if not entries:
        return None
    what = (
        f"{len(entries)} modules of encoder 1 lack `text_model.`, as transformers 5.6 and later name them. Programs "
        "with an older version find no such module: ComfyUI and Forge leave them with a line in the log, A1111 without "
        "a word, InvokeAI and kohya leave them too; diffusers with older transformers loads nothing into encoder 1, or "
        "raises where the names are kohya's"
    )
    return _finding("no-text-model", "broken", what, _TO_KOHYA, _all_keys(entries))


def _diffusers_kohya(proof: Proof) -> Finding | None:
    alphas = [key for key in proof.file.numbers if proof.file.dtypes.get(key, "").startswith("I")]
    dotted = [key for key in proof.file.shapes if key.startswith(("lora_unet_", "lora_te")) and key.count(".") > 2]
    if not alphas and not dotted:
        return None
    what = (
        "written by diffusers' `convert_state_dict_to_kohya`: its alphas are the ranks, whole numbers, whatever the "
        "scale was that it was trained with; DoRA's magnitudes get names that nobody knows; the U-Net's names are "
        "diffusers', which kohya's scripts do not know"
    )
    remedy = f"{_TO_KOHYA}, from the file in diffusers' format it was made of"
    return _finding("diffusers-kohya", "broken", what, remedy, [*dotted, *alphas])


def _dotted(proof: Proof) -> Finding | None:
    if proof.dialect != "diffusers":
        return None
    attention = [key for key in proof.file.shapes if key.startswith("unet.") and ".to_" in key]
    what = (
        "names with dots, as diffusers and peft write them. A1111 splits a name at its first dot and matches none, "
        "without a word; InvokeAI and Forge refuse the file; kohya finds none of its names"
    )
    if attention:
        what += "; ComfyUI takes what has no `to_` in its name and leaves the attentions"
    return _finding("dotted-names", "awkward", what, _TO_KOHYA, attention)


def _old_names(proof: Proof) -> Finding | None:
    keys = [
        key for key in proof.file.shapes if ".processor." in key and key.startswith(("unet.", "down_", "up_", "mid_"))
    ]
    if not keys:
        return None
    what = (
        "names of diffusers before peft (`….processor.to_q_lora.up`). diffusers and ComfyUI still read them; A1111, "
        "InvokeAI and kohya do not. The scale is 1: such files hold no alpha"
    )
    return _finding("old-diffusers-names", "awkward", what, _TO_KOHYA, keys)


def _embeddings(proof: Proof) -> Finding | None:
    keys = [
        key for key in proof.file.shapes if key.startswith(("bundle_emb", "emb_params")) or "string_to_param" in key
    ]
    if not keys:
        return None
    what = (
        "embeddings are bundled with it. A1111 loads them, InvokeAI takes them off, ComfyUI leaves them; diffusers "
        "raises, as every key must be one of a LoRA"
    )
    return _finding("bundled-embedding", "awkward", what, f"{_TO_KOHYA} --leave-out", keys)


def _strangers(proof: Proof) -> Finding | None:
    bundled = ("bundle_emb", "emb_params")
    keys = [key for key in proof.contents.others if not key.startswith(bundled) and "string_to_param" not in key]
    if not keys or _another_model(proof) is not None:
        return None
    what = "keys that belong to no adapter known here. diffusers and InvokeAI refuse a file with such keys"
    return _finding("unknown-keys", "broken", what, f"{_TO_KOHYA} --leave-out, if they are not needed", keys)


def _no_alpha(proof: Proof) -> Finding | None:
    if proof.file.configs or adapter_settings(proof.file):
        return None
    entries = [
        entry
        for entry in proof.contents.entries
        if entry.kind in ("lora", "loha", "lokr") and "alpha" not in entry.keys and "scale" not in entry.keys
    ]
    if not entries:
        return None
    all_of_them = len(entries) == len(proof.contents.entries)
    who = "has no alpha" if all_of_them else f"has no alpha for {len(entries)} of {len(proof.contents.entries)} modules"
    what = f"{who}: every program takes alpha to be the rank. Trained with another one, it acts too strong or too weak"
    remedy = "if another alpha is known, use it at a strength of alpha / rank; else nothing"
    return _finding("no-alpha", "note" if all_of_them else "awkward", what, remedy, _all_keys(entries))


def _rslora(proof: Proof) -> Finding | None:
    told = _is_rslora(proof)
    if not told:
        return None
    has_alphas = any("alpha" in entry.keys for entry in proof.contents.entries)
    if not has_alphas and proof.dialect in ("diffusers", "peft"):
        what = (
            "it says it is rsLoRA (alpha over the root of the rank). peft and diffusers read that; programs of kohya's "
            "format know no such word and would divide by the rank"
        )
        return _finding("rslora", "note", what, f"{_TO_KOHYA} writes an alpha that comes out right", ())
    nominal = _number(proof.file.metadata.get("ss_network_alpha"))
    ratios = [
        entry
        for entry in proof.contents.entries
        if (entry.rank or 1) > 1 and proof.file.numbers.get(entry.keys.get("alpha", "")) == nominal
    ]
    if not ratios:
        return None
    rank = ratios[0].rank or 1
    what = (
        "it was trained as rsLoRA (alpha over the root of the rank), and its alphas are those it was trained with. "
        f"Every program divides them by the rank, so it acts {rank**0.5:.3g} times too weak"
    )
    remedy = f"use it at a strength of {rank**0.5:.3g}"
    return _finding("rslora-alpha", "broken", what, remedy, _all_keys(ratios))


def _is_rslora(proof: Proof) -> bool:
    if any(config.get("use_rslora") is True for config in adapter_settings(proof.file).values()):
        return True
    try:
        given = json.loads(proof.file.metadata.get("ss_network_args", "{}"))
    except (ValueError, RecursionError):
        return False
    arguments = given if isinstance(given, dict) else {}
    return any(str(arguments.get(name)).lower() == "true" for name in ("rslora", "use_rslora", "rs_lora"))


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _magnitudes(proof: Proof) -> Finding | None:
    in_kohya = [
        entry.keys["magnitude"]
        for entry in proof.contents.entries
        if "magnitude" in entry.keys and entry.stem.startswith(("lora_unet_", "lora_te"))
    ]
    if in_kohya:
        what = (
            "DoRA's magnitudes stand under peft's name in a file of kohya's: no program finds them, and plain LoRA acts"
        )
        return _finding("magnitudes-unnamed", "broken", what, _TO_KOHYA, in_kohya)
    own = [
        entry.keys["magnitude"]
        for entry in proof.contents.entries
        if "magnitude" in entry.keys and entry.stem.startswith("text_encoder")
    ]
    short = [key for key in own if not key.endswith(".weight")]
    if short and proof.dialect == "diffusers":
        what = (
            "DoRA's magnitudes of the encoders lack a last `.weight`, as peft writes them. transformers, which loads "
            "encoders, does not find them and draws them anew"
        )
        return _finding("magnitudes-unnamed", "broken", what, _TO_DIFFUSERS, short)
    return None


def _dora(proof: Proof) -> Finding | None:
    keys = [entry.keys["dora_scale"] for entry in proof.contents.entries if "dora_scale" in entry.keys]
    if not keys:
        return None
    what = (
        "DoRA in kohya's format. ComfyUI and Forge come near it, A1111 and InvokeAI apply it along the wrong axis "
        "unless its magnitudes are those of columns, diffusers and kohya's scripts leave the magnitudes out"
    )
    remedy = f"{_TO_DIFFUSERS} for diffusers; for the others atelier lora fuse writes it into a checkpoint"
    return _finding("dora", "note", what, remedy, keys)


def _peft_prefix(proof: Proof) -> Finding | None:
    if proof.file.configs:
        return None
    keys = [key for key in proof.file.shapes if "base_model.model." in key]
    if not keys:
        return None
    what = (
        "names begin with `base_model.model.`, as peft saves an adapter, without the adapter_config.json that belongs "
        "to it: no program for SDXL finds a module, and the scale is not known"
    )
    remedy = f"{_TO_KOHYA}, with the config beside it where there is one"
    return _finding("peft-prefix", "broken", what, remedy, keys)


def _named_adapter(proof: Proof) -> Finding | None:
    keys = [key for key in proof.file.shapes if ".lora_A.default" in key or ".lora_B.default" in key]
    if not keys:
        return None
    what = "names have the adapter's name in them (`.lora_A.default.weight`): only ComfyUI reads that"
    return _finding("adapter-name", "broken", what, _TO_KOHYA, keys)


def _version(proof: Proof) -> Finding | None:
    version = proof.readings["a1111"].version
    if version.state != "wrong" or "a1111" not in proof.meant_for:
        return None
    what = f"A1111: {version.detail}. It still works where its name is typed into the prompt"
    remedy = f"{_TO_KOHYA} writes it, or set 'sd version' in its card in A1111"
    return _finding("no-base-version", "awkward", what, remedy)


def _initialised(proof: Proof) -> Finding | None:
    for component, config in adapter_settings(proof.file).items():
        start = config.get("init_lora_weights")
        if not isinstance(start, str) or start.lower() in ("gaussian", "eva", "orthogonal"):
            continue
        if not start.lower().startswith(("pissa", "olora", "corda", "loftq")):
            continue
        what = (
            f"{component}'s adapter began as {start}, which takes something out of the base's weights. Added to the "
            "base as it is, it counts that twice: every program but peft with the changed base gets it wrong"
        )
        remedy = f"{_TO_KOHYA} --initial FOLDER, with peft's folder of the adapter before training"
        return _finding("changed-base", "broken", what, remedy)
    return None


def _halves(proof: Proof) -> Finding | None:
    entries = [entry for entry in proof.contents.entries if entry.misfit.startswith("one half")]
    if not entries:
        return None
    what = (
        f"{len(entries)} modules have one half of a pair: {entries[0].stem}: {entries[0].misfit}. diffusers, A1111 and "
        "InvokeAI refuse the file, ComfyUI and Forge where the first half is missing"
    )
    remedy = "it is damaged; get it again from where it came"
    return _finding("half-a-pair", "broken", what, remedy, _all_keys(entries))


def _empty(proof: Proof) -> Finding | None:
    entries = [entry for entry in proof.contents.entries if entry.kind == "empty"]
    if not entries:
        return None
    first = entries[0]
    what = f"{len(entries)} modules have no factors: {first.stem}: {first.misfit}. diffusers and InvokeAI refuse it"
    return _finding(
        "empty-modules", "broken", what, "it is damaged, or was trained on nothing; get it again", _all_keys(entries)
    )


def _encoders_alone(proof: Proof) -> Finding | None:
    totals = proof.contents.totals
    if not totals or "unet" in totals:
        return None
    what = "it changes text encoders only. InvokeAI cannot tell what it is for, and refuses it"
    return _finding("encoders-alone", "note", what, "nothing, if that is meant")


def _mixed(proof: Proof) -> Finding | None:
    if proof.dialect != "mixed":
        return None
    what = (
        "names of several dialects in one file. diffusers drops the original layout's where diffusers' stand beside "
        "them, InvokeAI refuses the file, others leave what they do not know"
    )
    return _finding("mixed-dialects", "broken", what, _TO_KOHYA)


def _diffusers_names(proof: Proof) -> Finding | None:
    if proof.dialect != "kohya, diffusers' names":
        return None
    what = (
        "kohya's format under diffusers' names of the blocks (OneTrainer and others write it). ComfyUI, Forge, A1111, "
        "InvokeAI and diffusers read it, kohya's scripts do not"
    )
    return _finding("diffusers-block-names", "note", what, _TO_KOHYA)


def _old_encoder(proof: Proof) -> Finding | None:
    if proof.contents.names.structure.text_encoder is None:
        return None
    entries = [entry for entry in proof.contents.entries if entry.stem.startswith("lora_te_")]
    if not entries or _another_model(proof) is not None:
        return None
    what = "encoder 1 goes by `lora_te_`, its name in SD 1. ComfyUI and diffusers take it for encoder 1; others do not"
    return _finding("encoder-of-sd1", "broken", what, _TO_KOHYA, _all_keys(entries))


def _alphas(proof: Proof) -> Finding | None:
    scale = proof.readings["diffusers"].scale
    if scale.state not in ("wrong", "limit") or not proof.dialect.startswith("kohya"):
        return None
    what = f"its alphas differ. diffusers gives attentions the most frequent one: {scale.detail}"
    return _finding("differing-alphas", "awkward", what, _TO_DIFFUSERS)


def _refiner_encoder(proof: Proof) -> Finding | None:
    if proof.contents.names.structure.text_encoder is not None:
        return None
    entries = [entry for entry in proof.contents.entries if entry.stem.startswith("lora_te2_")]
    if not entries:
        return None
    what = "the refiner's encoder goes by `lora_te2_`. ComfyUI and Forge know it as `lora_te_`, being its only one"
    return _finding("refiner-encoder", "awkward", what, "train the refiner's U-Net alone", _all_keys(entries))


def _lycoris(proof: Proof) -> Finding | None:
    kinds = proof.contents.kinds - {"lora", "empty"}
    if not kinds:
        return None
    told = ", ".join(sorted(_KINDS[kind] for kind in kinds))
    what = f"it holds {told}. ComfyUI, Forge, A1111 and InvokeAI apply what they know of it; diffusers refuses the file"
    remedy = f"{_TO_KOHYA} --as-lora RANK makes plain LoRA of it, as near as the rank allows"
    return _finding("lycoris", "note", what, remedy)


def _nothing(proof: Proof) -> Finding | None:
    if any(entry.module is not None for entry in proof.contents.entries) or _another_model(proof) is not None:
        return None
    keys = list(proof.file.shapes)
    what = "no module of SDXL is in it" if keys else "it holds no tensors"
    remedy = "it may be a whole checkpoint, an embedding, or a LoRA of another model: use it as that"
    return _finding("nothing-known", "broken", what, remedy, keys)


def _keys(entry: Entry) -> Iterable[str]:
    return entry.keys.values()


def _all_keys(entries: Iterable[Entry]) -> list[str]:
    return [key for entry in entries for key in entry.keys.values()]


_LOOKS: tuple[Callable[[Proof], Finding | None], ...] = (
    _nothing,
    _another_model,
    _shapes,
    _halves,
    _empty,
    _mixed,
    _no_text_model,
    _diffusers_kohya,
    _peft_prefix,
    _named_adapter,
    _initialised,
    _magnitudes,
    _rslora,
    _strangers,
    _old_encoder,
    _dotted,
    _old_names,
    _embeddings,
    _version,
    _alphas,
    _refiner_encoder,
    _no_alpha,
    _dora,
    _lycoris,
    _diffusers_names,
    _encoders_alone,
)
