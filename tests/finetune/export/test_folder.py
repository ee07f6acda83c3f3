"""A trained model as a folder: diffusers' own pipelines load it, with the trained weights and the others untouched."""

import json

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file

from finetune.errors import AtelierError, DiskError
from finetune.export.folder import export_folder
from finetune.model.files import DiffusersFolder
from finetune.model.miniature import Miniature
from finetune.model.text import TextStack, tokenize

TEXTS = ["a <zig> on a white background", "Ein größerer Stern, ☂!", ""]
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def trained(files, *parts):
    """Weights that a training might have left, by a checkpoint's names."""
    loaded = {"unet": files.load_unet, "vae": files.load_vae, "text_encoder_2": files.load_text_encoder_2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return {
            f"{part}.{name}": value + 0.01 * torch.randn_like(value)
            for part in parts
            for name, value in loaded[part](torch.float32).named_parameters()
        }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_diffusers_loads_the_trained_weights(tmp_path, precision):
    files, dtype = Miniature(), PRECISIONS[precision]
    parameters = trained(files, "unet", "text_encoder_2")
    [folder] = export_folder(files, parameters, tmp_path / "model", precision=precision)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)  # in float32, as it does
    stored = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {dtype}
    for part in ("unet", "text_encoder_2"):
        for name, value in getattr(pipeline, part).named_parameters():
            assert torch.equal(value, parameters[f"{part}.{name}"].to(dtype).to(value.dtype)), name
    for name, value in files.load_vae(torch.float32).named_parameters():
        assert torch.equal(pipeline.vae.get_parameter(name), value.to(dtype).float()), name
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_it_draws_with_no_code_of_ours(tmp_path):
    [folder] = export_folder(Miniature(), trained(Miniature(), "unet"), tmp_path / "model", precision="fp32")
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat", num_inference_steps=2, height=32, width=32).images[0]
    assert image.size == (32, 32)


def test_our_own_folder_model_reads_it(tmp_path):
    parameters = trained(Miniature(), "unet")
    [folder] = export_folder(Miniature(), parameters, tmp_path / "model", precision="fp32")
    files = DiffusersFolder(folder)
    for name, value in files.load_unet(torch.float32).named_parameters():
        assert torch.equal(value, parameters[f"unet.{name}"]), name
    geometry, known = files.geometry(), Miniature().geometry()
    assert (geometry.size_multiple, geometry.default_side) == (known.size_multiple, known.default_side)
    assert files.scheduler_config() == Miniature().scheduler_config()
    cpu = torch.device("cpu")
    old, new = (TextStack.load(source, torch.float32, cpu) for source in (Miniature(), files))
    for before, after in zip(old.encode_frozen(TEXTS), new.encode_frozen(TEXTS), strict=True):
        # Close, not equal: where in memory a file's weights lie decides how a product is summed.
        torch.testing.assert_close(before.prompt_embeds, after.prompt_embeds, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(before.pooled_prompt_embeds, after.pooled_prompt_embeds, rtol=1e-5, atol=1e-5)
    for before, after in ((old.tokenizer, new.tokenizer), (old.tokenizer_2, new.tokenizer_2)):
        assert torch.equal(tokenize(before, TEXTS), tokenize(after, TEXTS))


def test_a_refiner_is_loaded_by_the_pipeline_that_takes_scores(tmp_path):
    files = Miniature(refiner=True)
    parameters = trained(files, "unet")
    [folder] = export_folder(files, parameters, tmp_path / "refiner", precision="fp32")
    pipeline = StableDiffusionXLImg2ImgPipeline.from_pretrained(folder, local_files_only=True)
    assert pipeline.config.requires_aesthetics_score
    assert not pipeline.config.force_zeros_for_empty_prompt
    assert pipeline.text_encoder is None
    assert pipeline.tokenizer is None
    assert all(torch.equal(value, parameters[f"unet.{name}"]) for name, value in pipeline.unet.named_parameters())
    assert not DiffusersFolder(folder).has_first_encoder()


def test_tokenizers_keep_the_two_files_of_the_published_layout(tmp_path):
    [folder] = export_folder(Miniature(), {}, tmp_path / "model", precision="fp32")
    for part in ("tokenizer", "tokenizer_2"):
        names = {path.name for path in (folder / part).iterdir()}
        assert {"tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"} <= names
        model = json.loads((folder / part / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        assert json.loads((folder / part / "vocab.json").read_text(encoding="utf-8")) == model["vocab"]
        merges = (folder / part / "merges.txt").read_text(encoding="utf-8").splitlines()
        assert merges[0].startswith("#version")
        assert [tuple(line.split(" ")) for line in merges[1:]] == [tuple(merge) for merge in model["merges"]]


def test_the_schedule_says_what_was_trained(tmp_path):
    [folder] = export_folder(
        Miniature(), {}, tmp_path / "model", precision="fp32", prediction_type="v_prediction", zero_terminal_snr=True
    )
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    config = pipeline.scheduler.config
    assert (config.prediction_type, config.rescale_betas_zero_snr, config.timestep_spacing) == (
        "v_prediction", True, "trailing"
    )  # fmt: skip


def test_an_older_export_is_replaced_whole(tmp_path):
    target = tmp_path / "model"
    export_folder(Miniature(), {}, target, precision="fp32")
    (target / "left.txt").write_text("of the older one")
    export_folder(Miniature(), {}, target, precision="bf16")
    assert not (target / "left.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("value", "what"), [(1e6, "too large for fp16"), (float("nan"), "not finite")])
def test_weights_that_cannot_be_kept_leave_the_older_export(tmp_path, value, what):
    target = tmp_path / "model"
    export_folder(Miniature(), {}, target, precision="fp16")
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    parameters = trained(Miniature(), "unet")
    parameters["unet.conv_in.bias"][0] = value
    with pytest.raises(AtelierError, match=rf"unet\.conv_in\.bias: .*{what}"):
        export_folder(Miniature(), parameters, target, precision="fp16")
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_told_in_words(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def refuse(*_arguments, **_settings):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("diffusers.UNet2DConditionModel.save_pretrained", refuse)
    with pytest.raises(DiskError, match="the disk is full"):
        export_folder(Miniature(), {}, tmp_path / "model", precision="fp32")
    assert list(tmp_path.iterdir()) == []
