"""The page holds what hostile names and captions say as text alone, asks nothing of the network, and stays small."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagesets.captions import clean_caption
from imagesets.inspection import Inspection, TokenCount
from imagesets.inspection.page import render_page, thumbnail_limits
from imagesets.inspection.page.charts import aspect_histogram, scale_histogram, size_scatter, token_histogram
from imagesets.inspection.page.render import split_settings
from imagesets.sources import FolderSource
from tests.imagesets.inspection.building import clean_folder, inspect, photo, save

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "]]><!-- & &lt; \u2028 \u202e {{ 7*7 }} {% raw %} ${x} `x`",
    "\"'><svg onload=alert(1)>, javascript:alert(1)",
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Reader(HTMLParser):
    """Reads a page as HTML: its elements, its attributes, and the text of each element."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "input", "rect", "line", "circle", "img", "br", "link"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def data_of(page: str) -> dict[str, Any]:
    reader = Reader()
    reader.feed(page)
    [text] = [text for tag, text in reader.texts if tag == "script" and text.startswith("{")]
    return json.loads(text)


def shown(*sources: FolderSource | Path, count: int, **settings: Any) -> Inspection:
    limits = thumbnail_limits(count)
    return inspect(*sources, page={"thumbnails": limits, "num_thumbnails": count}, **settings)


def hostile_set(folder: Path) -> Inspection:
    clean_folder(folder)
    for index, text in enumerate(HOSTILE):
        name = text.replace("/", "-").replace("\u2028", "")[:60]  # what no file's name may hold here
        save(folder, f"{name}.png", photo(90 + index), text)
        save(folder, f"{name} again.png", photo(90 + index), text)
        (folder / f"{name}.caption").write_text(text)
    (folder / "<b>bad.png").write_bytes(b"<html>")
    long = [(TokenCount("tokenizer", 99, text[3:]),) for text in HOSTILE]
    return shown(FolderSource(folder, trigger="<i>zrkx"), count=20, tokens=lambda captions: [long[0] for _ in captions])


def test_hostile_names_and_captions_are_text_and_nothing_else(tmp_path: Path) -> None:
    harmless = render_page(shown(clean_folder(tmp_path / "clean"), count=8))
    page = render_page(hostile_set(tmp_path / "a"))
    reader, plain = read(page), read(harmless)
    for tag in ("script", "img", "b", "i", "iframe", "link", "base", "form", "object"):
        extra = 2 if tag == "b" else 0  # "What to do" is in bold, once a finding
        assert reader.count(tag) - plain.count(tag) <= (reader.count("details") if extra else 0), tag
    assert reader.count("script") == 2
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    assert not [value for _, attributes in reader.elements for value in attributes.values()
                if value and value.strip().startswith("javascript:")]  # fmt: skip
    captions = {picture["caption"] for picture in data_of(page)["pictures"]}
    for text in HOSTILE:
        assert any(caption.endswith(clean_caption(text)) for caption in captions), text
    texts = "".join(text for tag, text in reader.texts if tag not in ("script", "style"))
    assert "<b>bad.png" in texts
    assert "<i>zrkx" in texts


def test_a_page_without_escaping_would_be_seen(tmp_path: Path) -> None:
    page = render_page(hostile_set(tmp_path / "a"))
    broken = page.replace("\\u003c", "<").replace("\\u003e", ">")
    assert read(broken).count("script") > 2


def test_it_asks_nothing_of_the_network(tmp_path: Path) -> None:
    page = render_page(hostile_set(tmp_path / "a"))
    assert not re.findall(r"https?:|//[a-z0-9.-]+\.[a-z]{2,}|url\(|@import|fetch\(|XMLHttpRequest|import\(", page)
    for tag, attributes in read(page).elements:
        assert not {"src", "srcset", "action", "formaction", "poster", "data"} & attributes.keys(), tag
        assert (attributes.get("href") or "#").startswith("#")
    [policy] = [attributes["content"] for _, attributes in read(page).elements if "http-equiv" in attributes]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_two_hundred_pictures_of_noise_stay_under_five_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    caption = ", ".join(f"a rather long tag number {place}" for place in range(20))
    for index in range(200):
        pixels = rng.integers(0, 256, (180, 180, 3), dtype=np.uint8)
        save(tmp_path / "a", f"{index:03}.jpg", Image.fromarray(pixels), f"{index}, {caption}", quality=60)
    page = render_page(shown(tmp_path / "a", count=200))
    assert len(page.encode("utf-8")) < 5_000_000
    pictures = data_of(page)["pictures"]
    assert len(pictures) == 200
    assert all(picture["thumbnail"] for picture in pictures)
    assert sum(len(picture["thumbnail"]) for picture in pictures) > 1_000_000  # they fill what room there is


def test_thumbnails_get_smaller_the_more_there_are() -> None:
    limits = [thumbnail_limits(count) for count in (1, 12, 200, 500, 2_000, 100_000)]
    sizes = [each.num_bytes for each in limits]
    assert sizes == sorted(sizes, reverse=True)
    assert 200 * sizes[2] * 4 / 3 < 4_500_000
    assert 2_000 * sizes[4] * 4 / 3 < 5_000_000
    assert [each.side_px for each in limits] == sorted((each.side_px for each in limits), reverse=True)


def test_pictures_are_listed_by_the_script_and_not_as_elements(tmp_path: Path) -> None:
    """A set of any size makes as many elements as a small one, but for findings: that is what keeps it quick."""
    small, large = (read(render_page(shown(clean_folder(tmp_path / str(n), n), count=n))) for n in (8, 80))
    assert len(large.elements) <= len(small.elements) + 60


def test_the_charts_count_every_picture(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path / "a")
    save(folder, "small.png", photo(50, 30, 30), "small")
    counted = [(TokenCount("tokenizer", 80),)]
    inspection = inspect(folder, tokens=lambda captions: counted * len(captions), max_tokens=75)
    for chart in (aspect_histogram(inspection), scale_histogram(inspection), token_histogram(inspection)):
        assert chart is not None
        assert sum(bar.count for bar in chart.bars) == 9
        assert max(bar.percent for bar in chart.bars) == 100
        assert all(0 <= tick.place <= 100 for tick in chart.ticks)
        places = sorted(tick.place for tick in chart.ticks)
        assert all(after - before >= 9 for before, after in pairwise(places))
    assert [bar.count for bar in scale_histogram(inspection).bars if bar.marked and bar.count] == [1]
    tokens = token_histogram(inspection)
    assert tokens is not None
    assert [bar.count for bar in tokens.bars if bar.marked and bar.count] == [9]
    assert sum(point.count for point in size_scatter(inspection).points) == 9


def test_settings_in_advice_stand_out() -> None:
    advice = "Read them: data.sources.0.caption_extension=.caption; or x, with --html (data.buckets={a: b, c: 1})"
    assert [text for text, is_setting in split_settings(advice) if is_setting] == [
        "data.sources.0.caption_extension=.caption", "--html", "data.buckets={a: b, c: 1}",
    ]  # fmt: skip
    assert "".join(text for text, _ in split_settings(advice)) == advice


def test_an_empty_set_has_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x.png").write_bytes(b"")
    page = render_page(shown(folder, count=0))
    assert "There is no picture to train on" in page
    assert data_of(page)["pictures"] == []


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_every_card_and_runs_nothing_hostile(tmp_path: Path) -> None:
    inspection = hostile_set(tmp_path / "a")
    (tmp_path / "page.html").write_text(render_page(inspection), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--dump-dom", (tmp_path / "page.html").as_uri()]  # fmt: skip
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    reader = read(finished.stdout)
    cards = [attributes for tag, attributes in reader.elements if attributes.get("class") == "card"]
    assert len(cards) == len(inspection.facts.pictures)
    assert not [attributes for _, attributes in reader.elements if "onerror" in attributes or "onload" in attributes]
    images = [attributes["src"] for tag, attributes in reader.elements if tag == "img"]
    assert images
    assert all(source and source.startswith("data:image/webp;base64,") for source in images)
