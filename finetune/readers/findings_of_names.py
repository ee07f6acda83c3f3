"""What the names in a file tell: whose dialect it is, which slip or program wrote them so, which model they are of."""

import re
from collections.abc import Callable

from finetune.readers.contents import Entry
from finetune.readers.finding import TO_KOHYA, Finding, all_keys, make_finding
from finetune.readers.proof import Proof

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


def find_another_model(proof: Proof) -> Finding | None:
    """Tell of a file that was made for another model than SDXL."""
    names = proof.file.shapes
    for model, pattern in _OTHER_MODELS:
        keys = [key for key in names if pattern.search(key)]
        if keys:
            what = f"its names are those of {model}. No program that runs SDXL can apply it"
            return make_finding("another-model", "broken", what, "use it with the model it was trained on", keys)
    wide = proof.contents.names.structure.unet.text_width
    for entry in proof.contents.entries:
        width = _inputs(proof, entry)
        other = _OLDER_MODELS.get(width or 0)
        if _CROSS_ATTENTION.search(entry.stem) and other is not None and width != wide:
            keys = [
                key
                for each in proof.contents.entries
                if each.misfit.startswith("made for")
                for key in each.keys.values()
            ]
            what = f"its text is {width} wide, as that of {other}; SDXL's is {wide}. Programs refuse it or fail at it"
            return make_finding("another-model", "broken", what, f"use it with {other}", keys)
    return None


def _inputs(proof: Proof, entry: Entry) -> int | None:
    """Return the inputs of the weight a module's factors are for; None for kinds that do not tell."""
    for part in ("down", "hada_w1_b", "diff"):
        shape = proof.file.shapes.get(entry.keys.get(part, ""), ())
        if len(shape) > 1:
            return shape[1]
    return None


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
    return make_finding("no-text-model", "broken", what, TO_KOHYA, all_keys(entries))


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
    return make_finding("dotted-names", "awkward", what, TO_KOHYA, attention)


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
    return make_finding("old-diffusers-names", "awkward", what, TO_KOHYA, keys)


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
    return make_finding("bundled-embedding", "awkward", what, f"{TO_KOHYA} --leave-out", keys)


def _strangers(proof: Proof) -> Finding | None:
    bundled = ("bundle_emb", "emb_params")
    keys = [key for key in proof.contents.others if not key.startswith(bundled) and "string_to_param" not in key]
    if not keys or find_another_model(proof) is not None:
        return None
    what = "keys that belong to no adapter known here. diffusers and InvokeAI refuse a file with such keys"
    return make_finding("unknown-keys", "broken", what, f"{TO_KOHYA} --leave-out, if they are not needed", keys)


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
    remedy = f"{TO_KOHYA}, with the config beside it where there is one"
    return make_finding("peft-prefix", "broken", what, remedy, keys)


def _named_adapter(proof: Proof) -> Finding | None:
    keys = [key for key in proof.file.shapes if ".lora_A.default" in key or ".lora_B.default" in key]
    if not keys:
        return None
    what = "names have the adapter's name in them (`.lora_A.default.weight`): only ComfyUI reads that"
    return make_finding("adapter-name", "broken", what, TO_KOHYA, keys)


def _encoders_alone(proof: Proof) -> Finding | None:
    totals = proof.contents.totals
    if not totals or "unet" in totals:
        return None
    what = "it changes text encoders only. InvokeAI cannot tell what it is for, and refuses it"
    return make_finding("encoders-alone", "note", what, "nothing, if that is meant")


def _mixed(proof: Proof) -> Finding | None:
    if proof.dialect != "mixed":
        return None
    what = (
        "names of several dialects in one file. diffusers drops the original layout's where diffusers' stand beside "
        "them, InvokeAI refuses the file, others leave what they do not know"
    )
    return make_finding("mixed-dialects", "broken", what, TO_KOHYA)


def _diffusers_names(proof: Proof) -> Finding | None:
    if proof.dialect != "kohya, diffusers' names":
        return None
    what = (
        "kohya's format under diffusers' names of the blocks (OneTrainer and others write it). ComfyUI, Forge, A1111, "
        "InvokeAI and diffusers read it, kohya's scripts do not"
    )
    return make_finding("diffusers-block-names", "note", what, TO_KOHYA)


def _old_encoder(proof: Proof) -> Finding | None:
    if proof.contents.names.structure.text_encoder is None:
        return None
    entries = [entry for entry in proof.contents.entries if entry.stem.startswith("lora_te_")]
    if not entries or find_another_model(proof) is not None:
        return None
    what = "encoder 1 goes by `lora_te_`, its name in SD 1. ComfyUI and diffusers take it for encoder 1; others do not"
    return make_finding("encoder-of-sd1", "broken", what, TO_KOHYA, all_keys(entries))


def _refiner_encoder(proof: Proof) -> Finding | None:
    if proof.contents.names.structure.text_encoder is not None:
        return None
    entries = [entry for entry in proof.contents.entries if entry.stem.startswith("lora_te2_")]
    if not entries:
        return None
    what = "the refiner's encoder goes by `lora_te2_`. ComfyUI and Forge know it as `lora_te_`, being its only one"
    return make_finding("refiner-encoder", "awkward", what, "train the refiner's U-Net alone", all_keys(entries))


def _nothing(proof: Proof) -> Finding | None:
    if any(entry.module is not None for entry in proof.contents.entries) or find_another_model(proof) is not None:
        return None
    keys = list(proof.file.shapes)
    what = "no module of SDXL is in it" if keys else "it holds no tensors"
    remedy = "it may be a whole checkpoint, an embedding, or a LoRA of another model: use it as that"
    return make_finding("nothing-known", "broken", what, remedy, keys)


LOOKS: tuple[Callable[[Proof], Finding | None], ...] = (
    _nothing,
    find_another_model,
    _mixed,
    _no_text_model,
    _peft_prefix,
    _named_adapter,
    _strangers,
    _old_encoder,
    _dotted,
    _old_names,
    _embeddings,
    _refiner_encoder,
    _diffusers_names,
    _encoders_alone,
)
"""What is looked for, the first of equal severity told first."""
