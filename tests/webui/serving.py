"""A page for tests, as a process of its own, started as a person would start it."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.jobs.conftest import child_environment

_PATIENCE_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def begin_page(folder: Path, *words: str, port: int, **environment: str) -> "subprocess.Popen[bytes]":
    """Start `atelier ui` in a folder; it does not answer yet."""
    with (folder / "page.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "finetune", "ui", "--port", str(port), *words],
            cwd=folder,
            env={**os.environ, **child_environment(), **environment},
            stdout=log,
            stderr=log,
        )


def start_page(folder: Path, *words: str, port: int, **environment: str) -> "subprocess.Popen[bytes]":
    """Start `atelier ui` in a folder and return once it answers."""
    process = begin_page(folder, *words, port=port, **environment)
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/robots.txt", timeout=5) as answer:
                answer.read()
            return process
        except OSError:
            assert process.poll() is None, (folder / "page.log").read_text()
            assert time.monotonic() < give_up, "the page does not answer"
            time.sleep(0.05)


@contextmanager
def serve_page(folder: Path, *words: str, **environment: str) -> Iterator[int]:
    """Serve a page from a folder inside the block; yields its port."""
    port = free_port()
    process = start_page(folder, *words, port=port, **environment)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)
