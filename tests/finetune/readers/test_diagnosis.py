"""Files as other programs and slips write them: each is diagnosed in words, and fails just the readers it must."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from safetensors.torch import save_file

from finetune.naming.structure import SDXL_BASE, SDXL_REFINER
from finetune.readers.adapter_file import AdapterFile, Shape
from finetune.readers.diagnosis import diagnose
from finetune.readers.finding import Finding
from finetune.readers.names import ModelNames, Module, underscored
from finetune.readers.proof import prove, prove_file

MakeFile = Callable[..., AdapterFile]
Change = Callable[[AdapterFile], AdapterFile]

NAMES = ModelNames(SDXL_BASE)
PEFT = (".lora_A.weight", ".lora_B.weight")
SIX = ("comfyui", "a1111", "forge", "invokeai", "kohya", "diffusers")


def dotted(module: Module) -> str:
    return ".".join(module)


def new_names(module: Module) -> str:
    number = {"unet": "unet", "text_encoder": "te1", "text_encoder_2": "te2"}[module[0]]
    return f"lora_{number}_{underscored(module[1])}"


def with_keys(file: AdapterFile, **keys: Shape) -> AdapterFile:
    return replace(file, shapes={**file.shapes, **keys})


def renamed(file: AdapterFile, change: Callable[[str], str]) -> AdapterFile:
    return replace(
        file,
        shapes={change(key): shape for key, shape in file.shapes.items()},
        numbers={change(key): number for key, number in file.numbers.items()},
        dtypes={change(key): dtype for key, dtype in file.dtypes.items()},
    )


def without(file: AdapterFile, *ends: str) -> AdapterFile:
    return replace(file, shapes={key: shape for key, shape in file.shapes.items() if not key.endswith(ends)})


def failing(file: AdapterFile) -> set[str]:
    proof = prove_file(file)
    return {name for name in SIX if proof.readings[name].state in ("partial", "refused")}


def named(file: AdapterFile) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnose(prove_file(file))}


def test_there_is_nothing_to_say_about_our_own_format(make_file: MakeFile) -> None:
    assert named(make_file()) == {}


KOHYA_CASES: dict[str, tuple[Change, str, set[str], str]] = {
    # What becomes of a file of kohya's: the finding, the readers that fail, words of it.
    "encoder 1 as transformers 5.6 names it": (
        lambda file: renamed(file, lambda key: key.replace("lora_te1_text_model_", "lora_te1_")),
        "no-text-model", set(SIX), "A1111 without a word",
    ),
    "a bundled embedding": (
        lambda file: with_keys(file, **{"bundle_emb.word.clip_g": (2, 1280), "bundle_emb.word.clip_l": (2, 768)}),
        "bundled-embedding", set(SIX) - {"a1111"}, "diffusers raises",
    ),
    "no alpha": (
        lambda file: without(replace(file, numbers={}), ".alpha"), "no-alpha", set(), "alpha to be the rank",
    ),
    "magnitudes under peft's name": (
        lambda file: with_keys(file, **{
            key.replace(".alpha", ".lora_magnitude_vector"): (640,)
            for key in file.numbers if key.endswith("attn1_to_q.alpha")
        }),
        "magnitudes-unnamed", set(SIX), "plain LoRA",
    ),
    "no base version": (
        lambda file: replace(file, metadata={"ss_output_name": "x"}), "no-base-version", {"a1111"}, "hides it",
    ),
    "half a pair": (
        lambda file: without(file, "middle_block_1_proj_in.lora_down.weight"),
        "half-a-pair", set(SIX), "down is not there",
    ),
    "empty modules": (
        lambda file: without(file, "middle_block_1_proj_in.lora_down.weight", "middle_block_1_proj_in.lora_up.weight"),
        "empty-modules", set(SIX), "no factors",
    ),
    "alphas of rsLoRA as trained": (
        lambda file: replace(
            file, metadata={**file.metadata, "ss_network_args": '{"rslora": "True"}', "ss_network_alpha": "1.0"},
            shapes={key: (16, *shape[1:]) if "down" in key else (shape[0], 16) if "up" in key else shape
                    for key, shape in file.shapes.items()},
        ),
        "rslora-alpha", set(), "a strength of 4",
    ),
    "alphas that differ": (
        lambda file: replace(file, numbers={
            key: 4.0 if "attn1_to_q" in key else number for key, number in file.numbers.items()
        }),
        "differing-alphas", set(), "most frequent",
    ),
    "an unknown key": (
        lambda file: with_keys(file, lora_unet_extra=(1,)), "unknown-keys",
        set(SIX), "no adapter known",
    ),
    "encoder 1 as in SD 1": (
        lambda file: renamed(file, lambda key: key.replace("lora_te1_", "lora_te_")),
        "encoder-of-sd1", {"a1111", "invokeai", "kohya"}, "lora_te_",
    ),
    "diffusers' own conversion": (
        lambda file: replace(
            renamed(file, lambda key: key),
            dtypes={key: "I64" if key.endswith(".alpha") else "F16" for key in file.shapes},
        ),
        "diffusers-kohya", set(), "the ranks, whole numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KOHYA_CASES)
def test_a_file_in_kohyas_format_with_one_thing_about_it(case: str, make_file: MakeFile) -> None:
    change, name, expected, words = KOHYA_CASES[case]
    file = change(make_file())
    findings = named(file)
    assert name in findings, findings
    text = f"{findings[name].what} {findings[name].remedy}"
    assert words in text
    assert failing(file) == expected


def test_what_diffusers_own_conversion_writes(tmp_path: Path) -> None:
    """Its alphas are the ranks, as whole numbers; the magnitudes of DoRA keep peft's name."""
    place = "unet.mid_block.attentions.0.proj_in"
    trained = {
        f"{place}.lora_A.weight": torch.ones(4, 1280),
        f"{place}.lora_B.weight": torch.ones(1280, 4),
        f"{place}.lora_magnitude_vector.weight": torch.ones(1280),
        "text_encoder.encoder.layers.0.mlp.fc1.lora_A.weight": torch.ones(4, 768),
        "text_encoder.encoder.layers.0.mlp.fc1.lora_B.weight": torch.ones(3072, 4),
    }
    save_file(convert_state_dict_to_kohya(trained), tmp_path / "lora.safetensors")
    proof = prove(tmp_path / "lora.safetensors")
    found = {finding.name for finding in diagnose(proof)}
    assert {"diffusers-kohya", "no-text-model", "magnitudes-unnamed"} <= found
    assert not proof.is_whole


def test_other_dialects_are_named(make_file: MakeFile) -> None:
    diffusers = make_file(name=dotted, halves=PEFT, alpha=None)
    assert set(named(diffusers)) == {"dotted-names", "no-alpha"}
    assert failing(diffusers) == set(SIX) - {"diffusers"}
    modern = make_file(name=new_names)
    assert set(named(modern)) == {"diffusers-block-names"}
    assert failing(modern) == {"kohya"}


def test_names_of_before_peft(make_file: MakeFile) -> None:
    attention = [module for module in NAMES.shapes if module[0] == "unet" and ".to_" in module[1]]
    file = make_file(
        attention,
        lambda module: "unet." + module[1].replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out"),
        ("_lora.down.weight", "_lora.up.weight"),
        None,
    )
    findings = named(file)
    assert set(findings) == {"old-diffusers-names", "no-alpha"}
    assert failing(file) == {"a1111", "invokeai", "kohya"}


def test_encoder_1_without_text_model_in_diffusers_names(make_file: MakeFile) -> None:
    file = renamed(
        make_file(name=dotted, halves=PEFT, alpha=None),
        lambda key: key.replace("text_encoder.text_model.", "text_encoder."),
    )
    assert "no-text-model" in named(file)
    counts = prove_file(file).readings["diffusers"].counts
    assert (counts["text_encoder"].taken, counts["text_encoder"].total) == (0, 72)
    assert counts["unet"].taken == 722


def test_pefts_prefix_without_its_config(make_file: MakeFile) -> None:
    unet = [module for module in NAMES.shapes if module[0] == "unet" and "attn" in module[1]]
    file = make_file(unet, lambda module: f"base_model.model.{module[1]}", PEFT, None, metadata={})
    findings = named(file)
    assert "peft-prefix" in findings
    assert failing(file) == set(SIX)


@pytest.mark.parametrize(("width", "model"), [(768, "SD 1"), (1024, "SD 2")])
def test_a_file_of_an_older_model(width: int, model: str, make_file: MakeFile) -> None:
    attention = [module for module in NAMES.shapes if module[1].endswith(("attn2.to_k", "attn2.to_v"))]
    file = make_file(attention, new_names)
    shapes = {key: (1, width) if "down" in key else shape for key, shape in file.shapes.items()}
    finding = named(replace(file, shapes=shapes))["another-model"]
    assert model in finding.what
    assert failing(replace(file, shapes=shapes)) == set(SIX)


@pytest.mark.parametrize(
    ("stem", "model"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", "Flux"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv", "SD 3"),
        ("transformer.blocks.0.attn1.to_q", "another transformer"),
        ("diffusion_model.blocks.0.self_attn.q", "another transformer"),
    ],
)
def test_a_file_of_a_newer_model(stem: str, model: str, make_file: MakeFile) -> None:
    halves = (".lora_down.weight", ".lora_up.weight") if stem.startswith("lora_") else PEFT
    file = make_file(list(NAMES.shapes)[:1], lambda module: stem, halves)
    finding = named(file)["another-model"]
    assert model in finding.what
    assert failing(file) == set(SIX)


@pytest.mark.parametrize("start", ["pissa", "olora", "pissa_niter_16"])
def test_an_adapter_that_changed_its_base(start: str, make_file: MakeFile) -> None:
    file = make_file(list(NAMES.shapes)[-3:-1], lambda module: f"{module[0]}/base_model.model.{module[1]}", PEFT, None)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "init_lora_weights": start}
    findings = named(replace(file, configs={"text_encoder_2": config}))
    assert start in findings["changed-base"].what
    assert findings["changed-base"].severity == "broken"
    plain = replace(file, configs={"text_encoder_2": {**config, "init_lora_weights": True}})
    assert "changed-base" not in named(plain)


def test_dialects_mixed_in_one_file(make_file: MakeFile) -> None:
    first = make_file([module for module in NAMES.shapes if module[1].endswith("attn1.to_q")])
    second = make_file([module for module in NAMES.shapes if module[1].endswith("attn1.to_k")], new_names)
    file = replace(first, shapes={**first.shapes, **second.shapes}, numbers={**first.numbers, **second.numbers})
    assert "mixed-dialects" in named(file)
    assert failing(file) == {"invokeai", "kohya", "diffusers"}


def test_encoders_alone_and_a_lycoris(make_file: MakeFile) -> None:
    encoder = make_file([module for module in NAMES.shapes if module[0] == "text_encoder"])
    assert "encoders-alone" in named(encoder)
    assert prove_file(encoder).readings["invokeai"].state == "limited"
    loha = {
        f"lora_unet_middle_block_1_proj_in.hada_{part}": (1280, 2) if part[-1] == "a" else (2, 1280)
        for part in ("w1_a", "w1_b", "w2_a", "w2_b")
    }
    file = with_keys(make_file([module for module in NAMES.shapes if "attn1" in module[1]]), **loha)
    assert "LoHa" in named(file)["lycoris"].what
    assert failing(file) == set()
    assert prove_file(file).readings["diffusers"].state == "limited"
    assert prove_file(file).readings["comfyui"].is_whole


def test_the_refiners_encoder(make_file: MakeFile) -> None:
    layer = [module for module in NAMES.shapes if module[0] == "text_encoder_2" and "layers.0." in module[1]]
    proof = prove_file(make_file(layer), SDXL_REFINER)
    assert "refiner-encoder" in {finding.name for finding in diagnose(proof)}
    assert proof.readings["comfyui"].counts["text_encoder_2"].taken == 0


def test_something_else_altogether(make_file: MakeFile) -> None:
    file = replace(make_file([]), shapes={"model.diffusion_model.out.2.weight": (4, 320, 3, 3)})
    assert "nothing-known" in named(file)
    assert failing(file) == set(SIX)
