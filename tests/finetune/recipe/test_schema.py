"""The schema itself: every field explained, every value in words, nothing changes, nothing heavy is imported."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from finetune.recipe import Recipe, describe_fields, differing_keys, load_recipe
from finetune.recipe.base import Settings
from finetune.recipe.schema import Data, FolderSource, GeneratedBuckets, MiniatureModel, PaperBuckets, Training
from finetune.recipe.walk import Shape, field_types, shape_of


def sections(section: type[Settings] = Recipe) -> Iterator[type[Settings]]:
    yield section
    for annotation in field_types(section).values():
        yield from sections_inside(shape_of(annotation))


def sections_inside(shape: Shape) -> Iterator[type[Settings]]:
    if shape.item is not None:
        yield from sections_inside(shape_of(shape.item))
    for section in [shape.section, *shape.kinds.values()]:
        if section is not None:
            yield from sections(section)


SECTIONS = sorted(set(sections()), key=lambda section: section.__name__)


def test_the_walk_finds_the_sections() -> None:
    names = {section.__name__ for section in SECTIONS}
    assert {"Recipe", "HubModel", "UNetLora", "ProdigyOptimizer", "PreviewPrompt", "LogitNormalTimesteps"} <= names
    assert len(names) >= 35


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_has_a_docstring(section: type[Settings]) -> None:
    assert section.__doc__
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name} has no docstring"
        assert field.description.endswith("."), f"{section.__name__}.{name}: {field.description}"
        assert "\n" not in field.description, f"{section.__name__}.{name}"


def leaves(annotation: Any) -> Iterator[Shape]:
    shape = shape_of(annotation)
    inner = [*shape.items, *shape.branches.values(), *([shape.item] if shape.item is not None else [])]
    for part in inner:
        yield from leaves(part)
    if not inner and shape.section is None and not shape.kinds:
        yield shape


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_value_has_words_for_messages(section: type[Settings]) -> None:
    for name, annotation in field_types(section).items():
        for leaf in leaves(annotation):
            assert leaf.needs or leaf.words, f"{section.__name__}.{name}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_sections_are_frozen_and_refuse_unknown_keys(section: type[Settings]) -> None:
    assert section.model_config["frozen"] is True
    assert section.model_config["extra"] == "forbid"


def test_a_recipe_cannot_be_changed_and_can_be_hashed() -> None:
    recipe = load_recipe("quickstart")
    with pytest.raises(ValidationError):
        recipe.training.steps = 3  # type: ignore[misc]
    assert hash(recipe) == hash(load_recipe("quickstart"))


def test_defaults_are_the_documented_ones() -> None:
    data = Data(sources=(FolderSource(path="pictures"),))
    recipe = Recipe(schema_version=1, model=MiniatureModel(), data=data)
    assert recipe.adapter.unet is not None
    assert (recipe.adapter.unet.rank, recipe.adapter.unet.alpha, recipe.adapter.unet.targets) == (16, None, "attention")
    assert recipe.adapter.text_encoder is None
    assert (recipe.training.steps, recipe.training.precision, recipe.training.caption_dropout) == (1000, "bf16", 0.1)
    assert recipe.data.buckets == PaperBuckets()
    assert recipe.export.formats == ("kohya",)


def test_batches_are_checked_in_python_too() -> None:
    with pytest.raises(ValidationError, match="multiple of micro_batch_size"):
        Training(micro_batch_size=3, global_batch_size=4)
    assert Training(micro_batch_size=3, global_batch_size=6).global_batch_size == 6


def test_help_is_found_by_key() -> None:
    by_key = {field.key: field for field in describe_fields()}
    rank = by_key["adapter.unet.rank"]
    assert (rank.type, rank.default) == ("a whole number from 1 to 4096", "16")
    assert rank.help.startswith("The width of the low-rank update.")
    assert by_key["data.sources.*.path"].default == "required"
    assert {field.kind for field in describe_fields("training.optimizer.d_coef")} == {"prodigy"}
    assert all(field.key.startswith("preview.refiner") for field in describe_fields("preview.refiner"))
    assert describe_fields("preview.refin") == []


def test_differing_keys_are_named_by_their_path() -> None:
    first = load_recipe("quickstart")
    assert differing_keys(first, first) == []
    second = load_recipe(
        "quickstart",
        [
            "training.steps=61",
            "preview.prompts.1.seed=9",
            "data.sources.1={kind: folder, path: x}",
            "training.optimizer={kind: prodigy}",
        ],
    )
    differing = differing_keys(first, second)
    assert differing[:1] == ["data.sources.1"]
    assert {"training.steps", "preview.prompts.1.seed", "training.optimizer.kind"} <= set(differing)
    assert {"training.optimizer.eps", "training.optimizer.d_coef"} <= set(differing)  # each only one of them has
    assert differing_keys(second, first) == sorted(
        differing_keys(second, first), key=differing_keys(second, first).index
    )
    assert set(differing_keys(second, first)) == set(differing)


def test_generated_buckets_take_the_miniatures_numbers() -> None:
    assert GeneratedBuckets(resolution=64, step=16).max_aspect == 4.0


def test_importing_recipes_imports_nothing_heavy() -> None:
    heavy = ["torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "numpy", "PIL"]
    code = (
        "import sys; import finetune.recipe; finetune.recipe.load_recipe('style'); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
