"""What a browser shows of a form, tab by tab: whether it still fits, or has to be made anew."""

import hashlib
from dataclasses import dataclass

from webui.recipe_form.fields import Field
from webui.recipe_form.form import Part, fields_of
from webui.recipe_form.looking import Look, Mark
from webui.recipe_form.sections import ESSENTIALS, TABS, essentials, parts_of_tab

ALL_TABS: tuple[str, ...] = (ESSENTIALS, *TABS)


@dataclass(frozen=True)
class Tab:
    """One tab of a form.

    Attributes:
        parts: what stands in it.
        fields: its settings in order; a key stands once.
        marks: what is to be said beside them, by their keys.
    """

    parts: tuple[Part, ...]
    fields: tuple[Field, ...]
    marks: dict[str, tuple[Mark, ...]]

    @property
    def frame(self) -> str:
        """Tell its parts apart from others, whatever stands in them: with another, a form has to be made anew."""
        return _short(repr([(field.key, field.widget, field.choices, field.help) for field in self.fields]))

    @property
    def content(self) -> str:
        """Tell all that it shows apart from other contents."""
        return _short(self.frame + repr([(field.key, field.shown) for field in self.fields]) + repr(self.marks))


def tab_of(look: Look, name: str) -> Tab:
    """Return a tab of a form; an empty one where the text cannot be read."""
    if look.form is None:
        return Tab((), (), {})
    parts: list[Part] = list(essentials(look.form)) if name == ESSENTIALS else parts_of_tab(look.form, name)
    fields = tuple(field for part in parts for field in fields_of(part))
    marks = {field.key: tuple(mark for mark in look.marks if mark.field == field.key) for field in fields}
    return Tab(tuple(parts), fields, {key: found for key, found in marks.items() if found})


def contents(look: Look) -> dict[str, str]:
    """Return what every tab shows, to be compared with what a browser shows; none where the text cannot be read."""
    return {} if look.form is None else {name: tab_of(look, name).content for name in ALL_TABS}


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()
