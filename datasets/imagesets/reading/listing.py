"""Lists a source of whatever kind."""

from imagesets.errors import SourceError
from imagesets.masks import FileMask
from imagesets.reading.folder import list_folder
from imagesets.reading.huggingface import list_dataset
from imagesets.reading.kohya import list_kohya
from imagesets.reading.masks import with_masks
from imagesets.reading.webdataset import list_shards
from imagesets.sources import FolderSource, HuggingFaceSource, KohyaSource, Listing, Source, WebDatasetSource


def list_source(source: Source) -> Listing:
    """List what a source holds, in a fixed order; no picture is opened.

    Raises:
        SourceError: it cannot be read at all.
    """
    if not isinstance(source.mask, FileMask):
        return _list(source)
    if not isinstance(source, FolderSource | KohyaSource):
        raise SourceError(f"{source.label}: masks in files belong to folders of pictures; here, take mask.kind: alpha")
    return with_masks(_list(source), source.path, source.mask)


def _list(source: Source) -> Listing:
    match source:
        case FolderSource():
            return list_folder(source)
        case KohyaSource():
            return list_kohya(source)
        case HuggingFaceSource():
            return list_dataset(source)
        case WebDatasetSource():
            return list_shards(source)
