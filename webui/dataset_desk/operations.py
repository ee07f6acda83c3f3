"""The changes of many captions that the page offers: their names, what each has to be given, and what is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from webui.dataset_desk import edits
from webui.dataset_desk.captions import Put, WrittenCaption, plan_puts


@dataclass(frozen=True)
class Given:
    """What a person has filled in; each operation takes what it needs."""

    find: str = ""
    replacement: str = ""
    is_pattern: bool = False
    ignore_case: bool = False
    tag: str = ""
    new_tag: str = ""
    keep_first: int = 0


@dataclass(frozen=True)
class Operation:
    """One change.

    Attributes:
        label: what a person chooses it by.
        fields: which of `Given` it takes.
        run: makes new captions.
        what: says in words what was done, for undo.
    """

    label: str
    fields: tuple[str, ...]
    run: Callable[[Sequence[str], Given], list[str]]
    what: Callable[[Given], str]


def _replace(captions: Sequence[str], given: Given) -> list[str]:
    replace = edits.replace_pattern if given.is_pattern else edits.replace_text
    return replace(captions, given.find, given.replacement, ignore_case=given.ignore_case)


OPERATIONS: dict[str, Operation] = {
    "replace": Operation(
        "Find and replace",
        ("find", "replacement", "is_pattern", "ignore_case"),
        _replace,
        lambda given: f"replace {given.find!r:.40} by {given.replacement!r:.40}",
    ),
    "add-front": Operation(
        "Add a tag in front", ("tag",), lambda captions, given: edits.add_tag(captions, given.tag, at_end=False),
        lambda given: f"add {given.tag!r:.40} in front",
    ),
    "add-end": Operation(
        "Add a tag at the end", ("tag",), lambda captions, given: edits.add_tag(captions, given.tag, at_end=True),
        lambda given: f"add {given.tag!r:.40} at the end",
    ),
    "remove": Operation(
        "Remove a tag", ("tag",), lambda captions, given: edits.remove_tag(captions, given.tag),
        lambda given: f"remove {given.tag!r:.40}",
    ),
    "rename": Operation(
        "Rename a tag", ("tag", "new_tag"),
        lambda captions, given: edits.rename_tag(captions, given.tag, given.new_tag),
        lambda given: f"rename {given.tag!r:.40} to {given.new_tag!r:.40}",
    ),
    "trigger": Operation(
        "Put the trigger word first", ("tag",), lambda captions, given: edits.put_first(captions, given.tag),
        lambda given: f"put {given.tag!r:.40} first",
    ),
    "repeated": Operation(
        "Remove repeated tags", (), lambda captions, _: edits.drop_repeated_tags(captions),
        lambda _: "remove repeated tags",
    ),
    "sort": Operation(
        "Sort tags, the most frequent first", ("keep_first",),
        lambda captions, given: edits.sort_tags(captions, keep_first=given.keep_first),
        lambda _: "sort tags",
    ),
    "tidy": Operation(
        "Tidy spaces and empty lines", (), lambda captions, _: edits.tidy(captions), lambda _: "tidy spaces"
    ),
}  # fmt: skip
"""By the names that the browser sends."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A change that was looked at and not yet made. Two are compared by being the same object: they may be large.

    Attributes:
        what: in words.
        changes: pictures whose captions become others: name, before, after.
        puts: what is written for it.
        unchangeable: pictures that were to change, and why they cannot.
    """

    what: str
    changes: tuple[tuple[str, str, str], ...]
    puts: tuple[Put, ...]
    unchangeable: tuple[tuple[str, str], ...] = ()

    @property
    def num_files(self) -> int:
        """How many files are written."""
        return len({put.slot.file for put in self.puts})


def plan(captions: Sequence[WrittenCaption], operation: Operation, given: Given) -> Plan:
    """Find out what a change would do; nothing is written.

    Args:
        captions: of the chosen pictures, as they were read.
        operation: one of `OPERATIONS`.
        given: what was filled in.

    Raises:
        EditError: what was filled in makes no sense, or a caption cannot become what it would.
    """
    editable = [caption for caption in captions if caption.slot is not None]
    before = [caption.text for caption in editable]
    found = edits.changes(before, operation.run(before, given))
    changes = tuple((editable[change.index].picture, change.before, change.after) for change in found)
    puts = plan_puts(editable, {picture: after for picture, _, after in changes})
    unchangeable = tuple((caption.picture, caption.problem) for caption in captions if caption.slot is None)
    return Plan(operation.what(given), changes, tuple(puts), unchangeable)
