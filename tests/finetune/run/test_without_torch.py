"""The page and the terminal read runs without loading a tensor library."""

import subprocess
import sys


def test_the_run_folder_needs_no_torch() -> None:
    code = (
        "import sys, finetune.run; "
        "print([m for m in ('torch', 'numpy', 'diffusers', 'safetensors', 'pydantic', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
