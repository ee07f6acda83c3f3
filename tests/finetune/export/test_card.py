"""The card of an exported LoRA, read by the hub's own library and by a Markdown reader: text stays text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from finetune.errors import AtelierError
from finetune.export.card import as_markdown, one_line
from finetune.export.metadata import ExportFacts
from finetune.export.run_card import card_text, write_card
from finetune.recipe import Recipe, parse_recipe
from finetune.run.folder import RunFolder

HOSTILE = [
    "x\n---\nlicense: mit\n---\n# owned",
    "</h1><script>alert(1)</script> <img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![x](http://127.0.0.1/x.png)",
    "``` \n`code` ${{x}} {% raw %} | a | b |",
    "'\"\\ & &lt; &#60; *a* _b_ ~~c~~ # - 1. > : @ !!python/object:x &a *a",
    "key: [a, {b: c}] # no comment",
    "https://example.com www.example.com <https://example.com>",
    "\u202eabc\x00\x1b[31m\ufeff\ud800 naïve 猫 \U0001f468\u200d\U0001f469",
]

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def make_recipe() -> MakeRecipe:
    """Return a function that makes a recipe of a LoRA on the hub's base, with some settings of its own."""
    return recipe_with


def recipe_with(
    prompts: list[str], model: str = "{kind: hub, id: stabilityai/sdxl-base}", metadata: str = "full"
) -> Recipe:
    return parse_recipe(
        f"schema_version: 1\nname: cat\nmodel: {model}\n"
        "data: {sources: [{kind: folder, path: /home/me/secret-folder, trigger: zrkx}]}\n"
        "adapter: {unet: {rank: 8, alpha: 4, learning_rate: 2e-4}, text_encoder: null, text_encoder_2: null}\n"
        f"export: {{metadata: {metadata}}}\n"
        f"preview: {{prompts: {json.dumps(prompts)}}}\n"
    )


def facts(**more: object) -> ExportFacts:
    known = {
        "name": "cat",
        "recipe": "path: /home/me/secret-folder",
        "trigger": "zrkx",
        "base_model": "stabilityai/sdxl-base",
        "resolution": (768, 1024),
        "folders": {"source-of-mine": (10, 12), "another": (1, 3)},
        "tag_frequency": {"source-of-mine": {"a private tag": 3}},
        "steps": 500,
        "max_steps": 1000,
        "global_batch_size": 4,
        "optimizer": "adamw",
        "lr_schedule": "cosine",
        "precision": "bf16",
    }
    return ExportFacts(**(known | more))  # type: ignore[arg-type]


def preview(run: RunFolder, step: int, name: str, size: tuple[int, int] = (1024, 640)) -> Path:
    path = run.preview(step) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    info.add_itxt("atelier", '{"file": "/home/me/secret-folder"}')
    Image.new("RGB", size, (step % 256, 0, 0)).save(path, pnginfo=info)
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "cat")


def test_the_hub_reads_what_it_is_and_the_pictures_lie_beside_it(run: RunFolder, make_recipe: MakeRecipe) -> None:
    for step in (250, 500, 750):
        for name in ("01-lora.png", "02-lora.png", "01-lora-off.png", "01-lora-refiner.png", "09-lora.png", "wall.png"):
            preview(run, step, name)
    recipe = make_recipe(["zrkx, a cat", "a dog"])
    exported = run.exports / "cat.safetensors"
    files = write_card(run, recipe, facts(license="CC-BY-4.0"), [exported])
    assert [path.relative_to(run.exports).as_posix() for path in files] == [
        "cat-card/README.md", "cat-card/images/01.jpg", "cat-card/images/02.jpg",
    ]  # fmt: skip
    card = ModelCard.load(files[0])
    assert card.data.to_dict() == {
        "base_model": "stabilityai/sdxl-base",
        "library_name": "diffusers",
        "license": "cc-by-4.0",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "lora", "template:sd-lora", "stable-diffusion-xl"],
        "instance_prompt": "zrkx",
        "widget": [
            {"text": "zrkx, a cat", "output": {"url": "images/01.jpg"}},
            {"text": "a dog", "output": {"url": "images/02.jpg"}},
        ],
    }
    for words in ("| Pictures | 15 |", "| Steps | 500 of 1,000 |", "| Rank | 8 |", "| Alpha | 4 |",
                  "| Learning rate | 0.0002 |", "1024 x 768", "weight_name='cat.safetensors'"):  # fmt: skip
        assert words in card.text, words
    with Image.open(files[1]) as picture:
        assert picture.size == (768, 480)
        red = picture.getpixel((5, 5))
        assert isinstance(red, tuple)
        assert abs(red[0] - 500 % 256) < 4, "the newest that is no newer than the export"


def test_nothing_of_the_machine_and_no_caption_is_in_it(run: RunFolder, make_recipe: MakeRecipe) -> None:
    preview(run, 500, "01-lora.png")
    files = write_card(run, make_recipe(["a cat"]), facts(), [run.exports / "cat.safetensors"])
    for path in files:
        content = path.read_bytes()
        for secret in (b"secret-folder", b"/home/", b"source-of-mine", b"private tag", str(run.path.parent).encode()):
            assert secret not in content, (path.name, secret)


def test_minimal_tells_nothing_of_pictures_captions_and_recipe(run: RunFolder, make_recipe: MakeRecipe) -> None:
    preview(run, 500, "01-lora.png")
    recipe = make_recipe(["zrkx, a cat"], metadata="minimal")
    files = write_card(run, recipe, facts(), [run.exports / "cat.safetensors"])
    assert [path.name for path in files] == ["README.md"]
    assert not (files[0].parent / "images").exists()
    card = ModelCard.load(files[0])
    assert {"instance_prompt", "widget"}.isdisjoint(card.data.to_dict())
    assert card.data.base_model == "stabilityai/sdxl-base"
    for word in ("zrkx", "a cat", "Training", "0.0002", "500"):
        assert word not in card.text.replace("trained", "")


def test_a_base_that_is_no_hubs_is_not_named_as_one(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe([], model="{kind: single_file, path: /home/me/my*model*.safetensors}")
    text = card_text(recipe, facts(base_model="my*model*.safetensors"), ["cat.safetensors"], [])
    assert ModelCard(text).data.base_model is None
    assert "/home/me" not in text
    assert "my*model*.safetensors" in "".join(shown_text(text))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("", {}),
        ("openrail++", {"license": "openrail++"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("My own: ask me!", {"license": "other", "license_name": "my-own-ask-me"}),
        ("許諾", {"license": "other"}),
    ],
)
def test_a_licence_is_named_as_the_hub_names_it(given: str, named: dict[str, str], make_recipe: MakeRecipe) -> None:
    data = ModelCard(card_text(make_recipe([]), facts(license=given), ["cat.safetensors"], [])).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == named


def walk(tokens: list[Token]) -> list[Token]:
    return [inner for token in tokens for inner in (token, *walk(token.children or []))]


def shown_text(markdown: str) -> list[str]:
    """Return the text of each paragraph and heading as a reader shows it, without the head."""
    body = markdown.split("\n---\n", 1)[1]
    inlines = [token for token in MarkdownIt("gfm-like").disable("linkify").parse(body) if token.type == "inline"]
    return ["".join(part.content for part in walk(token.children or []) if part.type != "image") for token in inlines]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_stay_words(text: str, run: RunFolder, make_recipe: MakeRecipe) -> None:
    preview(run, 500, "01-lora.png")
    recipe = make_recipe([text.encode("utf-8", "replace").decode()])
    said = facts(trigger=text, title=text, author=text, license=text)
    files = write_card(run, recipe, said, [run.exports / "cat.safetensors"])
    plain = ModelCard.load(files[0])
    tame = card_text(recipe, facts(trigger="a", title="b", author="c", license="mit"), ["cat.safetensors"], [])
    data = plain.data.to_dict()
    assert data["instance_prompt"] == one_line(text)
    assert data["widget"][0]["text"] == one_line(recipe.preview.prompts[0].prompt)
    assert set(data) - {"widget", "license_name"} == set(ModelCard(tame).data.to_dict())
    tokens = walk(MarkdownIt("gfm-like").disable("linkify").parse(plain.text))
    assert not [token for token in tokens if token.type in ("html_block", "html_inline")]
    assert [token.attrs["href"] for token in tokens if token.type == "link_open"] == [
        "https://huggingface.co/stabilityai/sdxl-base"
    ]
    assert [token.attrs["src"] for token in tokens if token.type == "image"] == ["images/01.jpg"]
    assert len([token for token in tokens if token.type == "fence"]) == 1
    headings = [token.tag for token in tokens if token.type == "heading_open"]
    assert headings == ["h1", "h2", "h2", "h2", "h2", "h2"]
    assert " ".join(one_line(text).split()) in shown_text(files[0].read_text(encoding="utf-8"))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\`*_[]<>#&|~!$\n\t "), max_size=40))
def test_any_text_is_shown_letter_by_letter(text: str) -> None:
    inlines = MarkdownIt("gfm-like").disable("linkify").parse(f"a {as_markdown(text)} z")
    assert [token.type for token in inlines] == ["paragraph_open", "inline", "paragraph_close"]
    parts = inlines[1].children or []
    assert {part.type for part in parts} <= {"text", "text_special"}
    assert "".join(part.content for part in parts) == f"a {one_line(text)} z"


def test_a_link_among_the_previews_is_not_followed_and_a_damaged_one_is_told(
    run: RunFolder, tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    secret = preview(RunFolder(tmp_path / "other"), 1, "01-lora.png")
    (run.preview(500)).mkdir()
    (run.preview(500) / "01-lora.png").symlink_to(secret)
    recipe = make_recipe(["a cat"])
    assert len(write_card(run, recipe, facts(), [])) == 1
    (run.preview(500) / "01-lora.png").unlink()
    (run.preview(500) / "01-lora.png").write_bytes(b"no picture")
    with pytest.raises(AtelierError, match=r"01-lora\.png: this picture cannot be read"):
        write_card(run, recipe, facts(), [])
    assert (run.exports / "cat-card" / "README.md").is_file(), "the card that was there still is"


def test_each_export_is_used_as_it_is_made(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe([])
    diffusers = card_text(recipe, facts(), ["cat-diffusers/pytorch_lora_weights.safetensors"], [])
    assert "weight_name='pytorch_lora_weights.safetensors'" in diffusers
    assert "ComfyUI" not in diffusers
    peft = card_text(recipe, facts(), ["cat-peft/unet/adapter_model.safetensors"], [])
    assert "PeftModel" in peft
    assert "load_lora_weights" not in peft
    both = card_text(recipe, facts(prediction_type="v_prediction", zero_terminal_snr=True), ["cat.safetensors"], [])
    compile(both.split("```python\n")[1].split("```")[0], "card", "exec")
    assert 'prediction_type="v_prediction", rescale_betas_zero_snr=True' in both
