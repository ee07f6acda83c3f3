"""Takes over a `dataset_config` of kohya's trainers, in TOML or JSON: each of its subsets becomes a folder of pictures.

What has an equal here is taken over. What belongs to the whole recipe here, or has no equal, is an error where it is
switched on, unless it is knowingly left out: nothing of the file is dropped in silence. All errors are told at once.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagesets.buckets import generated_buckets
from imagesets.captions import clean_caption
from imagesets.errors import CaptionError, SourceError
from imagesets.framing import Size
from imagesets.masks import AlphaMask
from imagesets.reading.kohya import CAPTION_EXTENSIONS
from imagesets.reading.kohya_file import ConfigFile, Subset, read_config
from imagesets.reading.kohya_options import OPTIONS
from imagesets.sources import FolderSource, SourceOptions
from imagesets.wording import Wording

MAX_ASPECT = 4.0
"""Longest side over shortest of generated sizes, where the file does not say how long a side may be."""

_MIN_BUCKET, _BUCKET_STEP = 256, 64  # what the format has where the file is silent


@dataclass(frozen=True)
class KohyaConfig:
    """What to take over, and how.

    Attributes:
        path: of the file, which ends in .toml or .json.
        base: where its relative paths begin.
        options: of all its pictures. Repeats and the loss weight are factors; a wording, sizes or a mask that stand
            here take the place of the file's. The trigger is not put before captions of regularisation pictures.
        leave_out: names of options to go without.
        regularisation_weight: what the loss of its regularisation pictures counts, beside 1 for others.
        variants: how many wordings each caption has; None words it anew at each showing.
        keep_brackets: as `Wording` has it.
        micro_batch_size: of the recipe; a file that names another is told of.
    """

    path: Path
    base: Path
    options: SourceOptions = field(default_factory=SourceOptions)
    leave_out: Sequence[str] = ()
    regularisation_weight: float = 1.0
    variants: int | None = 8
    keep_brackets: bool = False
    micro_batch_size: int | None = None


@dataclass(frozen=True)
class TakenSubset:
    """One subset of the file as a source.

    Attributes:
        place: in the file, as 'datasets[0].subsets[1]'.
        source: its pictures.
    """

    place: str
    source: FolderSource


@dataclass
class TakenOver:
    """What became of a file.

    Attributes:
        subsets: in the file's order.
        notes: what is another way here, by its place in the file.
    """

    subsets: list[TakenSubset] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def take_over(config: KohyaConfig) -> TakenOver:
    """Read the file and make a source of each subset. No picture is opened.

    Raises:
        SourceError: naming everything in the file that cannot be taken over, each by its place.
    """
    file = ConfigFile(config.leave_out, read_config(config.path))
    taken = TakenOver()
    for dataset in file.datasets():
        seen: dict[object, str] = {}
        for subset in dataset.subsets:
            source = _source(config, subset, file, taken.notes)
            if source is None:
                continue
            same = (source.path, source.metadata_file)
            if same in seen:
                file.problems[subset.place] = (
                    f"has the pictures of {seen[same]} again: remove one, or raise num_repeats"
                )
            seen.setdefault(same, subset.place)
            taken.subsets.append(TakenSubset(subset.place, source))
    file.finish()
    taken.subsets = _told_apart(taken.subsets)
    if file.problems:
        raise SourceError(_as_message(config.path, file.problems))
    return taken


def looks_like_config(path: Path) -> bool:
    """Whether a file is, as far as a glance tells, such a configuration: any TOML, or JSON that holds `datasets`."""
    if path.suffix.lower() == ".toml":
        return path.is_file()
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        return isinstance(read_config(path).get("datasets"), list)
    except SourceError:
        return False


def _source(config: KohyaConfig, subset: Subset, file: ConfigFile, notes: dict[str, str]) -> FolderSource | None:
    """Return a subset as a source; None where it has no folder, which is a problem."""
    _name_what_stays(config, subset, file, notes)
    folder = _path(config, subset, "image_dir", file)
    metadata = _path(config, subset, "metadata_file", file)
    given = config.options
    sizes = given.buckets or _sizes(subset, file)
    wording = given.wording or _wording(config, subset, file, notes)
    if "resolution" not in subset.values and given.buckets is None:
        notes[f"{subset.place}.resolution"] = "is not named, so that the sizes are the recipe's: data.buckets"
    is_regular = subset.get("is_reg", False)
    weight = config.regularisation_weight if is_regular else 1.0
    options = replace(
        given,
        trigger="" if is_regular else given.trigger,
        repeats=given.repeats * subset.get("num_repeats", 1),
        loss_weight=given.loss_weight * weight,
        buckets=sizes,
        wording=wording,
        mask=given.mask or (AlphaMask() if subset.get("alpha_mask") else None),
    )
    if folder is None:
        return None
    if subset.kind == "metadata":
        return FolderSource(
            path=folder, recursive=False, captions="metadata", metadata_file=metadata, only_named=True, **vars(options)
        )
    extensions = (subset.get("caption_extension"),) if "caption_extension" in subset.values else CAPTION_EXTENSIONS
    return FolderSource(
        path=folder,
        recursive=False,
        captions="files",
        caption_extension=extensions[0],
        more_caption_extensions=extensions[1:],
        caption_otherwise=_class_tokens(subset, file),
        **vars(options),
    )


def _told_apart(subsets: Sequence[TakenSubset]) -> list[TakenSubset]:
    """Call sources of one name by their places in the file."""
    counts = Counter(subset.source.label for subset in subsets)
    return [
        subset
        if counts[subset.source.label] == 1
        else replace(subset, source=replace(subset.source, name=f"{subset.source.label} ({subset.place})"))
        for subset in subsets
    ]


def _name_what_stays(config: KohyaConfig, subset: Subset, file: ConfigFile, notes: dict[str, str]) -> None:
    """Name what is switched on and belongs elsewhere, or has no equal."""
    for name, found in subset.values.items():
        option = OPTIONS[name]
        if option.is_off(found.value) or (name == "bucket_no_upscale" and not subset.get("enable_bucket")):
            continue
        shown = json.dumps(found.value)[:60]
        if option.belongs:
            setting = option.belongs.format(shown)
            file.problems[found.place] = (
                f"{shown} is a matter of the whole recipe here: set {setting}, and leave it out"
            )
        elif option.lacks:
            file.problems[found.place] = f"{shown} has no equal here: {option.lacks}. Leave it out to go without"
        elif name == "batch_size" and found.value != config.micro_batch_size:
            notes[found.place] = (
                f"how many pictures a batch has is set in the recipe: training.micro_batch_size is "
                f"{config.micro_batch_size}, where the file has {found.value}"
            )
        elif name == "is_reg":
            notes[found.place] = (
                "regularisation pictures are seen as often as num_repeats says; kohya's trainers show them as often as "
                "the others together"
            )


def _path(config: KohyaConfig, subset: Subset, name: str, file: ConfigFile) -> Path | None:
    """Return a path of the file, from where relative ones begin; None where there is none or nothing lies there."""
    written = subset.get(name)
    if written is None:
        if name == "image_dir" and f"{subset.place}.{name}" not in file.problems:
            file.problems[f"{subset.place}.{name}"] = "is missing: name the folder of the pictures"
        return None
    path = config.base / Path(written).expanduser()
    if path.is_dir() if name == "image_dir" else path.is_file():
        return path
    what = "folder" if name == "image_dir" else "file"
    begins = "" if Path(written).expanduser().is_absolute() else f" (relative paths begin in {config.base}: set base)"
    file.problems[subset.place_of(name)] = f"there is no {what} {path}{begins}"
    return None


def _class_tokens(subset: Subset, file: ConfigFile) -> str | None:
    try:
        return clean_caption(subset.get("class_tokens", "")) or None
    except CaptionError as error:
        file.problems[subset.place_of("class_tokens")] = str(error)
        return None


def _sizes(subset: Subset, file: ConfigFile) -> tuple[Size, ...] | None:
    """Return the (height, width) a subset's pictures may be trained at; None where the file names no resolution."""
    resolution = subset.get("resolution")
    if resolution is None:
        return None
    width, height = (resolution, resolution) if isinstance(resolution, int) else resolution
    if not subset.get("enable_bucket"):
        return ((height, width),)
    least, most = subset.get("min_bucket_reso", _MIN_BUCKET), subset.get("max_bucket_reso")
    step = subset.get("bucket_reso_steps", _BUCKET_STEP)
    short, long = sorted((height, width))
    for name, wrong, words in (
        ("bucket_reso_steps", step > short, f"is above the resolution, {short}"),
        ("min_bucket_reso", least > short, f"is above the resolution, {short}"),
        ("max_bucket_reso", most is not None and most < long, f"is below the resolution, {long}"),
    ):
        if wrong:
            place = subset.place_of(name) if name in subset.values else f"{subset.place}.{name}"
            file.problems[place] = words
            return None
    aspect = MAX_ASPECT if most is None else most / least
    sizes = {
        (tall, wide)
        for tall, wide in generated_buckets(math.isqrt(height * width), step, aspect)
        if min(tall, wide) >= least and (most is None or max(tall, wide) <= most)
    }
    if (height % step, width % step) == (0, 0):
        sizes.add((height, width))
    if most is not None and len(sizes) == 1:
        file.problems[subset.place_of("max_bucket_reso")] = (
            f"{most} leaves no size but {height} x {width}: sizes keep to the area of the resolution here and are not "
            f"shrunk. Raise it to {2 * long}, or set enable_bucket = false"
        )
    return tuple(sorted(sizes))


def _wording(config: KohyaConfig, subset: Subset, file: ConfigFile, notes: dict[str, str]) -> Wording | None:
    """Return how a subset's captions are worded; None where the file leaves them alone."""
    separator = subset.get("caption_separator", ",").strip() or " "
    shuffle, dropout = subset.get("shuffle_caption", False), float(subset.get("caption_tag_dropout_rate", 0))
    wildcards, kept = subset.get("enable_wildcard", False), subset.get("keep_tokens_separator", "").strip()
    prefix, suffix = (_end(subset, name, file) for name in ("caption_prefix", "caption_suffix"))
    parted = bool(kept) and (kept in prefix or kept in suffix)  # then ends and caption are parted as there
    if (shuffle or dropout > 0) and not parted:
        _tell_of_ends(subset, separator, notes)
    wording = Wording(
        separator=separator if separator == " " else f"{separator} ",
        # There, the tags of the prefix are the first of those that are kept; here the prefix is none of them.
        keep_first=max(0, subset.get("keep_tokens", 0) - prefix.count(separator)),
        shuffle=shuffle,
        tag_dropout=dropout,
        wildcards=wildcards,
        choose_line=wildcards,
        prefix=prefix,
        suffix=suffix,
        variants=config.variants,
        keep_brackets=config.keep_brackets,
        keep_separator=kept,
        secondary_separator=subset.get("secondary_separator", "").strip(),
    )
    does_something = wording.draws or prefix or suffix or kept or wording.secondary_separator
    return wording if does_something else None


def _end(subset: Subset, name: str, file: ConfigFile) -> str:
    """Return the prefix or suffix of captions, which is neither shuffled here nor chosen from."""
    text: str = subset.get(name, "")
    sign = subset.get("secondary_separator", "").strip()
    if "\n" in text or "\r" in text:
        file.problems[subset.place_of(name)] = "needs text on one line"
    if subset.get("enable_wildcard") and "{" in text:
        file.problems[subset.place_of(name)] = "holds a wildcard: they are chosen from in captions alone here"
    return text.replace(sign, subset.get("caption_separator", ",")) if sign else text


def _tell_of_ends(subset: Subset, separator: str, notes: dict[str, str]) -> None:
    """Note where tags of a prefix or suffix would be shuffled and dropped by kohya's trainers with the others."""
    prefix = subset.get("caption_prefix", "")
    if prefix and subset.get("keep_tokens", 0) < prefix.count(separator):
        notes[subset.place_of("caption_prefix")] = (
            "stays in front here; kohya's trainers shuffle and drop its tags with the others beyond keep_tokens"
        )
    if subset.get("caption_suffix", ""):
        notes[subset.place_of("caption_suffix")] = (
            "stays at the end here; kohya's trainers shuffle and drop its tags with the others"
        )


def _as_message(path: Path, problems: Mapping[str, str]) -> str:
    lines = [f"  {place}: {problem}" for place, problem in problems.items()]
    names = dict.fromkeys(place.rpartition(".")[2] for place, problem in problems.items() if "eave it out" in problem)
    if names:
        lines.append(f"What the recipe sets, or you go without, is left out by: leave_out: [{', '.join(names)}]")
    return "\n".join([f"the dataset configuration {path} cannot be taken over as it is:", *lines])
