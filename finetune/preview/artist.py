"""The previews of a run: the same prompts and seeds each time, LoRA off once and on at intervals, base and refined.

One large model is on the card at a time: the base gives way to the refiner, which is opened, used and let go, and to
the VAE.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from finetune.adapters.lora import lora_disabled
from finetune.model.files import ModelFiles, sampling_scheduler
from finetune.model.text import TextStack
from finetune.model.vae import Pixels, decode_latents
from finetune.preview.encode import encode_guidance
from finetune.preview.requests import PictureRequest
from finetune.preview.sampling import Guidance, Sampler, base_share
from finetune.preview.wall import save_picture, save_wall
from finetune.recipe.preview import EnsembleRefiner, ImageToImageRefiner


@dataclass
class Artist:
    """Draws a run's previews into its folder.

    Attributes:
        files: the base model.
        refiner_files: the refiner, or None.
        refiner: how the refiner is used.
        requests: what is drawn.
        sampler: how it is drawn.
        vae: decodes; on the U-Net's device, in a precision that does not overflow.
        guidance: the requests encoded by the base's frozen encoders, or None where an encoder is being trained.
        text: the base's encoders where one is being trained, else None.
        refiner_guidance: the requests encoded by the refiner's own encoder.
        weight_dtype: the refiner's precision.
        prediction_type: what the base is trained to predict, or None for what its own schedule says.
        zero_terminal_snr: whether it is trained with a last timestep of pure noise.
        has_adapter: whether what was learned can be switched off; else the untouched model is drawn at step 0 only.
        facts: what else each picture with the adapter says of itself, as which files it was drawn with.
    """

    files: ModelFiles
    refiner_files: ModelFiles | None
    refiner: EnsembleRefiner | ImageToImageRefiner
    requests: Sequence[PictureRequest]
    sampler: Sampler
    vae: AutoencoderKL
    guidance: list[Guidance] | None
    text: TextStack | None
    refiner_guidance: list[Guidance]
    weight_dtype: torch.dtype
    prediction_type: str | None = None
    zero_terminal_snr: bool = False
    has_adapter: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    _untouched: list[list[Pixels]] = field(default_factory=list)

    def draw(self, unet: UNet2DConditionModel, adapted: Sequence[nn.Module], folder: Path, step: int) -> list[Path]:
        """Draw every request with the adapter on, and off the first time, and write the pictures and the wall.

        Args:
            unet: the base's U-Net with the adapter in it.
            adapted: all models that have an adapter.
            folder: where the pictures go.
            step: optimizer steps done; at 0 the adapter changes nothing, so only 'LoRA off' is drawn.

        Returns:
            The files, the wall first.
        """
        was_training = [model for model in {unet, *adapted} if model.training]
        for model in was_training:
            model.eval()
        try:
            if not self._untouched and (self.has_adapter or step == 0):
                with lora_disabled(adapted):
                    self._untouched = self._draw_all(unet)
            before, after = ("LoRA off", "LoRA") if self.has_adapter else ("untrained", "trained")
            columns = self._columns(before, self._untouched) if self._untouched else {}
            if step > 0:
                columns |= self._columns(after, self._draw_all(unet))
        finally:
            for model in was_training:
                model.train()
        return self._write(columns, folder, step)

    def _draw_all(self, unet: UNet2DConditionModel) -> list[list[Pixels]]:
        """Return, for each request, the base's picture and, where there is a refiner, the refined one."""
        with self.sampler.autocast():  # an encoder in training has float32 factors beside weights of lower precision
            guidance = self.guidance if self.text is None else encode_guidance(self.text, self.requests)
        assert guidance is not None
        scheduler = sampling_scheduler(
            self.files, prediction_type=self.prediction_type, zero_terminal_snr=self.zero_terminal_snr
        )
        end = base_share(self.refiner) if self.refiner_files is not None else None
        drawn = [
            self.sampler.base_latents(unet, self.vae, scheduler, request, encoded, end)
            for request, encoded in zip(self.requests, guidance, strict=True)
        ]
        latents = [[base.finished] for base in drawn]
        with parked(unet):
            if self.refiner_files is not None:
                hand_over = [base.finished if base.unfinished is None else base.unfinished for base in drawn]
                for row, refined in zip(latents, self._refine_all(self.refiner_files, hand_over), strict=True):
                    row.append(refined)
            return [[decode_latents(self.vae, latent)[0] for latent in row] for row in latents]

    def _refine_all(self, files: ModelFiles, hand_over: Sequence[Tensor]) -> list[Tensor]:
        unet = files.load_unet(self.weight_dtype).to(hand_over[0].device)
        scheduler = sampling_scheduler(files)
        return [
            self.sampler.refined_latents(unet, self.vae, scheduler, request, encoded, latents, self.refiner)
            for request, encoded, latents in zip(self.requests, self.refiner_guidance, hand_over, strict=True)
        ]

    def _columns(self, title: str, drawn: Sequence[Sequence[Pixels]]) -> dict[str, list[Pixels]]:
        """Return the base's pictures and the refined ones by their titles."""
        columns = {title: [pictures[0] for pictures in drawn]}
        if self.refiner_files is not None:
            columns[f"{title} + refiner"] = [pictures[1] for pictures in drawn]
        return columns

    def _write(self, columns: dict[str, list[Pixels]], folder: Path, step: int) -> list[Path]:
        paths = [folder / "wall.png"]
        for title, pictures in columns.items():
            stem = title.lower().replace(" + ", "-").replace(" ", "-")
            for index, (request, pixels) in enumerate(zip(self.requests, pictures, strict=True)):
                path = folder / f"{index + 1:02d}-{stem}.png"
                save_picture(path, pixels, self._settings(request, title, step))
                paths.append(path)
        rows = [
            (request.prompt, [pictures[index] for pictures in columns.values()])
            for index, request in enumerate(self.requests)
        ]
        save_wall(paths[0], rows, list(columns))
        return paths

    def _settings(self, request: PictureRequest, title: str, step: int) -> dict[str, Any]:
        settings = {**picture_settings(request, title, self.sampler, self.refiner), "step": step}
        return settings if "off" in title else {**settings, **self.facts}


def picture_settings(
    request: PictureRequest, title: str, sampler: Sampler, refiner: EnsembleRefiner | ImageToImageRefiner
) -> dict[str, Any]:
    """Return what a picture says of how it was drawn; of the refiner only where the title names it."""
    settings: dict[str, Any] = {**asdict(request), "drawn_with": title}
    settings["num_inference_steps"] = sampler.num_inference_steps
    settings["guidance_scale"] = sampler.guidance_scale
    if "refiner" in title:
        settings["refiner"] = refiner.model_dump(mode="json")
    return settings


@contextmanager
def parked(unet: UNet2DConditionModel) -> Iterator[None]:
    """Keep a U-Net in the machine's memory inside the block, so that the refiner or the VAE has the card to itself."""
    device = unet.device
    if device.type == "cpu":
        yield
        return
    unet.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        torch.cuda.empty_cache()
        unet.to(device)
