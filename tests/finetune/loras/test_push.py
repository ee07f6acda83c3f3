"""Publishing: what is listed is what is sent, in one commit, to a hub that speaks the real library's language."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from finetune.errors import AtelierError, RecipeError
from finetune.loras.card import CardWords, write_file_card
from finetune.loras.push import plan_upload
from finetune.naming.structure import SDXL_BASE

STEM = "lora_unet_middle_block_1_proj_in"
METADATA = {"ss_base_model_version": "sdxl_base_v1-0", "ss_tag_frequency": '{"a": {"secret": 1}}'}
TOKEN = "hf_" + "x" * 34


@dataclass
class Hub:
    """What a hub was asked for, and what it answers a commit with."""

    address: str
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)
    refuses: bool = False

    def committed(self) -> dict[str, bytes]:
        """The files of the last commit."""
        body = next(body for _, path, body in reversed(self.asked) if "/commit/" in path)
        lines = [json.loads(line) for line in body.splitlines()]
        return {line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines if line["key"] == "file"}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            found.asked.append((self.headers.get("Authorization", ""), self.path, body))
            if found.refuses:
                self._answer(403, {"error": "You do not own this repository"})
            elif self.path.endswith("/repos/create"):
                self._answer(200, {"url": f"{found.address}/me/cat", "name": "me/cat"})
            elif "/preupload/" in self.path:
                files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                         for f in json.loads(body)["files"]]  # fmt: skip
                self._answer(200, {"files": files})
            elif "/commit/" in self.path:
                address = f"{found.address}/me/cat/commit/abc"
                self._answer(200, {"success": True, "commitOid": "a" * 40, "commitUrl": address})
            else:
                self._answer(200, {})

        def do_GET(self) -> None:
            found.asked.append((self.headers.get("Authorization", ""), self.path, b""))
            self._answer(*((403, {"error": "Forbidden"}) if found.refuses else (200, {})))

        def _answer(self, code: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Hub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA with its card."""
    path = tmp_path / "cat.safetensors"
    tensors = {
        f"{STEM}.lora_down.weight": torch.ones(1, 1280),
        f"{STEM}.lora_up.weight": torch.ones(1280, 1),
        f"{STEM}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, path, METADATA)
    Image.new("RGB", (64, 48), (9, 9, 9)).save(tmp_path / "drawn.png")
    write_file_card(path, CardWords(title="A cat", license="mit"), [tmp_path / "drawn.png"])
    return path


def push(hub: Hub, lora: Path, *more: str, token: str | None = TOKEN) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(lora.parent / "hf"), "HF_HUB_OFFLINE": "0"}
    environment.pop("HF_TOKEN", None)
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "finetune", "lora", "push", str(lora), "me/cat", *more]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_what_is_listed_is_sent_and_nothing_else(hub: Hub, lora: Path) -> None:
    done = push(hub, lora, "--private")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"Published: {hub.address}/me/cat/commit/abc\n")
    assert "the captions' tags. To leave that out" in done.stdout
    card = lora.with_name("cat-card")
    sent = {"cat.safetensors": lora, "README.md": card / "README.md", "images/01.jpg": card / "images/01.jpg"}
    assert hub.committed() == {name: path.read_bytes() for name, path in sent.items()}
    created = next(json.loads(body) for _, path, body in hub.asked if path.endswith("/repos/create"))
    assert created == {"name": "cat", "organization": "me", "visibility": "private"}
    assert {authorization for authorization, _, _ in hub.asked} <= {"", f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout


def test_a_dry_run_says_nothing_to_the_network(hub: Hub, lora: Path) -> None:
    done = push(hub, lora, "--dry-run", "--json", token=None)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert [file["name"] for file in answer["files"]] == ["cat.safetensors", "README.md", "images/01.jpg"]
    assert (answer["address"], hub.asked) == (None, [])


def test_refusals_are_told_in_words(hub: Hub, lora: Path) -> None:
    done = push(hub, lora, token=None)
    assert (done.returncode, hub.asked) == (1, [])
    assert done.stderr == "atelier: nobody is logged in to the hub on this machine. Type: hf auth login\n"
    hub.refuses = True
    done = push(hub, lora)
    assert done.returncode == 1
    assert "the hub refuses me/cat: You do not own this repository" in done.stderr
    assert TOKEN not in done.stderr + done.stdout


@pytest.mark.parametrize("name", ["cat", "me/cat/x", "../cat", "me/cat?x", "-me/cat", "me/c at"])
def test_what_is_no_repository(name: str, lora: Path) -> None:
    with pytest.raises(RecipeError, match="is no repository's name"):
        plan_upload(lora, name, SDXL_BASE)


def test_what_is_no_part_of_a_card_is_not_published(lora: Path) -> None:
    (lora.with_name("cat-card") / "notes.txt").write_text("private")
    with pytest.raises(RecipeError, match=r"notes\.txt: belongs to no card"):
        plan_upload(lora, "me/cat", SDXL_BASE)


def test_a_link_out_of_the_card_is_not_followed(lora: Path) -> None:
    (lora.with_name("cat-card") / "images" / "02.jpg").symlink_to("/etc/passwd")
    with pytest.raises(RecipeError, match=r"02\.jpg: belongs to no card"):
        plan_upload(lora, "me/cat", SDXL_BASE)


def test_a_file_without_a_card_or_not_read_whole_is_not_published(lora: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(lora.read_bytes())
    with pytest.raises(RecipeError, match="atelier lora card"):
        plan_upload(other, "me/cat", SDXL_BASE)
    save_file({f"{STEM}.lora_down.weight": torch.ones(1, 1280)}, lora, METADATA)
    with pytest.raises(AtelierError, match="is not read whole"):
        plan_upload(lora, "me/cat", SDXL_BASE)
    assert plan_upload(lora, "me/cat", SDXL_BASE, check_readers=False).files[0] == (lora, "cat.safetensors")
