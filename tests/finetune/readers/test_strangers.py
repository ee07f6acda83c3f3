"""Whatever names, shapes and strings a file has: it is judged, or refused in words; nothing else is raised."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.errors import AtelierError
from finetune.naming.structure import SDXL_BASE, ModelStructure, TextStructure, UNetStructure
from finetune.readers.adapter_file import AdapterFile, read_adapter_file
from finetune.readers.diagnosis import diagnose
from finetune.readers.proof import READERS, prove_file, require_whole

UNET = UNetStructure((320, 640), (2, 2), (False, True), (True, False), (1, 1), 1, 2048, 64)
SMALL = ModelStructure(UNET, TextStructure(768, 3072, 1), TextStructure(1280, 5120, 32, 1280))
SMALL_REFINER = ModelStructure(UNET, None, TextStructure(768, 3072, 1))
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
STEMS = """
lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q lora_unet_input_blocks_4_1_proj_in lora_unet_ lora_te1_
lora_unet_output_blocks_12_1_conv lora_unet_middle_block_9_x lora_te2_text_projection text_encoder_2. bundle_emb.x x .
lora_te1_text_model_encoder_layers_0_self_attn_q_proj lora_te_text_model_encoder_layers_0_mlp_fc1 unet.BLOCKto_q
lora_te2_text_model_encoder_layers_31_self_attn_out_proj unet.BLOCKprocessor.to_q base_model.model.BLOCKto_q
text_encoder.text_model.encoder.layers.0.mlp.fc1 unet/base_model.model.BLOCKto_q diffusion_model.out.2
text_encoder/base_model.model.encoder.layers.0.mlp.fc1
""".replace("BLOCK", BLOCK.removesuffix("to_q")).split()
ENDS = [
    ".lora_down.weight",
    ".lora_up.weight",
    ".lora_mid.weight",
    ".lora_A.weight",
    ".lora_B.weight",
    "_lora.down.weight",
    "_lora.up.weight",
    ".lora_linear_layer.up.weight",
    ".alpha",
    ".dora_scale",
    ".lora_magnitude_vector",
    ".hada_w1_a",
    ".hada_w1_b",
    ".hada_w2_a",
    ".hada_w2_b",
    ".hada_t1",
    ".lokr_w1",
    ".lokr_w2_a",
    ".lokr_w2_b",
    ".lokr_t2",
    ".diff",
    ".w_norm",
    ".on_input",
    ".weight",
    ".scale",
]
KEYS = st.tuples(st.sampled_from(STEMS), st.sampled_from([*ENDS, ""])).map("".join)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 4, 320, 640, 768, 2048]), max_size=5).map(tuple)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["pissa", "LORA", "LOKR", "Infinity"])
VALUES: st.SearchStrategy[Any] = (
    PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(st.sampled_from([BLOCK, "^x", "to_q"]), PLAIN, max_size=2)
)
FIELDS = [
    "r",
    "lora_alpha",
    "alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "peft_type",
    "init_lora_weights",
]
CONFIGS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5)


@st.composite
def files(draw: st.DrawFn) -> AdapterFile:
    shapes = draw(st.dictionaries(KEYS, SHAPES, max_size=12))
    numbers = {
        key: draw(st.sampled_from([0.0, 1.0, -3.0, 1e30])) for key in shapes if key.endswith((".alpha", ".scale"))
    }
    metadata = draw(
        st.dictionaries(st.sampled_from(["ss_network_args", "ss_network_alpha", "ss_v2"]), st.text(max_size=5))
    )
    if draw(st.booleans()):
        config = {f"unet.{field}": value for field, value in draw(CONFIGS).items()}
        metadata["lora_adapter_metadata"] = draw(st.sampled_from([json.dumps(config), "[]", "{", "[" * 100_000]))
    configs = draw(st.dictionaries(st.sampled_from(["unet", "text_encoder"]), CONFIGS, max_size=2))
    return AdapterFile(Path("x.safetensors"), shapes, {}, numbers, metadata, configs)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(file=files(), structure=st.sampled_from([SMALL, SMALL_REFINER, SDXL_BASE]))
def test_any_file_is_judged(file: AdapterFile, structure: ModelStructure) -> None:
    proof = prove_file(file, structure)
    json.dumps(proof.as_data())
    assert all(finding.what and finding.remedy for finding in diagnose(proof))
    assert proof.as_lines()
    for reading in proof.readings.values():
        for count in reading.counts.values():
            assert 0 <= count.taken <= count.total
        assert {left.key for left in reading.left} <= set(file.shapes)
    try:
        require_whole(proof, list(READERS))
    except AtelierError as error:
        assert "is not read whole" in str(error)  # noqa: PT017 - whether it is raised depends on the file


def save(path: Path, entries: dict[str, tuple[str, list[int], bytes]]) -> Path:
    header, data = {}, b""
    for name, (dtype, shape, content) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_single_numbers_are_read_in_every_kind(tmp_path: Path) -> None:
    kinds = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i", "I16": "<h", "I8": "<b", "U8": "<B"}
    entries = {f"{kind}.alpha": (kind, [], struct.pack(form, 24)) for kind, form in kinds.items()}
    entries["BF16.alpha"] = ("BF16", [1], struct.pack("<f", 24.0)[2:])
    entries["two.alpha"] = ("F32", [2], struct.pack("<ff", 1, 2))
    numbers = read_adapter_file(save(tmp_path / "x.safetensors", entries)).numbers
    assert set(numbers.values()) == {24.0}
    assert len(numbers) == len(kinds) + 1


def test_an_alpha_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.safetensors", {"a.alpha": ("F32", [], struct.pack("<f", float("nan")))})
    with pytest.raises(AtelierError, match="is not a finite number"):
        read_adapter_file(path)
