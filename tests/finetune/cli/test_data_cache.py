"""`atelier data cache`: encodes once, says what it did, goes on after a stop, and prunes only what nobody asks for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.cli.main import main
from tests.jobs.conftest import child_environment

RECIPE = """\
schema_version: 1
output_dir: out
model: {kind: miniature}
data:
  sources: [{kind: folder, path: pictures}]
  buckets: {kind: generated, resolution: 32, step: 16, max_aspect: 2.0}
adapter: {unet: {rank: 2}}
training: {steps: 1, device: cpu, precision: fp32}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder with a recipe and five pictures, of which two share a caption."""
    (tmp_path / "pictures").mkdir()
    draws = np.random.default_rng(0)
    for index in range(5):
        pixels = draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{index}.png")
        (tmp_path / "pictures" / f"{index}.txt").write_text(f"a thing of kind {index // 2}", encoding="utf-8")
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["data", "cache", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_encodes_once_and_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    first = _json(capsys, "small.yaml")
    assert first["recipe"] == "small"
    assert first["folder"] == str(Path("out/_cache"))
    assert first["latents"] == {"wanted": 5, "encoded": 5}
    assert first["text"] == {"wanted": 3, "encoded": 3}
    again = _json(capsys, "small.yaml")
    assert (again["latents"]["encoded"], again["text"]["encoded"]) == (0, 0)
    assert again["bytes"] == first["bytes"] > 0
    Path("pictures/0.txt").write_text("something else", encoding="utf-8")
    edited = _json(capsys, "data.flip_probability=0.5", "small.yaml")
    assert edited["latents"] == {"wanted": 10, "encoded": 5}
    assert edited["text"] == {"wanted": 4, "encoded": 1}
    assert main(["data", "cache", "small.yaml"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("Next, which uses it: atelier train small.yaml\n")
    assert main(["data", "cache", "training.steps=2", "small.yaml", "purpose=two words"]) == 0
    assert capsys.readouterr().out.endswith("atelier train small.yaml training.steps=2 'purpose=two words'\n")
    assert "captions and prompts    0 encoded, 4 were there" in printed
    assert "pictures in their cuts  0 encoded, 5 were there" in printed
    assert str(Path("out/_cache")) in printed


def test_train_uses_it_and_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _json(capsys, "small.yaml")
    monkeypatch.setattr("finetune.cache.latents.encode_moments", lambda *_: pytest.fail("the latents are there"))
    assert main(["train", "small.yaml"]) == 0
    assert f"cache {Path('out/_cache')}: 8 of 8 values are there" in capsys.readouterr().out


def test_another_folder_and_none(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert _json(capsys, "small.yaml", "cache.folder=elsewhere")["folder"] == "elsewhere"
    assert (folder / "elsewhere" / "latents").is_dir()
    assert not (folder / "out").exists()
    assert main(["data", "cache", "small.yaml", "cache.kind=memory"]) == 2
    assert "Set cache.kind=disk" in capsys.readouterr().err
    assert main(["train", "small.yaml", "cache.kind=memory"]) == 0
    assert not (folder / "out" / "_cache").exists()


def test_what_is_encoded_at_every_step_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "small.yaml", "data.crop=random", "adapter.text_encoder={rank: 2}"]) == 0
    printed = capsys.readouterr().out
    assert "encoded at every step: an encoder is trained" in printed
    assert "encoded at every step: data.crop is random without" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "got 0 recipes, needs one"),
        (["small.yaml", "other.yaml"], "got 2 recipes, needs one"),
        (["small.yaml", "--dry-run"], "--dry-run belongs to --prune"),
        (["small.yaml", "--forget", "x"], "--forget belongs to --prune"),
        (["small.yaml", "adapter={kind: vae}"], "nothing is encoded ahead"),
        (["--prune", "training.steps=3"], "name the recipe"),
        (["--prune", "--folder", "pictures"], "holds no cache"),
    ],
)
def test_what_cannot_be_meant_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["data", "cache", *words]) == 2
    assert message in capsys.readouterr().err


def test_pruning_by_a_recipes_name_finds_out_what_it_asks_for_now(capsys: pytest.CaptureFixture[str]) -> None:
    _json(capsys, "small.yaml")
    _json(capsys, "small.yaml", "name=wide", "data.buckets={kind: listed, sizes: [[16, 32]]}")
    Path("pictures/4.txt").write_text("something else", encoding="utf-8")
    words = ["--prune", "small.yaml"]
    [said] = _json(capsys, *words, "--dry-run")["caches"]
    assert said["unused_values"] == {"latents": 0, "masks": 0, "text": 0}, "'wide' asks for the old caption"
    [said] = _json(capsys, *words, "--dry-run", "--forget", "wide")["caches"]
    assert said["unused_values"] == {"latents": 5, "masks": 0, "text": 1}
    assert main(["data", "cache", *words, "--forget", "wide"]) == 0
    printed = capsys.readouterr().out
    assert "Removed 5 latents and 1 text, which nobody asked for" in printed
    assert "wide" in printed
    for again in (words, [*words, "--dry-run"]):
        assert main(["data", "cache", *again]) == 0
        assert capsys.readouterr().out.endswith("\nNothing to remove: all that is there is asked for\n")
    kept = _json(capsys, "small.yaml")
    assert (kept["latents"]["encoded"], kept["text"]["encoded"]) == (0, 1), "the new caption was never encoded"


def test_pruning_without_a_name_goes_by_what_is_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    _json(capsys, "small.yaml")
    Path("pictures/4.txt").write_text("something else", encoding="utf-8")
    words = ["--prune", "--folder", "out/_cache"]
    [said] = _json(capsys, *words)["caches"]
    assert said["unused_values"] == {"latents": 0, "masks": 0, "text": 0}, "the old caption is what was asked for last"
    _json(capsys, "small.yaml")
    [said] = _json(capsys, *words)["caches"]
    assert said["unused_values"] == {"latents": 0, "masks": 0, "text": 1}


def test_a_killed_build_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL between two pictures, and SIGINT: what is written stays, and only what is missing is made."""
    assert _slow_build(signal.SIGKILL) == -signal.SIGKILL
    shards = {path: path.read_bytes() for path in (folder / "out/_cache").rglob("*.safetensors")}
    assert shards
    assert _slow_build(signal.SIGINT) == 130
    assert all(path.read_bytes() == content for path, content in shards.items())
    assert len(list((folder / "out/_cache").rglob("*.safetensors"))) > len(shards)
    finished = _json(capsys, "small.yaml")
    assert 0 < finished["latents"]["encoded"] < 4
    [said] = _json(capsys, "--prune", "--folder", "out/_cache")["caches"]
    assert said["unused_values"] == {"latents": 0, "masks": 0, "text": 0}


def _slow_build(number: signal.Signals) -> int:
    """Start a build that takes long over each picture, writes each at once, and is ended after its second."""
    script = (
        "import sys, time\n"
        "from finetune.cache import folder, latents\n"
        "folder.SHARD_VALUES = 1\n"
        "real = latents.picture_moments\n"
        "def slow(*arguments):\n"
        "    print('picture', flush=True)\n"
        "    time.sleep(0.5)\n"
        "    return real(*arguments)\n"
        "latents.picture_moments = slow\n"
        "from finetune.cli.main import main\n"
        "sys.exit(main(['data', 'cache', 'small.yaml', '--json']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == "picture\n"
    time.sleep(0.1)
    os.kill(process.pid, number)
    process.communicate(timeout=120)
    return process.returncode
