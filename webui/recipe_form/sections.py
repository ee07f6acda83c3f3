"""Which part of the form stands where: the settings that matter first, and everything by its section.

A setting that joins the schema stands in its section by itself; a section that joins it, in the last tab.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from webui.recipe_form.fields import Field
from webui.recipe_form.form import Group, Part, fields_of

ESSENTIALS = "Essentials"
TABS: dict[str, tuple[str, ...]] = {
    "Model": ("model", "refiner"),
    "Pictures": ("data",),
    "Adapter": ("adapter",),
    "Training": ("training",),
    "Previews": ("preview",),
    "Saving": ("checkpoint", "export", "cache", "tracking"),
    "General": ("name", "purpose", "seed", "output_dir"),
}
"""Tabs and the parts of a recipe in them; what no tab names stands in the last."""

ESSENTIAL: tuple[str, ...] = (
    "name",
    "model.kind",
    "model.id",
    "model.path",
    "data.sources.*.kind",
    "data.sources.*.path",
    "data.sources.*.name",
    "data.sources.*.trigger",
    "adapter.unet.rank",
    "adapter.unet.learning_rate",
    "training.steps",
    "training.global_batch_size",
    "training.micro_batch_size",
    "preview.every_steps",
    "preview.prompts.*.prompt",
)
"""The settings that a first recipe needs to look at, in the order they are shown."""


def essentials(form: Group) -> list[Field]:
    """Return the settings that matter first, those that apply, in the order of `ESSENTIAL`."""
    fields = list(fields_of(form))
    return [field for group in _grouped(fields) for field in group]


def is_essential(key: str) -> bool:
    """Whether a setting is one of those that matter first."""
    return any(_fits(key, pattern) for pattern in ESSENTIAL)


def parts_of_tab(form: Group, tab: str) -> list[Part]:
    """Return the parts of the form that stand in a tab, in its order."""
    parts = {part.key: part for part in form.parts}
    found = [parts[key] for key in TABS[tab] if key in parts]
    if tab == list(TABS)[-1]:
        named = {key for keys in TABS.values() for key in keys}
        found += [part for key, part in parts.items() if key not in named]
    return found


def _grouped(fields: list[Field]) -> Iterator[list[Field]]:
    """Yield what each pattern finds; of entries of a list, all settings of one before those of the next."""
    seen: set[str] = set()
    for pattern in ESSENTIAL:
        found = [field for field in fields if _fits(field.key, pattern) and field.key not in seen]
        if "*" in pattern:
            head = pattern.partition(".*")[0]
            beside = [other for other in ESSENTIAL if other.startswith(f"{head}.*")]
            found = [
                field
                for field in _by_entry(fields, head)
                if any(_fits(field.key, other) for other in beside) and field.key not in seen
            ]
        seen.update(field.key for field in found)
        yield found


def _by_entry(fields: list[Field], head: str) -> list[Field]:
    order = {pattern: place for place, pattern in enumerate(ESSENTIAL)}

    def place(field: Field) -> tuple[int, int]:
        index = field.key.removeprefix(f"{head}.").partition(".")[0]
        pattern = next((pattern for pattern in ESSENTIAL if _fits(field.key, pattern)), "")
        return (int(index) if index.isdecimal() else -1, order.get(pattern, len(order)))

    return sorted((field for field in fields if field.key.startswith(f"{head}.")), key=place)


def _fits(key: str, pattern: str) -> bool:
    return key.count(".") == pattern.count(".") and fnmatchcase(key, pattern)
