"""A dumped recipe, read again, is the same recipe."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.recipe import Recipe, dump_recipe, load_recipe, shipped_recipes
from finetune.recipe.yaml_text import read_yaml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.floats(min_value=1e-12, max_value=1e12, allow_nan=False)


LINE = TEXT.map(lambda text: " ".join(text.splitlines()))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    prompt = st.fixed_dictionaries({"prompt": TEXT, "negative_prompt": TEXT, "seed": st.integers(0, 2**63 - 1)})
    rank, rate = st.integers(1, 4096), NUMBERS
    data: dict[str, Any] = {
        "schema_version": 1,
        "name": "x",
        "purpose": draw(TEXT),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "model": {"kind": "miniature"},
        "data": {"sources": [{"kind": "folder", "path": draw(TEXT).replace("\0", "") or "x", "trigger": draw(LINE)}]},
        "adapter": {"unet": {"rank": draw(rank), "learning_rate": draw(rate), "alpha": draw(st.none() | rate)}},
        "preview": {"prompts": draw(st.lists(prompt | TEXT, max_size=3))},
        "export": {"title": draw(TEXT), "author": draw(TEXT)},
    }
    return Recipe.model_validate(data)


@given(recipe=recipes())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_recipe_survives(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_recipe(recipe), "utf-8", newline="")
    assert load_recipe(str(path)) == recipe


def test_every_shipped_recipe_survives_and_states_every_setting(tmp_path: Path) -> None:
    for shipped in shipped_recipes():
        recipe = load_recipe(shipped.name)
        text = dump_recipe(recipe)
        path = tmp_path / "recipe.yaml"
        path.write_text(text, "utf-8")
        assert load_recipe(str(path)) == recipe, shipped.name
        node = read_yaml(text, lambda line: f"line {line}", [])
        assert node is not None
        assert node.plain() == recipe.model_dump(mode="json")


def test_words_of_old_yaml_are_quoted(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe("quickstart", ["purpose='no'", "export.title=1e-4x", "export.author='12:30'"]))
    assert 'purpose: "no"' in text
    assert 'author: "12:30"' in text
