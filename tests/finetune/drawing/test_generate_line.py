"""`atelier generate` with several LoRAs: what is taken together, and what is refused before a model is opened."""

import json
import os

import pytest
import torch

from finetune.cli.main import main
from finetune.drawing.loras import identify, read_modules
from finetune.drawing.places import parse_lora
from finetune.model.structure import named_structure


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--lora", "RUN@10", "--lora", "RUN@20", "--strength", "1"], "got 1 for 2 LoRAs"),
        (["--lora", "RUN@10", "--strength", "1", "--strength", "2"], "got 2 for 1 LoRAs"),
        (["--lora", "RUN@10", "--strength", "nan"], "needs a number"),
        (["--lora", "RUN@15"], "has kept the steps 10, 20"),
        (["--lora", "nothing.safetensors"], "does not exist"),
        (["--lora", "RUN@10", "--strength", "1000"], "less than or equal to 10"),
        (["--switch-at", "0.8", "--refiner-strength", "0.3"], "Give one of them"),
        (["--switch-at", "1.5"], "between 0 and 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(run, tmp_path, capsys, line, words):
    given = [word.replace("RUN", str(run)) for word in line]
    out = tmp_path / "out"
    assert main(["generate", str(run), "--prompt", "a cat", "--out", str(out), *given]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_two_loras_are_drawn_together_and_named(run, tmp_path, capsys):
    file = run / "exports" / "cat.safetensors"
    line = ["generate", str(run), "--prompt", "a cat", "--size", "32x32", "--no-refiner", "--json"]
    line += ["--lora", f"{run}@10", "--strength=-0.5", "--lora", str(file), "--strength=1"]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["loras"] == [
        {"path": str(run / "checkpoints" / "step-000010"), "strength": -0.5},
        {"path": str(file), "strength": 1.0},
    ]
    assert [name.rpartition("/")[2] for name in answer["files"]] == ["wall.png", "01-lora-off.png", "01-lora.png"]


def test_a_folder_of_peft_is_a_lora_as_the_file_it_was_made_of(run, tmp_path):
    file, folder = run / "exports" / "cat.safetensors", tmp_path / "cat-peft"
    assert main(["lora", "convert", str(file), "--to", "peft", "--output", str(folder), "--model", "miniature"]) == 0
    structure = named_structure("miniature")
    identities = [identify(parse_lora(str(path), 1.0)) for path in (file, folder)]
    first, second = ({(module.component, module.module): module.delta() for module in read_modules(each, structure)}
                     for each in identities)  # fmt: skip
    assert first
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    weights = next(folder.rglob("*.safetensors"))
    os.utime(weights, (0, 2**31))
    assert identify(parse_lora(str(folder), 1.0)) != identities[1], "what was written anew is read anew"
