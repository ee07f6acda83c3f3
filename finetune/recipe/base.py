"""What every section of a recipe is made of: the frozen base class and the kinds of values, each with its plain words.

`Needs` carries the words that end a message ("needs a whole number of 1 or more"), so no message is ever pydantic's own
English. The sections themselves live in the modules beside this one.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict, StringConstraints
from pydantic_core import PydanticCustomError

from finetune.recipe.problems import shown


class Settings(BaseModel):
    """A group of settings: unknown keys are refused, nothing changes after loading, docstrings are the help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, validate_default=False
    )

    shared_by_kinds: ClassVar[frozenset[str]] = frozenset()
    """The settings that stay when a `kind` changes to another that shares them."""


@dataclass(frozen=True)
class Needs:
    """What a value must be, in words that follow 'needs'."""

    words: str


def _whole_float_to_int(value: Any) -> Any:
    """Let `1e3` stand for 1000 where a whole number is asked for; anything else passes unchanged."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


@dataclass(frozen=True)
class DefaultKind:
    """The `kind` that a mapping without one means; a marker that merging and messages read too."""

    kind: str

    def __call__(self, value: Any) -> Any:
        """Fill in the kind where a mapping does not name one."""
        return {"kind": self.kind, **value} if isinstance(value, dict) and "kind" not in value else value


@dataclass(frozen=True)
class Shorthand:
    """A plain text may stand for a mapping with this one key; a marker that overrides read too."""

    key: str

    def __call__(self, value: Any) -> Any:
        """Write the mapping out where a text stands for it."""
        return {self.key: value} if isinstance(value, str) else value


def before(filled: DefaultKind) -> BeforeValidator:
    """Let pydantic call a default kind before it chooses among a union's members."""
    return BeforeValidator(filled)


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def _refuse_address(path: str) -> str:
    """Refuse addresses of the web where a path is asked for: some libraries would fetch them."""
    if _ADDRESS.match(path):
        needs = "needs a path on this machine (addresses of the web are refused)"
        raise PydanticCustomError("plain", "{message}", {"message": f"got {shown(path)}, {needs}"})
    return path


NO_ADDRESS = AfterValidator(_refuse_address)
_WHOLE = BeforeValidator(_whole_float_to_int)

Text = Annotated[str, Strict(), Needs("text")]
LineOfText = Annotated[
    str, Strict(), StringConstraints(pattern=r"^[^\n\v\f\r\x1c-\x1e\x85\u2028\u2029]*$"), Needs("text on one line")
]
NonEmptyText = Annotated[str, Strict(), MinLen(1), Needs("text that is not empty")]
Flag = Annotated[bool, Strict(), Needs("true or false")]

Count = Annotated[int, Strict(), Ge(1), _WHOLE, Needs("a whole number of 1 or more")]
CountOrZero = Annotated[int, Strict(), Ge(0), _WHOLE, Needs("a whole number of 0 or more")]
# Larger than anything that is meant, so that a slip of the keyboard is told and does not fill the memory.
Repeats = Annotated[int, Strict(), Ge(1), Le(100_000), _WHOLE, Needs("a whole number from 1 to 100,000")]
Steps = Annotated[int, Strict(), Ge(1), Le(10**9), _WHOLE, Needs("a whole number from 1 to 1,000,000,000")]
Rank = Annotated[int, Strict(), Ge(1), Le(4096), _WHOLE, Needs("a whole number from 1 to 4096")]
Resolution = Annotated[int, Strict(), Ge(1), Le(16_384), _WHOLE, Needs("a whole number from 1 to 16384")]
Seed = Annotated[int, Strict(), Ge(0), Le(2**63 - 1), _WHOLE, Needs("a whole number from 0 to 2^63 - 1")]
Timestep = Annotated[int, Strict(), Ge(0), Le(999), _WHOLE, Needs("a whole number from 0 to 999")]

Number = Annotated[float, Strict(), Needs("a number")]
NumberAboveZero = Annotated[float, Strict(), Gt(0), Needs("a number above 0")]
NumberOrZero = Annotated[float, Strict(), Ge(0), Needs("a number of 0 or more")]
Probability = Annotated[float, Strict(), Ge(0), Le(1), Needs("a number from 0 to 1")]
ProbabilityBelowOne = Annotated[float, Strict(), Ge(0), Lt(1), Needs("a number from 0 up to, not including, 1")]
FractionAboveZero = Annotated[float, Strict(), Gt(0), Le(1), Needs("a number above 0 and at most 1")]
FractionInside = Annotated[float, Strict(), Gt(0), Lt(1), Needs("a number between 0 and 1, neither of them")]
AspectRatio = Annotated[float, Strict(), Ge(1), Le(100), Needs("a number from 1 to 100")]
Score = Annotated[float, Strict(), Ge(0), Le(10), Needs("a number from 0 to 10")]

RunName = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$"),
    Needs("at most 100 letters, digits, '.', '_' or '-', beginning with a letter or digit"),
]
Colour = Annotated[
    str, Strict(), StringConstraints(pattern=r"^#[0-9A-Fa-f]{6}$"), Needs("a colour in quotes as '#rrggbb'")
]
PathText = Annotated[
    str,
    Strict(),
    StringConstraints(min_length=1, pattern=r"^[^\x00]+$"),
    NO_ADDRESS,
    Needs("a path"),
]
HubId = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"),
    Needs("a hub id as 'owner/name'"),
]
HubWord = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"),
    Needs("letters, digits, '.', '_', '/' or '-'"),
]

PictureSide = Annotated[int, Strict(), Ge(8), MultipleOf(8), _WHOLE, Needs("a multiple of 8, 8 or more")]
PictureSize = Annotated[
    tuple[PictureSide, PictureSide], Needs("a list of two multiples of 8: [height, width] in pixels")
]
"""(height, width) of a picture that is made."""
AnySize = Annotated[tuple[Count, Count], Needs("a list of two whole numbers of 1 or more: [height, width] in pixels")]
"""(height, width) that is only told to the model."""
Offset = Annotated[
    tuple[CountOrZero, CountOrZero], Needs("a list of two whole numbers of 0 or more: [top, left] in pixels")
]
"""(top, left) of a crop."""
Betas = Annotated[
    tuple[ProbabilityBelowOne, ProbabilityBelowOne], Needs("a list of two numbers from 0 up to, not including, 1")
]
