"""Trained adapters as files other programs load: kohya, diffusers and peft, written whole; and reading them back."""
