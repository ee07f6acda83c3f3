"""The options that a `dataset_config` of kohya's trainers may hold: where each may stand, its form, what it means here.

Facts of that format, as its documentation gives them; what is done with the values is `kohya_config`'s work.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["general", "dataset", "subset"]

_Check = Callable[[Any], bool]

MAX_COUNT = 1_000_000
MAX_SIDE = 16384
"""More is a slip, and would make more sizes than a machine can count."""

EVERYWHERE: tuple[Level, ...] = ("general", "dataset", "subset")
_ABOVE: tuple[Level, ...] = ("general", "dataset")
_HERE: tuple[Level, ...] = ("subset",)


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        fits: whether a value is of its form.
        needs: that form, in words.
        levels: where it may stand.
        belongs: what to set in the recipe, where it is a matter of all pictures; `{}` stands for the value.
        lacks: why it has no equal here, where it has none.
        off: the value, beside 0, false, empty and none, at which it does nothing.
        of: the kind of subset it belongs to, where it is not every kind.
    """

    fits: _Check
    needs: str
    levels: tuple[Level, ...] = EVERYWHERE
    belongs: str = ""
    lacks: str = ""
    off: Any = None
    of: Literal["files", "metadata"] | None = None

    def is_off(self, value: object) -> bool:
        """Whether a value of it does nothing."""
        return not value or value == self.off


def _is_whole(least: int, most: int = MAX_COUNT) -> _Check:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value) and "\0" not in value


def _is_size(value: object) -> bool:
    is_side = _is_whole(1, MAX_SIDE)
    return is_side(value) or (isinstance(value, list) and len(value) == 2 and all(map(is_side, value)))


def _is_step(value: object) -> bool:
    return _is_whole(8, MAX_SIDE)(value) and value % 8 == 0  # type: ignore[operator]


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def _is_range(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _is_anything(_: object) -> bool:
    return True


def _is_ending(value: object) -> bool:
    return isinstance(value, str) and value.startswith(".") and len(value) > 1 and "/" not in value


_COUNT = (_is_whole(1), f"a whole number from 1 to {MAX_COUNT}")
_COUNT_OR_ZERO = (_is_whole(0), f"a whole number from 0 to {MAX_COUNT}")
_FLAG = (_is_flag, "true or false")
_TEXT = (_is_text, "text")
_NAME = (_is_name, "a path")
_SHARE = (_is_share, "a number from 0 to 1")
_SIZE = (_is_size, f"a whole number from 1 to {MAX_SIDE}, or two of them: [width, height]")
_NUMBER = (_is_number, "a number")

OPTIONS: Mapping[str, Option] = {
    # of datasets
    "resolution": Option(*_SIZE, _ABOVE),
    "enable_bucket": Option(*_FLAG, _ABOVE),
    "min_bucket_reso": Option(*_COUNT, _ABOVE),
    "max_bucket_reso": Option(*_COUNT, _ABOVE),
    "bucket_reso_steps": Option(_is_step, "a multiple of 8", _ABOVE),
    "batch_size": Option(*_COUNT, _ABOVE),
    "bucket_no_upscale": Option(
        *_FLAG, _ABOVE, lacks="small pictures are scaled up to their bucket (atelier data inspect names those)"
    ),
    "skip_image_resolution": Option(
        *_SIZE, _ABOVE, lacks="no picture is left out by its size; move the small ones to a folder of their own"
    ),
    "network_multiplier": Option(*_NUMBER, _ABOVE, lacks="an adapter has its full weight in training", off=1),
    "validation_split": Option(*_SHARE, lacks="no pictures are kept back to measure by"),
    "validation_seed": Option(_is_anything, "a whole number"),
    # of pictures
    "num_repeats": Option(*_COUNT),
    "image_dir": Option(*_NAME, _HERE),
    "metadata_file": Option(*_NAME, _HERE, of="metadata"),
    "class_tokens": Option(*_TEXT, of="files"),
    "is_reg": Option(*_FLAG, _HERE, of="files"),
    "alpha_mask": Option(*_FLAG),
    "conditioning_data_dir": Option(
        *_NAME, _HERE, lacks="a folder of masks is named in the recipe, by a source's mask: {kind: files, folder: …}"
    ),
    "cache_info": Option(*_FLAG),
    "flip_aug": Option(*_FLAG, belongs="data.flip_probability: 0.5"),
    "random_crop": Option(*_FLAG, belongs="data.crop: random"),
    "color_aug": Option(*_FLAG, lacks="colours are trained as they are"),
    "face_crop_aug_range": Option(_is_range, "[from, to]", lacks="pictures are not cut around faces"),
    "resize_interpolation": Option(*_TEXT, lacks="pictures are resized by Lanczos' filter", off="lanczos"),
    # of captions
    "caption_extension": Option(_is_ending, "an ending that begins with a dot, as .txt", of="files"),
    "shuffle_caption": Option(*_FLAG),
    "keep_tokens": Option(*_COUNT_OR_ZERO),
    "caption_separator": Option(_is_name, "text that is not empty"),
    "caption_prefix": Option(*_TEXT),
    "caption_suffix": Option(*_TEXT),
    "caption_tag_dropout_rate": Option(*_SHARE),
    "enable_wildcard": Option(*_FLAG),
    "caption_dropout_rate": Option(*_SHARE, belongs="training.caption_dropout: {}"),
    "caption_dropout_every_n_epochs": Option(
        *_COUNT_OR_ZERO, lacks="captions are dropped by chance: training.caption_dropout"
    ),
    "keep_tokens_separator": Option(*_TEXT),
    "secondary_separator": Option(*_TEXT),
    "token_warmup_min": Option(*_COUNT_OR_ZERO),
    "token_warmup_step": Option(*_NUMBER, lacks="captions have all their tags from the first step on"),
    "custom_attributes": Option(_is_anything, "a table", lacks="only the trainer that it was written for knows them"),
}
"""All that are known, by name."""

TRAINERS_OWN = ("train_data_dir", "reg_data_dir", "in_json", "pretrained_model_name_or_path", "output_dir")
"""Options of the command line of such trainers, which stand in another kind of file."""


def problem_of(name: str, value: object, level: Level) -> str | None:
    """Say why an option must not stand somewhere, or not with this value."""
    option = OPTIONS.get(name)
    if option is None:
        close = difflib.get_close_matches(name[:100], OPTIONS, n=1, cutoff=0.6)
        return "is no option that is known. " + (
            f"Did you mean {close[0]!r}?" if close else "Leave it out to go without"
        )
    if level not in option.levels:
        where = {"general": "[general]", "dataset": "[[datasets]]", "subset": "[[datasets.subsets]]"}
        return f"does not stand here, but in {' or '.join(where[level] for level in option.levels)}"
    return None if option.fits(value) else f"got {value!r:.60}, needs {option.needs}"
