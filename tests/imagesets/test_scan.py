"""A scan keeps every good picture, and says of every other one which file it is and why it is not used."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagesets.buckets import assign_bucket, generated_buckets
from imagesets.errors import PictureError, SourceError
from imagesets.framing import make_frame
from imagesets.manifest import manifest_text, read_manifest
from imagesets.opening.decoders import Decoders
from imagesets.scan import BadPicture, ScanReport, scan_sources
from imagesets.sources import FolderSource

RED, BLUE = (200, 30, 30), (30, 30, 200)


def save(
    path: Path, *, size: tuple[int, int] = (40, 48), colour: tuple[int, int, int] = RED, caption: str = ""
) -> Path:
    """Save a plain picture of a (height, width), in the format its name says, and a caption where there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), colour).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def scan(path: Path, source: FolderSource | None = None, **options: object) -> ScanReport:
    """Scan one folder."""
    return scan_sources([replace(source or FolderSource(path), path=path)], **options)  # type: ignore[arg-type]


def write_metadata(root: Path, *lines: object) -> None:
    """Write metadata.jsonl: a text is a line as it is, anything else is written as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (root / "metadata.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")


def noise() -> Image.Image:
    """Return a picture that does not compress, so that half the file is about half the pixels."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def cut_short(root: Path, name: str) -> None:
    noise().save(root / name)
    content = (root / name).read_bytes()
    (root / name).write_bytes(content[: len(content) // 2])


def flip_a_byte(root: Path, name: str) -> None:
    noise().save(root / name)
    content = bytearray((root / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (root / name).write_bytes(content)


def mislabel(root: Path, name: str, kind: str) -> None:
    Image.new("RGB", (40, 40)).save(root / name, kind)


def png_header(root: Path, name: str, height: int, width: int) -> None:
    """Save a sound small PNG whose header claims another size, its checksum right."""
    import zlib

    save(root / name)
    content = bytearray((root / name).read_bytes())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (root / name).write_bytes(content)


def link_out(root: Path, name: str) -> None:
    (root / name).symlink_to(save(root.parent / "outside" / "secret.png"))


def link_in(root: Path, name: str, target: str) -> None:
    (root / name).symlink_to(root / target)


def caption_as_bytes(root: Path, name: str, content: bytes) -> None:
    save(root / name).with_suffix(".txt").write_bytes(content)


def caption_out(root: Path, name: str) -> None:
    secret = root.parent / "secret.txt"
    secret.write_text("the password is swordfish", encoding="utf-8")
    save(root / name).with_suffix(".txt").symlink_to(secret)


@dataclass(frozen=True)
class Broken:
    """A way in which one file of a folder is of no use.

    Attributes:
        title: of the case.
        name: the bad file.
        make: puts it into a folder.
        reason: words of the message that say what is wrong.
    """

    title: str
    name: str
    make: Callable[[Path, str], object]
    reason: str


BROKEN = (
    Broken("zero bytes", "x.png", lambda root, name: (root / name).touch(), "0 bytes"),
    Broken("cut short png", "x.png", cut_short, "cut short"),
    Broken("cut short jpeg", "x.jpg", cut_short, "cut short"),
    Broken("cut short webp", "x.webp", cut_short, "cut short"),
    Broken("a byte is wrong", "x.png", flip_a_byte, "pixels cannot be read"),
    Broken("text", "x.png", lambda root, name: (root / name).write_text("a star"), "no JPEG, PNG or WebP picture"),
    Broken(
        "web page", "x.jpg", lambda root, name: (root / name).write_text("<!DOCTYPE html><p>Not found"), "a web page"
    ),
    Broken("png named jpg", "x.jpg", lambda root, name: mislabel(root, name, "PNG"), "rename it to .png"),
    Broken("jpeg named png", "x.png", lambda root, name: mislabel(root, name, "JPEG"), "rename it to .jpg"),
    Broken("gif named png", "x.png", lambda root, name: mislabel(root, name, "GIF"), "GIF"),
    Broken("gif", "x.gif", lambda root, name: mislabel(root, name, "GIF"), "convert it to PNG"),
    Broken("tiff", "x.tiff", lambda root, name: mislabel(root, name, "TIFF"), "convert it to PNG"),
    Broken("bomb", "x.png", lambda root, name: png_header(root, name, 60_000, 60_000), "3600.0 megapixels"),
    Broken("longer than it says", "x.png", lambda root, name: png_header(root, name, 48, 40), "pixels cannot be read"),
    Broken("one pixel", "x.png", lambda root, name: save(root / name, size=(1, 1)), "1 x 1"),
    Broken("a thread", "x.png", lambda root, name: save(root / name, size=(10, 300)), "10 x 300 (height x width)"),
    Broken("link out", "x.png", link_out, "a link that leads out of the folder"),
    Broken("link to nothing", "x.png", lambda root, name: link_in(root, name, "gone.png"), "not a plain file"),
    Broken("link to itself", "x.png", lambda root, name: link_in(root, name, "x.png"), "not a plain file"),
    Broken("folder", "x.png", lambda root, name: (root / name).mkdir(), "a folder with a picture's name"),
    Broken("pipe", "x.png", lambda root, name: os.mkfifo(root / name), "not a plain file"),
    Broken("caption in latin-1", "x.png", lambda root, name: caption_as_bytes(root, name, b"caf\xe9"), "not UTF-8"),
    Broken("a novel", "x.png", lambda root, name: caption_as_bytes(root, name, b"a" * 10**6), "1000000 bytes"),
    Broken("caption leads out", "x.png", caption_out, "x.txt is a link that leads out of the folder"),
    Broken(
        "caption is a folder",
        "x.png",
        lambda root, name: save(root / name).with_suffix(".txt").mkdir(),
        "caption x.txt is not a plain file",
    ),
    Broken(
        "caption is a pipe",
        "x.png",
        lambda root, name: os.mkfifo(save(root / name).with_suffix(".txt")),
        "caption x.txt is not a plain file",
    ),
    Broken("in a folder below", "deep/er/x.png", lambda root, name: (root / "deep" / "er").mkdir(parents=True)
           or (root / name).touch(), "0 bytes"),
    Broken("capital ending", "X.PNG", lambda root, name: (root / name).touch(), "0 bytes"),
)  # fmt: skip


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.title)
def test_the_bad_file_is_named_with_its_reason_and_the_good_ones_are_kept(tmp_path: Path, case: Broken) -> None:
    root = tmp_path / "pictures"
    save(root / "a.png", caption="the first")
    save(root / "y.webp", caption="the second")
    case.make(root, case.name)
    report = scan(root)
    assert [(bad.source, bad.name) for bad in report.bad] == [("pictures", case.name)]
    assert case.reason in report.bad[0].reason
    assert [(sample.name, sample.caption) for sample in report.samples] == [
        ("a.png", "the first"),
        ("y.webp", "the second"),
    ]


def test_a_message_never_tells_what_a_caption_outside_says(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    caption_out(root, "x.png")
    assert "swordfish" not in repr(scan(root))


BAD_METADATA = (
    (
        "climbs out",
        {"file_name": "../outside/secret.png"},
        "names '../outside/secret.png', which lies outside the folder",
    ),
    ("climbs out by a detour", {"file_name": "sub/../../outside/secret.png"}, "which lies outside the folder"),
    ("absolute", {"file_name": "/etc/passwd.png"}, "names '/etc/passwd.png', an absolute path"),
    ("a drive", {"file_name": "C:\\secret.png"}, "an absolute path"),
    ("not there", {"file_name": "gone.png"}, "names 'gone.png', and there is no such picture in the folder"),
    ("no picture", {"file_name": "notes.md"}, "names 'notes.md', which is not a picture that is read"),
    ("the folder itself", {"file_name": "."}, "there is no such picture"),
    ("nothing", {"file_name": ""}, 'needs a "file_name"'),
    ("NUL", {"file_name": "a\x00.png"}, "there is no such picture"),
    ("half a character", {"file_name": "a\ud800.png"}, r"names 'a\ud800.png', and there is no such picture"),
    ("a name too long for any disk", {"file_name": "a" * 5000 + ".png"}, "there is no such picture"),
    ("twice", {"file_name": "a.png", "text": "again"}, "names 'a.png' again, after line 1"),
    ("twice in other words", {"file_name": "./sub/..//a.png"}, "names 'a.png' again, after line 1"),
    ("no name", {"text": "no name"}, 'needs a "file_name"'),
    ("a number", {"file_name": "a.png", "text": 3}, "names 'a.png', but its caption is no text: 3"),
    ("cut short", '{"file_name": "b.png"', "is not JSON"),
)


@pytest.mark.parametrize(("line", "reason"), [case[1:] for case in BAD_METADATA], ids=[c[0] for c in BAD_METADATA])
def test_a_wrong_line_of_metadata_is_listed_by_its_number(tmp_path: Path, line: object, reason: str) -> None:
    root = tmp_path / "pictures"
    save(tmp_path / "outside" / "secret.png")
    save(root / "a.png")
    (root / "notes.md").touch()
    write_metadata(root, {"file_name": "a.png", "text": "the first"}, line)
    report = scan(root)
    assert [(sample.name, sample.caption) for sample in report.samples] == [("a.png", "the first")]
    assert [bad.name for bad in report.bad] == ["metadata.jsonl:2"]
    assert reason in report.bad[0].reason
    report.bad[0].reason.encode()


def test_metadata_may_not_lead_out_over_a_linked_folder(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    save(tmp_path / "outside" / "secret.png")
    save(root / "a.png")
    (root / "sub").symlink_to(tmp_path / "outside")
    write_metadata(root, {"file_name": "a.png"}, {"file_name": "sub/secret.png"})
    report = scan(root)
    assert [sample.name for sample in report.samples] == ["a.png"]
    assert [bad.name for bad in report.bad] == ["metadata.jsonl:2", "sub"]
    assert "a link that leads out of the folder" in report.bad[1].reason


def test_metadata_of_a_folder_below_names_its_own_pictures_and_has_the_last_word(tmp_path: Path) -> None:
    for name in ("a.png", "sub/a.png", "sub/b.png"):
        save(tmp_path / name)
    write_metadata(tmp_path, {"file_name": "a.png", "text": "1"}, {"file_name": "sub/a.png", "text": "2"})
    write_metadata(tmp_path / "sub", {"file_name": "a.png", "text": "3"}, {"file_name": "b.png", "text": "4"})
    assert [sample.caption for sample in scan(tmp_path).samples] == ["1", "3", "4"]


def test_pictures_that_metadata_does_not_name_are_not_lost(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", caption="beside")
    save(tmp_path / "c.png")
    write_metadata(tmp_path, {"file_name": "a.png", "text": "named"})
    report = scan(tmp_path)
    assert [sample.caption for sample in report.samples] == ["named", "beside", ""]
    assert [note.name for note in report.notes if note.kind == "missing_caption"] == ["c.png"]
    report = scan(tmp_path, FolderSource(tmp_path, captions="metadata"))
    assert [sample.caption for sample in report.samples] == ["named", "", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps any bytes as a name")
def test_a_name_that_is_no_text_is_refused_in_words_that_can_be_written(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:  # noqa: PTH123
        file.write((tmp_path / "a.png").read_bytes())
    report = scan(tmp_path)
    assert [sample.name for sample in report.samples] == ["a.png"]
    assert len(report.bad) == 1
    assert "is not valid UTF-8: rename it" in report.bad[0].reason
    assert "caf" in report.bad[0].name
    report.bad[0].name.encode()


@pytest.mark.parametrize("name", ["星 ★.png", "a\u202fb.png", "-rf.png", "%s{x}.png", "a.b.png", "'\".png"])
def test_odd_names_are_read_and_survive_the_manifest(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, caption="odd")
    report = scan(tmp_path)
    assert [(sample.name, sample.caption) for sample in report.samples] == [(name, "odd")]
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(manifest_text(report.samples, [(64, 64)]).encode())
    assert [line["name"] for line in read_manifest(path)] == [name]


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[2Jb.png", "a\u2028b.png"])
def test_a_name_that_would_break_a_line_or_a_terminal_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path / name)
    (bad,) = scan(tmp_path).bad
    assert "control character: rename it" in bad.reason
    assert bad.name == ascii(name)[1:-1]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()], ids=["not there", "a file"])
def test_a_folder_that_is_none_is_told_with_its_whole_path(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "gone")
    with pytest.raises(SourceError) as caught:
        scan(tmp_path / "gone")
    assert str(tmp_path / "gone") in str(caught.value)


def test_captions_from_metadata_need_the_file(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(SourceError, match=r"holds no metadata\.jsonl"):
        scan(tmp_path, FolderSource(tmp_path, captions="metadata"))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: (path / "notes.md").touch()], ids=["empty", "text"])
def test_a_folder_without_pictures_is_told_with_its_whole_path(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    with pytest.raises(SourceError, match="holds no JPEG, PNG or WebP file") as caught:
        scan(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_pictures_in_folders_that_are_not_read_are_a_hint(tmp_path: Path) -> None:
    save(tmp_path / "sub" / "a.png")
    with pytest.raises(SourceError, match="recursive is false"):
        scan(tmp_path, FolderSource(tmp_path, recursive=False))


def test_a_folder_that_may_not_be_listed_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed over, it would quietly train on fewer pictures than the folder holds."""
    save(tmp_path / "a.png")
    locked = tmp_path / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refusing(path: str | Path) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    (bad,) = scan(tmp_path).bad
    assert (bad.name, bad.reason) == ("locked", "the folder cannot be read: Permission denied")


def test_a_file_that_may_not_be_read_is_bad(tmp_path: Path, hostile_decoders: Decoders) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "locked.png")
    report = scan(tmp_path, decoders=hostile_decoders)
    assert [sample.name for sample in report.samples] == ["a.png"]
    assert [(bad.name, bad.reason) for bad in report.bad] == [("locked.png", "it cannot be read: Permission denied")]


def test_files_that_are_meant_as_no_picture_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.png", caption="here")
    for name in (".hidden.png", ".DS_Store", "Thumbs.db", "notes.md", "a.safetensors", "png"):
        (tmp_path / name).touch()
    save(tmp_path / ".cache" / "b.png")
    report = scan(tmp_path)
    assert [sample.name for sample in report.samples] == ["a.png"]
    assert report.bad == ()
    assert sorted(report.ignored) == [
        ".DS_Store", ".cache", ".hidden.png", "Thumbs.db", "a.safetensors", "notes.md", "png"
    ]  # fmt: skip


def test_folders_below_are_read_when_recursive_and_names_are_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.png", "a.png", "c/b/a.png", "B.png"):
        save(tmp_path / name)
    names = ["B.png", "a.png", "a/z.png", "b.png", "c/b/a.png"]
    assert [sample.name for sample in scan(tmp_path).samples] == names
    flat = scan(tmp_path, FolderSource(tmp_path, recursive=False))
    assert [sample.name for sample in flat.samples] == [name for name in names if "/" not in name]


def test_a_link_within_the_folder_is_a_picture_like_any_other(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    report = scan(tmp_path)
    assert [sample.name for sample in report.samples] == ["a.png", "b.png"]
    assert report.samples[0].sha256 == report.samples[1].sha256


def test_a_root_that_is_a_link_itself_is_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "real" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    report = scan(tmp_path / "link")
    assert [(sample.source, sample.name) for sample in report.samples] == [("link", "a.png")]


def test_captions_come_from_where_the_source_says(tmp_path: Path) -> None:
    save(tmp_path / "a.png", caption="from the file")
    (tmp_path / "a.caption").write_text("from another ending", encoding="utf-8")
    write_metadata(tmp_path, {"file_name": "a.png", "text": "from metadata"})

    def caption(**options: object) -> str:
        (sample,) = scan(tmp_path, FolderSource(tmp_path, **options)).samples  # type: ignore[arg-type]
        return sample.caption

    assert caption() == "from metadata"
    assert caption(captions="metadata") == "from metadata"
    assert caption(captions="files") == "from the file"
    assert caption(captions="files", caption_extension=".caption") == "from another ending"
    assert caption(trigger="<zig>") == "<zig>, from metadata"


def test_a_sample_knows_what_training_needs(tmp_path: Path) -> None:
    path = save(tmp_path / "set" / "a.jpg", size=(60, 90), caption="a car")
    (sample,) = scan(tmp_path / "set", FolderSource(tmp_path, repeats=3)).samples
    assert sample.original_size == (60, 90)
    assert sample.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (sample.source, sample.name, sample.caption, sample.repeats) == ("set", "a.jpg", "a car", 3)
    assert (sample.facts.format, sample.facts.mode) == ("JPEG", "RGB")


def test_several_sources_come_in_their_order(tmp_path: Path) -> None:
    save(tmp_path / "z" / "a.png", caption="one")
    (tmp_path / "z" / "bad.png").touch()
    save(tmp_path / "b" / "a.png", caption="two")
    sources = [FolderSource(tmp_path / "z", repeats=2), FolderSource(tmp_path / "b", trigger="sks")]
    report = scan_sources(sources)
    assert [(sample.source, sample.name, sample.caption, sample.repeats) for sample in report.samples] == [
        ("z", "a.png", "one", 2),
        ("b", "a.png", "sks, two", 1),
    ]
    assert [(bad.source, bad.name) for bad in report.bad] == [("z", "bad.png")]
    assert scan_sources(sources) == report


def test_the_limit_of_pixels_is_the_callers(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(40, 50))
    assert len(scan(tmp_path, max_pixels=2000).samples) == 1
    (bad,) = scan(tmp_path, max_pixels=1999).bad
    assert bad == BadPicture(tmp_path.name, "a.png", bad.reason)
    assert "40 x 50 (height x width)" in bad.reason


def test_rendering_gives_the_pixels_of_the_frame(tmp_path: Path) -> None:
    """The left half is red and the right half blue: cropping and mirroring are seen in the pixels."""
    picture = Image.new("RGB", (80, 40), RED)
    picture.paste(BLUE, (40, 0, 80, 40))
    picture.save(tmp_path / "a.png")
    (sample,) = scan(tmp_path).samples
    frame = make_frame(sample.original_size, (32, 32), "center")
    pixels = sample.render(frame)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert tuple(pixels[16, 4]) == RED
    assert tuple(pixels[16, 28]) == BLUE
    flipped = sample.render(make_frame(sample.original_size, (32, 32), "center", flipped=True))
    np.testing.assert_array_equal(flipped, pixels[:, ::-1])


def test_what_is_see_through_takes_the_sources_background(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), (255, 255, 255, 0)).save(tmp_path / "a.png")
    (sample,) = scan(tmp_path, background="#204060").samples
    pixels = sample.render(make_frame((40, 40), (40, 40), "center"))
    assert tuple(pixels[20, 20]) == (0x20, 0x40, 0x60)


@pytest.mark.parametrize("size", [(40, 48), (48, 40)], ids=["same size", "another size"])
def test_a_picture_changed_after_the_scan_is_not_trained_on(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png")
    (sample,) = scan(tmp_path).samples
    frame = make_frame(sample.original_size, (32, 32), "center")
    sample.render(frame)
    save(path, size=size, colour=BLUE)
    with pytest.raises(PictureError, match=r"a\.png: it was changed since it was scanned"):
        sample.render(frame)
    path.unlink()
    with pytest.raises(PictureError, match=r"a\.png: it cannot be read"):
        sample.render(frame)


def test_the_manifest_says_what_each_sample_is_trained_as(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(60, 40), caption="ein Stern, größer")
    save(tmp_path / "b.png", size=(40, 40))
    samples = scan(tmp_path, FolderSource(tmp_path, repeats=2)).samples
    buckets = [assign_bucket(sample.original_size, generated_buckets(64, 16, 2.0)) for sample in samples]
    text = manifest_text(samples, buckets)
    assert "größer" in text
    assert text.count("\n") == 2
    path = tmp_path / "manifest.jsonl"
    path.write_text(text, encoding="utf-8")
    first, second = read_manifest(path)
    assert first == {
        "name": "a.png",
        "source": tmp_path.name,
        "sha256": samples[0].sha256,
        "original_size": [60, 40],
        "bucket": [80, 48],
        "resized_size": [80, 53],
        "crop_top_left": [0, 2],
        "scale": pytest.approx(4 / 3, abs=0.01),
        "caption": "ein Stern, größer",
        "repeats": 2,
        "aesthetic_score": 6.0,
    }
    assert (second["name"], second["bucket"], second["crop_top_left"]) == ("b.png", [64, 64], [0, 0])


def test_the_manifest_of_pictures_of_plain_weight_is_as_it_was(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    texts = []
    for weight in (1.0, 0.25):
        samples = scan(tmp_path, FolderSource(tmp_path, loss_weight=weight)).samples
        texts.append(manifest_text(samples, [(32, 32)]))
    plain, light = map(json.loads, texts)
    assert light == {**plain, "loss_weight": 0.25}  # another weight is another run's input
    assert "loss_weight" not in plain  # a run begun before there were weights resumes


def test_what_may_not_be_meant_is_noted_not_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", caption="one")
    save(tmp_path / "b.png", caption="two")
    save(tmp_path / "c.png", colour=BLUE)
    save(tmp_path / "d.png", colour=(1, 2, 3)).with_suffix(".txt").write_bytes(b" \n")
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "e.webp", save_all=True, append_images=frames[1:], duration=50)
    (tmp_path / "e.txt").write_text("moving", encoding="utf-8")
    (tmp_path / "gone.txt").write_text("of a picture that was removed", encoding="utf-8")
    report = scan(tmp_path, FolderSource(tmp_path, trigger="sks"))
    assert report.bad == ()
    assert [sample.caption for sample in report.samples] == ["sks, one", "sks, two", "sks", "sks", "sks, moving"]
    assert {(note.name, note.kind) for note in report.notes} == {
        ("b.png", "duplicate"),
        ("c.png", "missing_caption"),
        ("d.png", "empty_caption"),
        ("e.webp", "animation"),
        ("gone.txt", "unused_caption"),
    }
    texts = {note.name: note.text for note in report.notes}
    assert texts["b.png"] == f"it is the same as {tmp_path.name}: a.png"
    assert texts["e.webp"] == "it is an animation of 2 frames, of which the first is used"


def test_the_message_counts_all_and_lists_the_first(tmp_path: Path) -> None:
    save(tmp_path / "set" / "a.png")
    for number in range(5):
        (tmp_path / "set" / f"bad{number}.png").touch()
    lines = scan(tmp_path / "set").describe_bad(shown=2).split("\n")
    assert lines[0] == "5 of 6 pictures cannot be used:"
    assert lines[1].startswith("  set: bad0.png: the file is empty (0 bytes)")
    assert lines[3:] == ["  … and 3 more"]


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    save(tmp_path / "a" / "a.png")
    save(tmp_path / "b" / "b.png")
    (tmp_path / "b" / "bad.png").touch()
    told: list[tuple[int, int]] = []
    scan_sources(
        [FolderSource(tmp_path / "a"), FolderSource(tmp_path / "b")], progress=lambda *counts: told.append(counts)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
