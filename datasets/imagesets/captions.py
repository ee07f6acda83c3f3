"""Captions: their bytes to one clean line, and the trigger word. Where they lie is the work of `folder` and others."""

import re
import unicodedata

from imagesets.errors import CaptionError

MAX_CAPTION_BYTES = 64 * 2**10


def decode_caption(content: bytes, name: str, *, keep_lines: bool = False) -> str:
    """Read a caption file's bytes: UTF-8, with or without a byte order mark.

    Args:
        content: the bytes.
        name: of the file, for messages.
        keep_lines: whether each line is a caption of its own; otherwise all are put on one.

    Raises:
        CaptionError: it is not UTF-8, or too long to be a caption.
    """
    if len(content) > MAX_CAPTION_BYTES:
        raise CaptionError(f"its caption {name} has {len(content)} bytes; at most {MAX_CAPTION_BYTES} are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "UTF-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "another encoding"
        raise CaptionError(
            f"its caption {name} is not UTF-8 but {found} (byte {error.start} is 0x{content[error.start]:02x}): "
            "save it as UTF-8"
        ) from error
    return clean_caption(text, keep_lines=keep_lines)


def caption_of(value: object, *, keep_lines: bool = False) -> str | None:
    """Return the caption that a table or a JSON file holds: a text, or none; where lines are kept also a list of texts.

    Args:
        value: what it holds.
        keep_lines: whether each line, and each text of a list, is a caption of its own.

    Raises:
        CaptionError: it is something else, or cannot be used.
    """
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        if not keep_lines:
            raise CaptionError(
                "it has a list of captions: give the source wording: {choose_line: true}, which takes them in turn, or "
                "write one text"
            )
        value = "\n".join(value)
    if value is not None and not isinstance(value, str):
        raise CaptionError(f"its caption is no text: {value!r:.40}")
    return None if value is None else clean_caption(value, keep_lines=keep_lines)


def clean_caption(text: str, *, keep_lines: bool = False) -> str:
    """Put a caption on one line: runs of white space and control characters become one space, none at the ends.

    Where lines are kept this is done to each; empty ones go, and a line feed stands between the others.

    Raises:
        CaptionError: it holds half a character (a lone surrogate), which no file can store.
    """
    if keep_lines:
        return "\n".join(filter(None, map(clean_caption, re.split(r"[\r\n]+", text))))
    kinds = {character: unicodedata.category(character) for character in set(text)}
    if "Cs" in kinds.values():
        raise CaptionError("its caption holds half a character (a lone surrogate): write the caption again")
    return " ".join("".join(" " if kinds[character] == "Cc" else character for character in text).split())


def with_trigger(caption: str, trigger: str) -> str:
    """Put the trigger in front of a caption that does not have it, in whatever case, as words of its own."""
    if not trigger or _has_words(caption, trigger):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def _has_words(caption: str, words: str) -> bool:
    """Whether `words` stand in the caption, not as a part of a longer word."""
    caption, words = caption.casefold(), words.casefold()
    start = caption.find(words)
    while start >= 0:
        before, after = caption[:start], caption[start + len(words) :]
        if not before[-1:].isalnum() and not after[:1].isalnum():
            return True
        start = caption.find(words, start + 1)
    return False
