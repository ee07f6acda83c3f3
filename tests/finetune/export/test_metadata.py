"""The header's strings: what readers look for, hashes as kohya computes them, and nothing private when minimal."""

import base64
import datetime
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch
from PIL import Image
from safetensors.torch import load_file, save

from finetune.adapters.weights import LoraModule
from finetune.export.card import small_copy
from finetune.export.metadata import ExportFacts, build_metadata
from finetune.export.registry import export_adapter
from finetune.export.run_export import THUMBNAIL_SIDE_PX, without_home
from finetune.naming.keys import SDXL_BASE_LAYOUT

MODULES = [
    LoraModule(
        "unet",
        f"down_blocks.2.attentions.0.transformer_blocks.{index}.attn1.to_q",
        torch.randn(16, 1280),
        torch.randn(1280, 16),
        scale=0.5,
    )
    for index in range(10)
]
FACTS = ExportFacts(
    name="cat",
    recipe="name: cat\nsecret_folder: /home/ann/pictures\n",
    title="A cat",
    author="Ann",
    license="CC0-1.0",
    trigger="ohwx cat",
    tags=("animal", "photo"),
    base_model="stabilityai/stable-diffusion-xl-base-1.0",
    prediction_type="v_prediction",
    resolution=(768, 1024),
    bucket_counts={(832, 1216): 3, (1024, 1024): 5},
    tag_frequency={"10_ohwx": {"private words": 8}},
    folders={"10_ohwx": (10, 8)},
    num_images=80,
    steps=500,
    max_steps=500,
    epoch=7,
    num_epochs=7,
    micro_batch_size=2,
    global_batch_size=8,
    unet_learning_rate=1e-4,
    text_encoder_learning_rates=(5e-5,),
    optimizer="adamw8bit",
    lr_schedule="cosine",
    precision="bf16",
    seed=0,
    snr_gamma=5.0,
    noise_offset=0.0,
    started_at=1_700_000_000.0,
    finished_at=1_700_003_600.0,
    version="0.1.0",
)


def test_what_readers_need_is_there() -> None:
    metadata = build_metadata(FACTS, MODULES)
    assert all(isinstance(value, str) for value in metadata.values())
    expected = {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_output_name": "cat",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "16",
        "ss_network_alpha": "8.0",
        "ss_network_args": "{}",
        "ss_v2": "False",
        "ss_unet_lr": "0.0001",
        "ss_text_encoder_lr": "5e-05",
        "ss_steps": "500",
        "ss_batch_size_per_device": "2",
        "ss_gradient_accumulation_steps": "4",
        "ss_seed": "0",
        "ss_noise_offset": "0.0",
        "ss_resolution": "(1024, 768)",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "A cat",
        "modelspec.resolution": "1024x768",
        "modelspec.prediction_type": "v",
        "modelspec.trigger_phrase": "ohwx cat",
        "modelspec.tags": "animal, photo",
        "atelier_recipe": FACTS.recipe,
    }
    assert {key: metadata.get(key) for key in expected} == expected
    assert datetime.datetime.fromisoformat(metadata["modelspec.date"]).timestamp() == 1_700_003_600
    buckets = json.loads(metadata["ss_bucket_info"])["buckets"]
    assert list(buckets.values()) == [
        {"resolution": [1216, 832], "count": 3},
        {"resolution": [1024, 1024], "count": 5},
    ]
    assert json.loads(metadata["ss_tag_frequency"]) == {"10_ohwx": {"private words": 8}}
    assert json.loads(metadata["ss_dataset_dirs"]) == {"10_ohwx": {"n_repeats": 10, "img_count": 8}}


def test_minimal_says_nothing_about_what_was_trained_on() -> None:
    metadata = build_metadata(FACTS, MODULES, "minimal")
    text = json.dumps(metadata)
    for secret in ("ohwx", "private", "/home", "animal", "adamw", "1216"):
        assert secret not in text
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.author"] == "Ann"
    assert set(metadata) < set(build_metadata(FACTS, MODULES))


def test_what_is_not_known_is_not_claimed() -> None:
    metadata = build_metadata(ExportFacts(name="cat"), MODULES)
    assert "None" not in metadata.values()
    assert not {"ss_steps", "ss_seed", "ss_optimizer", "modelspec.author", "ss_bucket_info"} & set(metadata)


def test_dora_convolutions_and_unequal_ranks_are_told() -> None:
    module = LoraModule("unet", "x", torch.ones(4, 8, 3, 3), torch.ones(6, 4, 1, 1), 0.5, magnitude=torch.ones(6))
    metadata = build_metadata(FACTS, [*MODULES, module])
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "Dynamic"
    assert metadata["ss_network_module"] == "lycoris.kohya"
    args = json.loads(metadata["ss_network_args"])
    assert args["dora_wd"] == "True"
    assert args["wd_on_output"] == "True"
    assert (args["conv_dim"], args["conv_alpha"]) == ("4", "2.0")


def test_the_refiner_is_named() -> None:
    metadata = build_metadata(ExportFacts(name="cat", is_refiner=True), MODULES)
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-refiner/lora"
    assert metadata["ss_base_model_version"].startswith("sdxl_")  # or A1111 hides it


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    metadata = build_metadata(FACTS, MODULES)
    written = export_adapter(
        MODULES, tmp_path, "cat", formats=["kohya"], precision="fp32", layout=SDXL_BASE_LAYOUT, metadata=metadata
    )
    return written["kohya"][0]


def test_the_hashes_are_kohyas(exported: Path) -> None:
    content = exported.read_bytes()
    with safetensors.safe_open(exported, framework="pt") as file:
        metadata = file.metadata()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    assert metadata["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    as_hashed = save(load_file(exported), training)
    assert len(as_hashed) > 0x110000, "too small a file to tell the legacy hash from that of nothing"
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(as_hashed[0x100000:0x110000]).hexdigest()[:8]
    assert re.fullmatch("[0-9a-f]{8}", metadata["sshs_legacy_hash"])


def test_the_recipe_can_be_taken_from_the_file(exported: Path) -> None:
    with safetensors.safe_open(exported, framework="pt") as file:
        assert file.metadata()["atelier_recipe"] == FACTS.recipe


def test_a_thumbnail_is_a_small_jpeg_that_minimal_metadata_leave_out(tmp_path: Path) -> None:
    source = tmp_path / "01-lora.png"
    Image.new("RGB", (1024, 512), (200, 30, 40)).save(source)
    known = replace(FACTS, thumbnail=small_copy(source, THUMBNAIL_SIDE_PX))
    url = build_metadata(known, MODULES)["modelspec.thumbnail"]
    kind, _, content = url.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content)), formats=["JPEG"]) as picture:
        assert picture.size == (256, 128)
        assert picture.getpixel((100, 60)) == pytest.approx((200, 30, 40), abs=6)
    assert "modelspec.thumbnail" not in build_metadata(known, MODULES, "minimal")


def test_the_home_folders_name_does_not_leave_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada.l")
    text = (
        "path: /home/ada.l/pictures\nlist: [/home/ada.l/a, '/home/ada.l/b']\n"
        'other: /home/ada.lovelace/x\nelse: /mnt/home/ada.l/y\ncaption: "/home/ada.l/z"'
    )
    assert without_home(text) == (
        "path: ~/pictures\nlist: [~/a, '~/b']\nother: /home/ada.lovelace/x\nelse: /mnt/home/ada.l/y\ncaption: \"~/z\""
    )
