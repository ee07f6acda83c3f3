"""Shards behind HTTP: read at any place where the server can, told in words where it cannot or is not there."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imagesets.errors import PictureError, SourceError
from imagesets.reading.addresses import _said
from imagesets.reading.webdataset import list_shards
from imagesets.scan import scan_sources
from imagesets.sources import WebDatasetSource
from imagesets.streams import mixed, open_streams
from tests.imagesets.making import encoded, scene
from tests.imagesets.reading.test_webdataset import packed

PICTURE = encoded(scene(), "JPEG")
SHARD = packed(
    [member for index in range(5) for member in ((f"{index}.jpg", PICTURE), (f"{index}.txt", f"no {index}"))]
)


class Server(ThreadingHTTPServer):
    """Serves one shard under two names, by ranges unless it is told not to."""

    daemon_threads = True
    has_ranges = True
    is_damaged = False
    num_bytes = 0

    def address(self, name: str) -> str:
        """Return the address of a file."""
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: Server

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        if self.path.partition("?")[0] not in {"/s-0.tar", "/s-1.tar"}:
            self.send_error(404)
            return
        content = SHARD[:1200] if self.server.is_damaged else SHARD
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = 0, len(content)
        if asked and self.server.has_ranges:
            begin, end = int(asked[1]), min(end, int(asked[2]) + 1 if asked[2] else end)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.server.has_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if with_body:
            self.server.num_bytes += end - begin
            self.wfile.write(content[begin:end])

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_shards_behind_an_address_are_scanned_and_their_pictures_read_again(server: Server) -> None:
    report = scan_sources([WebDatasetSource(path=server.address("s-{0..1}.tar?signature=secret"))])
    assert [sample.caption for sample in report.samples] == [f"no {index}" for index in range(5)] * 2
    assert not report.bad
    assert "secret" not in "".join(sample.name + sample.source for sample in report.samples)
    assert report.samples[7].load().size == scene().size


def test_a_stream_reads_a_shard_once_from_end_to_end(server: Server) -> None:
    streams = open_streams([WebDatasetSource(path=server.address("s-0.tar"), streaming=True)])
    entries = [streamed.entry for streamed in mixed(streams, (0,), lambda _number: True)]
    assert [entry.read() for entry in entries if entry.read] == [PICTURE] * 5
    assert server.num_bytes <= len(SHARD) + 2**16


def test_what_a_server_does_wrong_is_said_without_the_secret(server: Server) -> None:
    with pytest.raises(SourceError, match=r"no\.tar does not exist") as missing:
        list_shards(WebDatasetSource(path=server.address("no.tar?signature=secret")))
    assert "secret" not in str(missing.value)
    (entry,) = list_shards(WebDatasetSource(path=server.address("s-0.tar"))).entries[3:4]
    server.is_damaged = True
    assert "Get it again" in str(list_shards(WebDatasetSource(path=server.address("s-1.tar"))).entries[-1].problem)
    assert entry.read is not None
    with pytest.raises(PictureError, match=r"s-0\.tar"):
        entry.read()


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:9/s\.tar cannot be opened"):
        list_shards(WebDatasetSource(path="http://127.0.0.1:9/s.tar?signature=secret"))


def test_what_a_library_repeats_of_an_address_is_told_without_its_secrets() -> None:
    said = _said(OSError("500, url='https://me:secret@host/a.tar?signature=secret', retry https://host/b?x=secret"))
    assert said == "500, url='https://host/a.tar', retry https://host/b"


def test_a_server_without_ranges_is_read_whole_or_told_of(server: Server) -> None:
    server.has_ranges = False
    entries = list_shards(WebDatasetSource(path=server.address("s-0.tar"))).entries
    assert [entry.caption for entry in entries] == [f"no {index}" for index in range(5)]
