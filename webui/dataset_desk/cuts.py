"""Thumbnails with what is cut away drawn: dimmed, and the rest outlined. It opens our own thumbnails alone."""

from pathlib import Path

from PIL import Image, ImageDraw

_DIMMED = (24, 24, 27)
_OUTLINE = (245, 158, 11)
_DIMMING = 0.72
_LARGEST_PX = 2048


def draw_cut(thumbnail: Path, kept: tuple[float, float, float, float]) -> Path:
    """Return the path of a thumbnail with its cut drawn, made where it is not there yet.

    Args:
        thumbnail: a WebP file of an inspection.
        kept: edges of what is left, as fractions of its sides: left, top, right, bottom.
    """
    drawn = thumbnail.with_name(f"cut-{thumbnail.name}")
    if drawn.is_file():
        return drawn
    with Image.open(thumbnail, formats=["WEBP"]) as picture:
        assert max(picture.size) <= _LARGEST_PX, "our own thumbnails are small"
        whole = picture.convert("RGB")
    width, height = whole.size
    left, top, right, bottom = kept
    box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
    shown = Image.blend(whole, Image.new("RGB", whole.size, _DIMMED), _DIMMING)
    shown.paste(whole.crop(box), box[:2])
    if box != (0, 0, width, height):
        edge = (box[0], box[1], max(box[0], box[2] - 1), max(box[1], box[3] - 1))
        ImageDraw.Draw(shown).rectangle(edge, outline=_OUTLINE, width=2)
    partial = drawn.with_suffix(".tmp")
    shown.save(partial, "WEBP", quality=80, method=1)
    partial.replace(drawn)
    return drawn
