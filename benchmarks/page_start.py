"""How long the web page takes from its command to its first answer, and what it weighs then, beside Gradio alone.

    python benchmarks/page_start.py

Prints the medians of a few starts: seconds until `GET /` is answered, and the memory of the page's process (resident,
and what is its own). The second line is a plain Gradio page of one text box, started likewise.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
STARTS = 5
PLAIN = """
import sys
import gradio as gr
with gr.Blocks() as page:
    gr.Textbox()
page.launch(server_port=int(sys.argv[1]), quiet=True)
"""


def main() -> None:
    """Measure both and print them."""
    ours = [_start([sys.executable, "-m", "finetune", "ui", "--port"]) for _ in range(STARTS)]
    plain = [_start([sys.executable, "-c", PLAIN]) for _ in range(STARTS)]
    for name, found in (("atelier ui", ours), ("plain gradio", plain)):
        seconds, resident, own = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name:<13} {seconds:5.2f} s to the first answer, {resident:4.0f} MiB resident, {own:4.0f} MiB its own")
    ratio = statistics.median(first[0] for first in ours) / statistics.median(first[0] for first in plain)
    print(f"ratio {ratio:.2f}")


def _start(command: list[str]) -> tuple[float, float, float]:
    """Start a page and return the seconds to its first answer, and its memory in MiB, resident and unique."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}", "GRADIO_ANALYTICS_ENABLED": "False"}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, str(port)], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                        answer.read()
                    break
                except OSError:
                    assert process.poll() is None, "the page ended"
                    time.sleep(0.01)
            seconds = time.perf_counter() - started
            memory = psutil.Process(process.pid).memory_full_info()
            return seconds, memory.rss / 2**20, memory.uss / 2**20
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
