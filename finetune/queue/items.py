"""What stands in a queue: plain data, checked when it is read. It reads and starts nothing."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ItemState = Literal["waiting", "starting", "running", "finished", "failed", "stopped", "cancelled", "lost"]
"""
waiting     for its turn
starting    a runner has claimed it; its keeper has not begun the command yet
running     its command has been begun
finished    its command ended with 0
failed      it ended with another code, or could not be begun
stopped     a signal from elsewhere made it save and stop (130, 143)
cancelled   it was cancelled, before it ran or while it did
lost        it and its keeper are gone, and nobody saw how it ended
"""

ACTIVE = frozenset({"starting", "running"})
ENDED = frozenset({"finished", "failed", "stopped", "cancelled", "lost"})


class ProcessIdentity(BaseModel):
    """One process among all that ever bore its number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pid: int = Field(gt=0)
    started_at: float
    """When it was started, in seconds since 1970, as the system counts it."""


class Item(BaseModel):
    """One run that was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: int = Field(gt=0)
    """Its number: counted up, never given again."""
    recipe: str
    """As it would be typed, from `cwd`. The file is read when its turn comes."""
    overrides: tuple[str, ...] = ()
    """`key.path=value`."""
    resume: bool = False
    """Whether the run that lies in the folder goes on."""
    cwd: str
    """Where it was added, and where its command is started."""
    run: str
    """The folder of the run, as the recipe said when it was added."""
    state: ItemState = "waiting"
    added_at: float
    started_at: float | None = None
    ended_at: float | None = None
    attempt: str | None = None
    """A runner's claim, which only the keeper it started knows: no other may begin the item."""
    keeper: ProcessIdentity | None = None
    process: ProcessIdentity | None = None
    """The training itself."""
    cancel_requested: bool = False
    exit_code: int | None = None
    """As a shell has it: 128 and the signal's number where a signal ended it. None where nobody saw it."""
    message: str = ""

    @property
    def line(self) -> str:
        """The line to type for it."""
        return shlex.join(command_of(self, ["atelier"]))


class QueueContent(BaseModel):
    """Everything that `queue.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    paused: bool = False
    next_id: int = Field(default=1, gt=0)
    items: tuple[Item, ...] = ()

    def item(self, item_id: int) -> Item | None:
        """Return the item of a number."""
        return next((item for item in self.items if item.id == item_id), None)

    def active(self) -> Item | None:
        """Return the item that has been claimed or begun; there is at most one."""
        return next((item for item in self.items if item.state in ACTIVE), None)

    def waiting(self) -> list[Item]:
        """Return those that wait, in their order."""
        return [item for item in self.items if item.state == "waiting"]

    def with_item(self, changed: Item) -> "QueueContent":
        """Return the content with an item in the place of the one of its number."""
        return self.with_items(changed if item.id == changed.id else item for item in self.items)

    def with_items(self, items: Iterable[Item]) -> "QueueContent":
        """Return the content with other items."""
        return self.model_copy(update={"items": tuple(items)})


PROGRAM: tuple[str, ...] = (sys.executable, "-m", "finetune")
"""What `atelier` is, started from here."""


def command_of(item: Item, program: Sequence[str] = PROGRAM) -> list[str]:
    """Return the command of an item: what a person would type to begin this run."""
    return [*program, "train", item.recipe, *item.overrides, *(["--resume"] if item.resume else [])]
