"""Make the models that training begins with: the base, which knows nothing, and the refiner, made from a base."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from finetune.miniature.reading import ReadingSettings, teach_reading
from finetune.miniature.tokenizer import END, learn_merges, world_captions, write_tokenizer
from finetune.model.files import DiffusersFolder
from finetune.model.text import TextStack
from finetune.model.vae import to_model_range
from finetune.model.whitening import begin_latents, latent_statistics
from imagesets.randomness import key_to_seed
from imagesets.world.photos import draw_photo
from imagesets.world.render import render_scene

SHIPPED = Path(__file__).parents[1] / "model" / "miniature"
"""Where the miniature's configurations lie, and its weights once they are made."""

INITIAL_LOG_VARIANCE = -6.0
"""Of the untrained VAE's latents: with the usual 0, noise drowns the picture before anything is learnt."""

_NUM_PHOTOS = 256
"""Over which the untrained VAE's latents are made white."""

CLIP_PAD_TOKEN = "!"  # noqa: S105 - a word for padding
"""What the second tokenizer pads with, as OpenCLIP's: token 0."""


def make_start(folder: Path, seed: int, progress: Callable[[int, int, float], None]) -> float:
    """Write a base whose tokenizers are made, whose encoders are taught, and whose U-Net and VAE are drawn at random.

    Args:
        folder: is made anew, in diffusers' layout, in float32.
        seed: of everything that is drawn.
        progress: of the encoders' lessons: called with (steps done, steps in all, loss).

    Returns:
        The share of questions about captions that can be answered from the encoders' states.
    """
    partial = _emptied(folder)
    shutil.copytree(SHIPPED / "base", partial, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    merges = learn_merges(world_captions(seed))
    for name, pad_token in (("tokenizer", END), ("tokenizer_2", CLIP_PAD_TOKEN)):
        num_tokens = write_tokenizer(partial / name, merges, pad_token)
    first = _drawn(seed, "text_encoder", lambda: CLIPTextModel(_text_config(partial / "text_encoder", num_tokens)))
    second = _drawn(
        seed,
        "text_encoder_2",
        lambda: CLIPTextModelWithProjection(_text_config(partial / "text_encoder_2", num_tokens)),
    )
    unet = _drawn(
        seed, "unet", lambda: UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(partial / "unet"))
    )
    vae = _drawn(seed, "vae", lambda: AutoencoderKL.from_config(AutoencoderKL.load_config(partial / "vae")))
    begin_latents(vae, latent_statistics(vae, _photos(seed)), INITIAL_LOG_VARIANCE)
    files = DiffusersFolder(partial)
    tokenizer = files.load_tokenizer()
    stack = TextStack(tokenizer, files.load_tokenizer_2(), first, second, zero_when_empty=True)
    right = teach_reading(stack, ReadingSettings(), seed, progress)
    for name, model in (("text_encoder", first), ("text_encoder_2", second), ("unet", unet), ("vae", vae)):
        save_part(model, partial / name)
    partial.rename(folder)
    return right


def make_refiner_start(base: Path, folder: Path) -> None:
    """Write a refiner that begins with what a base knows: its VAE, its second encoder, its U-Net's weights.

    The refiner's U-Net reads the second encoder alone and is told a score in place of the target size, so of the
    layers that read these, the columns that mean the same are kept; the score's begin at zero.
    """
    partial = _emptied(folder)
    shutil.copytree(SHIPPED / "refiner", partial, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    for name in ("text_encoder_2", "tokenizer_2", "vae"):
        shutil.copytree(base / name, partial / name, dirs_exist_ok=True)
    source = DiffusersFolder(base).load_unet(torch.float32)
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(partial / "unet"))
    unet.load_state_dict(refiner_weights(source, unet))
    save_part(unet, partial / "unet")
    partial.rename(folder)


def refiner_weights(base: UNet2DConditionModel, refiner: UNet2DConditionModel) -> dict[str, Tensor]:
    """Return the refiner's weights as far as the base has them, zeros where it has nothing of the kind.

    The base's text states are (first encoder's, second encoder's) and the refiner's the second's alone. Both U-Nets
    are told (pooled embedding, time ids): the first four ids are the same, the refiner's fifth is the score.
    """
    weights = {}
    pooled = refiner.config.projection_class_embeddings_input_dim - 5 * refiner.config.addition_time_embed_dim
    shared = pooled + 4 * refiner.config.addition_time_embed_dim
    wanted = refiner.state_dict()
    for name, tensor in base.state_dict().items():
        if name == "add_embedding.linear_1.weight":
            made = torch.zeros_like(wanted[name])
            made[:, :shared] = tensor[:, :shared]
            weights[name] = made
        elif tensor.shape != wanted[name].shape:  # to_k and to_v of cross-attention
            weights[name] = tensor[:, -wanted[name].shape[1] :].clone()
        else:
            weights[name] = tensor
    return weights


def save_part(model: torch.nn.Module, folder: Path) -> None:
    """Save a model as safetensors beside its configuration, which stays as it is written there."""
    config = (folder / "config.json").read_text(encoding="utf-8")
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "config.json").write_text(config, encoding="utf-8")


def _photos(seed: int) -> Iterator[Tensor]:
    """Return photos of the world in their own sizes, cut to multiples of the VAE's factor, (1, 3, H, W) in [-1, 1]."""
    for index in range(_NUM_PHOTOS):
        photo = draw_photo(seed, index)
        pixels = to_model_range(render_scene(photo.scene, photo.size))
        yield pixels[None, :, : pixels.shape[1] // 4 * 4, : pixels.shape[2] // 4 * 4]


def _drawn(seed: int, part: str, build: Callable[[], Any]) -> Any:
    """Build a model with weights drawn from a seed of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key_to_seed(seed, "miniature", part))
        return build()


def _text_config(folder: Path, num_tokens: int) -> CLIPTextConfig:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == num_tokens, f"{folder} is made for {config['vocab_size']} tokens, not {num_tokens}"
    return CLIPTextConfig.from_dict(config)


def _emptied(folder: Path) -> Path:
    """Return an empty folder beside `folder`, to be renamed to it once it is whole."""
    partial = folder.with_name(f".partial-{folder.name}")
    for old in (partial, folder):
        if old.exists():
            shutil.rmtree(old)
    partial.mkdir(parents=True)
    return partial
