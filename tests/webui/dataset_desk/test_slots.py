"""How captions are written in files: what is not the caption stays byte for byte; our reader reads what was meant."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesets.captions import clean_caption, decode_caption
from imagesets.reading.metadata import parse_metadata
from imagesets.reading.metadata_tables import parse_csv
from webui.dataset_desk.errors import EditError
from webui.dataset_desk.slots import FORMS, require_writable

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
TEXT = FORMS["text"]


@given(st.lists(WORDS.map(lambda text: text.replace("\n", "")), max_size=4), st.sampled_from(["\n", "\r\n", "\r"]),
       st.sampled_from(["", "\n", "\r\n", "\n\n"]), st.booleans(), WORDS)  # fmt: skip
def test_a_text_file_keeps_its_manner(lines: list[str], end: str, tail: str, bom: bool, text: str) -> None:
    old = (b"\xef\xbb\xbf" if bom else b"") + (end.join(lines) + tail).encode()
    assert TEXT.raw_of(TEXT.text_of(old), old) == old
    new = TEXT.raw_of(text, old)
    assert new is not None
    assert TEXT.text_of(new) == text.rstrip("\r\n")
    if new != old:
        assert new.startswith(b"\xef\xbb\xbf") == bom or text.startswith("\ufeff")
        ends = len(TEXT.text_of(old).split("\n")) > 1 and end == "\r\n"
        assert not ends or new.count(b"\n") == new.count(b"\r\n") or "\n" in tail.replace("\r\n", "")
        assert decode_caption(new, "a.txt") == clean_caption(text)


def test_a_new_file_ends_its_line_and_no_words_make_no_file() -> None:
    assert TEXT.raw_of("a\nb", None) == b"a\nb\n"
    assert TEXT.raw_of("", None) is None
    assert TEXT.raw_of("", b"a\r\n") == b"\r\n"
    assert TEXT.raw_of("c\nd\ne", b"\xef\xbb\xbfa\r\nb") == b"\xef\xbb\xbfc\r\nd\r\ne"


@pytest.mark.parametrize("name", ["a.png", "b.png", "sub/c.png"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@given(text=WORDS)
def test_a_line_of_json_is_exchanged_and_nothing_else(name: str, start: bytes, text: str) -> None:
    content = start + (
        b'{"file_name": "a.png", "text": "old", "aesthetic_score":  5.50}\r\n'
        b"\n"
        b'not json at all \xff\n'
        b'  {"text" :"first", "x": {"text": "} \\" ,"}, "text" : "caf\\u00e9 \\"q\\"" ,"file_name":"./b.png" }\n'
        b'{"file_name": "no.png", "text": null}\n'
        + '{"file_name": "sub//c.png","text":"é\\n, 雪","x":1e400}'.encode()
    )  # fmt: skip
    form = FORMS["jsonl"]
    before = form.raws(content)
    assert set(before) == {"a.png", "b.png", "sub/c.png"}
    assert form.text_of(before["b.png"]) == 'café "q"'
    assert form.put(content, before) == content
    new = form.raw_of(text, before[name])
    written = form.put(content, {name: new})
    assert written is not None
    assert form.raws(written) == {**before, name: new}
    assert written.replace(new, before[name], 1) == content or written.count(new) > 1
    changed = [index for index, (old, line) in enumerate(zip(content.split(b"\n"), written.split(b"\n"), strict=True))
               if old != line]  # fmt: skip
    assert len(changed) == (new != before[name])
    read = {line.file_name: line.caption for line in parse_metadata(written) if not line.problem}
    assert read[name] == clean_caption(text)
    if new != before[name]:
        assert json.loads(written.split(b"\n")[changed[0]].removeprefix(b"\xef\xbb\xbf"))["text"] == text.rstrip("\n")
        assert (name != "b.png") or text.isascii() or new.isascii() or b"\\u" not in before[name]


@pytest.mark.parametrize("name", ["a.png", "b.png", "c.png"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@given(text=WORDS.filter(lambda text: bool(clean_caption(text))))
def test_a_cell_is_exchanged_and_nothing_else(name: str, end: str, text: str) -> None:
    content = end.join([
        'file_name, text ,"note, quoted"', 'a.png,plain words,""',
        '"b.png","a ""quoted"", text' + end + 'of two lines",x',
        "d.png,,nothing", "c.png,last,é",
    ]).encode()  # fmt: skip
    form = FORMS["csv"]
    before = form.raws(content)
    assert set(before) == {"a.png", "b.png", "c.png"}
    assert form.text_of(before["b.png"]) == 'a "quoted", text\nof two lines'
    new = form.raw_of(text, before[name])
    written = form.put(content, {name: new})
    assert written is not None
    old_rows, rows = ([*csv.reader(io.StringIO(each.decode(), newline=""), strict=True)] for each in (content, written))
    for old_row, row in zip(old_rows, rows, strict=True):
        assert [row[0], row[2]] == [old_row[0], old_row[2]]
        assert row[1] == old_row[1] or row[0] == name
    assert {line.file_name: line.caption for line in parse_csv(written)}[name] == clean_caption(text)
    assert form.put(written, {name: before[name]}) == content


def test_what_cannot_be_written_is_said() -> None:
    with pytest.raises(EditError, match="empty caption"):
        FORMS["csv"].raw_of(" ", b"words")
    with pytest.raises(EditError, match="lone surrogate"):
        require_writable("a\ud800", "a.png")
    with pytest.raises(EditError, match="65536"):
        require_writable("é" * 40_000, "a.png")
    with pytest.raises(EditError, match="UTF-8"):
        TEXT.text_of(b"\xff\xfea")
