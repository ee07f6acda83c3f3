"""No text of a recipe, of pictures or of an error becomes markup, and help is the schema's words alone."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from finetune.errors import AtelierError
from finetune.recipe import describe_fields
from webui.pages.recipe.parts import given, held
from webui.pages.recipe.words import begun, beside, checked, difference_table, refused, summary
from webui.recipe_form.fields import Field
from webui.recipe_form.form import fields_of
from webui.recipe_form.launching import Begun
from webui.recipe_form.looking import look_at

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"
PATH = Path("here.yaml").absolute()


class Tags(HTMLParser):
    """The tags and the words of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def has_no_strange_tag(html: str) -> None:
    found = Tags(html)
    assert not {"script", "img"} & {tag for tag, _ in found.tags}
    assert not any(name.startswith("on") for _, names in found.tags for name in names)


def holds_text_alone(html: str) -> None:
    has_no_strange_tag(html)
    assert "<script>alert(1)</script>" in Tags(html).words


QUOTED = SCRIPT.replace("\\", "").replace("'", "''")


@pytest.mark.parametrize(
    "lines",
    [
        f"name: '{QUOTED}'",
        f"purpose: '{QUOTED}'\ntraining:\n  precision: '{QUOTED}'",
        f"preview:\n  prompts:\n    - '{QUOTED}'\n  '{QUOTED[:50]}': 1",
        f"extends: '{QUOTED}'",
        f"model: {{kind: '{QUOTED}'}}",
    ],
)
def test_a_recipe_shows_as_text(lines: str) -> None:
    extends = "" if lines.startswith("extends") else "extends: quickstart\n"
    look = look_at(f"{extends}schema_version: 1\n{lines}\n", PATH)
    shown = summary(look) + difference_table(look) + "".join(beside([mark]) for mark in look.marks)
    has_no_strange_tag(shown)
    assert "<script>" in Tags(shown).words
    if "purpose" in lines:
        holds_text_alone(difference_table(look))


def test_what_a_check_finds_shows_as_text() -> None:
    found = {
        "pictures": 1, "steps": 5, "steps_per_epoch": 1, "epochs": 5.0, "stops": [SCRIPT], "warnings": [SCRIPT],
        "bad_pictures": [{"source": 0, "name": SCRIPT, "reason": SCRIPT}],
        "findings": [{"severity": "note", "text": SCRIPT, "advice": SCRIPT, "items": []}],
        "buckets": [{"height": SCRIPT, "width": 8, "pictures": SCRIPT}],
    }  # fmt: skip
    holds_text_alone(checked(found))
    assert Tags(checked(found)).words.count("<script>") == 8
    holds_text_alone(refused(AtelierError(SCRIPT)))
    holds_text_alone(begun(Begun(SCRIPT, SCRIPT, Path(SCRIPT)), "Started."))


def test_the_schemas_words_are_no_markup_either() -> None:
    """They stand below labels, where Gradio reads a little Markdown."""
    for field in describe_fields():
        plain = "".join(field.help.split("`")[::2])
        assert "<" not in plain, field.key
        assert "](" not in plain, field.key


def test_what_a_part_holds_is_what_the_form_shows() -> None:
    form = look_at("extends: character\nschema_version: 1\n", PATH).form
    assert form is not None
    fields: list[Field] = list(fields_of(form))
    assert len(fields) > 100
    for field in fields:
        assert given(held(field)) == field.shown, field.key
    assert given(None) == ""
