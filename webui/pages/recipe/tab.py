"""One tab of the form: made anew only when other settings apply, so that typing in it is never interrupted."""

import contextlib
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import gradio as gr

from webui.pages.recipe.parts import add_setting, changed_by_hand, given
from webui.pages.recipe.words import beside, extended
from webui.recipe_form.editing import add_entry, answer, extend, remove_entry
from webui.recipe_form.fields import Field
from webui.recipe_form.form import Entries, Group, Part, fields_of, singular
from webui.recipe_form.looking import Look
from webui.recipe_form.sections import ESSENTIALS, TABS, is_essential
from webui.recipe_form.view import Tab, tab_of
from webui.words import told

LookAt = Callable[[str, str], tuple[Look, Any]]
"""Takes the text and the file's name; gives what the text amounts to and the path it would lie at."""
React = Callable[..., list[Any]]
"""Takes the changed text, the file's name and what the browser shows; gives new values for the shared parts."""


class TabForm:
    """Adds the parts of one tab for one text, and listens to them."""

    def __init__(
        self,
        name: str,
        look_at: LookAt,
        react: React,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        presets: list[str],
    ) -> None:
        """Prepare a tab.

        Args:
            name: of the tab.
            look_at: reads a text.
            react: shows a changed text everywhere else.
            inputs: the parts of the page that `react` asks for, the text first.
            outputs: those it fills.
            presets: what `extends` may name.
        """
        self.name = name
        self.look_at = look_at
        self.react = react
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.presets = presets
        self.keys: list[str] = []
        self.parts: list[Any] = []
        self.slots: list[gr.HTML] = []
        self.tab = Tab((), (), {})

    def add(self, text: str, file_name: str) -> None:
        """Add everything."""
        look, _ = self.look_at(text, file_name)
        self.tab = tab_of(look, self.name)
        if look.form is None:
            _note('<p class="recipe-note">The YAML cannot be read. Mend it, and the form is here again.</p>')
            return
        if self.name == ESSENTIALS:
            _note('<p class="recipe-note">What a first recipe needs to look at. Everything else has its tab.</p>')
            names = {part.key: part for part in look.form.parts}
            with gr.Column(elem_classes="settings"):
                for part in self.tab.parts:
                    assert isinstance(part, Field), "essentials are settings"
                    self._add_field(part, _full_label(part, names))
        else:
            _note('<p class="recipe-note">★ stands among the essentials, too.</p>')
            if self.name == list(TABS)[-1]:
                self._add_extends(text)
            self._add_parts(self.tab.parts, depth=0)
        if self.parts:
            gr.on(
                [changed_by_hand(part) for part in self.parts],
                self._edit,
                [*self.inputs, *self.parts],
                [*self.outputs, *self.slots],
                show_progress="hidden",
                trigger_mode="always_last",
                api_visibility="private",
            )

    def _add_parts(self, parts: Sequence[Part], depth: int) -> None:
        """Add parts in order, settings that follow each other beside each other where there is room."""
        plain = [_chooser_alone(part) or part for part in parts]
        for are_fields, together in groupby(plain, lambda part: isinstance(part, Field)):
            with gr.Column(elem_classes="settings") if are_fields else contextlib.nullcontext():
                for part in together:
                    self._add_part(part, depth)

    def _add_part(self, part: Part, depth: int) -> None:
        if isinstance(part, Field):
            self._add_field(part, f"★ {part.label}" if is_essential(part.key) else part.label)
        elif isinstance(part, Entries):
            self._add_entries(part, depth)
        elif not depth:
            _note(f"<h3>{part.label}</h3>")
            self._add_inside(part, depth)
        else:
            with self._fold(_heading(part), part.key, is_open=_is_open(part)):
                self._add_inside(part, depth)

    def _fold(self, label: str, key: str, *, is_open: bool) -> Any:
        """Add a part that folds; what a person has opened stays open when the form is made anew."""
        return gr.Accordion(
            label, open=is_open, key=f"{self.name}/{key}", preserved_by_key=["open"], elem_classes="recipe-group"
        )

    def _add_inside(self, group: Group, depth: int) -> None:
        self._add_parts([*([] if group.chooser is None else [group.chooser]), *group.parts], depth + 1)

    def _add_entries(self, part: Entries, depth: int) -> None:
        word = singular(part.label).lower()
        with self._fold(part.label, part.key, is_open=True):
            _note(f'<p class="recipe-note">{part.help}</p>')
            for index, entry in enumerate(part.entries):
                with self._fold(entry.label, entry.key, is_open=index == 0 or index + 1 == len(part.entries)):
                    self._add_inside(entry, depth + 1)
                    button = gr.Button(
                        f"Remove {word} {index + 1}", size="sm", elem_id=_id(self.name, entry.key, "remove")
                    )
                    self._listen(button, self._remover(part.key, index))
            button = gr.Button(f"Add a {word}", size="sm", elem_id=_id(self.name, part.key, "add"))
            self._listen(button, self._adder(part.key))

    def _add_field(self, field: Field, label: str) -> None:
        part, slot = add_setting(field, label, _id(self.name, field.key), self.tab.marks.get(field.key, ()))
        self.keys.append(field.key)
        self.parts.append(part)
        self.slots.append(slot)

    def _add_extends(self, text: str) -> None:
        names = extended(text)
        part = gr.Dropdown(
            list(dict.fromkeys([*self.presets, *names])),
            value=names,
            multiselect=True,
            allow_custom_value=True,
            label="Presets (extends)",
            info="What this recipe builds on; a later one wins over an earlier, and the recipe itself over all.",
            elem_id="recipe-extends",
            interactive=True,
        )

        @told
        def change(text: str, name: str, known: dict[str, str], chosen: list[str]) -> list[Any]:
            look, _ = self.look_at(text, name)
            return self.react(extend(look, [str(each) for each in chosen or []]), name, known)

        part.input(change, [*self.inputs, part], self.outputs, show_progress="hidden", api_visibility="private")

    def _listen(self, button: Any, handler: Any) -> None:
        button.click(handler, self.inputs, self.outputs, show_progress="hidden", api_visibility="private")

    def _adder(self, key: str) -> Any:
        @told
        def add(text: str, name: str, known: dict[str, str]) -> list[Any]:
            return self.react(add_entry(self.look_at(text, name)[0], key), name, known)

        return add

    def _remover(self, key: str, index: int) -> Any:
        @told
        def remove(text: str, name: str, known: dict[str, str]) -> list[Any]:
            return self.react(remove_entry(self.look_at(text, name)[0], key, index), name, known)

        return remove

    @property
    def _edit(self) -> Any:
        """The handler of every part: what is not as the text says was answered."""

        @told
        def edit(text: str, name: str, known: dict[str, str], *answers: Any) -> list[Any]:
            look, path = self.look_at(text, name)
            found = {key: given(each) for key, each in zip(self.keys, answers, strict=True)}
            changed = answer(look, path, found)
            if changed == text:
                return [gr.skip() for _ in (*self.outputs, *self.slots)]
            tab = tab_of(self.look_at(changed, name)[0], self.name)
            if tab.frame != self.tab.frame:
                return [*self.react(changed, name, known), *(gr.skip() for _ in self.slots)]
            words = [beside(tab.marks.get(key, ())) for key in self.keys]
            slots = [gr.HTML(each, visible=bool(each)) for each in words]
            return [*self.react(changed, name, known, quiet=self.name), *slots]

        return edit


def _chooser_alone(part: Part) -> Field | None:
    """Return a section's chooser where nothing else of the section is there."""
    return part.chooser if isinstance(part, Group) and not part.parts else None


def _note(words: str) -> None:
    """Add words of ours."""
    gr.HTML(words, padding=False)


def _heading(group: Group) -> str:
    """Return a section's label with its kind, which tells what is inside while it is folded."""
    chooser = group.chooser
    return f"{group.label}: {chooser.shown}" if chooser is not None and chooser.widget == "kind" else group.label


def _is_open(group: Group) -> bool:
    """Whether a section is unfolded at first: what matters first is, what the recipe itself says, and what is short."""
    inside = list(fields_of(group))
    return group.chooser is None or any(is_essential(field.key) or field.written for field in inside)


def _full_label(field: Field, parts: dict[str, Part]) -> str:
    """Return a setting's label with its section's before it, where it does not stand alone."""
    way = _way_to(field, list(parts.values()))
    around = [group.label for group in way if isinstance(group, Group)][-1:]
    chooses = any(isinstance(group, Group) and group.chooser is field for group in way)
    return field.label if chooses or not around else f"{around[0]}: {field.label.lower()}"


def _way_to(field: Field, parts: Sequence[Part]) -> list[Part]:
    for part in parts:
        if isinstance(part, Field):
            continue
        inside: Sequence[Part] = part.parts if isinstance(part, Group) else part.entries
        if isinstance(part, Group) and part.chooser is not None and part.chooser.key == field.key:
            return [part]
        if any(isinstance(each, Field) and each.key == field.key for each in inside):
            return [part]
        way = _way_to(field, inside)
        if way:
            return [part, *way]
    return []


def _id(tab: str, key: str, *more: str) -> str:
    words = "-".join([key, *more]).replace(".", "-").replace("_", "-")
    return f"recipe-{words}" if tab != ESSENTIALS else f"recipe-essential-{words}"
