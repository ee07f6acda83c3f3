"""Tar shards: every sample is found with its words, damage is told by name, and nothing is unpacked."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

import fsspec
import pytest

from imagesets.errors import PictureError, SourceError
from imagesets.reading.addresses import expand, shown_address
from imagesets.reading.webdataset import list_shards
from imagesets.scan import scan_sources
from imagesets.sources import Entry, WebDatasetSource
from imagesets.wording import Wording
from tests.imagesets.making import encoded, scene

PICTURE = encoded(scene(), "JPEG")


def packed(members: Iterable[tuple[str, bytes | str]], *, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar file with these members, in this order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tar_format) as tar:
        for name, content in members:
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def entries_of(folder: Path, *members: tuple[str, bytes | str], **options: object) -> tuple[Entry, ...]:
    (folder / "a.tar").write_bytes(packed(members))
    return list_shards(WebDatasetSource(path=str(folder), **options)).entries  # type: ignore[arg-type]


def test_samples_are_told_apart_by_their_names_up_to_the_first_dot(tmp_path: Path) -> None:
    first, second, third = entries_of(
        tmp_path,
        ("one/0001.jpg", PICTURE), ("one/0001.txt", "a cat"),
        ("one/0002.txt", "a dog, before its picture"), ("one/0002.cls", "7"), ("one/0002.PNG", PICTURE),
        ("two.v1/0002.jpg", PICTURE), ("two.v1/0002.json", json.dumps({"caption": "a bird", "aesthetic_score": 7})),
    )  # fmt: skip
    assert [(each.name, each.caption, each.extension) for each in (first, second, third)] == [
        ("a.tar/one/0001.jpg", "a cat", ".jpg"),
        ("a.tar/one/0002.png", "a dog, before its picture", ".png"),
        ("a.tar/two.v1/0002.jpg", "a bird", ".jpg"),
    ]
    assert third.aesthetic_score == 7.0
    assert [each.read() for each in (first, second, third) if each.read] == [PICTURE] * 3


def test_a_text_member_goes_before_a_field_of_the_json_and_either_can_be_named(tmp_path: Path) -> None:
    members = [
        ("a.jpg", PICTURE),
        ("a.txt", "text"),
        ("a.cap", "other"),
        ("a.json", '{"caption": "field", "alt": "x"}'),
    ]
    assert entries_of(tmp_path, *members)[0].caption == "text"
    assert entries_of(tmp_path, *members, caption_extension=".cap")[0].caption == "other"
    assert entries_of(tmp_path, *members, caption_extension=".no", json_field="alt")[0].caption == "x"
    assert entries_of(tmp_path, *members, caption_extension=".no", json_field="none")[0].caption is None


def test_lines_of_a_caption_are_kept_where_they_are_chosen_from(tmp_path: Path) -> None:
    members = [("a.jpg", PICTURE), ("a.txt", "one\ntwo\n")]
    assert entries_of(tmp_path, *members)[0].caption == "one two"
    assert entries_of(tmp_path, *members, wording=Wording(choose_line=True))[0].caption == "one\ntwo"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.jpg", PICTURE), ("a.png", PICTURE)], "2 pictures of this name: jpg, png"),
        ([("a.gif", b"GIF89a")], ".gif files are not read"),
        ([("a.jpg", PICTURE), ("a.txt", b"\xff\xfe\x00")], "not UTF-8"),
        ([("a.jpg", PICTURE), ("a.txt", "x" * 70_000)], "at most 65536"),
        ([("a.jpg", PICTURE), ("a.json", "{")], "is not JSON"),
        ([("a.jpg", PICTURE), ("a.json", "[" * 100_000)], "is not JSON"),
        ([("a.jpg", PICTURE), ("a.json", "[1]")], "no names with values"),
        ([("a.jpg", PICTURE), ("a.json", '{"caption": 3}')], "is no text: 3"),
        ([("a.jpg", PICTURE), ("a.json", '{"aesthetic_score": 11}')], "from 0 to 10"),
        ([("a\nb.jpg", PICTURE)], "line break"),
    ],
)  # fmt: skip
def test_a_sample_that_cannot_be_used_is_named_with_the_reason_and_the_next_is_read(
    tmp_path: Path, members: list[tuple[str, bytes | str]], said: str
) -> None:
    bad, good = entries_of(tmp_path, *members, ("z.jpg", PICTURE))
    assert bad.problem is not None
    assert said in bad.problem
    assert bad.name.startswith("a.tar/a")
    assert bad.name.isprintable()
    assert good.problem is None


def test_links_and_devices_are_passed_over_and_a_name_that_climbs_is_only_a_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("a.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("../../b.jpg")
        info.size = len(PICTURE)
        tar.addfile(info, io.BytesIO(PICTURE))
    (entry,) = list_shards(WebDatasetSource(path=str(tmp_path))).entries
    assert entry.name == "a.tar/../../b.jpg"
    assert entry.read is not None
    assert entry.read() == PICTURE
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_of_a_shard_that_was_cut_off_what_is_whole_is_read_and_the_damage_is_told(tmp_path: Path) -> None:
    whole = packed([(f"{index}.jpg", PICTURE) for index in range(3)])
    size = 512 * (1 + -(-len(PICTURE) // 512))
    for length in (size, 2 * size, 2 * size + 100, 2 * size + 700, 3 * size, 3 * size + 100):
        (tmp_path / "a.tar").write_bytes(whole[:length])
        entries = list_shards(WebDatasetSource(path=str(tmp_path))).entries
        assert entries[-1].name == "a.tar", length
        assert "Get it again" in str(entries[-1].problem)
        readable = [entry for entry in entries if entry.read is not None]
        for entry in readable[: length // size]:
            assert entry.read is not None
            assert entry.read() == PICTURE
        assert len(readable) == length // size
        assert re.search(r"byte [1-9]\d+", str(entries[-1].problem)), "the place is named"


def test_a_compressed_shard_is_known_by_its_bytes_too(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(gzip.compress(packed([("a.jpg", PICTURE)])))
    (entry,) = list_shards(WebDatasetSource(path=str(tmp_path))).entries
    assert "compressed (gzip)" in str(entry.problem)


@pytest.mark.parametrize("place", [0, 100, 130, 148, 156, 257, 400])
def test_a_damaged_header_in_the_middle_is_told_and_ends_the_shard(tmp_path: Path, place: int) -> None:
    content = bytearray(packed([(f"{index}.jpg", PICTURE) for index in range(3)]))
    content[512 * (1 + -(-len(PICTURE) // 512)) + place] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(content)
    entries = list_shards(WebDatasetSource(path=str(tmp_path))).entries
    assert [entry.name for entry in entries] == ["a.tar/0.jpg", "a.tar"]
    assert "Get it again" in str(entries[-1].problem)


def test_a_header_that_claims_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 2**30
        with (tmp_path / "a.tar").open("wb") as file:
            file.write(packed([("0.jpg", PICTURE)])[: 512 * (1 + -(-len(PICTURE) // 512))])
            file.write(info.tobuf(tarfile.USTAR_FORMAT if kind == tarfile.XHDTYPE else tarfile.GNU_FORMAT))
            file.truncate(2**30 + 2**16)
        entries = list_shards(WebDatasetSource(path=str(tmp_path))).entries
        assert [entry.name for entry in entries] == ["a.tar/0.jpg", "a.tar"]
        assert "a header of 1073741824 bytes" in str(entries[-1].problem)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(tmp_path: Path, tar_format: int) -> None:
    name = "folder/" * 10 + "a" * 60 + ".jpg"
    (tmp_path / "a.tar").write_bytes(packed([(name, PICTURE)], tar_format=tar_format))
    assert list_shards(WebDatasetSource(path=str(tmp_path))).entries[0].name == f"a.tar/{name}"


def test_shards_are_named_by_folder_braces_and_stars_in_order(tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / f"s-{index:03d}.tar").write_bytes(packed([(f"{index}.jpg", PICTURE)]))
    expected = [str(tmp_path / f"s-{index:03d}.tar") for index in range(12)]
    assert expand(str(tmp_path), (".tar",)) == expected
    assert expand(str(tmp_path / "s-{000..011}.tar"), (".tar",)) == expected
    assert expand(str(tmp_path / "s-00?.tar"), (".tar",)) == expected[:10]
    assert expand(str(tmp_path / "{s-01*,s-000}.tar"), (".tar",)) == [*expected[10:], expected[0]]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("none", "does not exist"),
        ("none-*.tar", "names no file"),
        ("a-{0..9", "partner"),
        ("a-{0..999999999}.tar", "more than 100000"),
        ("a.tar.gz", "gunzip"),
        ("packed", "gunzip"),
        ("bare", r"the folder .*bare holds no \.tar file"),
        ("empty.tar", "hold no JPEG"),
        ("s3://bucket/a.tar", "pip install s3fs"),
        ("nothing://a.tar", "nothing://"),
        ("memory://not-there.tar", "does not exist"),
    ],
)
def test_what_cannot_be_opened_is_told_before_anything_is_read(tmp_path: Path, pattern: str, said: str) -> None:
    (tmp_path / "empty.tar").write_bytes(packed([("readme.md", "words")]))
    for name in ("packed", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "packed" / "a.tar.gz").write_bytes(gzip.compress(packed([("a.jpg", PICTURE)])))
    path = pattern if "://" in pattern else str(tmp_path / pattern)
    with pytest.raises(SourceError, match=said):
        list_shards(WebDatasetSource(path=path))


def test_an_address_is_read_as_a_file_is_and_shown_without_its_secrets(tmp_path: Path) -> None:
    members = [("a.jpg", PICTURE), ("a.txt", "a cat"), ("b.jpg", PICTURE)]
    system = fsspec.filesystem("memory")
    for index in range(2):
        system.pipe(f"/shards/s-{index}.tar", packed(members))
    for pattern in ("memory://shards/s-{0..1}.tar", "memory://shards/*.tar"):
        report = scan_sources([WebDatasetSource(path=pattern)])
        assert [sample.name for sample in report.samples] == [
            "s-0.tar/a.jpg", "s-0.tar/b.jpg", "s-1.tar/a.jpg", "s-1.tar/b.jpg",
        ]  # fmt: skip
        assert not report.bad
        assert report.samples[0].load().size == scene().size
    assert shown_address("https://me:secret@host/a.tar?token=x") == "https://host/a.tar"


def test_a_scan_of_shards_finds_what_a_scan_of_the_unpacked_folder_finds(tmp_path: Path) -> None:
    members = [
        ("a.jpg", PICTURE),
        ("a.txt", "a cat"),
        ("b.png", b"not a picture"),
        ("c.webp", encoded(scene(), "WEBP")),
    ]
    (tmp_path / "s.tar").write_bytes(packed(members))
    report = scan_sources([WebDatasetSource(path=str(tmp_path / "s.tar"), trigger="sks")])
    assert [(sample.name, sample.caption) for sample in report.samples] == [
        ("s.tar/a.jpg", "sks, a cat"), ("s.tar/c.webp", "sks"),
    ]  # fmt: skip
    assert [bad.name for bad in report.bad] == ["s.tar/b.png"]
    (tmp_path / "s.tar").write_bytes(packed([("a.jpg", encoded(scene().rotate(90), "JPEG")), *members[1:]]))
    with pytest.raises(PictureError, match=r"changed since it was scanned|shorter"):
        report.samples[0].load()
