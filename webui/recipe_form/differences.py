"""What a recipe says otherwise than what it extends, or than the defaults where it extends nothing."""

from dataclasses import dataclass

from webui.recipe_form.fields import Field, Shown
from webui.recipe_form.form import fields_of
from webui.recipe_form.looking import Look


@dataclass(frozen=True)
class Difference:
    """A setting with the preset's value and this recipe's, as they are shown; `before` is empty for what is new."""

    key: str
    before: str
    now: str


def differences(look: Look) -> list[Difference]:
    """Return what differs, in the order of the form; none where the text cannot be read."""
    if look.form is None:
        return []
    return [
        Difference(field.key, "" if field.inherited is None else as_words(field, field.inherited),
                   as_words(field, field.shown))
        for field in fields_of(look.form)
        if field.shown != (field.inherited if field.inherited is not None else "")
    ]  # fmt: skip


def as_words(field: Field, shown: Shown) -> str:
    """Return what a part of the form shows in words: `on`, `off`, `none` and texts."""
    if isinstance(shown, bool):
        return "on" if shown else "off"
    if isinstance(shown, tuple):
        return ", ".join(shown)
    return "none" if shown == "" and (field.nullable or field.widget == "kind") else shown
