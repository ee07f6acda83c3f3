"""diffusers' rules against diffusers itself: the same modules at the same scale, the same files refused.

A small pipeline of its classes loads each file; what it then holds is compared with what the rules foretell.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune.naming.structure import ModelStructure, TextStructure, UNetStructure
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.proof import prove

Tensors = dict[str, Tensor]

UNET = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1),
    "attention_head_dim": (2, 2),
    "cross_attention_dim": 32,
    "norm_num_groups": 8,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": 16, "vocab_size": 64}  # fmt: skip
STRUCTURE = ModelStructure(
    UNetStructure.from_config(UNET), TextStructure(16, 24, 2), TextStructure(16, 24, 2, projection_width=16)
)
NAMES = ModelNames(STRUCTURE)
BACK = {path: original for original, path in NAMES.original.items()}
OLD = ("_lora.down.weight", "_lora.up.weight")


def pipeline() -> StableDiffusionXLPipeline:
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**TEXT)),
        tokenizer=None,
        tokenizer_2=None,
        unet=UNet2DConditionModel(**UNET),
        scheduler=EulerDiscreteScheduler(),
    )


def held(pipe: StableDiffusionXLPipeline) -> dict[Module, float]:
    """Return the modules that have an adapter whose numbers were loaded, and its scale."""
    found: dict[Module, float] = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        for path, module in getattr(pipe, component).named_modules():
            adapters = getattr(module, "lora_B", None)
            if not adapters or not isinstance(adapters, nn.ModuleDict):
                continue
            (name,) = adapters
            if adapters[name].weight.abs().sum() == 0:
                continue
            whole = path if component == "unet" or path.startswith("text_") else f"text_model.{path}"
            found[component, whole] = module.scaling[name]
    return found


def kohya(module: Module) -> str:
    component, path = module
    if component == "unet":
        return f"lora_unet_{underscored(BACK[path])}"
    return f"lora_te{'1' if component == 'text_encoder' else '2'}_{underscored(path)}"


def kohya_new(module: Module) -> str:
    return f"lora_unet_{underscored(module[1])}" if module[0] == "unet" else kohya(module)


def dotted(module: Module) -> str:
    return ".".join(module)


def some(*ends: str, component: str | None = None) -> list[Module]:
    return [
        module
        for module in NAMES.shapes
        if module[1].endswith(ends or ("",)) and component in (None, module[0])
    ]  # fmt: skip


def pairs(
    modules: Iterable[Module],
    name: Callable[[Module], str] = kohya,
    halves: tuple[str, str] = (".lora_down.weight", ".lora_up.weight"),
    alphas: Callable[[Module], float | None] = lambda module: 2.0,
    ranks: Callable[[Module], int] = lambda module: 2,
) -> Tensors:
    tensors: Tensors = {}
    for module in modules:
        shape, rank, stem = NAMES.shapes[module], ranks(module), name(module)
        tensors[stem + halves[0]] = torch.ones(rank, *shape[1:])
        tensors[stem + halves[1]] = torch.ones(shape[0], rank, *[1] * (len(shape) - 2))
        alpha = alphas(module)
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


def by_end(values: Mapping[str, float], default: float) -> Callable[[Module], float]:
    """A number for each module, by the end of its path."""
    return lambda module: next((value for end, value in values.items() if module[1].endswith(end)), default)


PEFT = (".lora_A.weight", ".lora_B.weight")
INSIDE = [module for module in NAMES.shapes if "block" in module[1] or module[1].startswith("text_model")]
OUTSIDE = [module for module in NAMES.shapes if module not in INSIDE]
MIXED = {"attn1.to_q": 8.0, "ff.net.2": 4.0, "proj_in": 1.0, "conv1": 0.5, "self_attn.q_proj": 8.0, "fc1": 4.0}


def old_unet(module: Module) -> str:
    path = module[1].replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
    return f"unet.{path}"


def old_text(module: Module) -> str:
    return f"{module[0]}.{module[1].replace('self_attn.', 'self_attn.to_').removesuffix('_proj')}"


CASES: dict[str, Callable[[], Tensors]] = {
    "kohya": lambda: pairs(INSIDE),
    "kohya, outside the blocks": lambda: pairs([module for module in OUTSIDE if module[0] == "unet"]),
    "kohya, a projection alone": lambda: pairs(some("text_projection")),
    "kohya, diffusers' names": lambda: pairs(NAMES.shapes, kohya_new),
    "kohya, no alpha": lambda: pairs(INSIDE, alphas=lambda module: None),
    "kohya, mixed alphas": lambda: pairs(INSIDE, alphas=by_end(MIXED, 2.0)),
    "kohya, diffusers' names, mixed alphas": lambda: pairs(INSIDE, kohya_new, alphas=by_end(MIXED, 2.0)),
    "kohya, mixed ranks": lambda: pairs(INSIDE, ranks=lambda module: int(by_end(MIXED, 2.0)(module)) or 3),
    "kohya, mixed ranks, no alpha": lambda: pairs(
        INSIDE, ranks=lambda module: int(by_end(MIXED, 2.0)(module)) or 3, alphas=lambda module: None
    ),
    "kohya, some alphas": lambda: pairs(INSIDE, alphas=lambda module: 1.0 if "attn1" in module[1] else None),
    "kohya, an encoder alone": lambda: pairs(some(component="text_encoder")),
    "kohya, one half": lambda: {
        key: tensor for key, tensor in pairs(INSIDE).items() if "mid_block" in key or "0_attn1_to_q.lora_up" not in key
    },
    "kohya, an up alone": lambda: {
        key: tensor for key, tensor in pairs(INSIDE).items() if not key.endswith("3_1_proj_in.lora_down.weight")
    },
    "kohya, DoRA": lambda: pairs(INSIDE)
    | {f"{kohya(module)}.dora_scale": torch.ones(NAMES.shapes[module][0], 1) for module in some("to_q")},
    "kohya, an embedding": lambda: pairs(INSIDE) | {"bundle_emb.word.string_to_param.*": torch.ones(1, 16)},
    "kohya, LoHa": lambda: {
        f"{kohya(module)}.hada_{part}": torch.ones(NAMES.shapes[module][0], 2) if part[-1] == "a"
        else torch.ones(2, NAMES.shapes[module][1])
        for module in some("attn1.to_q") for part in ("w1_a", "w1_b", "w2_a", "w2_b")
    },
    "kohya, both kinds of names": lambda: pairs(some("attn1.to_q")) | pairs(some("attn1.to_k"), kohya_new),
    "diffusers": lambda: pairs(NAMES.shapes, dotted, PEFT, lambda module: None),
    "diffusers, mixed ranks": lambda: pairs(
        NAMES.shapes, dotted, PEFT, lambda module: None, lambda module: int(by_end(MIXED, 2.0)(module)) or 3
    ),
    "diffusers, no attention in an encoder": lambda: pairs(
        some("fc1", component="text_encoder_2"), dotted, PEFT, lambda module: None
    ),
    "diffusers, before peft": lambda: pairs(
        some("to_q", "to_k", "to_v", "to_out.0"), old_unet, OLD, lambda module: None
    ),
    "diffusers, between": lambda: pairs(
        some("to_q", "to_k", "proj_in", "conv1"), lambda module: f"unet.{module[1]}",
        (".lora.down.weight", ".lora.up.weight"), lambda module: None,
    )
    | pairs(
        some("_proj", "fc1", component="text_encoder_2"), dotted,
        (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"), lambda module: None,
    ),
    "kohya, q and v of an encoder": lambda: pairs(some("attn1.to_q", "self_attn.q_proj", "self_attn.v_proj")),
    "kohya, an encoder without out": lambda: pairs(some("self_attn.q_proj", "fc1", component="text_encoder_2")),
    "kohya, an encoder's feed-forward": lambda: pairs(some("fc1", "fc2", component="text_encoder")),
    "kohya, a projection beside": lambda: pairs(some("_proj", "text_projection", component="text_encoder_2")),
    "diffusers, an encoder before peft": lambda: pairs(
        some("_proj", component="text_encoder_2"), old_text, OLD, lambda module: None
    ),
    "diffusers, an encoder without out before peft": lambda: pairs(
        some("q_proj", component="text_encoder"), old_text, OLD, lambda module: None
    ),
    "peft's prefix": lambda: pairs(
        some("to_q"), lambda module: f"base_model.model.{module[1]}", PEFT, lambda module: None
    ),
    "no module of that name": lambda: pairs(some("to_q"), lambda module: dotted(module) + "q", PEFT, lambda _: None),
}  # fmt: skip


# What the rules say of mixed alphas is what peft warns of.
@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys did not match:RuntimeWarning")
@pytest.mark.parametrize("case", CASES)
def test_the_rules_foretell_what_diffusers_does(case: str, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_file(CASES[case](), path)
    compare(path)


def test_with_its_metadata(tmp_path: Path) -> None:
    config = {"unet.r": 2, "unet.lora_alpha": 1.0, "unet.alpha_pattern": {"mid_block.attentions.0.proj_in": 8.0},
              "unet.target_modules": ["to_q", "proj_in"]}  # fmt: skip
    path = tmp_path / "lora.safetensors"
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    save_file(pairs(some("to_q", "proj_in"), dotted, PEFT, lambda module: None), path, metadata)
    assert compare(path)["unet", "mid_block.attentions.0.proj_in"] == 4.0
    # Kohya's names and such metadata contradict each other.
    save_file(pairs(some("to_q", "proj_in")), path, metadata)
    assert not compare(path)


def compare(path: Path) -> dict[Module, float]:
    """Load a file and return what it gives, after asserting that the rules say the same."""
    reading = prove(path, STRUCTURE).readings["diffusers"]
    pipe = pipeline()
    if reading.refusal and "loads nothing" not in reading.refusal:
        with pytest.raises((ValueError, KeyError, RuntimeError)):
            pipe.load_lora_weights(str(path.parent), weight_name=path.name)
        return {}
    pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    actual = held(pipe)
    assert set(reading.scales) == set(actual), set(reading.scales) ^ set(actual)
    assert reading.scales == pytest.approx(actual)
    assert bool(reading.refusal) == (not actual)
    return actual
