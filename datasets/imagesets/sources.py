"""Where pictures come from, as plain values, and what each yields. Reading them is `folder`'s and `huggingface`'s."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imagesets.files import FileInFolder, PictureBytes
from imagesets.framing import Size
from imagesets.masks import MaskOptions
from imagesets.wording import Wording

DEFAULT_AESTHETIC_SCORE = 6.0
"""What diffusers' pipelines tell a refiner unless they are told otherwise."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What can be said of the pictures of every kind of source.

    Attributes:
        repeats: how often each picture is seen in an epoch.
        trigger: put before each caption that does not have it.
        buckets: the (height, width) its pictures may be trained at; None for those of the whole set.
        aesthetic_score: from 0 to 10, of every picture that has none of its own.
        wording: what is done to each caption at each showing; None leaves it as it is.
        loss_weight: what its pictures' loss counts beside that of others, which is 1.
        mask: where masks are that say which parts of its pictures count; None where all do.
    """

    repeats: int = 1
    trigger: str = ""
    buckets: tuple[Size, ...] | None = None
    aesthetic_score: float = DEFAULT_AESTHETIC_SCORE
    wording: Wording | None = None
    loss_weight: float = 1.0
    mask: MaskOptions | None = None

    @property
    def keeps_lines(self) -> bool:
        """Whether each line of a caption is a caption of its own."""
        return self.wording is not None and self.wording.choose_line


@dataclass(frozen=True)
class FolderSource(SourceOptions):
    """A folder of pictures on this machine.

    Attributes:
        path: the folder.
        recursive: whether folders in it are read too.
        captions: 'files' takes them from text files beside the pictures, 'metadata' from `metadata.jsonl`; 'auto'
            from `metadata.jsonl` where it names the picture, else from the text file.
        caption_extension: the ending of a caption's file, which has its picture's name otherwise.
        more_caption_extensions: endings that are read as well; two files of one picture must say the same.
        metadata_file: read in place of `metadata.jsonl`, wherever it lies: `.json` as kohya's tools write it, or a
            `.jsonl`, `.csv` or `.parquet`. The names in it are those of pictures in the folder.
        only_named: whether pictures that no metadata file names are passed over.
        caption_otherwise: the caption of a picture that has none.
        name: how it is called; '' for the folder's own name.
    """

    path: Path
    recursive: bool = True
    captions: Literal["auto", "files", "metadata"] = "auto"
    caption_extension: str = ".txt"
    more_caption_extensions: tuple[str, ...] = ()
    metadata_file: Path | None = None
    only_named: bool = False
    caption_otherwise: str | None = None
    name: str = ""

    @property
    def label(self) -> str:
        """Its name, or the folder's own."""
        return self.name or self.path.name or self.path.resolve().name or str(self.path)


@dataclass(frozen=True)
class KohyaSource(SourceOptions):
    """A folder of folders `N_name`, as kohya's trainers take them: pictures repeated N times, each captioned `name`.

    Attributes:
        path: the folder around them.
    """

    path: Path

    @property
    def label(self) -> str:
        """The folder's own name."""
        return self.path.name or self.path.resolve().name or str(self.path)


@dataclass(frozen=True)
class HuggingFaceSource(SourceOptions):
    """A dataset read with Hugging Face's `datasets`.

    Attributes:
        name: its name on the hub, or a path on this machine: a folder as `imagefolder` takes it, a folder or file
            of parquet, or what `save_to_disk` wrote.
        config_name: which configuration; None for its default.
        revision: branch, tag or commit; None for its main branch.
        split: which split.
        image_column: the column of the pictures.
        caption_column: the column of the captions.
        streaming: whether its rows are read as they come rather than listed first.
        num_pictures: of a stream, about how many it holds; None where nobody knows.
    """

    name: str
    config_name: str | None = None
    revision: str | None = None
    split: str = "train"
    image_column: str = "image"
    caption_column: str = "text"
    streaming: bool = False
    num_pictures: int | None = None

    @property
    def label(self) -> str:
        """The last part of the dataset's name or path."""
        return Path(self.name).name or self.name


@dataclass(frozen=True)
class WebDatasetSource(SourceOptions):
    """Tar shards in WebDataset's form, on this machine or at an address that `fsspec` opens.

    Attributes:
        path: a folder of shards; or a path or address, with braces as in `a-{000..127}.tar`, or `*`.
        caption_extension: of the member that holds a sample's caption.
        json_field: the caption's name in the member `json`, for a sample without such a member.
        streaming: whether samples are read as they come rather than listed first.
        num_pictures: of a stream, about how many it holds; None where nobody knows.
    """

    path: str
    caption_extension: str = ".txt"
    json_field: str = "caption"
    streaming: bool = False
    num_pictures: int | None = None

    @property
    def label(self) -> str:
        """The last part of the path or address, without what may be secret in it."""
        path = self.path.partition("?")[0] if "://" in self.path else self.path
        return path.rstrip("/").rpartition("/")[2] or path


Source = FolderSource | KohyaSource | HuggingFaceSource | WebDatasetSource


@dataclass(frozen=True, slots=True)
class Entry:
    """One datum of a source before its picture is opened.

    Attributes:
        name: how messages call it: a path below the folder with forward slashes, or 'row 12'; safe to print.
        caption: as the source has it, clean, on one line unless its lines are kept; None where there is none.
        problem: why it cannot be used, or None.
        aesthetic_score: from 0 to 10; None where the source has none for it.
        extension: of the file's name in lower case; None where there is no file.
        read: returns the picture's bytes, or raises a PictureError.
        repeats: how often it is seen each time its source is: a number of its own times the source's.
        mask: the file of its mask; None where it has none.
    """

    name: str
    caption: str | None = None
    problem: str | None = None
    aesthetic_score: float | None = None
    extension: str | None = None
    read: PictureBytes | None = field(default=None, compare=False, repr=False)
    repeats: int = 1
    mask: FileInFolder | None = None


@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        entries: in a fixed order.
        ignored: names of what is no picture and was passed over: hidden files, other kinds of files.
        unused_captions: names of caption files without a picture.
        unread_captions: names of pictures, each with that of the caption file beside it which is not read, as captions
            come from metadata.
        unused_masks: names of masks without a picture.
    """

    entries: tuple[Entry, ...]
    ignored: tuple[str, ...] = ()
    unused_captions: tuple[str, ...] = ()
    unread_captions: tuple[tuple[str, str], ...] = ()
    unused_masks: tuple[str, ...] = ()
