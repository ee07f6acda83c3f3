"""The form has a place for every setting of the schema, and an edit of it is an edit of the text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from finetune.errors import RecipeError
from finetune.recipe import parse_recipe, shipped_recipes
from finetune.recipe.base import Settings
from finetune.recipe.schema import Recipe
from finetune.recipe.walk import Shape, field_types, shape_of
from webui.recipe_form.differences import differences
from webui.recipe_form.document import read
from webui.recipe_form.editing import add_entry, answer, extend, remove_entry, take_back
from webui.recipe_form.fields import Field, Shown, Widget
from webui.recipe_form.form import Group, build_form, fields_of
from webui.recipe_form.looking import Look, look_at
from webui.recipe_form.presets import cards, starting_text, tasks
from webui.recipe_form.sections import ESSENTIAL, TABS, essentials, is_essential, parts_of_tab

PATH = Path("here.yaml").absolute()
START = "extends: [character, hardware/12gb]\nschema_version: 1\nname: me\n"


def look(text: str) -> Look:
    return look_at(text, PATH)


def by_key(text: str) -> dict[str, Field]:
    form = look(text).form
    assert form is not None
    return {field.key: field for field in fields_of(form)}


Way = tuple[str | int, ...]


def ways(shape: Shape, path: Way, kinds: dict[Way, str]) -> Iterator[tuple[Way, type[Settings], dict[Way, str]]]:
    """Yield every section that may stand anywhere, with the way to it and the kinds on that way."""
    if shape.item is not None:
        yield from ways(shape_of(shape.item), (*path, 0), kinds)
    sections = shape.kinds or ({"": shape.section} if shape.section is not None else {})
    for kind, section in sections.items():
        here = {**kinds, path: kind} if kind else kinds
        yield path, section, here
        for name, annotation in field_types(section).items():
            yield from ways(shape_of(annotation), (*path, name), here)


def settings_at(path: Way, kinds: dict[Way, str]) -> dict[str, Any]:
    """Return settings in which sections of these kinds stand on a path."""
    inner: Any = {}
    for depth in range(len(path), 0, -1):
        inner = {"kind": kinds[path[:depth]], **inner} if path[:depth] in kinds else inner
        part = path[depth - 1]
        inner = [inner] if isinstance(part, int) else {part: inner}
    return dict(inner)


WAYS = list(ways(shape_of(Recipe), (), {}))


def test_every_setting_of_every_kind_has_a_place() -> None:
    seen: set[str] = set()
    for path, section, kinds in WAYS:
        settings = settings_at(path, kinds)
        fields = {field.key: field for field in fields_of(build_form(settings, {}, settings))}
        for name, annotation in field_types(section).items():
            key = ".".join(map(str, (*path, name)))
            if key == "schema_version":
                continue
            if name == "kind":
                assert fields[key].shown == kinds[path]
                assert fields[key].help
                continue
            inner = shape_of(annotation)
            is_list_of_sections = inner.item is not None and (
                shape_of(inner.item).section is not None or shape_of(inner.item).kinds
            )
            place = f"{key}.kind" if inner.kinds else key
            if is_list_of_sections or (inner.section is not None and not inner.nullable):
                continue  # it has no place of its own: its own settings have, which are asked for on their way
            assert fields[place].label, key
            assert (section.model_fields[name].description or "-") in fields[place].help
            assert fields[place].widget in get_args(Widget)
            assert fields[place].widget != "yaml", f"{key}: needs a part of the form that suits it"
            seen.add(key)
    assert len(seen) > 150
    assert len(WAYS) > 50


def test_every_part_stands_in_one_tab_and_every_essential_is_a_setting() -> None:
    for name in ("quickstart", "character"):
        form = look(f"extends: {name}\nschema_version: 1\n").form
        assert form is not None
        shown = [part.key for tab in TABS for part in parts_of_tab(form, tab)]
        assert sorted(shown) == sorted(part.key for part in form.parts)
        first = [field.key for field in essentials(form)]
        assert len(set(first)) == len(first) >= 12
        assert all(map(is_essential, first))
        assert first.index("data.sources.0.path") < first.index("training.steps")
    known = {".".join(str(part).replace("0", "*") for part in (*path, name)) for path, section, _ in WAYS
             for name in section.model_fields}  # fmt: skip
    assert set(ESSENTIAL) <= known


def test_a_section_nobody_placed_stands_in_the_last_tab() -> None:
    form = Group("", "", "", None, (Field("new", "New", "", "", "text", "", ""),))
    assert [part.key for part in parts_of_tab(form, list(TABS)[-1])] == ["new"]


@pytest.mark.parametrize("shipped", shipped_recipes(), ids=lambda shipped: shipped.name)
def test_a_form_that_is_not_touched_leaves_the_text_as_it_is(shipped: Any) -> None:
    for text in (shipped.path.read_text("utf-8"), f"extends: {shipped.name}\nschema_version: 1\n"):
        now = look(text)
        assert now.recipe is not None
        assert now.num_problems == 0
        shown = {field.key: field.shown for field in by_key(text).values()}
        assert answer(now, PATH, shown) == text


ANSWERS: dict[str, tuple[Shown, Any]] = {
    "switch": (True, True), "whole": ("7", 7), "number": ("2e-4", 2e-4), "text": ("a # b", "a # b"),
    "numbers": ("64 x 128", [64, 128]), "lines": ("one\n two ", ["one", "two"]), "words": ("a.b, c*", ["a.b", "c*"]),
    "sizes": ("64, 128\n[72, 80]", [[64, 128], [72, 80]]), "choices": (("peft", "kohya"), ["peft", "kohya"]),
}  # fmt: skip


def test_every_answer_is_read_back_from_the_text() -> None:
    tried: set[str] = set()
    text = (
        START + "data:\n  buckets: {kind: listed, sizes: [[64, 64]]}\n  sources:\n    - {kind: kohya_config, path: x}\n"
    )
    for field in by_key(text).values():
        given, meant = ANSWERS.get(field.widget, (([c for c in field.choices if c != field.shown] or [True])[-1], None))
        if field.widget == "switch":
            given = meant = not field.shown
        if field.widget == "on":
            given, meant = not field.shown, None if field.shown else {}
        if field.widget in ("choice", "kind"):
            meant = next(
                word for word in [given, int(given) if str(given).isdecimal() else None] if str(word) == str(given)
            )
        changed = answer(look(text), PATH, {field.key: given})
        found: Any = read(changed)
        path = field.path[:-1] if field.widget == "kind" and given == "" else field.path
        for part in path:
            found = found[part]
        expected = None if field.widget == "kind" and given == "" else meant
        assert found == (int(given) if isinstance(found, int) and isinstance(given, str) else expected), field.key
        tried.add(field.widget)
    assert tried >= {"switch", "whole", "number", "text", "numbers", "lines", "words", "sizes", "choices", "kind", "on"}


def test_a_number_keeps_the_letters_it_was_typed_with() -> None:
    changed = answer(look(START), PATH, {"adapter.unet.learning_rate": "1.50e-4", "training.steps": "1e3"})
    assert "learning_rate: 1.50e-4" in changed
    recipe = look(changed).recipe
    assert recipe is not None
    assert recipe.training.steps == 1000


def test_what_is_wrong_stands_beside_its_field_with_its_line() -> None:
    changed = answer(look(START), PATH, {"training.steps": "many", "preview.prompts.1.seed": "-1"})
    marks = {mark.field: mark for mark in look(changed).marks}
    assert "needs a whole number from 1" in marks["training.steps"].words
    assert changed.splitlines()[(marks["training.steps"].line or 0) - 1].strip() == "steps: many"
    assert changed.splitlines()[(marks["preview.prompts.1.seed"].line or 0) - 1].strip() == "seed: -1"
    assert answer(look(changed), PATH, {"training.steps": "9"}).count("steps: 9") == 1


def test_what_has_no_field_of_its_own_stands_beside_the_nearest() -> None:
    text = START + "training:\n  stepps: 5\nadapter: {unet: null}\nmodel: {kind: hubb}\nnonsense: 1\n"
    marks = {mark.key: mark for mark in look(text).marks}
    assert marks["training.stepps"].field.startswith("training.")
    assert "training.stepps: unknown key" in marks["training.stepps"].words
    assert marks["model.kind"].field == "model.kind"
    assert marks["nonsense"].field == ""
    one = look(START + "adapter: {unet: null}\n").marks
    assert [mark.field for mark in one] == ["adapter.kind"]
    assert "nothing to train" in one[0].words


def test_a_syntax_error_has_its_line_and_no_form() -> None:
    now = look(START + "training: {steps: 5\nx: 1\n")
    assert now.form is None
    assert now.marks[0].line == 4
    with pytest.raises(RecipeError, match="Mend it first"):
        answer(now, PATH, {"name": "x"})


def test_a_mistake_in_what_is_extended_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: character\ntraining: {steps: 0}\n", "utf-8")
    now = look_at("extends: base.yaml\nschema_version: 1\n", tmp_path / "own.yaml")
    assert [mark.field for mark in now.marks] == ["training.steps"]
    assert now.marks[0].line is None
    assert "base.yaml:2" in now.marks[0].words
    (tmp_path / "base.yaml").write_text("extends: character\ntraining: {steps: 7}\n", "utf-8")
    assert look_at(now.text, tmp_path / "own.yaml").num_problems == 0


def test_a_warning_is_no_problem() -> None:
    now = look(
        START
        + "adapter:\n  use_rslora: true\n  unet: {alpha: 16}\nrefiner: null\npreview: {refiner: {switch_at: 0.5}}\n"
    )
    assert now.num_problems == 0
    assert any(mark.is_warning and mark.field for mark in now.marks)


def test_another_kind_takes_along_what_both_know_and_no_more() -> None:
    text = (
        START
        + "data:\n  sources:\n    - kind: folder # mine\n      path: a/b\n      captions: files\n      repeats: 3\n"
    )
    changed = answer(look(text), PATH, {"data.sources.0.kind": "kohya"})
    assert changed == START + "data:\n  sources:\n    - kind: kohya # mine\n      path: a/b\n      repeats: 3\n"
    assert look(changed).recipe is not None


def test_a_kind_that_was_inherited_is_written_first_and_can_be_taken_back() -> None:
    text = answer(look(START), PATH, {"training.optimizer.weight_decay": "0.5"})
    changed = answer(look(text), PATH, {"training.optimizer.kind": "adafactor"})
    assert "  optimizer:\n    kind: adafactor\n    weight_decay: 0.5\n" in changed
    back = take_back(
        look(answer(look(changed), PATH, {"training.optimizer.weight_decay": "0"})), PATH, "training.optimizer.kind"
    )
    assert read(back)["training"] == {"optimizer": {"weight_decay": 0}}
    assert take_back(look(back), PATH, "training.optimizer.weight_decay") == START


def test_an_empty_section_that_means_something_stays() -> None:
    text = START + "training:\n  ema: {decay: 0.5}\n"
    assert read(take_back(look(text), PATH, "training.ema.decay"))["training"] == {"ema": {}}
    assert take_back(look(text), PATH, "training.ema") == START


def test_an_inherited_list_is_written_out_before_an_entry_of_it_changes() -> None:
    before = by_key(START)
    changed = answer(look(START), PATH, {"preview.prompts.1.prompt": "a cat"})
    after = by_key(changed)
    assert {key: field.shown for key, field in after.items()} == {
        **{key: field.shown for key, field in before.items()},
        "preview.prompts.1.prompt": "a cat",
    }
    assert [difference.key for difference in differences(look(changed))] == ["name", "preview.prompts.1.prompt"]


def test_entries_come_and_go() -> None:
    text = add_entry(look(START), "preview.prompts")
    assert by_key(text)["preview.prompts.3.prompt"].shown == ""
    text = add_entry(look(text), "data.sources")
    assert by_key(text)["data.sources.1.kind"].shown == "folder"
    text = remove_entry(look(text), "data.sources", 1)
    for _ in range(4):
        text = remove_entry(look(text), "preview.prompts", 0)
    now = look(text)
    assert now.recipe is not None
    assert now.recipe.preview.prompts == ()
    assert now.recipe.data.sources == parse_recipe(START).data.sources
    with pytest.raises(RecipeError, match="no entry 1"):
        remove_entry(now, "preview.prompts", 0)


def test_a_text_that_stands_for_a_prompt_becomes_a_mapping_when_more_is_said() -> None:
    text = START + 'preview:\n  prompts:\n    - "one" # kept\n    - two\n'
    changed = answer(look(text), PATH, {"preview.prompts.0.prompt": "three"})
    assert by_key(changed)["preview.prompts.0.prompt"].shown == "three"
    changed = answer(look(text), PATH, {"preview.prompts.1.seed": "5"})
    assert read(changed)["preview"]["prompts"] == ["one", {"prompt": "two", "seed": 5}]


def test_presets_are_whole_recipes_and_can_be_exchanged() -> None:
    assert tasks()[0].name == "quickstart"
    for task in tasks():
        for card in ["", *(each.name for each in cards() if not task.name.startswith("miniature/"))]:
            text = starting_text(task.name, card, taken=["my-quickstart"])
            assert look(text).recipe is not None, (task, card)
    assert "name: my-quickstart-2" in starting_text("quickstart", "", ["my-quickstart"])
    assert read(extend(look(START), ["style"]))["extends"] == "style"
    assert read(extend(look(START), ["style", "hardware/8gb"]))["extends"] == ["style", "hardware/8gb"]
    with pytest.raises(RecipeError, match="no preset 'x' ships"):
        starting_text("style", "x")


def test_differences_are_from_what_is_extended() -> None:
    text = START + "training:\n  steps: 7\n  gradient_checkpointing: false\n  caption_dropout: 0.05\n"
    assert [(each.key, each.before, each.now) for each in differences(look(text))] == [
        ("name", "", "me"),
        ("training.steps", "1200", "7"),
        ("training.gradient_checkpointing", "on", "off"),
    ]


def test_an_answer_for_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match="not in this form"):
        answer(look(START), PATH, {"model.__class__": "x"})
