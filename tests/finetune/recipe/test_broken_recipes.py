"""Every mistake gets its line, its key and words that say what to do; all of them at once."""

import re
from pathlib import Path

import pytest

from finetune.recipe import RecipeProblems, load_recipe

BASE = """\
schema_version: 1
model: {kind: miniature}
data:
  sources:
    - {kind: folder, path: pictures}
"""

# What is appended to BASE (so its first line is line 6), then what the one problem must begin with and contain.
ADDED = {
    "zero rank": ("adapter:\n  unet:\n    rank: 0", "8: adapter.unet.rank: got 0, needs a whole number from 1 to 4096"),
    "fraction of a rank": ("adapter: {unet: {rank: 1.5}}", "6: adapter.unet.rank: got 1.5, needs a whole number"),
    "number in quotes": ("training: {steps: '100'}", "6: training.steps: got '100', needs a whole number from 1 to"),
    "true for a number": ("training: {steps: true}", "6: training.steps: got true, needs a whole number from 1 to"),
    "nothing for a number": ("training:\n  steps:", "7: training.steps: got null, needs a whole number from 1 to"),
    "not a number": ("training: {max_grad_norm: .nan}", "6: training.max_grad_norm: got .nan, needs a number above 0"),
    "infinite": ("preview: {guidance_scale: .inf}", "6: preview.guidance_scale: got .inf, needs a number of 0 or more"),
    "negative rate": (
        "adapter: {unet: {learning_rate: -1e-4}}",
        "6: adapter.unet.learning_rate: got -0.0001, needs a number above 0",
    ),
    "no of yaml 1.1": (
        "training: {gradient_checkpointing: no}",
        "6: training.gradient_checkpointing: got 'no', needs true or false",
    ),
    "misspelt section": ("trainig: {steps: 3}", "6: trainig: unknown key. Did you mean 'training'?"),
    "misspelt key": ("training:\n  stpes: 3", "7: training.stpes: unknown key. Did you mean 'steps'?"),
    "key of another kind": (
        "preview:\n  refiner: {strength: 0.3}",
        "7: preview.refiner.strength: has no meaning with kind: ensemble, only with kind: image_to_image",
    ),
    "misspelt kind": (
        "training:\n  optimizer:\n    kind: adamw8",
        "8: training.optimizer.kind: unknown kind 'adamw8'. Did you mean 'adamw8bit'? Known: auto, adamw, adamw8bit",
    ),
    "kind that is a number": ("tracking: {kind: 3}", "6: tracking.kind: unknown kind 3. Known: none, tensorboard"),
    "missing kind": (
        "refiner: {id: a/b}",
        "6: refiner.kind: missing, needs one of miniature, hub, folder, single_file",
    ),
    "section that is a number": ("training: 3", "6: training: got 3, needs a mapping of settings"),
    "union that is a list": (
        "training: {lr_schedule: [1]}",
        "6: training.lr_schedule: got [1], needs a mapping with kind: one of constant, linear, cosine",
    ),
    "unknown word": (
        "adapter: {unet: {targets: atention}}",
        "6: adapter.unet.targets: got 'atention', needs one of attention, attention+feedforward, "
        "attention+feedforward+convolutions, or a list of at least one pattern. Did you mean 'attention'?",
    ),
    "empty pattern": ("adapter: {unet: {targets: [a, '']}}", "6: adapter.unet.targets.1: got '', needs text that is"),
    "no patterns": ("adapter: {unet: {targets: []}}", "6: adapter.unet.targets: got [], needs a list of at least one"),
    "convolutions of a text encoder": (
        "adapter: {text_encoder: {targets: attention+feedforward+convolutions}}",
        "6: adapter.text_encoder.targets: got 'attention+feedforward+convolutions', needs one of attention, ",
    ),
    "nothing to train": ("adapter: {unet: null}", "6: adapter: nothing to train: needs at least one of unet, text_"),
    "batch that does not divide": (
        "training:\n  micro_batch_size: 4\n  global_batch_size: 6",
        "8: training.global_batch_size: got 6, needs a multiple of micro_batch_size (4)",
    ),
    "micro batch alone": (
        "training:\n  micro_batch_size: 4",
        "6: training.global_batch_size: got 1, needs a multiple of micro_batch_size (4)",
    ),
    "timesteps backwards": (
        "training:\n  objective:\n    timesteps: {min: 500, max: 200}",
        "8: training.objective.timesteps.max: got 200, needs more than min (500)",
    ),
    "timestep too high": (
        "training: {objective: {timesteps: {max: 1000}}}",
        "6: training.objective.timesteps.max: got 1000, needs a whole number from 0 to 999",
    ),
    "three betas": (
        "training: {optimizer: {betas: [0.9, 0.99, 0.999]}}",
        "6: training.optimizer.betas: got [0.9, 0.99, 0.999], needs a list of two numbers from 0 up to",
    ),
    "beta of one": ("training: {optimizer: {betas: [0.9, 1]}}", "6: training.optimizer.betas: got [0.9, 1], needs a"),
    "one side of a size": (
        "preview:\n  prompts:\n    - prompt: a\n      size: [512]",
        "9: preview.prompts.0.size: got [512], needs a list of two multiples of 8: [height, width] in pixels, or null",
    ),
    "size no multiple of 8": (
        "preview: {prompts: [{prompt: a, size: [100, 64]}]}",
        "6: preview.prompts.0.size: got [100, 64], needs a list of two multiples of 8",
    ),
    "prompt that is a number": ("preview: {prompts: [a, 3]}", "6: preview.prompts.1: got 3, needs a prompt in quotes"),
    "prompts that are no list": ("preview: {prompts: a cat}", "6: preview.prompts: got 'a cat', needs a list"),
    "prompt left out": ("preview: {prompts: [{seed: 3}]}", "6: preview.prompts.0.prompt: missing, needs text"),
    "negative seed": ("seed: -1", "6: seed: got -1, needs a whole number from 0 to 2^63 - 1"),
    "seed too large": ("seed: 9223372036854775808", "6: seed: got 9223372036854775808, needs a whole number from 0"),
    "name with a slash": ("name: a/b", "6: name: got 'a/b', needs at most 100 letters, digits"),
    "name that climbs": ("name: ..", "6: name: got '..', needs at most 100 letters, digits"),
    "format given twice": ("export: {formats: [kohya, kohya]}", "6: export.formats: names kohya more than once"),
    "unknown format": (
        "export: {formats: [koya]}",
        "6: export.formats.0: got 'koya', needs one of kohya, diffusers, peft. Did you mean 'kohya'?",
    ),
    "no formats": ("export: {formats: []}", "6: export.formats: got [], needs a list of one or more of kohya"),
    "pickled checkpoint": (
        "refiner: {kind: single_file, path: model.ckpt}",
        "6: refiner.path: got 'model.ckpt', needs a path that ends in .safetensors (pickled",
    ),
    "address for a file": (
        "refiner: {kind: single_file, path: 'https://x.y/z.safetensors'}",
        "6: refiner.path: got 'https://x.y/z.safetensors', needs a path on this machine (addresses of the web are ref",
    ),
    "address with braces": (
        "output_dir: 's3://{bucket}/x'",
        "6: output_dir: got 's3://{bucket}/x', needs a path on this machine",
    ),
    "address for an id": (
        "refiner: {kind: hub, id: 'https://x.y/z'}",
        "6: refiner.id: got 'https://x.y/z', needs a hub id as 'owner/name'",
    ),
    "code in a model": ("refiner: {kind: hub, id: a/b, trust_remote_code: true}", "6: refiner.trust_remote_code: unkn"),
    "keep nothing": ("checkpoint: {keep: 0}", "6: checkpoint.keep: got 0, needs a whole number of 1 or more"),
    "merge key": ("<<: {seed: 3}", "6: <<: unknown key."),
    "number for a key": ("3: x", "6: 3: unknown key."),
    "key given twice": ("seed: 1\npurpose: x\nseed: 2", "8: the key 'seed' is given twice (first at recipe.yaml:6)"),
    "key twice inside": (
        "training:\n  steps: 1\n  steps: 2",
        "8: the key 'steps' is given twice (first at recipe.yaml",
    ),
    "anchor": ("purpose: &a x", "6: an anchor ('&a'); anchors and aliases are refused"),
    "alias": ("purpose: *a", "6: an alias ('*a'); anchors and aliases are refused"),
    "tag": ("purpose: !!python/object/apply:os.system [ls]", "6: a tag ("),
    "own tag": ("purpose: !env HOME", "6: a tag ('!env'); tags are refused"),
    "second document": ("---\nseed: 3", "6: a second document ('---'); a recipe is one"),
    "open quote": ("purpose: 'x", "6: not readable as YAML: a quote is opened and not closed"),
    "open bracket": ("purpose: [x", "6: not readable as YAML: "),
    "tab": ("training:\n\tsteps: 1", "7: not readable as YAML: a tab; indent with spaces"),
    "colon in text": ("purpose: a: b", "6: not readable as YAML: a ': ' stands where no key can be; put text that"),
    "mapping for a key": ("? {a: 1}\n: 2", "6: a key that is a mapping or list; a key is a word"),
    "depth": (f"purpose: {'[' * 30}{']' * 30}", "6: nested more than 20 deep"),
    "extends unknown": ("extends: sytle", "6: extends: no recipe or profile 'sytle' ships. Did you mean 'style'?"),
    "extends a number": ("extends: [3]", "6: extends: got 3, needs a shipped name, a path, or a list of them"),
    "extends nothing there": ("extends: nothing.yaml", "6: extends: no such file: 'nothing.yaml'"),
    "extends an absolute path": ("extends: /etc/x.yaml", "6: extends: got '/etc/x.yaml', needs a path relative to"),
    "extends itself": ("extends: recipe.yaml", "6: extends: the files extend each other in a circle: recipe.yaml → re"),
}

WHOLE = {
    "empty": ("", "recipe.yaml:1: is empty, needs a mapping of settings"),
    "only a comment": ("# hello\n", "recipe.yaml:1: is empty, needs a mapping of settings"),
    "a list": ("- 1\n- 2\n", "recipe.yaml:1: got [1, 2], needs a mapping of settings"),
    "a word": ("hello\n", "recipe.yaml:1: got 'hello', needs a mapping of settings"),
    "another version": (BASE.replace("version: 1", "version: 2"), "recipe.yaml:1: schema_version: got 2, needs 1, the"),
    "version as text": (BASE.replace("version: 1", "version: '1'"), "recipe.yaml:1: schema_version: got '1', needs 1"),
    "no version": (BASE.replace("schema_version: 1", "seed: 1"), "recipe.yaml:1: schema_version: missing, needs 1"),
    "no model": (BASE.replace("model: {kind: miniature}", "seed: 1"), "recipe.yaml:1: model: missing, needs a mapping"),
    "no sources": (BASE.partition("data:")[0] + "data: {}", "recipe.yaml:3: data.sources: missing, needs a list of at"),
    "empty sources": (
        BASE.partition("data:")[0] + "data: {sources: []}",
        "recipe.yaml:3: data.sources: got [], needs a list of at least one source",
    ),
    "source without a path": (
        BASE.replace(", path: pictures", ""),
        "recipe.yaml:5: data.sources.0.path: missing, needs a path",
    ),
    "dataset from an address": (
        BASE.replace("folder, path: pictures", "huggingface, name: 'https://x.y/z'"),
        "recipe.yaml:5: data.sources.0.name: got 'https://x.y/z', needs a dataset's name on the hub or a path",
    ),
    "colour without quotes": (
        BASE + "  background: #ffffff\n",
        "recipe.yaml:6: data.background: got null, needs a col",
    ),
    "colour by name": (
        BASE + "  background: white\n",
        "recipe.yaml:6: data.background: got 'white', needs a colour in",
    ),
    "caption ending without a dot": (
        BASE.replace("pictures}", "pictures, caption_extension: txt}"),
        "recipe.yaml:5: data.sources.0.caption_extension: got 'txt', needs a file name's ending that begins with a dot",
    ),
    "step larger than resolution": (
        BASE + "  buckets: {kind: generated, resolution: 32, step: 64}\n",
        "recipe.yaml:6: data.buckets.step: got 64, needs at most the resolution (32)",
    ),
    "setting of another bucket kind": (
        BASE + "  buckets: {kind: paper, step: 64}\n",
        "recipe.yaml:6: data.buckets.step: has no meaning with kind: paper, only with kind: generated",
    ),
    "not text": ("\x00\x01", "recipe.yaml: not readable as YAML: "),
}


def complaints(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(text, "utf-8")
    with pytest.raises(RecipeProblems) as caught:
        load_recipe("recipe.yaml", overrides)
    assert caught.value.exit_code == 2
    lines = str(caught.value).split("\n")
    assert lines == [str(problem) for problem in caught.value.problems]
    return lines


@pytest.mark.parametrize(("added", "expected"), ADDED.values(), ids=ADDED.keys())
def test_a_mistake_is_reported_at_its_line(
    added: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = complaints(BASE + added + "\n", tmp_path, monkeypatch)
    assert line.startswith(f"recipe.yaml:{expected}"), line


@pytest.mark.parametrize(("text", "expected"), WHOLE.values(), ids=WHOLE.keys())
def test_a_file_that_is_wrong_as_a_whole(
    text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = complaints(text, tmp_path, monkeypatch)
    assert line.startswith(expected), line


@pytest.mark.parametrize("name", [*ADDED, *WHOLE])
def test_no_message_speaks_pydantic_or_python(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = BASE + ADDED[name][0] + "\n" if name in ADDED else WHOLE[name][0]
    for line in complaints(text, tmp_path, monkeypatch):
        assert not re.search(r"Input|valid |Field |pydantic|dict|tuple|None|\bstr\b|\bint\b|Error", line), line


def test_all_mistakes_are_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = BASE + "seed: x\ntraining:\n  steps: 0\n  steps: 1\nadapter:\n  unet: {rank: 0, rnk: 1}\nsed: 1\n"
    lines = complaints(text, tmp_path, monkeypatch, "nonsense", "export.precision=fp8")
    starts = [
        "recipe.yaml:9: the key 'steps'",
        "override 'nonsense': needs the form key.path=value",
        "recipe.yaml:6: seed: got 'x'",
        "recipe.yaml:11: adapter.unet.rank: got 0",
        "recipe.yaml:11: adapter.unet.rnk: unknown key",
        "recipe.yaml:8: training.steps: got 0",
        "override 'export.precision=fp8': export.precision: got 'fp8', needs one of fp16, bf16, fp32",
        "recipe.yaml:12: sed: unknown key. Did you mean 'seed'?",
    ]
    assert len(lines) == len(starts), lines
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines


def test_a_wrong_entry_of_sources_is_not_called_a_list_too_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = complaints(BASE.replace("folder", "fodler"), tmp_path, monkeypatch)
    assert line.startswith("recipe.yaml:5: data.sources.0.kind: unknown kind 'fodler'. Did you mean 'folder'?")


def test_keys_with_line_breaks_stay_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = complaints(BASE + '"a\\nrecipe.yaml:1: fake": 1\n', tmp_path, monkeypatch)
    assert r"\n" in line


def test_files_that_are_no_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.yaml").write_bytes(b"purpose: \xe9")
    Path("large.yaml").write_text("#" * ((1 << 20) + 1))
    Path("folder.yaml").mkdir()
    expected = {
        "latin.yaml": "latin.yaml: is not UTF-8 text (byte 9)",
        "large.yaml": "large.yaml: has 1048577 bytes, a recipe at most 1048576",
        "folder.yaml": "recipe 'folder.yaml': is a folder without recipe.yaml; needs a recipe's file",
        "stlye": "recipe 'stlye': no such file, and no recipe of that name ships. Did you mean 'style'? Shipped: ",
        "no/where.yaml": "recipe 'no/where.yaml': no such file. Shipped: ",
        "a\x00b": "recipe 'a\\x00b': no such file",
    }
    for reference, words in expected.items():
        with pytest.raises(RecipeProblems) as caught:
            load_recipe(reference)
        assert str(caught.value).startswith(words)


def test_a_run_folder_stands_for_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(BASE)
    assert load_recipe(str(tmp_path)) == load_recipe(str(tmp_path / "recipe.yaml"))


def test_a_number_of_values_that_would_take_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = complaints(BASE + "purpose: [" + "a," * 30_000 + "]\n", tmp_path, monkeypatch)
    assert line == "recipe.yaml:6: more than 20000 values"
