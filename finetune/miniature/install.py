"""Put a finished base and refiner where the kit keeps its miniature: fp16 safetensors beside the configurations."""

import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch

from finetune.errors import AtelierError
from finetune.tensors.writing import write_safetensors

MAX_BYTES = {"base": 20_000_000, "refiner": 16_000_000}
"""How large each may be as it ships."""

_WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}


def install(base: Path, refiner: Path, output: Path, *, decoder: Path | None = None) -> None:
    """Write the weights of both as fp16 under `output`; configurations and tokenizers there stay as they are.

    Args:
        base: the folder of the base.
        refiner: the folder of the refiner.
        output: they go to its `base` and `refiner`.
        decoder: the folder of a model whose VAE takes the place of theirs; its latents must be theirs.

    Raises:
        AtelierError: a model is larger than what may ship, or was trained with another tokenizer.
    """
    for name, source in (("base", base), ("refiner", refiner)):
        for part, file in _WEIGHTS.items():
            found = (decoder if decoder is not None and part == "vae" else source) / part / file
            if found.is_file():
                _write_half(found, output / name / part / file)
        for tokenizer in source.glob("tokenizer*"):
            _require_same_tokens(tokenizer, output / name / tokenizer.name)
        size = sum(path.stat().st_size for path in (output / name).rglob("*.safetensors"))
        if size > MAX_BYTES[name]:
            raise AtelierError(f"the {name} has {size} bytes of weights, and may have {MAX_BYTES[name]}")


def _require_same_tokens(trained: Path, shipped: Path) -> None:
    """Stop where a model was trained with other tokens than the ones that ship."""
    if json.loads((trained / "vocab.json").read_text("utf-8")) != json.loads(
        (shipped / "vocab.json").read_text("utf-8")
    ):
        raise AtelierError(f"{trained} has another vocabulary than {shipped}. Build the miniature from its start again")


def weights_hash(model: Path) -> str:
    """Return a sha256 over all weight files of a model, in the order of their paths."""
    digest = hashlib.sha256()
    for path in sorted(model.rglob("*.safetensors")):
        digest.update(path.relative_to(model).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _write_half(source: Path, target: Path) -> None:
    tensors = {
        name: value.half() if value.dtype == torch.float32 else value
        for name, value in safetensors.torch.load_file(source).items()
    }
    if not all(value.isfinite().all() for value in tensors.values() if value.is_floating_point()):
        raise AtelierError(f"{source} has numbers that are not finite in fp16")
    write_safetensors(target, tensors, {"format": "pt"})
