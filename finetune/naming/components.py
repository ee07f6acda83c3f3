"""The three models that an adapter can change."""

from typing import Literal

Component = Literal["unet", "text_encoder", "text_encoder_2"]

COMPONENTS: tuple[Component, ...] = ("unet", "text_encoder", "text_encoder_2")
