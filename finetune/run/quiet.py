"""Keep other libraries off the terminal."""

import logging
import os


def quiet_libraries() -> None:
    """Keep the libraries' own bars and advice off the terminal; their errors still show.

    Call it before torch is imported for the first time: the libraries read their settings as they are imported.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("BITSANDBYTES_NOWELCOME", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    # On some CPUs it asks for another package, for 4-bit products that nobody here makes.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # 'Loading weights' for every encoder; downloads keep theirs
