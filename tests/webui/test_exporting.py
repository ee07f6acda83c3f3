"""Exports as the page sees them, with a command that stands in for `atelier export`."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from finetune.cli.main import parse_line
from finetune.errors import RecipeError
from finetune.run.folder import RunFolder
from webui.exporting import ExportChoice, Exports, exported_files, read_facts, read_outcome

_FAKE = """
import json, pathlib, sys, time
run = pathlib.Path(sys.argv[2])
while not (run / "go").exists():
    time.sleep(0.01)
if "bf16" in sys.argv:
    sys.exit("atelier: too small for bf16")
(run / "exports" / "cat.safetensors").write_bytes(b"")
print("warning: step-000030 is damaged", file=sys.stderr)
files = [str(run / "exports" / "cat.safetensors")]
print(json.dumps({"step": 20, "files": files, "denoising": [{"words": "off by 0.04 %"}]}))
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "cat")
    for step in (10, 20):
        folder = run.checkpoint(step)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}", encoding="utf-8")
    (run.checkpoints / ".partial-step-000030").mkdir()
    run.checkpoint(30).mkdir()  # no manifest: it is not whole
    run.exports.mkdir()
    return run


@pytest.fixture
def exports(tmp_path: Path) -> Exports:
    script = tmp_path / "fake.py"
    script.write_text(_FAKE, encoding="utf-8")
    return Exports([sys.executable, str(script)])


def _until_over(exports: Exports, run: RunFolder):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        state = exports.look(run)
        if state is not None and state.status != "running":
            return state
        time.sleep(0.01)
    raise AssertionError("still running")


def test_an_export_runs_once_and_tells_what_it_wrote(exports, run):
    choice = ExportChoice(20, ("kohya", "peft"), "fp16", "minimal")
    exports.start(run, choice)
    assert exports.look(run).status == "running"
    with pytest.raises(RecipeError, match="already"):
        exports.start(run, choice)
    (run.path / "go").touch()
    state = _until_over(exports, run)
    assert (state.status, state.step, state.words) == ("done", 20, "warning: step-000030 is damaged")
    assert state.denoising == ("off by 0.04 %",)
    assert [file.path for file in exported_files(run)] == list(state.files)
    exports.start(run, ExportChoice(None, ("kohya",), "bf16", "full"))
    assert _until_over(exports, run).words == "too small for bf16"


def test_the_line_is_what_the_command_line_takes(run):
    line = parse_line(ExportChoice(20, ("kohya", "peft"), "bf16", "minimal").words(run.path))
    assert (line.run_folder, line.step, line.format) == (str(run.path), 20, ["kohya", "peft"])
    assert (line.precision, line.minimal_metadata) == ("bf16", True)
    assert parse_line(ExportChoice(None, (), "fp16", "full").words(run.path)).step is None


@pytest.mark.parametrize(
    "choice",
    [
        ExportChoice(15, ("kohya",), "fp16", "full"),
        ExportChoice(20, ("kohya", "--json"), "fp16", "full"),
        ExportChoice(20, ("kohya",), "int4", "full"),
        ExportChoice(20, ("kohya",), "fp16", "all"),
    ],
)
def test_what_is_not_offered_is_not_taken(exports, run, choice):
    with pytest.raises(RecipeError):
        exports.start(run, choice)
    assert exports.look(run) is None


def test_only_whole_checkpoints_are_offered_the_newest_first(run):
    assert run.kept_steps() == [20, 10]


def test_only_plain_files_inside_are_listed(run, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text("{}", encoding="utf-8")
    (run.exports / "link.json").symlink_to(secret)
    (run.exports / ".hidden").mkdir()
    (run.exports / ".hidden" / "x.json").write_text("{}", encoding="utf-8")
    (run.exports / "cat-peft").mkdir()
    (run.exports / "cat-peft" / "adapter_config.json").write_text("{}", encoding="utf-8")
    os.mkfifo(run.exports / "pipe")
    assert [file.name for file in exported_files(run)] == ["cat-peft/adapter_config.json"]


def test_what_a_file_holds_is_read_without_torch(run):
    path = run.exports / "cat.safetensors"
    metadata = {"modelspec.title": "<b>cat</b>", "atelier_recipe": "x" * 5000}
    safetensors.numpy.save_file({"a": np.zeros((2, 2), np.float16), "b": np.zeros(1, np.float32)}, path, metadata)
    facts, strings = read_facts(path)
    assert facts == [("Tensors", "2"), ("Numbers", "F16, F32"), ("Metadata", "2 strings")]
    assert dict(strings)["modelspec.title"] == "<b>cat</b>"
    assert len(dict(strings)["atelier_recipe"]) == 400
    path.write_bytes(b"no such thing")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_facts(path)


def test_an_answer_that_is_none_is_a_failure():
    for out in ("", "[]", "{}", '{"step": null, "files": 3}'):
        assert read_outcome("line", 0, out, "").status == "failed"
    assert read_outcome("line", 3, "", "").words == "it ended with exit code 3"
