"""Pictures for training: reading, captions, buckets, frames, epoch plans. It knows pixels, not diffusion.

Nothing in it imports torch, and Hugging Face's `datasets` is imported where a dataset is opened.

    sources     where pictures come from          scan        reads and checks every picture and caption
    buckets     the sizes to train at             framing     how a picture is resized, cut and mirrored
    plan        the order of an epoch             randomness  draws as pure functions of a key
    pictures    a file's bytes to upright RGB     opening     the same in child processes, which a file cannot
    manifest    one readable line a sample                    take down with it
    wording     captions anew for each showing    reading     folders, datasets and what else holds pictures
"""

from imagesets.errors import CaptionError, DecoderError, ImagesetError, NoPicturesError, PictureError, SourceError
from imagesets.framing import Frame, make_frame
from imagesets.sources import FolderSource, HuggingFaceSource, KohyaSource, Source, WebDatasetSource

__all__ = [
    "CaptionError",
    "DecoderError",
    "FolderSource",
    "Frame",
    "HuggingFaceSource",
    "ImagesetError",
    "KohyaSource",
    "NoPicturesError",
    "PictureError",
    "Source",
    "SourceError",
    "WebDatasetSource",
    "make_frame",
]
