"""Changes of captions: what each leaves alone, and what holds of it for whatever captions."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from webui.dataset_desk import edits
from webui.dataset_desk.errors import EditError

TAGS = st.sampled_from(["zrkx", "Zrkx", "red scarf", "(hat, blue:1.2)", "tree", "sky", "saber (fate)", "a\nb"])
CAPTIONS = st.lists(st.lists(TAGS, max_size=6).map(", ".join) | st.text("ab ,()[]\\\n", max_size=12), max_size=6)


def folded(caption: str) -> list[str]:
    return [tag.casefold() for tag in edits.split_tags(caption)]


@given(CAPTIONS, TAGS, TAGS, st.booleans())
def test_every_change_is_done_once_and_for_all(captions: list[str], tag: str, other: str, at_end: bool) -> None:
    for change in (
        lambda each: edits.add_tag(each, tag, at_end=at_end),
        lambda each: edits.remove_tag(each, tag),
        lambda each: edits.drop_repeated_tags(each),
        lambda each: edits.sort_tags(each, keep_first=1),
        lambda each: edits.put_first(each, tag),
        lambda each: edits.tidy(each),
        lambda each: edits.rename_tag(each, tag, other),
    ):
        once = change(captions)
        assert len(once) == len(captions)
        assert change(once) == once


@given(CAPTIONS, TAGS, TAGS, st.booleans())
@example(captions=["[", "],["], tag="zrkx", other="zrkx", at_end=False)
def test_what_each_change_promises(captions: list[str], tag: str, other: str, at_end: bool) -> None:
    name, new = " ".join(tag.split()).casefold(), " ".join(other.split()).casefold()
    added, removed = edits.add_tag(captions, tag, at_end=at_end), edits.remove_tag(captions, tag)
    renamed, single = edits.rename_tag(captions, tag, other), edits.drop_repeated_tags(captions)
    for index, caption in enumerate(captions):
        before = folded(caption)
        assert name in folded(added[index])
        assert (added[index] == caption) == (name in before)
        if name not in before:
            assert folded(added[index]).index(name) == (len(before) if at_end else 0)
            assert removed[index] == renamed[index] == caption
        assert folded(removed[index]) == [each for each in before if each != name]
        assert set(folded(renamed[index])) == {new if each == name else each for each in before}
        assert folded(single[index]) == list(dict.fromkeys(before))
        assert sorted(folded(edits.sort_tags(captions)[index])) == sorted(before)


def test_sorting_goes_by_how_many_captions_have_a_tag() -> None:
    captions = ["zrkx, rare, tree", "zrkx, tree", "tree, sky"]
    assert edits.sort_tags(captions) == ["tree, zrkx, rare", "tree, zrkx", "tree, sky"]
    assert edits.sort_tags(captions, keep_first=1) == ["zrkx, tree, rare", "zrkx, tree", "tree, sky"]
    assert edits.count_tags(["Sky, sky", "sky", "sky, Tree"]) == {"sky": 3, "Tree": 1}


@pytest.mark.parametrize(
    ("caption", "becomes"),
    [
        ("tree, ZRKX , sky", "zrkx, tree, sky"),
        ("tree", "zrkx, tree"),
        ("", "zrkx"),
        ("Zrkx in the rain,  sky", "Zrkx in the rain,  sky"),
        ("zrkxy, tree", "zrkx, zrkxy, tree"),
    ],
)
def test_a_trigger_stands_first_and_once(caption: str, becomes: str) -> None:
    assert edits.put_first([caption], "zrkx") == [becomes]


@given(st.lists(st.text("aAbß(.", max_size=8), max_size=4), st.text("aAb(.", min_size=1, max_size=3), st.text("\\1a"))
def test_plain_text_is_found_letter_for_letter(captions: list[str], find: str, replacement: str) -> None:
    assert edits.replace_text(captions, find, replacement) == [each.replace(find, replacement) for each in captions]
    either = edits.replace_text(captions, find, "", ignore_case=True)
    assert all(len(new) <= len(old) for new, old in zip(either, captions, strict=True))
    assert all("(" not in new for new in edits.replace_text(captions, "(", "", ignore_case=True))


def test_regular_expressions_have_groups_and_say_what_is_wrong_with_them() -> None:
    assert edits.replace_pattern(["10 cats", "Cats 7"], r"cats (\d)", r"\1 dogs", ignore_case=True) == [
        "10 cats", "7 dogs",
    ]  # fmt: skip
    assert edits.replace_pattern(["ä\ud800😀"], "ä", "ö") == ["ö\ud800😀"]
    for find, replacement, said in [("(", "", "is no regular"), ("a", r"\1", "cannot be replaced"), ("", "", "empty")]:
        with pytest.raises(EditError, match=said):
            edits.replace_pattern(["a"], find, replacement)


@pytest.mark.parametrize(("find", "text"), [(r"(a+)+$", "a" * 64 + "b"), (r"(?:(?:a?){9999}){9999}", "a" * 60_000)])
def test_an_expression_without_end_is_ended(find: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "PATTERN_SECONDS", 0.7)
    began = time.monotonic()
    with pytest.raises(EditError, match="takes"):
        edits.replace_pattern([text], find, "x")
    assert time.monotonic() - began < 60


def test_a_replacement_cannot_grow_without_bound() -> None:
    with pytest.raises(EditError, match=r"more memory|at most 65536"):
        edits.replace_pattern(["a" * 10_000], "a", "b" * 100_000)


@settings(max_examples=20)
@given(CAPTIONS)
def test_changes_are_what_differs(captions: list[str]) -> None:
    after = edits.tidy(captions)
    found = edits.changes(captions, after)
    again = list(captions)
    for change in found:
        assert again[change.index] == change.before != change.after
        again[change.index] = change.after
    assert again == after
