"""What one program makes of one file: what it takes, what it leaves and why, and whether it reads the numbers right."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isclose
from typing import Any, Literal

from finetune.naming.components import COMPONENTS, Component
from finetune.readers.contents import Contents, Entry
from finetune.readers.names import Module
from finetune.readers.parts import Kind

State = Literal["whole", "limited", "partial", "refused"]


@dataclass(frozen=True)
class Verdict:
    """Whether something is read right.

    Attributes:
        state: right; wrong; limit (wrong, as this program reads every file of the kind); or absent.
        detail: what it makes of it, in plain words.
    """

    state: Literal["right", "wrong", "limit", "absent"]
    detail: str = ""


ABSENT = Verdict("absent")
RIGHT = Verdict("right")


@dataclass(frozen=True)
class Left:
    """A key that a program does not take.

    Attributes:
        key: the tensor's name.
        reason: why.
        is_limit: whether the program takes none of this kind, whoever wrote the file.
    """

    key: str
    reason: str
    is_limit: bool = False


@dataclass(frozen=True)
class Limit:
    """What a program cannot do with a kind of adapter, however it is written, and what to do instead."""

    name: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Count:
    """Modules of one component: how many a program takes, of how many the file has something for."""

    taken: int
    total: int


@dataclass(frozen=True)
class Reading:
    """What one program makes of one file.

    Attributes:
        reader: the program's short name, `comfyui`.
        title: as it is written, 'ComfyUI'.
        counts: modules taken, by component; only components the file has something for.
        left: the keys it does not take.
        refusal: why it refuses the whole file; empty if it does not.
        scale: whether each product is multiplied by what the file means.
        dora: whether DoRA's magnitudes are applied as trained.
        version: whether it knows the file for one of SDXL.
        limits: what it cannot do with files of this kind.
        notes: what else is worth knowing.
        scales: the modules it takes, and what it multiplies the product of each by.
    """

    reader: str
    title: str
    counts: Mapping[Component, Count]
    left: tuple[Left, ...] = ()
    refusal: str = ""
    scale: Verdict = ABSENT
    dora: Verdict = ABSENT
    version: Verdict = ABSENT
    limits: tuple[Limit, ...] = ()
    notes: tuple[str, ...] = ()
    scales: Mapping[Module, float] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """Whole; limited (all but what this program can do with no file of the kind); partial; or refused."""
        if self.refusal:
            return "limited" if self.limits and all(left.is_limit for left in self.left) else "refused"
        verdicts = {verdict.state for verdict in (self.scale, self.dora, self.version)}
        if "wrong" in verdicts or any(not left.is_limit for left in self.left):
            return "partial"
        if self.limits or self.left or "limit" in verdicts:
            return "limited"
        return "whole" if self.counts else "partial"

    @property
    def is_whole(self) -> bool:
        """Whether every key is taken and every number read right."""
        return self.state == "whole"

    @property
    def num_taken(self) -> int:
        """How many modules are taken."""
        return sum(count.taken for count in self.counts.values())

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return {
            "reader": self.reader,
            "title": self.title,
            "state": self.state,
            "modules": {name: {"taken": count.taken, "total": count.total} for name, count in self.counts.items()},
            "refusal": self.refusal or None,
            "scale": {"state": self.scale.state, "detail": self.scale.detail},
            "dora": {"state": self.dora.state, "detail": self.dora.detail},
            "version": {"state": self.version.state, "detail": self.version.detail},
            "num_left": len(self.left),
            "left": [{"key": left.key, "reason": left.reason, "limit": left.is_limit} for left in self.left[:50]],
            "limits": [{"name": limit.name, "text": limit.text, "remedy": limit.remedy} for limit in self.limits],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Rules:
    """How a program that looks modules up by name reads a file.

    Attributes:
        reader: its short name.
        title: as it is written.
        names: the stems it knows, and the modules they are.
        suffixes: the ends of keys it knows.
        kinds: the kinds of adapters it can apply.
        unknown: what becomes of a key it does not know.
        limits: what it cannot do, by kind.
        gap: returns what it cannot do with a certain module, whose name is in its table or not; None for nothing.
    """

    reader: str
    title: str
    names: Mapping[str, Module]
    suffixes: frozenset[str]
    kinds: frozenset[Kind]
    unknown: str
    limits: Mapping[Kind, Limit] = field(default_factory=dict)
    gap: Callable[[Entry], Limit | None] | None = None


class Tally:
    """A reading in the making."""

    def __init__(self, reader: str, title: str, contents: Contents) -> None:
        """Begin with nothing taken."""
        self.reader, self.title, self.contents = reader, title, contents
        self.taken: list[tuple[Entry, Module]] = []
        self.scales: dict[Module, float] = {}
        self.left: list[Left] = []
        self.limits: dict[str, Limit] = {}
        self.notes: list[str] = []
        self.refusal = ""
        self.scale = RIGHT if contents.entries else ABSENT
        self.dora = ABSENT
        self.version = ABSENT

    def take(self, entry: Entry, module: Module, scale: float) -> None:
        """Note that a module is taken, and what its product is multiplied by."""
        self.taken.append((entry, module))
        self.scales[module] = scale
        if self.scale.state == "right" and not isclose(scale, entry.scale, rel_tol=1e-5, abs_tol=1e-9):
            text = f"{entry.stem}: takes {scale:g}, but the file means {entry.scale:g}"
            self.scale = Verdict("wrong", text)

    def leave(self, keys: Iterable[str], reason: str, *, is_limit: bool = False) -> None:
        """Note that keys are not taken."""
        self.left += [Left(key, reason, is_limit) for key in keys]

    def limit(self, limit: Limit) -> None:
        """Note what the program cannot do with files of this kind."""
        self.limits[limit.name] = limit

    def refuse(self, reason: str) -> None:
        """Note that the whole file is refused; the first reason stands."""
        self.refusal = self.refusal or reason

    def finish(self) -> Reading:
        """Return the reading."""
        taken: dict[Component, int] = {}
        if not self.refusal:
            for entry, (component, _) in self.taken:
                # A module read into another component than its name says is no module taken of that one.
                if entry.component in (None, component):
                    taken[component] = taken.get(component, 0) + 1
        totals = self.contents.totals
        counts = {
            component: Count(taken.get(component, 0), totals[component])
            for component in COMPONENTS
            if component in totals
        }
        return Reading(
            reader=self.reader,
            title=self.title,
            counts=counts,
            left=tuple(self.left),
            refusal=self.refusal,
            scale=ABSENT if self.refusal or not self.taken else self.scale,
            dora=ABSENT if self.refusal else self.dora,
            version=self.version,
            limits=tuple(self.limits.values()),
            notes=tuple(self.notes),
            scales={} if self.refusal else {module: self.scales[module] for _, module in self.taken},
        )


def tally_by_name(contents: Contents, rules: Rules, scale_of: Callable[[Entry], float]) -> Tally:
    """Read a file as a program does that looks each stem up in a table of names.

    Args:
        contents: the file.
        rules: the program's.
        scale_of: returns what the program multiplies a module's product by.
    """
    tally = Tally(rules.reader, rules.title, contents)
    for entry in contents.entries:
        keys = tuple(entry.keys.values())
        limit = None if rules.gap is None else rules.gap(entry)
        if limit is not None:
            tally.limit(limit)
            tally.leave(keys, limit.text, is_limit=True)
            continue
        if entry.kind not in rules.kinds and entry.kind in rules.limits:
            tally.limit(rules.limits[entry.kind])
            tally.leave(keys, rules.limits[entry.kind].text, is_limit=True)
            continue
        module = rules.names.get(entry.stem)
        if module is None:
            tally.leave(keys, f"no module of that name; {rules.unknown}")
            continue
        if entry.misfit:
            tally.leave(keys, entry.misfit)
            continue
        unknown = [key for key in keys if key.removeprefix(entry.stem) not in rules.suffixes]
        needed = [key for key in unknown if not _is_extra(entry, key)]
        if needed:
            tally.leave(keys, f"it knows no '{needed[0].removeprefix(entry.stem)}'; {rules.unknown}")
            continue
        tally.leave(unknown, f"it knows no such part; {rules.unknown}")
        tally.take(entry, module, scale_of(entry))
    tally.leave(contents.others, f"no part of a LoRA; {rules.unknown}")
    return tally


REFINER_ENCODER = Limit(
    "the refiner's encoder",
    "it has no module under the second encoder's name in a model with one encoder",
    "train the refiner's U-Net alone, or use diffusers",
)


def gap_of_refiner(entry: Entry, contents: Contents) -> Limit | None:
    """Return the limit that programs have that know no `lora_te2_` where the model has one encoder."""
    is_it = contents.names.structure.text_encoder is None and entry.stem.startswith("lora_te2_")
    return REFINER_ENCODER if is_it else None


def scale_by_alpha(entry: Entry, contents: Contents) -> float:
    """Return alpha / rank, or 1 where there is no alpha: what every reader of kohya's format does."""
    alpha = contents.file.numbers.get(entry.keys.get("alpha", ""))
    if alpha is None or not entry.rank:
        return 1.0
    return alpha / entry.rank


def _is_extra(entry: Entry, key: str) -> bool:
    """Whether a tensor only adds to what the others make: without it the module is taken, but not as trained."""
    return any(
        entry.keys.get(part) == key for part in ("alpha", "dora_scale", "magnitude", "bias", "scalar", "reshape")
    )


def dora_by_first_size(tally: Tally, of_rows: Limit) -> Verdict:
    """Judge what becomes of DoRA's magnitudes where norms of columns are read right, and of rows as `of_rows` says."""
    verdict = ABSENT
    for entry, module in tally.taken:
        if "magnitude" in entry.keys:
            return Verdict("wrong", "magnitudes under peft's name are left out, so plain LoRA is applied")
        if "dora_scale" not in entry.keys:
            continue
        if is_of_rows(tally.contents, entry, module):
            tally.limit(of_rows)
            return Verdict("limit", of_rows.text)
        verdict = RIGHT
    return verdict


def is_of_rows(contents: Contents, entry: Entry, module: Module) -> bool:
    """Return whether DoRA's magnitudes are told, by their first size, to be norms of a weight's rows."""
    shape = contents.file.shapes[entry.keys["dora_scale"]]
    return bool(shape) and shape[0] == contents.names.shapes[module][0]
