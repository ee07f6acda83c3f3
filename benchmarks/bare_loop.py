"""The loop to be measured against: what one would write by hand in an afternoon, with nothing around it.

    python benchmarks/bare_loop.py MODEL_FOLDER --steps 5

diffusers' `from_pretrained`, peft's LoRA through `add_adapter`, gradient checkpointing, autocast, AdamW, the plain
epsilon loss on random latents and embeddings of the right shapes. No pictures, no encoders, no clipping, no checks, no
log, no checkpoint. It prints one JSON line a step. Imports nothing of the kit.
"""

import argparse
import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LEARNING_RATE = 1e-4
NUM_TOKENS = 77
VAE_FACTOR = 8


@dataclass(frozen=True)
class BareBatch:
    """What one forward pass takes.

    Attributes:
        latents: (B, 4, h, w).
        prompt_embeds: (B, 77, cross-attention width).
        pooled_prompt_embeds: (B, pooled width).
        add_time_ids: (B, 6).
    """

    latents: Tensor
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    add_time_ids: Tensor


def random_batch(unet: UNet2DConditionModel, size: int, latent_side: int, device: str = "cpu") -> BareBatch:
    """Return random inputs in the shapes the U-Net takes."""
    config = unet.config
    pooled_width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    side_px = float(latent_side * VAE_FACTOR)
    time_ids = torch.tensor([[side_px, side_px, 0.0, 0.0, side_px, side_px]] * size)
    return BareBatch(
        torch.randn(size, config.in_channels, latent_side, latent_side).to(device),
        torch.randn(size, NUM_TOKENS, config.cross_attention_dim).to(device),
        torch.randn(size, pooled_width).to(device),
        time_ids.to(device),
    )


def add_lora(unet: UNet2DConditionModel, rank: int) -> list[torch.nn.Parameter]:
    """Put LoRA on the attention of a frozen U-Net and return its parameters, in float32."""
    unet.requires_grad_(requires_grad=False)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION))
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def bare_step(
    unet: UNet2DConditionModel,
    noise_scheduler: DDPMScheduler,
    optimizer: torch.optim.Optimizer,
    batch: BareBatch,
    autocast: AbstractContextManager[object],
) -> None:
    """Take one step of AdamW on the epsilon loss."""
    noise = torch.randn_like(batch.latents)
    timesteps = torch.randint(0, 1000, (batch.latents.shape[0],), device=batch.latents.device)
    noisy_latents = noise_scheduler.add_noise(batch.latents, noise, timesteps)
    with autocast:
        model_pred = unet(
            noisy_latents,
            timesteps,
            encoder_hidden_states=batch.prompt_embeds,
            added_cond_kwargs={"text_embeds": batch.pooled_prompt_embeds, "time_ids": batch.add_time_ids},
        ).sample
    F.mse_loss(model_pred.float(), noise).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def sdxl_noise_scheduler() -> DDPMScheduler:
    """Return SDXL's training schedule."""
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def train_full_size(folder: Path, rank: int, resolution: int, steps: int, device: str) -> None:
    """Load the folder's U-Net in bf16 and train it, printing a line a step."""
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.bfloat16).to(device)
    parameters = add_lora(unet, rank)
    unet.enable_gradient_checkpointing()
    unet.train()
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)
    noise_scheduler = sdxl_noise_scheduler()
    batch = random_batch(unet, 1, resolution // VAE_FACTOR, device)
    autocast = torch.autocast(device, torch.bfloat16) if device != "mps" else nullcontext()
    for step in range(1, steps + 1):
        bare_step(unet, noise_scheduler, optimizer, batch, autocast)
        memory = 0
        if device == "cuda":
            torch.cuda.synchronize()
            memory = torch.cuda.max_memory_allocated()
        print(json.dumps({"kind": "step", "step": step, "time": time.time(), "memory_bytes": memory}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a LoRA on a U-Net with a bare loop.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    train_full_size(arguments.folder, arguments.rank, arguments.resolution, arguments.steps, arguments.device)
