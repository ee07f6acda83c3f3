"""The list of attacks that the page's tests refuse, run beside a plain Gradio page with the same folders.

    python benchmarks/page_attacks.py

Prints, for each attack, whether it worked on either page, and how many did. The plain page is what Gradio's guides
show: one handler, an upload, `allowed_paths` for the folders. It listens at 127.0.0.1, too.
"""

import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "datasets")]

from tests.webui.attacks import Target, all_attacks, lay_folder  # noqa: E402
from tests.webui.serving import free_port, serve_page  # noqa: E402

PLAIN = """
import sys
import gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    text, picture = gr.Textbox(), gr.Image()
    text.change(lambda words: words, text, text)
page.launch(server_port=int(sys.argv[1]), allowed_paths=["runs", "pictures"], quiet=True)
"""


def main() -> None:
    """Run the list against both."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        for folder in (first, second):
            lay_folder(Path(folder))
        with (
            serve_page(Path(first), "--pictures", "pictures", "--max-upload", "1") as ours,
            _serve_plain(Path(second)) as plain,
        ):
            targets = [Target(ours, Path(first), 1_000_000), Target(plain, Path(second), 1_000_000)]
            worked = [0, 0]
            attacks = list(all_attacks())
            print(f"{'attack':<58} {'atelier':>8} {'plain':>8}")
            for attack in attacks:
                found = [attack.worked(attack.send(target)) for target in targets]
                worked = [count + hit for count, hit in zip(worked, found, strict=True)]
                words = ["worked" if hit else "refused" for hit in found]
                print(f"{attack.name[:57]:<58} {words[0]:>8} {words[1]:>8}")
            print(f"{f'worked, of {len(attacks)}':<58} {worked[0]:>8} {worked[1]:>8}")


@contextmanager
def _serve_plain(folder: Path) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", PLAIN, str(port)], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the plain page ended"
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
