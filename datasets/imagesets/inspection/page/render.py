"""The page as text. Names and captions are hostile until escaped: Jinja2 escapes, and the script sets text alone."""

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from imagesets.inspection.facts import Inspection
from imagesets.inspection.findings import SEVERITIES, count_of
from imagesets.inspection.looks import ThumbnailLimits
from imagesets.inspection.page.charts import (
    aspect_histogram,
    bucket_bars,
    scale_histogram,
    size_scatter,
    tag_bars,
    token_histogram,
)
from imagesets.inspection.page.data import page_data

MAX_PICTURES = 5000
"""More pictures than this are counted and judged, but not shown one by one: --json lists them all."""
ITEMS_SHOWN = 100

_GENERATOR = "atelier data inspect"
_HEAD_BYTES = 4096

_SETTING = re.compile(r"((?:[a-z_]+\.)[a-z0-9_.]+(?:=(?:\{[^}]*\}|'[^']*'|[^\s,;()]+))?|--[a-z]+)")
_TOTAL_BYTES = 3_000_000
_MIN_BYTES, _MAX_BYTES = 1_600, 14_000
_SIDES = ((10_000, 320), (5_000, 256), (2_500, 192), (0, 144))


def thumbnail_limits(num_pictures: int) -> ThumbnailLimits:
    """Return how large thumbnails may be, so that a page of 200 pictures stays under 5 MB and one of 2,000 near it."""
    num_bytes = max(_MIN_BYTES, min(_MAX_BYTES, _TOTAL_BYTES // max(1, num_pictures)))
    return ThumbnailLimits(next(side for least, side in _SIDES if num_bytes >= least), num_bytes)


def render_page(inspection: Inspection) -> str:
    """Return the page: complete HTML, with its style, script, thumbnails and data inside.

    Its Content-Security-Policy lets exactly its own script and style run and forbids every request, so that nothing in
    a name or a caption could do anything even if it were not escaped.
    """
    folder = files("imagesets.inspection.page")
    style, script = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count_of"] = count_of
    environment.filters["settings"] = split_settings
    template = environment.from_string((folder / "page.html.jinja").read_text("utf-8"))
    return template.render(
        inspection=inspection,
        facts=inspection.facts,
        plan=inspection.facts.plan,
        severities=SEVERITIES,
        counts={severity: sum(f.severity == severity for f in inspection.findings) for severity in SEVERITIES},
        style=style,
        script=script,
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        data=page_data(inspection, MAX_PICTURES),
        buckets=bucket_bars(inspection),
        scatter=size_scatter(inspection),
        aspects=aspect_histogram(inspection),
        scales=scale_histogram(inspection),
        tokens=token_histogram(inspection),
        tags=tag_bars(inspection),
        items_shown=ITEMS_SHOWN,
        max_pictures=MAX_PICTURES,
        generator=_GENERATOR,
    )


def is_page(path: Path) -> bool:
    """Whether a file is a page that `render_page` made."""
    try:
        with path.open("rb") as file:
            return f'<meta name="generator" content="{_GENERATOR}">'.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def split_settings(text: str) -> list[tuple[str, bool]]:
    """Cut a text into parts, with whether each is a setting as the command line takes it: 'data.crop=random'."""
    parts = _SETTING.split(text)
    return [(part, place % 2 == 1) for place, part in enumerate(parts) if part]


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
