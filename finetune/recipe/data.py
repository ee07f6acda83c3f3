"""Which pictures are trained on and how they are cut. Reading and cutting them is the work of `imagesets`."""

from typing import Annotated, Literal

from pydantic import Field, Strict, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

from finetune.recipe.base import (
    Colour,
    Count,
    Flag,
    LineOfText,
    Needs,
    NonEmptyText,
    NumberAboveZero,
    NumberOrZero,
    PathText,
    Probability,
    Repeats,
    Score,
    Settings,
)
from finetune.recipe.buckets import Buckets, PaperBuckets
from finetune.recipe.mask import FileMask, Mask
from finetune.recipe.wording import Wording

CaptionExtension = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^\.[A-Za-z0-9._-]{1,20}$"),
    Needs("a file name's ending that begins with a dot, as .txt"),
]
ShardPattern = Annotated[
    str, Strict(), StringConstraints(min_length=1, pattern=r"^[^\x00]+$"), Needs("a path or an address of tar shards")
]
DatasetName = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=r"^[^\x00:]+$|^[A-Za-z]:[\\/][^\x00:]*$"),
    Needs("a dataset's name on the hub or a path (addresses of the web are refused)"),
]


class _SourceOptions(Settings):
    """What every kind of source has; not chosen by itself."""

    repeats: Repeats = 1
    """How often each picture of this source is seen in an epoch; raise it to balance a small source against a large."""
    trigger: LineOfText = ""
    """A word put before each caption that does not have it; the word that calls up what was learned."""
    wording: Wording | None = None
    """How captions are worded anew for each showing: tags shuffled or dropped, wildcards; null leaves them alone."""
    buckets: Buckets | None = None
    """The sizes this source's pictures are cut to; null takes those of the whole set, `data.buckets`."""
    aesthetic_score: Score = 6.0
    """How beautiful the pictures are, from 0 to 10, which only a refiner is told. The source may give each \
picture its own `aesthetic_score`."""
    loss_weight: NumberOrZero = 1.0
    """What the loss of this source's pictures counts in a step, beside 1 for others': the weight of regularisation \
pictures, of which a class's own look is to be remembered. The logged loss counts all alike."""
    mask: Mask | None = None
    """Which parts of its pictures count: those their masks keep, or all (null). A picture without a mask is trained \
on whole, and named."""


class FolderSource(_SourceOptions):
    """A folder of pictures with captions beside them."""

    kind: Literal["folder"] = "folder"
    """Take pictures from a folder of this machine."""
    path: PathText
    """The folder: absolute, from `~`, relative to the current directory, or `sample:NAME` for a set that ships."""
    recursive: Flag = True
    """Whether folders inside the folder are read too."""
    captions: Literal["auto", "files", "metadata"] = "auto"
    """Where captions come from: text files beside the pictures, metadata.jsonl, metadata.csv or metadata.parquet \
(columns `file_name`, `text`), or auto: a metadata file where there is one, else text files."""
    caption_extension: CaptionExtension = ".txt"
    """The ending of a caption's file, which has its picture's name otherwise."""
    metadata_file: PathText | None = None
    """A file that is read in place of the folder's metadata.jsonl, wherever it lies: `.json` as kohya's tools write \
it (pictures' names with `caption` and `tags`), or a .jsonl, .csv or .parquet; null reads the folder's own."""


class KohyaSource(_SourceOptions):
    """A folder of folders named `N_name`, as kohya's trainers take them: pictures seen N times, captioned `name`."""

    kind: Literal["kohya"] = "kohya"
    """Take pictures from folders named `N_name`, as kohya's trainers do."""
    path: PathText
    """The folder around them: absolute, from `~`, or relative to the current directory. Captions lie beside pictures, \
in `.txt` or `.caption`; one without has what follows the number. Regularisation pictures, in a folder `reg` of the \
same form, are a source of their own, with its `loss_weight`."""


class KohyaConfigSource(_SourceOptions):
    """The pictures of a `dataset_config` of kohya's trainers: each of its subsets is a source.

    `repeats` and `loss_weight` are factors to what the file says; a `wording`, `buckets` or `mask` given here take the
    place of the file's. The `trigger` is not put before captions of regularisation pictures.
    """

    kind: Literal["kohya_config"] = "kohya_config"
    """Take pictures as a `dataset_config` of kohya's trainers names them."""
    path: PathText
    """The file, .toml or .json: absolute, from `~`, or relative to the current directory."""
    base: PathText | None = None
    """Where relative paths in the file begin; null takes the current directory, as kohya's trainers do."""
    leave_out: tuple[NonEmptyText, ...] = ()
    """Options of the file to go without: those that the recipe sets (flip_aug by `data.flip_probability`) and those \
that have no equal (color_aug). They are errors where they are switched on and not named here."""
    regularisation_weight: NumberOrZero = 1.0
    """What the loss of the file's regularisation pictures (is_reg) counts in a step, beside 1 for others'."""
    variants: Count | None = 8
    """How many wordings each caption has where the file shuffles or drops tags or takes wildcards, as \
`wording.variants`."""


class _WithoutMaskFiles(_SourceOptions):
    """What sources have whose pictures lie in no folder; not chosen by itself."""

    @field_validator("mask")
    @classmethod
    def _masks_are_their_own(cls, mask: Mask | None) -> Mask | None:
        if isinstance(mask, FileMask):
            raise PydanticCustomError("plain", "got kind: files, needs kind: alpha; only folders have masks in files")
        return mask


class HuggingFaceSource(_WithoutMaskFiles):
    """A dataset read with Hugging Face's `datasets`: by name from the hub, or by path."""

    kind: Literal["huggingface"] = "huggingface"
    """Take pictures from a dataset through Hugging Face's `datasets`."""
    name: DatasetName
    """The dataset's name on the hub, or a path to one on this machine."""
    config_name: NonEmptyText | None = None
    """Which configuration of the dataset to take; null takes its only or default one."""
    revision: NonEmptyText | None = None
    """A branch, tag or commit of the dataset's repository; null takes its main branch."""
    split: NonEmptyText = "train"
    """Which split of the dataset to take."""
    image_column: NonEmptyText = "image"
    """The column that holds the pictures."""
    caption_column: NonEmptyText = "text"
    """The column that holds the captions."""
    streaming: Flag = False
    """Whether its rows are read as they come, anew in each epoch, rather than listed and looked at first: for what is \
too large to keep. Pictures are then encoded at every step, and nothing of it is cached."""
    num_pictures: Count | None = None
    """With `streaming`, about how many pictures it holds, so that smaller sources beside it are spread evenly over an \
epoch; null asks the dataset, and where it does not know, sources take turns until one ends."""


class WebDatasetSource(_WithoutMaskFiles):
    """Tar shards in WebDataset's form: members that share a name up to its first dot are one sample."""

    kind: Literal["webdataset"] = "webdataset"
    """Take pictures from tar shards."""
    path: ShardPattern
    """A folder of .tar files; or a path or an address (s3://, https://, any that `fsspec` opens), in which braces and \
stars name several: `photos-{000..127}.tar`."""
    caption_extension: CaptionExtension = ".txt"
    """The ending of the member that holds a sample's caption."""
    json_field: NonEmptyText = "caption"
    """What the caption is called in a sample's .json member, for samples without a caption of their own."""
    streaming: Flag = False
    """Whether samples are read as they come, anew in each epoch, rather than listed and looked at first: for what is \
too large to keep. Pictures are then encoded at every step, and nothing of it is cached."""
    num_pictures: Count | None = None
    """With `streaming`, about how many pictures it holds, so that smaller sources beside it are spread evenly over an \
epoch; null asks the dataset, and where it does not know, sources take turns until one ends."""


Source = Annotated[
    FolderSource | KohyaSource | KohyaConfigSource | HuggingFaceSource | WebDatasetSource, Field(discriminator="kind")
]
"""Where pictures come from: folder, kohya, kohya_config, huggingface or webdataset."""


class StreamBuffer(Settings):
    """How much of sources with `streaming: true` is held at once, to fill buckets and to mix."""

    pictures: Count = 1000
    """At most so many pictures are held."""
    megabytes: Count = 1024
    """At most about so much memory their files take, in units of 2^20 bytes."""


class Data(Settings):
    """The pictures and how they become training samples."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1), Needs("a list of at least one source of pictures")]
    """Where the pictures come from; several are read together as one set."""
    buckets: Buckets = PaperBuckets()
    """The sizes pictures are scaled and cut to; a picture takes the one nearest to its own aspect. A source may have \
its own."""
    crop: Literal["center", "random"] = "center"
    """Which part of a scaled picture is kept: its middle, or another place each time."""
    crops_per_picture: Count | None = None
    """With `crop: random`, how many places each picture has, taken in turn, so that latents can be cached; null draws \
a new place each time, and pictures are encoded again at every step."""
    flip_probability: Probability = 0.0
    """How often a picture is mirrored left to right. Leave at 0 for faces, text and anything not symmetric."""
    background: Colour = "#ffffff"
    """The colour put under transparent pictures, as '#rrggbb' (in quotes: # begins a comment in YAML)."""
    max_megapixels: NumberAboveZero = 64.0
    """Larger pictures are refused before their pixels are read, in millions of pixels: a guard against bombs."""
    stream_buffer: StreamBuffer = StreamBuffer()
    """How much of sources with `streaming: true` is held at once."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """What an unusable picture does: stop before the model is loaded, or be left out, listed with its reason."""
