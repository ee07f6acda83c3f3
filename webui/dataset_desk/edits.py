"""Changes of many captions at once: pure functions from captions to captions, in the same order and number.

A tag is what stands between commas that are outside of brackets, without the spaces around it; two are the same in
whatever case. A caption that a change does not concern comes back letter for letter; of one that a change of tags does
concern, the tags are joined by a comma and a space again.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagesets.captions import MAX_CAPTION_BYTES
from imagesets.emphasis import split_outside_brackets
from webui.dataset_desk.errors import EditError

PATTERN_SECONDS = 3.0
"""How long a regular expression may take over all captions."""

_SEPARATOR = ", "
_CHILD = Path(__file__).with_name("pattern_child.py")


@dataclass(frozen=True)
class Change:
    """A caption that became another.

    Attributes:
        index: among the captions that were given.
        before: the caption as it was.
        after: the caption as it is to be.
    """

    index: int
    before: str
    after: str


def changes(before: Sequence[str], after: Sequence[str]) -> list[Change]:
    """Return what has changed, in order."""
    pairs = enumerate(zip(before, after, strict=True))
    return [Change(index, old, new) for index, (old, new) in pairs if old != new]


def split_tags(caption: str) -> list[str]:
    """Return a caption's tags as they are written, in their order."""
    return [tag for tag in (part.strip() for part in split_outside_brackets(caption, ",")) if tag]


def count_tags(captions: Sequence[str]) -> Counter[str]:
    """Count in how many captions each tag stands, by its most frequent way of writing."""
    ways: dict[str, Counter[str]] = {}
    counts: Counter[str] = Counter()
    for caption in captions:
        tags = split_tags(caption)
        counts.update({tag.casefold() for tag in tags})
        for tag in tags:
            ways.setdefault(tag.casefold(), Counter())[tag] += 1
    return Counter({ways[tag].most_common(1)[0][0]: count for tag, count in counts.items()})


def replace_text(captions: Sequence[str], find: str, replacement: str, *, ignore_case: bool = False) -> list[str]:
    """Put `replacement` wherever `find` stands.

    Raises:
        EditError: nothing is to be found.
    """
    if not find:
        raise EditError("Find: is empty. Write what is to be found")
    if not ignore_case:
        return [caption.replace(find, replacement) for caption in captions]
    pattern = re.compile(re.escape(find), re.IGNORECASE)
    return [pattern.sub(lambda _: replacement, caption) for caption in captions]


def replace_pattern(captions: Sequence[str], find: str, replacement: str, *, ignore_case: bool = False) -> list[str]:
    r"""Put `replacement` wherever the regular expression `find` matches; `\1` in it is the first group.

    It is matched in a process of its own, which is ended after `PATTERN_SECONDS`.

    Raises:
        EditError: it is none, takes too long, or makes captions too long.
    """
    if not find:
        raise EditError("Find: is empty. Write what is to be found")
    distinct = list(dict.fromkeys(captions))
    asked = {"find": find, "replacement": replacement, "ignore_case": ignore_case, "texts": distinct,
             "max_characters": MAX_CAPTION_BYTES}  # fmt: skip
    try:
        answered = subprocess.run(
            [sys.executable, "-I", "-S", str(_CHILD)],
            input=json.dumps(asked).encode(),
            capture_output=True,
            timeout=PATTERN_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise EditError(
            f"Find: '{find:.80}' takes longer than {PATTERN_SECONDS:g} seconds. Write it so that it can match in one "
            "way only: no repeats inside repeats, as in (a+)+"
        ) from error
    except subprocess.CalledProcessError as error:
        raise EditError(f"Find: '{find:.80}' takes more time or memory than it may. Write it more simply") from error
    answer = json.loads(answered.stdout)
    if "problem" in answer:
        raise EditError(f"Find: '{find:.80}' {answer['problem']}")
    new = dict(zip(distinct, answer["texts"], strict=True))
    return [new[caption] for caption in captions]


def add_tag(captions: Sequence[str], tag: str, *, at_end: bool) -> list[str]:
    """Put a tag in front of the others, or behind them, where it is not there yet."""
    added = _tags_given(tag)

    def add(tags: list[str]) -> list[str]:
        there = {each.casefold() for each in tags}
        new = [each for each in added if each.casefold() not in there]
        return [*tags, *new] if at_end else [*new, *tags]

    return _with_tags(captions, add)


def remove_tag(captions: Sequence[str], tag: str) -> list[str]:
    """Take a tag, or several apart by commas, out."""
    removed = {each.casefold() for each in _tags_given(tag)}
    return _with_tags(captions, lambda tags: [each for each in tags if each.casefold() not in removed])


def rename_tag(captions: Sequence[str], tag: str, new: str) -> list[str]:
    """Call a tag otherwise; where the new one stands already, the old one goes."""
    (old, *others), renamed = _tags_given(tag), ", ".join(_tags_given(new))
    if others:
        raise EditError(f"Tag: {tag!r:.80} is several. Rename one at a time")

    def rename(tags: list[str]) -> list[str]:
        if all(each.casefold() != old.casefold() for each in tags):
            return tags
        kept: list[str] = []
        for each in tags:
            named = renamed if each.casefold() == old.casefold() else each
            if named.casefold() != renamed.casefold() or all(k.casefold() != named.casefold() for k in kept):
                kept.append(named)
        return kept

    return _with_tags(captions, rename)


def drop_repeated_tags(captions: Sequence[str]) -> list[str]:
    """Keep each tag of a caption once, where it stands first."""

    def drop(tags: list[str]) -> list[str]:
        first: dict[str, str] = {}
        for tag in tags:
            first.setdefault(tag.casefold(), tag)
        return list(first.values())

    return _with_tags(captions, drop)


def sort_tags(captions: Sequence[str], *, keep_first: int = 0) -> list[str]:
    """Put the tags that most of the given captions have in front; among equals their order stays.

    A caption whose stray brackets would then make one tag of several stays as it is.

    Args:
        captions: to change, and to count in.
        keep_first: how many tags at the front keep their places, as a trigger word.
    """
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update({tag.casefold() for tag in split_tags(caption)})

    def sort(tags: list[str]) -> list[str]:
        ordered = [*tags[:keep_first], *sorted(tags[keep_first:], key=lambda tag: -counts[tag.casefold()])]
        return ordered if split_tags(_SEPARATOR.join(ordered)) == ordered else tags

    return _with_tags(captions, sort)


def put_first(captions: Sequence[str], trigger: str) -> list[str]:
    """Let every caption begin with a trigger: a tag of that name is moved to the front, else it is put there.

    A caption that begins with it already, as a word, stays as it is.
    """
    first = ", ".join(_tags_given(trigger))

    def put(tags: list[str]) -> list[str]:
        if tags and _begins_with(tags[0], first):
            return tags
        return [first, *(tag for tag in tags if tag.casefold() != first.casefold())]

    return _with_tags(captions, put)


def tidy(captions: Sequence[str]) -> list[str]:
    """Make runs of white space one space, and take it off the ends of each line, with lines that are empty."""
    return ["\n".join(filter(None, (" ".join(line.split()) for line in each.split("\n")))) for each in captions]


def _with_tags(captions: Sequence[str], change: Callable[[list[str]], list[str]]) -> list[str]:
    new = []
    for caption in captions:
        tags = split_tags(caption)
        changed = change(tags)
        new.append(caption if changed == tags else _SEPARATOR.join(changed))
    return new


def _tags_given(text: str) -> list[str]:
    """Return the tags a person has written.

    Raises:
        EditError: there is none.
    """
    tags = split_tags(" ".join(text.split()))
    if not tags:
        raise EditError("Tag: is empty. Write the tag")
    return tags


def _begins_with(text: str, words: str) -> bool:
    text, words = text.casefold(), words.casefold()
    return text.startswith(words) and not text[len(words) : len(words) + 1].isalnum()
