"""Keep other libraries off the terminal."""

import os


def quiet_libraries() -> None:
    """Keep the libraries' own bars and advice off the terminal; their errors still show."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0")
