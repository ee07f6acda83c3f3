"""The main job on real photographs: from a folder with phone photos to files that diffusers loads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from diffusers import StableDiffusionXLPipeline
from huggingface_hub import ModelCard
from PIL import Image
from skimage.transform import resize

from finetune.adapters.trained import trained_modules
from finetune.dialects.lora_file import read_lora
from finetune.model.files import sampling_scheduler
from finetune.model.miniature import Miniature
from finetune.model.structure import named_structure
from finetune.naming.components import COMPONENTS
from finetune.recipe import load_recipe
from finetune.recipe.load import parse_recipe
from finetune.run.folder import RunFolder
from finetune.tensors.header import read_metadata
from finetune.training.checkpoint import load_checkpoint

RECIPE = """\
schema_version: 1
name: photos
seed: 3
output_dir: {folder}/runs
model: {{kind: miniature}}
refiner: {{kind: miniature}}
data:
  sources:
    - {{kind: folder, path: {folder}/photos, trigger: zig, repeats: 2}}
  buckets: {{kind: generated, resolution: 64, step: 16, max_aspect: 2.0}}
adapter:
  unet: {{rank: 4, alpha: 6, learning_rate: 1e-2, targets: attention+feedforward+convolutions}}
  text_encoder: {{rank: 3, alpha: 1, learning_rate: 1e-2}}
  text_encoder_2: {{rank: 2, learning_rate: 1e-2}}
training:
  steps: 8
  micro_batch_size: 2
  global_batch_size: 4
  precision: fp32
  gradient_checkpointing: true
preview:
  every_steps: 4
  prompts: [a zig photo of a cat, {{prompt: coffee, size: [48, 80], negative_prompt: tea, original_size: [512, 512]}}]
  num_inference_steps: 10
checkpoint: {{every_steps: 4}}
export: {{formats: [kohya, diffusers, peft], precision: fp32}}
tracking: {{kind: tensorboard}}
"""

PHOTOGRAPHS = {
    # name: (picture, size in the file (height, width), EXIF orientation, upright size)
    "cat.jpg": ("chelsea", (90, 137), 6, (137, 90)),
    "coffee.jpeg": ("coffee", (101, 151), 3, (101, 151)),
    "deep/astronaut.jpg": ("astronaut", (130, 97), 8, (97, 130)),
    "deep/rocket.webp": ("rocket", (99, 140), 1, (99, 140)),
    "retina.png": ("retina", (111, 111), 1, (111, 111)),
    "stars.jpg": ("hubble_deep_field", (87, 100), 5, (100, 87)),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on the photographs once and return the folder."""
    from finetune.cli.main import main

    folder = tmp_path_factory.mktemp("whole-job")
    for name, (picture, size, orientation, _) in PHOTOGRAPHS.items():
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (resize(getattr(skimage.data, picture)(), size, anti_aliasing=True) * 255).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(path, exif=exif)
        path.with_suffix(".txt").write_text(f"a photo of {path.stem}\n", encoding="utf-8")
    (folder / "photos.yaml").write_text(RECIPE.format(folder=folder), encoding="utf-8")
    assert main(["train", str(folder / "photos.yaml")]) == 0
    return folder


def picture_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def pipeline() -> StableDiffusionXLPipeline:
    """Return the base in diffusers' own pipeline, as another program would have it."""
    files = Miniature()
    made = StableDiffusionXLPipeline(
        vae=files.load_vae(torch.float32),
        text_encoder=files.load_text_encoder(torch.float32),
        text_encoder_2=files.load_text_encoder_2(torch.float32),
        tokenizer=files.load_tokenizer(),
        tokenizer_2=files.load_tokenizer_2(),
        unet=files.load_unet(torch.float32),
        scheduler=sampling_scheduler(files),
        add_watermarker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def draw(made: StableDiffusionXLPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return made("a zig photo of a cat", num_inference_steps=10, guidance_scale=5.0, height=64, width=64,
                generator=generator, output_type="np").images[0]  # fmt: skip


def test_phone_photos_are_measured_upright(trained: Path) -> None:
    from imagesets.manifest import read_manifest

    lines = {line["name"]: line for line in read_manifest(trained / "runs/photos/manifest.jsonl")}
    assert {name: tuple(line["original_size"]) for name, line in lines.items()} == {
        name: upright for name, (_, _, _, upright) in PHOTOGRAPHS.items()
    }
    assert lines["deep/rocket.webp"]["caption"] == "zig, a photo of rocket"
    portrait = lines["cat.jpg"]
    assert portrait["bucket"][0] > portrait["bucket"][1], "a portrait is trained as a portrait"


def test_the_lora_changes_the_picture_and_off_is_the_base_bit_for_bit(trained: Path) -> None:
    previews = trained / "runs/photos/previews"
    for index in ("01", "02"):
        before = picture_of(previews / "step-000000" / f"{index}-lora-off.png")
        after = picture_of(previews / "step-000008" / f"{index}-lora.png")
        assert not np.array_equal(before, after)
        refined = picture_of(previews / "step-000008" / f"{index}-lora-refiner.png")
        assert not np.array_equal(after, refined)
        for step in ("step-000004", "step-000008"):
            assert np.array_equal(before, picture_of(previews / step / f"{index}-lora-off.png"))
    # What training calls 'off' is what diffusers draws without any adapter.
    bytes_of_base = (draw(pipeline()) * 255).round().astype(np.uint8)
    assert np.array_equal(bytes_of_base, picture_of(previews / "step-000000" / "01-lora-off.png"))


@pytest.mark.parametrize("form", ["photos.safetensors", "photos-diffusers/pytorch_lora_weights.safetensors"])
def test_diffusers_loads_the_file_whole_and_its_change_is_the_trained_one(trained: Path, form: str) -> None:
    run = trained / "runs/photos"
    recipe = load_recipe(str(run))
    checkpoint = load_checkpoint(run / "checkpoints/step-000008")
    wanted = {
        (module.component, module.module): module for module in trained_modules(checkpoint.parameters, recipe.adapter)
    }
    made = pipeline()
    base = draw(made)
    made.load_lora_weights(run / "exports", weight_name=form)
    assert not np.array_equal(draw(made), base), "the LoRA changes the picture"

    found, untrained = 0, []
    for component in COMPONENTS:
        for path, layer in getattr(made, component).named_modules():
            if not hasattr(layer, "lora_A"):
                continue
            name = path if component == "unet" else "text_model." + path.removeprefix("text_model.")
            [adapter] = layer.lora_A
            difference = layer.get_delta_weight(adapter).double() - wanted[component, name].delta()
            assert difference.abs().max() <= 1e-6
            if not wanted[component, name].delta().any():
                untrained.append((component, name))
            found += 1
    assert found == len(wanted) == 169 + 18 + 18
    # The first encoder's last layer stands behind the penultimate one that is used, so nothing ever reaches it.
    assert len(untrained) == 6, "a module that learned nothing proves nothing"
    assert all(entry[0] == "text_encoder" and ".layers.2." in entry[1] for entry in untrained)
    made.disable_lora()
    assert np.array_equal(draw(made), base), "LoRA off equals the base bit for bit"


def test_the_file_says_what_readers_need_and_how_to_train_it_again(trained: Path) -> None:
    path = trained / "runs/photos/exports/photos.safetensors"
    metadata = read_metadata(path)
    assert metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert parse_recipe(metadata["atelier_recipe"]) == load_recipe(str(trained / "runs/photos"))
    modules = read_lora(path, named_structure("miniature"))
    assert {module.scale for module in modules} == {6 / 4, 1 / 3, 1.0}


def test_the_run_tells_its_story(trained: Path) -> None:
    from finetune.run.events import read_events
    from webui.run_state import RunState, fold

    events, _ = read_events(trained / "runs/photos/events.jsonl")
    state = fold(RunState(), events)
    assert (state.log_status, state.step, sorted(state.previews), sorted(state.checkpoints)) == (
        "finished",
        8,
        [0, 4, 8],
        [4, 8],
    )
    assert all((trained / "runs/photos" / file).is_file() for file in state.exports)
    assert list((trained / "runs/photos/tensorboard").rglob("events.out.tfevents.*"))
    assert not [path for path in trained.rglob("*") if path.suffix in {".pt", ".pth", ".ckpt", ".bin", ".pkl"}]


def test_generate_draws_from_the_exported_file(trained: Path) -> None:
    from finetune.cli.main import main

    run = trained / "runs/photos"
    out = trained / "pictures"
    assert main(["generate", str(run), "--prompt", "a zig photo of a cat", "--seed", "0", "--size", "64x64",
                 "--lora", str(run / "exports/photos.safetensors"), "--out", str(out)]) == 0  # fmt: skip
    drawn = picture_of(out / "01-lora.png").astype(int)
    previewed = picture_of(run / "previews/step-000008/01-lora.png").astype(int)
    assert np.abs(drawn - previewed).max() <= 1, "the file draws what the run drew"


def test_the_kept_step_with_the_lowest_loss_is_exported_with_its_card(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log is told anew, so that the loss was lowest at step 4 of those kept, 4 and 8."""
    from finetune.cli.main import main

    run = RunFolder(tmp_path / "photos")
    shutil.copytree(trained / "runs" / "photos", run.path)
    assert run.kept_steps() == [8, 4]
    events = [json.loads(line) for line in run.events.read_text(encoding="utf-8").splitlines()]
    losses = {1: 0.9, 2: 0.5, 3: 0.3, 4: 0.2, 5: 0.1, 6: 2.0, 7: 2.0, 8: 0.01}
    lines = [
        json.dumps(event | ({"loss": losses[event["step"]]} if event["kind"] == "step" else {})) for event in events
    ]
    run.events.write_text("\n".join([*lines, ""]), encoding="utf-8")
    capsys.readouterr()
    assert main(["export", str(run.path), "--best", "--card", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["step"] == 4
    weights = [0.98**3, 0.98**2, 0.98, 1.0]
    mean = sum(weight * losses[step] for step, weight in enumerate(weights, 1)) / sum(weights)
    assert told["smoothed_loss"] == pytest.approx(mean)
    assert run.exports / "photos-step-000004.safetensors" in map(Path, told["files"])
    card = ModelCard.load(run.exports / "photos-step-000004-card" / "README.md")
    assert card.data.instance_prompt == "zig"
    assert [picture["text"] for picture in card.data.widget] == ["a zig photo of a cat", "coffee"]
    drawn = picture_of(run.preview(4) / "01-lora.png").astype(float)
    shown = picture_of(run.exports / "photos-step-000004-card" / card.data.widget[0]["output"]["url"]).astype(float)
    others = picture_of(run.preview(8) / "01-lora.png").astype(float)
    assert abs(shown - drawn).mean() < abs(shown - others).mean(), "its own step's pictures"


def test_an_export_ends_with_its_proof(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from finetune.cli.main import main

    run = RunFolder(tmp_path / "photos")
    shutil.copytree(trained / "runs" / "photos", run.path)
    capsys.readouterr()
    assert main(["export", str(run.path), "--precision", "fp16", "--json", "--for", "a1111", "--for", "peft"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = ["photos.safetensors", "photos-diffusers/pytorch_lora_weights.safetensors", "photos-peft"]
    assert [Path(proof["file"]) for proof in told["proofs"]] == [run.exports / name for name in names]
    for proof in told["proofs"]:
        assert proof["modules"] == {"unet": 169, "text_encoder": 18, "text_encoder_2": 18}
        assert proof["is_whole"]
    readers = {reading["reader"]: reading for reading in told["proofs"][0]["readers"]}
    for name in ("comfyui", "a1111", "forge", "diffusers"):
        assert readers[name]["modules"]["unet"] == {"taken": 169, "total": 169}
        assert readers[name]["scale"]["state"] == "right"
    assert [step["loaded_by"] for step in told["denoising"]] == ["diffusers", "diffusers", "Atelier"]
    for step in told["denoising"]:
        assert step["change"] > 0.01
        assert 0 < step["difference"] < 0.01

    assert main(["export", str(run.path), "--no-denoising-step", "--format", "diffusers"]) == 0
    printed = capsys.readouterr().out
    assert "diffusers  169/169  18/18      18/18      right  -     right    whole" in printed
    assert "denoising" not in printed
    assert main(["export", str(run.path), "--no-denoising-step", "--format", "diffusers", "--for", "a1111"]) == 1
    assert "A1111 reads none of the files whole" in capsys.readouterr().err
    before = (run.exports / "photos.safetensors").stat().st_mtime_ns
    assert main(["export", str(run.path), "--for", "a1112"]) == 2
    assert (run.exports / "photos.safetensors").stat().st_mtime_ns == before, "refused before anything is written"


def test_a_file_that_would_be_read_in_part_does_not_stay(trained: Path, tmp_path: Path) -> None:
    """As a slip in a writer would leave it: one key of another name."""
    from safetensors.torch import load_file, save_file

    from finetune.errors import AtelierError
    from finetune.export.run_export import proved

    source = trained / "runs/photos/exports/photos.safetensors"
    tensors = load_file(source)
    key = next(name for name in tensors if name.endswith("attn1_to_q.lora_up.weight"))
    path = tmp_path / "photos.safetensors"
    save_file({name.replace("to_q", "to_qq") if name == key else name: tensor for name, tensor in tensors.items()},
              path, read_metadata(source))  # fmt: skip
    with pytest.raises(AtelierError, match="is not read whole") as raised:
        proved(path, named_structure("miniature"))
    assert key.replace("to_q", "to_qq").partition(".")[0] in str(raised.value)
    assert not path.exists()
    shutil.copytree(trained / "runs/photos/exports/photos-peft", tmp_path / "photos-peft")
    weights = tmp_path / "photos-peft/unet/adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor for name, tensor in tensors.items() if not name.endswith("to_q.lora_B.weight")}, weights)
    with pytest.raises(AtelierError, match="is not read whole"):
        proved(tmp_path / "photos-peft", named_structure("miniature"))
    assert not (tmp_path / "photos-peft").exists()
