"""Lists a dataset through Hugging Face's `datasets`. Pictures are taken as bytes and decoded here, not by the library.

A dataset may name files rather than hold them; of a local one only files of its own folder are read, and of one from
the hub only files of the library's cache: the library itself follows links anywhere.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imagesets.captions import caption_of
from imagesets.errors import CaptionError, PictureError, SourceError
from imagesets.files import HeldBytes, PictureBytes, read_file
from imagesets.reading.addresses import FilePart
from imagesets.sources import Entry, HuggingFaceSource, Listing

_SAVED_SHARDS = 64
"""Into how many parts a saved dataset, which has one, is divided when it is streamed: they are taken in any order."""

_MAY_BE_PICTURES = ("string", "large_string", "binary", "large_binary")
"""Plain columns that the library takes for pictures: names of files, and files."""

_LOCAL_FILES = {".parquet": "parquet", ".arrow": "arrow"}


def list_dataset(source: HuggingFaceSource) -> Listing:
    """List a dataset's rows in their order.

    Raises:
        SourceError: the dataset, the split or a column is not there, or it has no row.
    """
    local = _local_path(source.name)
    table = _load(source, local)
    _require_columns(source, table.column_names)
    if not len(table):
        raise SourceError(f"the dataset {source.name!r} has no row in its split {source.split!r}")
    roots = _roots(local)
    pictures = _as_bytes(source, table)
    captions = table.select_columns([source.caption_column])
    return Listing(
        tuple(
            _entry(f"row {row}", values[source.caption_column], partial(_read_row, pictures, row, roots), source)
            for row, values in enumerate(captions)
        )
    )


@dataclass(frozen=True)
class RowStream:
    """A dataset's rows as they come: a shard after the other, read from the hub or the disk each time.

    Attributes:
        source: whose rows they are.
        table: the library's iterable dataset with the two columns, pictures as bytes.
        roots: the folders that files it names may lie in.
        count: how many rows there are, where the dataset says so.
    """

    source: HuggingFaceSource
    table: Any
    roots: Sequence[Path]
    count: int | None

    @property
    def num_shards(self) -> int:
        """How many parts can be read one without the other."""
        return int(self.table.num_shards)

    def rows(self, shard: int, holds: Callable[[], bool]) -> Iterator[Entry | None]:
        """Yield a shard's rows in order, with their pictures' bytes; None where `holds`, asked for each, says no.

        Raises:
            SourceError: the shard cannot be read, with the first line of what the library says.
        """
        part = self.table.shard(num_shards=self.num_shards, index=shard)
        with _said_in_words(self.source):
            for row, values in enumerate(part):
                yield self._entry(shard, row, values) if holds() else None

    def _entry(self, shard: int, row: int, values: Mapping[str, Any]) -> Entry:
        name = f"row {row}" if self.num_shards == 1 else f"shard {shard}, row {row}"
        try:
            held = HeldBytes(_picture_bytes(values[self.source.image_column], self.roots, self.source.name))
        except PictureError as error:
            return Entry(name, problem=str(error))
        return _entry(name, values[self.source.caption_column], held, self.source)


def stream_rows(source: HuggingFaceSource) -> RowStream:
    """Open a dataset to be read as it comes; no row is read yet.

    Raises:
        SourceError: the dataset, the split or a column is not there.
    """
    local = _local_path(source.name)
    table = _load(source, local, streaming=True)
    if table.column_names is not None:
        _require_columns(source, table.column_names)
    splits = table.info.splits or {}
    count = splits[source.split].num_examples if source.split in splits else None
    return RowStream(source, _as_bytes(source, table, source.caption_column), _roots(local), count)


def _require_columns(source: HuggingFaceSource, columns: Sequence[str]) -> None:
    if source.image_column == source.caption_column:
        raise SourceError(
            f"the dataset {source.name!r}: image_column and caption_column are both {source.image_column!r}. Its "
            f"columns: {', '.join(sorted(columns))}"
        )
    for key, column in (("image_column", source.image_column), ("caption_column", source.caption_column)):
        if column not in columns:
            raise SourceError(
                f"the dataset {source.name!r} has no column {column!r} ({key}). Its columns: "
                f"{', '.join(sorted(columns))}"
            )


def _roots(local: Path | None) -> list[Path]:
    """Return the folders that files which a dataset names may lie in."""
    return [local if local.is_dir() else local.parent] if local is not None else _cache_folders()


def _local_path(name: str) -> Path | None:
    """Return where a dataset lies on this machine, or None for a name on the hub.

    Raises:
        SourceError: the name is a path, and nothing is there.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve()
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.suffix in _LOCAL_FILES:
        raise SourceError(f"the dataset {name!r} does not exist: {path.absolute()} is neither a folder nor a file")
    return None


def _load(source: HuggingFaceSource, local: Path | None, *, streaming: bool = False) -> Any:
    """Load the split with the library, to be read at any place or as it comes.

    Raises:
        SourceError: it cannot, with the first line of what it says.
    """
    import datasets

    if local is not None and source.revision is not None:
        raise SourceError(f"the dataset {source.name!r} lies on this machine and has no revision {source.revision!r}")
    options: dict[str, Any] = {"name": source.config_name, "split": source.split, "streaming": streaming}
    with _said_in_words(source), _quietly():
        if local is None:
            return datasets.load_dataset(source.name, revision=source.revision, **options)
        if local.is_file():
            if local.suffix not in _LOCAL_FILES:
                raise SourceError(f"the dataset {source.name!r} is a {local.suffix} file; parquet and arrow are read")
            return datasets.load_dataset(_LOCAL_FILES[local.suffix], data_files=str(local), **options)
        if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
            saved = _saved_split(source, datasets.load_from_disk(str(local)))
            return saved.to_iterable_dataset(max(1, min(_SAVED_SHARDS, len(saved)))) if streaming else saved
        return datasets.load_dataset(str(local), **options)


@contextmanager
def _said_in_words(source: HuggingFaceSource) -> Iterator[None]:
    """Put what the library says of a dataset that it cannot read into words."""
    try:
        yield
    except SourceError:
        raise
    # Damaged files make the library stumble in any way, TypeError and AttributeError among them.
    except Exception as error:
        said = str(error.__cause__ or error).strip().partition("\n")[0]
        raise SourceError(
            f"the dataset {source.name!r} (split {source.split!r}) cannot be loaded: {said or type(error).__name__}"
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the libraries' bars, and each of their attempts at the network, off the terminal; what fails is raised."""
    import datasets

    hub = logging.getLogger("huggingface_hub")
    level, shows_bars = hub.level, not datasets.are_progress_bars_disabled()
    hub.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        hub.setLevel(level)
        if shows_bars:
            datasets.enable_progress_bars()


def _saved_split(source: HuggingFaceSource, saved: Any) -> Any:
    """Return the split of what `save_to_disk` wrote: splits by name, or a single one.

    Raises:
        SourceError: it has no such split, or a configuration is asked for, which is lost on saving.
    """
    if source.config_name is not None:
        raise SourceError(
            f"the dataset {source.name!r} was saved to disk without configurations: leave config_name out"
        )
    if isinstance(saved, dict):
        if source.split in saved:
            return saved[source.split]
        splits = ", ".join(sorted(saved))
    else:
        # A dataset that was made in code knows no split; it is what a recipe that names none means.
        splits = str(saved.split or "train")
        if source.split in {splits, "train"}:
            return saved
    raise SourceError(f"the dataset {source.name!r} has no split {source.split!r}. Its splits: {splits}")


def _as_bytes(source: HuggingFaceSource, table: Any, *others: str) -> Any:
    """Keep the library from decoding the pictures; leave out all columns but theirs and some others.

    Raises:
        SourceError: the column holds something else.
    """
    import datasets

    kind = (table.features or {}).get(source.image_column)
    if isinstance(kind, datasets.Value) and kind.dtype not in _MAY_BE_PICTURES:
        # A stream would say so at its first row, and in other words.
        raise _no_pictures(source, kind)
    try:
        return table.select_columns([source.image_column, *others]).cast_column(
            source.image_column, datasets.Image(decode=False)
        )
    except (TypeError, ValueError, RuntimeError) as error:  # pyarrow's "not implemented" is a RuntimeError
        raise _no_pictures(source, kind) from error


def _no_pictures(source: HuggingFaceSource, kind: object) -> SourceError:
    return SourceError(
        f"the column {source.image_column!r} of the dataset {source.name!r} holds no pictures, but {kind} "
        "(image_column)"
    )


def _cache_folders() -> list[Path]:
    """Return where the library keeps what it downloads."""
    from huggingface_hub import constants

    import datasets

    return [Path(datasets.config.HF_CACHE_HOME), Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]


def _entry(name: str, text: Any, read: PictureBytes, source: HuggingFaceSource) -> Entry:
    try:
        return Entry(name, caption_of(text, keep_lines=source.keeps_lines), read=read)
    except CaptionError as error:
        return Entry(name, problem=str(error))


def _read_row(table: Any, row: int, roots: Sequence[Path]) -> bytes:
    """Return the bytes of one row's picture.

    Raises:
        PictureError: the row holds none, or names a file that must not be read.
    """
    return _picture_bytes(table[row][table.column_names[0]], roots)


def _picture_bytes(value: Mapping[str, Any] | None, roots: Sequence[Path], name: str = "") -> bytes:
    """Return the bytes a row holds, or those of the file it names.

    Args:
        value: what is in the column of the pictures.
        roots: the folders the file may lie in.
        name: of a dataset on the hub, whose own files may be read from there.

    Raises:
        PictureError: it holds none, or names a file that must not be read.
    """
    if value is None or not (value.get("bytes") or value.get("path")):
        raise PictureError("the row holds no picture")
    if value.get("bytes"):
        return bytes(value["bytes"])
    if name and value["path"].startswith(f"hf://datasets/{name}@"):
        return FilePart(value["path"], 0, -1)()
    path = Path(value["path"])
    try:
        place = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle; NUL or half a character in a name
        raise PictureError(f"its file {str(path)!r} cannot be read: {type(error).__name__}") from error
    root = next((root for root in roots if place.is_relative_to(root.resolve())), None)
    if root is None:
        raise PictureError(f"its file {str(path)!r} lies outside the dataset's folder: copy it in")
    return read_file(path, root)
