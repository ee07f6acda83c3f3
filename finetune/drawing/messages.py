"""What is said to the generation worker and what it answers, one JSON object a line. No torch, no drawing.

Both sides check what they read: unknown keys, other versions and values out of range are refused in words.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import AfterValidator, Field, Strict, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from finetune.errors import RecipeError
from finetune.recipe.base import AnySize, Needs, NumberOrZero, Offset, PathText, PictureSize, Seed, Settings, Text
from finetune.recipe.preview import ImageToImageRefiner, PreviewRefiner

VERSION: Literal[1] = 1
"""Of the lines; a worker of another version refuses them."""

MAX_LORAS = 8
MAX_PICTURES = 256

Column = Literal["base", "lora", "base_refined", "lora_refined"]
"""What is drawn: without LoRA and with it, each finished by the base or by the refiner."""

Strength = Annotated[float, Strict(), Ge(-10), Le(10), Needs("a number from -10 to 10")]
LoraStep = Annotated[int, Strict(), Ge(0), Le(10**9), Needs("a step of the run")]
DrawnSteps = Annotated[int, Strict(), Ge(1), Le(1000), Needs("a whole number from 1 to 1000")]
JobName = Annotated[str, Strict(), MinLen(1), MaxLen(100), Needs("a name of the job")]


class LoraFile(Settings):
    """A LoRA in a file."""

    kind: Literal["file"] = "file"
    """Take a file."""
    path: PathText
    """The `.safetensors` file in any dialect, or a folder of peft's."""
    strength: Strength = 1.0
    """What the LoRA's change is multiplied by."""


class LoraOfRun(Settings):
    """What a run has learned after so many steps."""

    kind: Literal["run"] = "run"
    """Take a run's."""
    run: PathText
    """The run's folder."""
    step: LoraStep | None = None
    """After which step, of those whose checkpoint or export is there; null is the newest."""
    strength: Strength = 1.0
    """What the LoRA's change is multiplied by."""


Lora = Annotated[LoraFile | LoraOfRun, Field(discriminator="kind")]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise PydanticCustomError("plain", "one of them stands twice")
    return values


_DISTINCT = AfterValidator(_distinct)


class DrawRequest(Settings):
    """Pictures to draw: a grid over strength, step and seed, each cell in every column that is asked for."""

    kind: Literal["draw"] = "draw"
    """Draw."""
    version: Literal[1] = VERSION
    """The version of these lines."""
    id: JobName
    """Names the job in the answers."""
    folder: PathText
    """Where the pictures go; made if it is not there."""
    source: PathText
    """A run's folder, or a recipe's name or file: its model, refiner, precision and objective are used."""
    columns: Annotated[tuple[Column, ...], MinLen(1), MaxLen(4), _DISTINCT] = ("base",)
    """What is drawn, side by side."""
    loras: Annotated[tuple[Lora, ...], MaxLen(MAX_LORAS)] = ()
    """The LoRAs that are used together."""
    prompt: Annotated[Text, MaxLen(20_000)]
    """What to draw."""
    negative_prompt: Annotated[Text, MaxLen(20_000)] = ""
    """What to steer away from."""
    seeds: Annotated[tuple[Seed, ...], MinLen(1), MaxLen(64), _DISTINCT] = (0,)
    """The noises to start from; one row of the grid each."""
    strengths: Annotated[tuple[Strength, ...], MaxLen(32), _DISTINCT] = ()
    """Strengths of the first LoRA, a column of the grid each; none: its own."""
    lora_steps: Annotated[tuple[LoraStep, ...], MaxLen(32), _DISTINCT] = ()
    """Steps of the run that the first LoRA is of, a column of the grid each; none: its own."""
    size: PictureSize | None = None
    """[height, width] of the picture in pixels; null is the model's own size."""
    original_size: AnySize | None = None
    """The [height, width] the model is told its picture once had; null is `size`."""
    crop_top_left: Offset = (0, 0)
    """The [top, left] the model is told its picture was cut at."""
    target_size: AnySize | None = None
    """The [height, width] the model is told it draws; null is `size`."""
    num_inference_steps: DrawnSteps | None = None
    """How many denoising steps a picture takes; null is the recipe's."""
    guidance_scale: NumberOrZero | None = None
    """How strongly a picture follows its prompt; null is the recipe's."""
    refiner: PreviewRefiner | None = None
    """How base and refiner share the work; null is the recipe's."""

    @model_validator(mode="after")
    def _parts_suit_each_other(self) -> "DrawRequest":
        with_lora = any(column.startswith("lora") for column in self.columns)
        if with_lora and not self.loras:
            raise PydanticCustomError("plain", "a picture with a LoRA needs one: choose a LoRA, or the base alone")
        if self.loras and not with_lora:
            raise PydanticCustomError("plain", "LoRAs are chosen but no picture with them: choose one, or no LoRA")
        if (self.strengths or self.lora_steps) and not self.loras:
            raise PydanticCustomError("plain", "a grid over strength or step needs a LoRA: choose one")
        if self.lora_steps and not isinstance(self.loras[0], LoraOfRun):
            raise PydanticCustomError("plain", "a grid over steps needs a run's LoRA first: a file has one step only")
        steps = self.num_inference_steps
        if steps and isinstance(self.refiner, ImageToImageRefiner) and int(steps * self.refiner.strength) < 1:
            raise PydanticCustomError("plain", "the refiner's strength of these steps is less than one step: raise it")
        if self.count() > MAX_PICTURES:
            raise PydanticCustomError(
                "plain", f"that would be {self.count()} pictures; at most {MAX_PICTURES} are drawn at once"
            )
        return self

    def count(self) -> int:
        """Return how many pictures this makes."""
        with_lora = sum(column.startswith("lora") for column in self.columns)
        cells = max(1, len(self.strengths)) * max(1, len(self.lora_steps))
        return len(self.seeds) * (with_lora * cells + len(self.columns) - with_lora)


class CancelRequest(Settings):
    """Stop drawing after the denoising step that is under way."""

    kind: Literal["cancel"] = "cancel"
    """Cancel."""
    id: JobName
    """Which job."""


class Ready(Settings):
    """The worker listens."""

    kind: Literal["ready"] = "ready"
    """Ready."""
    version: int
    """Of the lines it speaks."""


class Progress(Settings):
    """How far a job is."""

    kind: Literal["progress"] = "progress"
    """Progress."""
    id: JobName
    """Which job."""
    stage: str
    """What is being done, in words."""
    picture: int = 0
    """Which picture is drawn now, from 1; 0 before the first."""
    pictures: int = 0
    """How many there will be."""
    step: int = 0
    """Denoising steps done of this picture."""
    steps: int = 0
    """How many it takes."""


class Drawn(Settings):
    """A picture that is written."""

    kind: Literal["picture"] = "picture"
    """A picture."""
    id: JobName
    """Which job."""
    path: str
    """The PNG file, with its settings inside."""
    title: str
    """How it was drawn, in words: text, not markup."""
    column: Column
    """Which of the columns asked for."""
    seed: int
    """Of its noise."""
    strength: float | None = None
    """Of the first LoRA, in a grid over strengths."""
    lora_step: int | None = None
    """Of the first LoRA's run, in a grid over steps."""
    settings: dict[str, Any]
    """As they stand in the file."""


class Done(Settings):
    """A job is done."""

    kind: Literal["done"] = "done"
    """Done."""
    id: JobName
    """Which job."""
    grid: str | None
    """A PNG file of all pictures side by side, where there are several."""
    warnings: tuple[str, ...] = ()
    """What is drawn otherwise than it may be meant."""


class Cancelled(Settings):
    """A job was cancelled; the pictures written before stay."""

    kind: Literal["cancelled"] = "cancelled"
    """Cancelled."""
    id: JobName
    """Which job."""


class Failed(Settings):
    """A job failed; the worker goes on."""

    kind: Literal["failed"] = "failed"
    """Failed."""
    id: JobName | None
    """Which job; null where the line could not be read."""
    message: str
    """Why, and what to do."""
    exit_code: int
    """As the command line would have ended."""


class Ended(Settings):
    """The worker ends by itself."""

    kind: Literal["ended"] = "ended"
    """Ended."""
    reason: str
    """Why, in words."""


Line = Annotated[DrawRequest | CancelRequest, Field(discriminator="kind")]
Answer = Annotated[Ready | Progress | Drawn | Done | Cancelled | Failed | Ended, Field(discriminator="kind")]

_LINE: TypeAdapter[DrawRequest | CancelRequest] = TypeAdapter(Line)
_ANSWER: TypeAdapter[Ready | Progress | Drawn | Done | Cancelled | Failed | Ended] = TypeAdapter(Answer)


def parse_line(text: str) -> DrawRequest | CancelRequest:
    """Return what a line asks for. Raises RecipeError in words."""
    try:
        return _LINE.validate_json(text)
    except ValidationError as error:
        raise RecipeError(words_of(error)) from error


def parse_answer(text: str) -> Ready | Progress | Drawn | Done | Cancelled | Failed | Ended:
    """Return what the worker answers. Raises RecipeError in words."""
    try:
        return _ANSWER.validate_json(text)
    except ValidationError as error:
        raise RecipeError(words_of(error)) from error


def words_of(error: ValidationError) -> str:
    """Return what is wrong with a message, a sentence for each problem."""
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"] if part != "draw")
        given = "" if problem["type"] == "plain" else f" (got {str(problem['input'])[:60]!r})"
        problems.append(f"{where}: {problem['msg']}{given}" if where else f"{problem['msg']}{given}")
    return "; ".join(problems)
