"""Models as they lie on a disk: a diffusers folder and a single file give the models that were saved, bit for bit."""

import json
import pickle
import shutil

import pytest
import safetensors.torch
import torch

from finetune.errors import RecipeError
from finetune.model.files import DiffusersFolder
from finetune.model.geometry import look_at_model
from finetune.model.miniature import Miniature
from finetune.model.open import open_model
from finetune.model.single_file import SingleFile
from finetune.model.text import TextStack
from finetune.recipe.schema import FolderModel, HubModel, SingleFileModel

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def _open(tiny_sdxl, kind):
    if kind == "folder":
        return open_model(FolderModel(path=str(tiny_sdxl.folder)))
    return open_model(SingleFileModel(path=str(tiny_sdxl.single_file), config=str(tiny_sdxl.folder)))


each_kind = pytest.mark.parametrize("kind", ["folder", "single_file"])


@each_kind
@pytest.mark.parametrize("part", _PARTS)
def test_weights_come_back_bit_for_bit_and_frozen(tiny_sdxl, kind, part):
    model = getattr(_open(tiny_sdxl, kind), f"load_{part}")(torch.float32)
    source = getattr(tiny_sdxl.pipeline, part)
    assert type(model) is type(source)
    found, expected = model.state_dict(), source.state_dict()
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_encoder_saved_by_an_older_transformers_loads_too(tiny_sdxl, tmp_path):
    """Before 5.6 the names of the first encoder began with `text_model.`; SDXL's own folder has them so."""
    shutil.copytree(tiny_sdxl.folder, tmp_path / "model")
    path = tmp_path / "model" / "text_encoder" / "model.safetensors"
    tensors = {"text_model." + name.removeprefix("text_model."): value
               for name, value in safetensors.torch.load_file(path).items()}  # fmt: skip
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    found = DiffusersFolder(tmp_path / "model").load_text_encoder(torch.float32).state_dict()
    for name, value in tiny_sdxl.pipeline.text_encoder.state_dict().items():
        assert torch.equal(found[name], value), name


@each_kind
def test_outputs_equal_the_sources(tiny_sdxl, kind):
    files, source = _open(tiny_sdxl, kind), tiny_sdxl.pipeline
    stack = TextStack.load(files, torch.float32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    latents, pixels = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 3, 32, 32, generator=generator)
    with torch.no_grad():
        text = stack.encode(["a photo of a cat"])
        prompt, _, pooled, _ = source.encode_prompt("a photo of a cat", do_classifier_free_guidance=False)
        torch.testing.assert_close(text.prompt_embeds, prompt, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(text.pooled_prompt_embeds, pooled, rtol=1e-5, atol=1e-5)
        conditioning = {"text_embeds": pooled, "time_ids": torch.tensor([[40.0, 41, 2, 3, 32, 32]])}
        unet = files.load_unet(torch.float32)
        weights = source.unet.state_dict()
        assert unet.state_dict().keys() == weights.keys()
        assert all(torch.equal(value, weights[name]) for name, value in unet.state_dict().items())
        predictions = [
            each(latents, 500, prompt, added_cond_kwargs=conditioning).sample for each in (unet, source.unet)
        ]
        # Equal weights in other places of memory: kernels that look at alignment round otherwise.
        torch.testing.assert_close(*predictions, rtol=1e-5, atol=1e-5)
        vae = files.load_vae(torch.float32)
        torch.testing.assert_close(
            vae.encode(pixels).latent_dist.mean, source.vae.encode(pixels).latent_dist.mean, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(vae.decode(latents).sample, source.vae.decode(latents).sample, rtol=1e-5, atol=1e-5)


@each_kind
def test_parts_load_in_the_precision_asked_for(tiny_sdxl, kind):
    files = _open(tiny_sdxl, kind)
    for part in _PARTS:
        model = getattr(files, f"load_{part}")(torch.bfloat16)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}, part
        expected = getattr(tiny_sdxl.pipeline, part).state_dict()
        for name, value in model.state_dict().items():
            assert torch.equal(value, expected[name].to(value.dtype)), name


@each_kind
def test_geometry_is_read_from_the_configuration(tiny_sdxl, kind):
    geometry = _open(tiny_sdxl, kind).geometry()
    assert (geometry.vae_factor, geometry.unet_factor, geometry.default_side, geometry.size_multiple) == (4, 4, 32, 16)


def test_the_real_sdxls_geometry_and_schedule_ship_with_the_kit(tmp_path, tiny_sdxl):
    files = SingleFile(tiny_sdxl.single_file)  # without `config`, what it does not hold is SDXL's own
    geometry = files.geometry()
    assert (geometry.vae_factor, geometry.unet_factor, geometry.default_side) == (8, 4, 1024)
    assert geometry.unet_config["transformer_layers_per_block"] == [1, 2, 10]
    schedule = files.scheduler_config()
    assert (schedule["beta_start"], schedule["beta_end"], schedule["beta_schedule"]) == (
        0.00085,
        0.012,
        "scaled_linear",
    )
    assert (schedule["prediction_type"], schedule.get("rescale_betas_zero_snr", False)) == ("epsilon", False)


@pytest.mark.parametrize(
    ("markers", "prediction_type", "zero_terminal_snr"),
    [([], "epsilon", False), (["v_pred"], "v_prediction", False), (["v_pred", "ztsnr"], "v_prediction", True)],
)
def test_markers_of_a_v_prediction_checkpoint(tmp_path, tiny_sdxl, markers, prediction_type, zero_terminal_snr):
    tensors = safetensors.torch.load_file(tiny_sdxl.single_file)
    path = tmp_path / "marked.safetensors"
    safetensors.torch.save_file({**tensors, **{marker: torch.zeros(1) for marker in markers}}, path)
    schedule = SingleFile(path, tiny_sdxl.folder).scheduler_config()
    assert schedule["prediction_type"] == prediction_type
    assert schedule.get("rescale_betas_zero_snr", False) == zero_terminal_snr


class TestIdentity:
    """Adapters and caches are tied to a model by it."""

    def test_equal_weights_have_equal_identities(self, tiny_sdxl, tmp_path):
        shutil.copytree(tiny_sdxl.folder, tmp_path / "copy")
        assert DiffusersFolder(tmp_path / "copy").identity() == DiffusersFolder(tiny_sdxl.folder).identity()
        shutil.copy(tiny_sdxl.single_file, tmp_path / "tiny.safetensors")
        assert SingleFile(tmp_path / "tiny.safetensors").identity() == SingleFile(tiny_sdxl.single_file).identity()

    def test_other_weights_of_the_same_shapes_have_another(self, tiny_sdxl, tmp_path):
        shutil.copytree(tiny_sdxl.folder, tmp_path / "copy")
        path = tmp_path / "copy" / "unet" / "diffusion_pytorch_model.safetensors"
        for file, files in (
            (path, lambda: DiffusersFolder(tmp_path / "copy")),
            (tmp_path / "tiny.safetensors", lambda: SingleFile(tmp_path / "tiny.safetensors")),
        ):
            if not file.exists():
                shutil.copy(tiny_sdxl.single_file, file)
            before = files().identity()
            tensors = safetensors.torch.load_file(file)
            safetensors.torch.save_file({name: value * 2 for name, value in tensors.items()}, file)
            assert files().identity() != before

    def test_base_and_refiner_differ(self):
        assert Miniature().identity() != Miniature(refiner=True).identity()


class TestRefused:
    """What cannot be used is refused in words, before anything is run from it."""

    def _single(self, path, tensors=None, **kinds):
        if tensors is not None:
            safetensors.torch.save_file(tensors, path)
        return open_model(SingleFileModel(path=str(path), **kinds))

    @pytest.mark.parametrize("ending", [".ckpt", ".pt", ".bin", ""])
    def test_a_pickle(self, tmp_path, ending):
        path = tmp_path / f"model{ending}"
        path.write_bytes(pickle.dumps({"weights": 1}))
        with pytest.raises(RecipeError, match=r"only \.safetensors checkpoints are read.*pickle"):
            SingleFile(path)

    def test_a_pickle_by_another_name(self, tmp_path):
        path = tmp_path / "model.safetensors"
        path.write_bytes(pickle.dumps({"weights": 1}))
        with pytest.raises(RecipeError, match=r"is not a readable \.safetensors file"):
            self._single(path)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_a_cut_file(self, tmp_path, tiny_sdxl, share):
        content = tiny_sdxl.single_file.read_bytes()
        path = tmp_path / "cut.safetensors"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(RecipeError, match=r"cut\.safetensors is not a readable .* It may be cut short"):
            self._single(path)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(RecipeError, match=r"nowhere\.safetensors does not exist"):
            self._single(tmp_path / "nowhere.safetensors")
        with pytest.raises(RecipeError, match=r"nowhere\.safetensors does not exist"):
            SingleFile(tmp_path / "nowhere.safetensors")

    def test_another_kind_of_model(self, tmp_path):
        with pytest.raises(RecipeError, match=r"is no SDXL checkpoint.*holds 1 tensors, the first named 'lora_unet"):
            self._single(tmp_path / "lora.safetensors", {"lora_unet_x.alpha": torch.zeros(1)})
        with pytest.raises(RecipeError, match="holds 0 tensors"):
            self._single(tmp_path / "empty.safetensors", {})

    @pytest.mark.parametrize(
        ("part", "missing"),
        [
            ("unet", "model.diffusion_model.middle_block.1.proj_in.weight"),
            ("vae", "first_stage_model.decoder.conv_out.bias"),
            ("text_encoder", "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias"),
            ("text_encoder_2", "conditioner.embedders.1.model.transformer.resblocks.3.mlp.c_fc.weight"),
        ],
    )
    def test_a_checkpoint_without_one_of_its_tensors(self, tmp_path, tiny_sdxl, part, missing):
        tensors = safetensors.torch.load_file(tiny_sdxl.single_file)
        del tensors[missing]
        files = self._single(tmp_path / "holed.safetensors", tensors, config=str(tiny_sdxl.folder))
        with pytest.raises(RecipeError, match=rf"holed\.safetensors: its {part} cannot be loaded"):
            getattr(files, f"load_{part}")(torch.float32)

    @pytest.mark.parametrize("part", _PARTS)
    def test_a_checkpoint_of_other_shapes_than_its_configuration(self, tiny_sdxl, part):
        files = SingleFile(tiny_sdxl.single_file)  # the tiny model, taken for the real one
        with pytest.raises(RecipeError, match=rf"its {part} cannot be loaded"):
            getattr(files, f"load_{part}")(torch.float32)

    def test_a_folder_that_is_no_model(self, tmp_path):
        with pytest.raises(RecipeError, match=r"unet/config\.json is missing"):
            open_model(FolderModel(path=str(tmp_path)))
        with pytest.raises(RecipeError, match=r"nowhere does not exist"):
            open_model(FolderModel(path=str(tmp_path / "nowhere")))

    @pytest.mark.parametrize("part", _PARTS)
    def test_a_folder_with_pickles_only(self, tmp_path, tiny_sdxl, part):
        shutil.copytree(tiny_sdxl.folder, tmp_path / "model")
        (weights,) = (tmp_path / "model" / part).glob("*.safetensors")
        name = "pytorch_model.bin" if part.startswith("text") else "diffusion_pytorch_model.bin"
        torch.save(safetensors.torch.load_file(weights), weights.with_name(name))
        weights.unlink()
        with pytest.raises(RecipeError, match=rf"{part} cannot be loaded.*Safetensors weights are needed"):
            getattr(DiffusersFolder(tmp_path / "model"), f"load_{part}")(torch.float32)

    @pytest.mark.parametrize("part", _PARTS)
    def test_a_folder_with_a_cut_file(self, tmp_path, tiny_sdxl, part):
        shutil.copytree(tiny_sdxl.folder, tmp_path / "model")
        (weights,) = (tmp_path / "model" / part).glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(RecipeError, match=f"{part} cannot be loaded"):
            getattr(DiffusersFolder(tmp_path / "model"), f"load_{part}")(torch.float32)

    @pytest.mark.parametrize("part", _PARTS)
    def test_a_folder_without_one_of_its_tensors(self, tmp_path, tiny_sdxl, part):
        """A tensor that is not there must not be drawn at random in silence."""
        shutil.copytree(tiny_sdxl.folder, tmp_path / "model")
        (weights,) = (tmp_path / "model" / part).glob("*.safetensors")
        tensors = safetensors.torch.load_file(weights)
        del tensors[max(tensors)]
        safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
        with pytest.raises(RecipeError, match=f"{part} cannot be loaded"):
            getattr(DiffusersFolder(tmp_path / "model"), f"load_{part}")(torch.float32)

    @pytest.mark.parametrize("content", ["", "{", "\x00"])
    def test_a_broken_configuration(self, tmp_path, tiny_sdxl, content):
        shutil.copytree(tiny_sdxl.folder, tmp_path / "model")
        path = tmp_path / "model" / "scheduler" / "scheduler_config.json"
        path.write_text(content)
        with pytest.raises(RecipeError, match=r"scheduler_config\.json cannot be read"):
            DiffusersFolder(tmp_path / "model").scheduler_config()


def test_a_model_index_says_what_an_empty_text_is(tmp_path, tiny_sdxl):
    shutil.copytree(tiny_sdxl.folder, tmp_path / "model")
    path = tmp_path / "model" / "model_index.json"
    index = json.loads(path.read_text())
    for zeros in (True, False):
        path.write_text(json.dumps({**index, "force_zeros_for_empty_prompt": zeros}))
        stack = TextStack.load(DiffusersFolder(tmp_path / "model"), torch.float32, torch.device("cpu"))
        assert bool(stack.empty().prompt_embeds.abs().max() == 0) == zeros


@pytest.mark.parametrize("config", [True, False])
def test_a_single_files_sizes_are_known_before_it_is_opened(tiny_sdxl, config):
    section = SingleFileModel(path=str(tiny_sdxl.single_file), config=str(tiny_sdxl.folder) if config else None)
    files, known = open_model(section), look_at_model(section)
    assert (known.geometry, known.has_first_encoder) == (files.geometry(), files.has_first_encoder())
    assert known.geometry.vae_factor == (4 if config else 8)


def test_a_hub_model_is_known_where_its_settings_lie_in_the_cache(tiny_sdxl, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    section = HubModel(kind="hub", id="a/b")
    assert look_at_model(section) is None
    cached, commit = tmp_path / "models--a--b", "0" * 40
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    shutil.copytree(tiny_sdxl.folder, cached / "snapshots" / commit)
    known = look_at_model(section)
    assert known.geometry == DiffusersFolder(tiny_sdxl.folder).geometry()
    (cached / "snapshots" / commit / "text_encoder" / "config.json").unlink()
    assert look_at_model(section) is None, "it may be on its way; that does not make it a refiner"
