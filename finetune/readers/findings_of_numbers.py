"""What a file's shapes, scales, magnitudes and settings tell: what acts too weak, wrong, or not at all."""

import json
from collections.abc import Callable, Mapping

from finetune.readers.contents import adapter_settings
from finetune.readers.finding import TO_DIFFUSERS, TO_KOHYA, Finding, all_keys, make_finding
from finetune.readers.findings_of_names import find_another_model
from finetune.readers.proof import Proof


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
    remedy = f"{TO_KOHYA}, from the file in diffusers' format it was made of"
    return make_finding("diffusers-kohya", "broken", what, remedy, [*dotted, *alphas])


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
    return make_finding("no-alpha", "note" if all_of_them else "awkward", what, remedy, all_keys(entries))


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
        return make_finding("rslora", "note", what, f"{TO_KOHYA} writes an alpha that comes out right", ())
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
    return make_finding("rslora-alpha", "broken", what, remedy, all_keys(ratios))


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
        return make_finding("magnitudes-unnamed", "broken", what, TO_KOHYA, in_kohya)
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
        return make_finding("magnitudes-unnamed", "broken", what, TO_DIFFUSERS, short)
    return None


def _dora(proof: Proof) -> Finding | None:
    keys = [entry.keys["dora_scale"] for entry in proof.contents.entries if "dora_scale" in entry.keys]
    if not keys:
        return None
    what = (
        "DoRA in kohya's format. ComfyUI and Forge come near it, A1111 and InvokeAI apply it along the wrong axis "
        "unless its magnitudes are those of columns, diffusers and kohya's scripts leave the magnitudes out"
    )
    remedy = f"{TO_DIFFUSERS} for diffusers; for the others atelier lora fuse writes it into a checkpoint"
    return make_finding("dora", "note", what, remedy, keys)


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
        remedy = f"{TO_KOHYA} --initial FOLDER, with peft's folder of the adapter before training"
        return make_finding("changed-base", "broken", what, remedy)
    return None


def _alphas(proof: Proof) -> Finding | None:
    scale = proof.readings["diffusers"].scale
    if scale.state not in ("wrong", "limit") or not proof.dialect.startswith("kohya"):
        return None
    what = f"its alphas differ. diffusers gives attentions the most frequent one: {scale.detail}"
    return make_finding("differing-alphas", "awkward", what, TO_DIFFUSERS)


def _lycoris(proof: Proof) -> Finding | None:
    kinds = proof.contents.kinds - {"lora", "empty"}
    if not kinds:
        return None
    told = ", ".join(sorted(_KINDS[kind] for kind in kinds))
    what = f"it holds {told}. ComfyUI, Forge, A1111 and InvokeAI apply what they know of it; diffusers refuses the file"
    remedy = f"{TO_KOHYA} --as-lora RANK makes plain LoRA of it, as near as the rank allows"
    return make_finding("lycoris", "note", what, remedy)


_KINDS: Mapping[str, str] = {
    "loha": "LoHa",
    "lokr": "LoKr",
    "full": "whole differences",
    "norm": "norms",
    "glora": "GLoRA",
    "oft": "OFT",
    "ia3": "IA3",
}


def _halves(proof: Proof) -> Finding | None:
    entries = [entry for entry in proof.contents.entries if entry.misfit.startswith("one half")]
    if not entries:
        return None
    what = (
        f"{len(entries)} modules have one half of a pair: {entries[0].stem}: {entries[0].misfit}. diffusers, A1111 and "
        "InvokeAI refuse the file, ComfyUI and Forge where the first half is missing"
    )
    remedy = "it is damaged; get it again from where it came"
    return make_finding("half-a-pair", "broken", what, remedy, all_keys(entries))


def _empty(proof: Proof) -> Finding | None:
    entries = [entry for entry in proof.contents.entries if entry.kind == "empty"]
    if not entries:
        return None
    first = entries[0]
    what = f"{len(entries)} modules have no factors: {first.stem}: {first.misfit}. diffusers and InvokeAI refuse it"
    return make_finding(
        "empty-modules", "broken", what, "it is damaged, or was trained on nothing; get it again", all_keys(entries)
    )


def _shapes(proof: Proof) -> Finding | None:
    if find_another_model(proof) is not None:
        return None
    entries = [entry for entry in proof.contents.entries if entry.misfit.startswith(("made for", "the factors"))]
    if not entries:
        return None
    what = f"{len(entries)} modules have shapes that do not fit: {entries[0].stem}: {entries[0].misfit}"
    remedy = "it is damaged, or for another model; get it again from where it came"
    return make_finding("shapes", "broken", what, remedy, all_keys(entries))


def _version(proof: Proof) -> Finding | None:
    version = proof.readings["a1111"].version
    if version.state != "wrong" or "a1111" not in proof.meant_for:
        return None
    what = f"A1111: {version.detail}. It still works where its name is typed into the prompt"
    remedy = f"{TO_KOHYA} writes it, or set 'sd version' in its card in A1111"
    return make_finding("no-base-version", "awkward", what, remedy)


LOOKS: tuple[Callable[[Proof], Finding | None], ...] = (
    _shapes,
    _halves,
    _empty,
    _diffusers_kohya,
    _initialised,
    _magnitudes,
    _rslora,
    _version,
    _alphas,
    _no_alpha,
    _dora,
    _lycoris,
)
"""What is looked for, the first of equal severity told first."""
