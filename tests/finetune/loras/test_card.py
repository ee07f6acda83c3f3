"""The card of a file: what its header says, what is given instead, and nothing that could name people or folders."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import save_file

from finetune.errors import AtelierError, RecipeError
from finetune.loras.card import CardWords, write_file_card
from finetune.preview.wall import save_picture

TENSORS = {"lora_unet_middle_block_1_proj_in.alpha": torch.tensor(1.0)}
HEADER = {
    "modelspec.title": "A cat",
    "modelspec.author": "Ann",
    "modelspec.license": "openrail++",
    "modelspec.trigger_phrase": "ohwx",
    "modelspec.prediction_type": "v",
    "ss_zero_terminal_snr": "True",
    "ss_sd_model_name": "me/base",
    "ss_network_dim": "16",
    "ss_steps": "500",
    "ss_tag_frequency": '{"10_secret": {"private words": 3}}',
    "ss_dataset_dirs": '{"10_secret": {"n_repeats": 10}}',
    "atelier_recipe": "schema_version: 1\nname: x\npath: /home/ann/pictures\n",
}
RECIPE = (
    "schema_version: 1\nname: cat\nmodel: {kind: hub, id: owner/base-xl}\n"
    "data: {sources: [{kind: folder, path: /home/ann/pictures}]}\npreview: {prompts: [a cat, a dog]}\n"
)


def lora(path: Path, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(TENSORS, path, HEADER | metadata)
    return path


def text_of(path: Path, words: CardWords, pictures: list[Path]) -> str:
    return write_file_card(path, words, pictures)[0].read_text(encoding="utf-8")


def test_a_card_says_what_the_header_says_but_no_folders_and_captions(tmp_path: Path) -> None:
    text = text_of(lora(tmp_path / "cat.safetensors"), CardWords(), [])
    card = ModelCard(text)
    assert card.data.to_dict() | {"tags": None} == {
        "base_model": "me/base", "library_name": "diffusers", "license": "openrail++", "tags": None,
        "pipeline_tag": "text-to-image", "instance_prompt": "ohwx",
    }  # fmt: skip
    for words in ("# A cat", "By Ann", "**ohwx**", "| Rank | 16 |", "| Steps | 500 |", "rescale_betas_zero_snr=True",
                  "weight_name='cat.safetensors'"):  # fmt: skip
        assert words in card.text, words
    assert "trained with Atelier" not in text
    for private in ("secret", "private words", "/home", "pictures"):
        assert private not in text


def test_what_is_given_goes_before_the_header(tmp_path: Path) -> None:
    words = CardWords(title="B", author="", license="mit", trigger="zz", base_model="other/base")
    text = text_of(lora(tmp_path / "cat.safetensors", atelier_recipe=RECIPE, atelier_version="1"), words, [])
    data = ModelCard(text).data.to_dict()
    assert (data["base_model"], data["license"], data["instance_prompt"]) == ("other/base", "mit", "zz")
    assert "# B\n" in text
    assert "Ann" not in text
    assert "trained with Atelier" in text


def test_the_base_is_the_recipes_where_there_is_one(tmp_path: Path) -> None:
    text = text_of(lora(tmp_path / "cat.safetensors", atelier_recipe=RECIPE), CardWords(), [])
    assert ModelCard(text).data.to_dict()["base_model"] == "owner/base-xl"


def test_pictures_bring_their_prompts_and_nothing_else(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    settings = {"prompt": "a *cat*", "negative_prompt": "dogs", "file": "/home/ann/x"}
    save_picture(drawn, torch.zeros(900, 1200, 3, dtype=torch.uint8).numpy(), settings)
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.jpg")
    files = write_file_card(lora(tmp_path / "cat.safetensors"), CardWords(), [drawn, tmp_path / "photo.jpg"])
    card = ModelCard(files[0].read_text(encoding="utf-8"))
    assert card.data.to_dict()["widget"] == [
        {"text": "a *cat*", "output": {"url": "images/01.jpg"}, "parameters": {"negative_prompt": "dogs"}},
        {"text": "photo", "output": {"url": "images/02.jpg"}},
    ]
    with Image.open(files[1]) as picture:
        assert (picture.size, set(picture.info) & {"atelier", "parameters"}) == ((768, 576), set())
    assert b"/home/ann" not in files[1].read_bytes()


def test_a_file_among_a_runs_exports_gets_its_newest_previews(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = lora(run / "exports" / "cat.safetensors", ss_steps="500")
    (run / "recipe.yaml").write_text(RECIPE)
    for step, name in ((400, "01-lora.png"), (500, "02-lora.png"), (500, "02-base.png"), (900, "01-lora.png")):
        (run / "previews" / f"step-{step:06d}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (step % 256, 0, 0)).save(run / "previews" / f"step-{step:06d}" / name)
    files = write_file_card(path, CardWords(), [])
    assert [file.name for file in files] == ["README.md", "02.jpg"]
    assert "a dog" in files[0].read_text(encoding="utf-8")


def test_hostile_headers_stay_text(tmp_path: Path) -> None:
    hostile = "x\n---\nlicense: gpl\n# owned <script>alert(1)</script> [a](javascript:b)"
    path = lora(tmp_path / "cat.safetensors", **dict.fromkeys(HEADER, hostile))
    card = ModelCard(text_of(path, CardWords(), []))
    assert card.data.to_dict()["license"] == "other"
    before, example, after = card.text.split("```")  # in a fence nothing is markup
    assert "\n# owned" not in card.text
    assert "<script>" not in before + after
    assert "](javascript" not in before + after
    assert example.startswith("python\n")


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    path = lora(tmp_path / "cat.safetensors")
    with pytest.raises(RecipeError, match=r"--picture .*none\.png: there is no such file"):
        write_file_card(path, CardWords(), [tmp_path / "none.png"])
    (tmp_path / "no.png").write_text("hello")
    with pytest.raises(AtelierError, match=r"no\.png: is no picture"):
        write_file_card(path, CardWords(), [tmp_path / "no.png"])
    with pytest.raises(RecipeError, match="needs a hub id, as owner/name"):
        CardWords(base_model="just-a-name")
    assert json.loads(json.dumps(sorted(tmp_path.glob("cat-card/*")))) == []
