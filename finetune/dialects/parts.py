"""What the tensors of a module are called, in each dialect: the end of a name, and the part it is. Without torch.

Read in: LyCORIS (`weight_list` of each class under `lycoris/modules/`), peft (`utils/save_and_load.py`), diffusers
(`utils/state_dict_utils.py`), OneTrainer (`modules/module/LoRAModule.py`).
"""

from collections.abc import Mapping

PARTS: Mapping[str, Mapping[str, str]] = {
    "kohya": {
        "lora_down.weight": "down",
        "lora_up.weight": "up",
        "lora_mid.weight": "mid",
        "alpha": "alpha",
        "dora_scale": "dora_scale",
    },
    "peft": {
        "lora_A.weight": "down",
        "lora_B.weight": "up",
        "lora_A.default.weight": "down",
        "lora_B.default.weight": "up",
        "lora_magnitude_vector": "magnitude",
        "lora_magnitude_vector.weight": "magnitude",
        "lora_magnitude_vector.default": "magnitude",
        "lora_magnitude_vector.default.weight": "magnitude",
    },
    "diffusers-old": {
        "lora.down.weight": "down",
        "lora.up.weight": "up",
        "lora_linear_layer.down.weight": "down",
        "lora_linear_layer.up.weight": "up",
    },
    "processor": {"down.weight": "down", "up.weight": "up"},
    "lycoris": {
        **{name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")},
        **{name: name for name in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")},
        "lokr_t2": "lokr_t2",
        "diff": "diff",
    },
}
"""By the name of the table, the ends of tensors' names and the parts they stand for."""

EXTRAS: Mapping[str, str] = {
    "diff_b": "the change of a bias",
    "w_norm": "the change of a normalisation",
    "b_norm": "the change of a normalisation",
    "lora_B.bias": "a bias beside the factors",
}
"""Ends of names beside the factors that no neutral form holds: left out where that is asked for."""

EMBEDDINGS = ("bundle_emb.", "emb_params", "string_to_param", "clip_g", "clip_l")
"""What the names of embeddings begin with: OneTrainer bundles them, A1111 and kohya save them alone."""

OTHER_KINDS: Mapping[str, str] = {
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "oft_R.weight": "OFT",
    "rescale": "OFT",
    "on_input": "IA3",
    "ia3_l": "IA3",
    "a1.weight": "GLoRA",
    "a2.weight": "GLoRA",
    "b1.weight": "GLoRA",
    "b2.weight": "GLoRA",
    "lora_E": "AdaLoRA",
    "vera_lambda_b": "VeRA",
    "vera_lambda_d": "VeRA",
    "boft_R": "BOFT",
    "boft_s": "BOFT",
    "set_weight": "a replaced weight",
}
"""Ends of names that tell a kind of adapter which is not read here, and what it is called."""

KINDS: Mapping[str, str] = {
    "down": "LoRA",
    "hada_w1_a": "LoHa",
    "lokr_w1": "LoKr",
    "lokr_w1_a": "LoKr",
    "diff": "full",
}
"""The part that tells the kind of a module."""

ALLOWED: Mapping[str, frozenset[str]] = {
    "LoRA": frozenset({"down", "up", "mid", "alpha", "dora_scale", "magnitude"}),
    "LoHa": frozenset(
        {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha", "dora_scale"}
    ),
    "LoKr": frozenset(
        {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha", "dora_scale"}
    ),
    "full": frozenset({"diff", "alpha"}),
}
"""The parts a module of each kind may have."""


def part_endings() -> list[tuple[str, str, str]]:
    """Return (end, table, part) of every part, the longest end first."""
    found = [(end, table, part) for table, ends in PARTS.items() for end, part in ends.items()]
    return sorted(found, key=lambda entry: -len(entry[0]))
