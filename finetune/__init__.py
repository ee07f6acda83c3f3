"""Atelier trains LoRA adapters for Stable Diffusion XL. This package is the trainer and its command line."""

__version__ = "0.1.0"
