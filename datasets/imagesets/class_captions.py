"""Captions without their trigger word: what a picture would be called were it any of its class."""

import re

_EMPTY_BRACKETS = re.compile(r"\(\s*(?::\s*[0-9.]+\s*)?\)|\[\s*\]")
_COMMAS = re.compile(r"\s*,(?:\s*,)*\s*")


def class_caption(caption: str, trigger: str, class_word: str) -> str:
    """Return a caption with its trigger replaced wherever it stands as words of its own, in whatever case.

    Args:
        caption: as it is trained.
        trigger: the word that calls up what is learned; '' leaves the caption as it is.
        class_word: what it is one of, as 'dog'; '' takes the trigger out, with the comma or brackets around it.
    """
    if not trigger:
        return caption
    # As `captions.with_trigger` looks for it: letters and digits around it make it a part of another word.
    found = re.compile(rf"(?<![^\W_]){re.escape(trigger)}(?![^\W_])", re.IGNORECASE)
    replaced = found.sub(lambda _: class_word, caption)
    if class_word or replaced == caption:
        return replaced
    tidy = _COMMAS.sub(", ", _EMPTY_BRACKETS.sub("", replaced))
    return " ".join(tidy.split()).strip(" ,")
