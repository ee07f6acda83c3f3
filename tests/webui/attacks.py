"""Attacks on a page over HTTP, as a browser on another site, another user's tool or a stranger's folder would try them.

Each says by itself whether it has succeeded, so that the same list runs against our page and against a plain Gradio
page beside it (`benchmarks/page_attacks.py`).
"""

import http.client
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SECRET = "atelier-secret-0c5d1f"
"""Stands in files that no page may send."""

EVIL = "http://evil.example"

_READ_BYTES = 200_000
_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True)
class Target:
    """A page under attack.

    Attributes:
        port: it listens at, on 127.0.0.1.
        folder: holds `runs` and `pictures`, which are served, and what is not: `secret.txt`, `runs-secret`, and so on.
        max_upload_bytes: that it was told to take.
    """

    port: int
    folder: Path
    max_upload_bytes: int

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.host}"


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 where the connection was closed without one."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def was_let_through(self) -> bool:
        return 200 <= self.status < 400

    @property
    def told_the_secret(self) -> bool:
        return SECRET in self.body


@dataclass(frozen=True)
class Attack:
    """One attack: what is sent, and how one sees that it has worked."""

    name: str
    send: Callable[[Target], Answer]
    worked: Callable[[Answer], bool] = lambda answer: answer.was_let_through


def lay_folder(folder: Path) -> None:
    """Make what the attacks are after: a served run with traps in it, and secrets beside it."""
    run = folder / "runs" / "victim"
    (folder / "pictures").mkdir()
    (folder / "pictures" / "secret.txt").write_text(SECRET)
    (run / "previews" / "step-000001").mkdir(parents=True)
    (run / "recipe.yaml").write_text("schema_version: 1\n")
    (run / "events.jsonl").write_text("")
    for place in ("secret.txt", "secret.png", "runs-secret/secret.png", "secrets/secret.png"):
        path = folder / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(SECRET)
    for name in ("page.html", "drawing.svg", "code.py", ".hidden.png", "data.pkl", "script.js"):
        (run / name).write_text(f"<script>{SECRET}</script>")
    (run / "link.png").symlink_to(folder / "secret.png")
    (run / "linked").symlink_to(folder / "secrets")
    (run / "chain-1.png").symlink_to(run / "chain-2.png")
    (run / "chain-2.png").symlink_to(folder / "secret.txt")


def request(
    target: Target,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    hosts: tuple[str, ...] | None = None,
) -> Answer:
    """Send one request as it is written, and return the beginning of what comes back."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=_PATIENCE_SECONDS)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for host in (target.host,) if hosts is None else hosts:
            connection.putheader("Host", host)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None and not any(
            name.lower() in ("content-length", "transfer-encoding") for name in headers or ()
        ):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        found = _beginning(response).decode("utf-8", "replace")
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, found)
    except (http.client.HTTPException, OSError):
        return Answer(0, {}, "")
    finally:
        connection.close()


def _beginning(response: http.client.HTTPResponse) -> bytes:
    """Return the first bytes of an answer, which may go on for ever."""
    found, give_up = b"", time.monotonic() + _PATIENCE_SECONDS
    while len(found) < _READ_BYTES and time.monotonic() < give_up:
        more = response.read1(_READ_BYTES)
        if not more:
            break
        found += more
    return found


def read(
    name: str, path: str, *, hosts: tuple[str, ...] | None = None, headers: Mapping[str, str] | None = None
) -> Attack:
    return Attack(name, lambda target: request(target, "GET", path, headers, hosts=hosts))


def file(name: str, of: Callable[[Target], str]) -> Attack:
    """Ask for a file; it has worked if the secret comes back."""
    return Attack(
        name,
        lambda target: request(target, "GET", "/gradio_api/file=" + of(target), {"Origin": target.origin}),
        lambda answer: answer.told_the_secret,
    )


def post(name: str, path: str, body: bytes = b"{}", **headers: str) -> Attack:
    """Post from elsewhere; a '_' in a header's name stands for '-'."""
    sent = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return Attack(name, lambda target: request(target, "POST", path, sent, body))


def multipart(name: str, content: bytes) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a form with one file."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return {"Content-Type": "multipart/form-data; boundary=x"}, head.encode() + content + b"\r\n--x--\r\n"


def upload(name: str, file_name: str, content: bytes, headers: Mapping[str, str]) -> Attack:
    def send(target: Target) -> Answer:
        form, body = multipart(file_name, content)
        given = {key: value.replace("OWN", target.origin) for key, value in headers.items()}
        return request(target, "POST", "/gradio_api/upload", {**form, **given}, body)

    return Attack(name, send)


def _oversized(target: Target) -> Answer:
    form, body = multipart("a.png", b"x" * (2 * target.max_upload_bytes))
    return request(target, "POST", "/gradio_api/upload", {**form, "Origin": target.origin}, body)


def _oversized_in_chunks(target: Target) -> Answer:
    """Send more than is allowed without saying how much it will be."""
    form, body = multipart("a.png", b"x" * (2 * target.max_upload_bytes))
    step = 1 << 16
    chunks = [body[start : start + step] for start in range(0, len(body), step)]
    coded = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks) + b"0\r\n\r\n"
    headers = {**form, "Origin": target.origin, "Transfer-Encoding": "chunked"}
    return request(target, "POST", "/gradio_api/upload", headers, coded)


def _many_small(target: Target) -> Answer:
    """Fill the disk with many files at once, each small enough."""
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    content = part + b"x" * (target.max_upload_bytes // 2) + b"\r\n"
    body = content * 8 + b"--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Origin": target.origin}
    return request(target, "POST", "/gradio_api/upload", headers, body)


def _websocket(target: Target) -> Answer:
    with socket.create_connection(("127.0.0.1", target.port), timeout=10) as connection:
        connection.sendall(
            f"GET /gradio_api/queue/join HTTP/1.1\r\nHost: {target.host}\r\nOrigin: {EVIL}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        words = connection.recv(100).decode("latin-1").split()
    return Answer(int(words[1]) if len(words) > 1 else 0, {}, "")


def _framed(target: Target) -> Answer:
    return request(target, "GET", "/")


def _may_be_framed(answer: Answer) -> bool:
    policy = answer.headers.get("content-security-policy", "")
    return "frame-ancestors 'none'" not in policy and answer.headers.get("x-frame-options", "").upper() != "DENY"


def _allows_evil(answer: Answer) -> bool:
    return answer.headers.get("access-control-allow-origin", "") in (EVIL, "*", "null")


def all_attacks() -> Iterator[Attack]:
    """Yield every attack."""
    yield from _by_host()
    yield from _by_origin()
    yield from _for_files()
    yield from _by_upload()
    yield from _for_endpoints()


def _by_host() -> Iterator[Attack]:
    """DNS rebinding: the browser of a person on a page of evil.example asks 127.0.0.1 under that name."""
    for host in (
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1:80x",
        "0.0.0.0",
        "[::ffff:7f00:1]:x",
        "",
    ):
        yield read(f"Host: {host or 'empty'}", "/config", hosts=(host,))
    yield read("two Hosts", "/config", hosts=("127.0.0.1", "evil.example"))
    yield read("no Host", "/config", hosts=())
    yield Attack(
        "the whole address of another host in the request line",
        lambda target: request(target, "GET", "http://evil.example/config", hosts=("evil.example",)),
    )


def _by_origin() -> Iterator[Attack]:
    """Another site's page sends requests to ours."""
    join = b'{"data": [], "fn_index": 0, "session_hash": "abcdefghij"}'
    for origin in (
        EVIL,
        "null",
        "http://127.0.0.1:1",
        "http://localhost.evil.example",
        "https://evil.example:443",
        "file://",
    ):
        yield post(f"call a handler, Origin {origin}", "/gradio_api/queue/join", join, Origin=origin)
    yield post("call a handler without an Origin", "/gradio_api/queue/join", join)
    yield post("call a handler as a plain form", "/gradio_api/queue/join", join, Origin=EVIL, Content_Type="text/plain")
    yield post("call a handler, Sec-Fetch-Site cross-site", "/gradio_api/queue/join", join, Sec_Fetch_Site="cross-site")
    yield post("call a handler, Sec-Fetch-Site same-site", "/gradio_api/queue/join", join, Sec_Fetch_Site="same-site")
    yield post(
        "cancel another's event", "/gradio_api/cancel", b'{"session_hash":"a","fn_index":0,"event_id":"b"}', Origin=EVIL
    )
    yield read("read the page's parts from another site", "/config", headers={"Origin": EVIL})
    yield read(
        "embed what is the page's own", "/config", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    )
    preflight = {
        "Origin": EVIL,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    yield Attack(
        "ask whether another site may post",
        lambda target: request(target, "OPTIONS", "/gradio_api/queue/join", preflight),
        _allows_evil,
    )
    yield Attack(
        "ask whether a page without an origin may post",
        lambda target: request(target, "OPTIONS", "/gradio_api/upload", {**preflight, "Origin": "null"}),
        _allows_evil,
    )
    yield Attack("put the page into a frame of another site", _framed, _may_be_framed)


def _for_files() -> Iterator[Attack]:
    """Files that no folder named at the start holds, and files in them that no page needs."""

    def run(target: Target) -> str:
        return quote(str(target.folder / "runs" / "victim"))

    yield file("an absolute path", lambda target: quote(str(target.folder / "secret.txt")))
    yield file("a picture outside", lambda target: quote(str(target.folder / "secret.png")))
    yield file("a folder whose name begins alike", lambda target: quote(str(target.folder / "runs-secret/secret.png")))
    yield file("dots", lambda target: run(target) + "/../../secret.png")
    yield file("dots in percent", lambda target: run(target) + "/%2e%2e/%2e%2e/secret.png")
    yield file("dots in percent twice", lambda target: run(target) + "/%252e%252e/%252e%252e/secret.png")
    yield file("slashes in percent", lambda target: run(target) + "%2f..%2f..%2fsecret.png")
    yield file("backslashes", lambda target: run(target) + "\\..\\..\\secret.png")
    yield file("two slashes", lambda target: "/" + quote(str(target.folder / "secret.png")))
    yield file("a relative path", lambda _: "secret.png")
    yield file("a relative path with dots", lambda _: "runs/../secret.png")
    yield file("a text among the pictures", lambda target: quote(str(target.folder / "pictures/secret.txt")))
    yield file("a zero byte", lambda target: quote(str(target.folder / "secret.txt")) + "%00.png")
    yield file("a link", lambda target: run(target) + "/link.png")
    yield file("a linked folder", lambda target: run(target) + "/linked/secret.png")
    yield file("a link to a link", lambda target: run(target) + "/chain-1.png")
    yield file("file:", lambda target: "file://" + quote(str(target.folder / "secret.png")))
    yield file("a hidden file", lambda target: run(target) + "/.hidden.png")
    yield file("a run's page of HTML", lambda target: run(target) + "/page.html")
    yield file("a run's SVG with a script", lambda target: run(target) + "/drawing.svg")
    yield file("a run's script", lambda target: run(target) + "/script.js")
    yield file("a run's program", lambda target: run(target) + "/code.py")
    yield file("a run's pickle", lambda target: run(target) + "/data.pkl")
    yield file("the old form of the address", lambda target: "x?file=" + quote(str(target.folder / "secret.png")))
    yield read("the process's environment", "/gradio_api/file=/proc/self/environ")
    yield read("the user database", "/gradio_api/file=/etc/passwd")
    yield Attack(
        "fetch from this machine by way of the page",
        lambda target: request(target, "GET", f"/gradio_api/file=http://{target.host}/config"),
    )
    yield Attack(
        "fetch from this machine by way of its proxy",
        lambda target: request(target, "GET", f"/gradio_api/proxy=http://{target.host}/config"),
    )
    yield read("assets with dots", "/assets/..%2f..%2f..%2f..%2f..%2fetc/passwd")
    yield read("static with dots", "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd")
    yield read("a component's file with dots", "/gradio_api/custom_component/x/client/component/..%2f..%2fetc%2fpasswd")


def _by_upload() -> Iterator[Attack]:
    """Files sent to the page."""
    yield upload("upload from another site", "a.png", b"x", {"Origin": EVIL})
    yield upload("upload without an Origin", "a.png", b"x", {})
    yield upload("upload by another site's form", "a.png", b"x", {"Origin": "null", "Sec-Fetch-Site": "cross-site"})
    yield Attack("upload more than is allowed", _oversized)
    yield Attack("upload more than is allowed, in chunks", _oversized_in_chunks)
    yield Attack("upload many files that are too much together", _many_small)
    yield Attack(
        "upload with a length that is no number",
        lambda target: request(
            target, "POST", "/gradio_api/upload", {"Content-Length": "-1", "Origin": target.origin}, b""
        ),
    )


def _for_endpoints() -> Iterator[Attack]:
    """Addresses of Gradio that no page of ours needs."""
    for path in (
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/openapi.json",
        "/docs",
        "/redoc",
        "/monitoring",
        "/monitoring/summary",
        "/gradio_api/runs",
        "/gradio_api/dev/reload",
        "/gradio_api/vibe-code",
        "/gradio_api/deep_link",
    ):
        yield read(f"GET {path}", path)
    for path in (
        "/gradio_api/run/predict",
        "/gradio_api/api/predict",
        "/gradio_api/call/tick",
        "/gradio_api/call/v2/tick",
        "/gradio_api/vibe-edit",
        "/gradio_api/process_recording",
        "/gradio_api/component_server",
    ):
        yield Attack(
            f"POST {path}",
            lambda target, path=path: request(
                target, "POST", path, {"Origin": target.origin, "Content-Type": "application/json"}, b'{"data": []}'
            ),
            # 422 and 500 have reached a handler.
            lambda answer: answer.status not in (0, 401, 403, 404, 405, 421),
        )
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        yield Attack(
            method, lambda target, method=method: request(target, method, "/config", {"Origin": target.origin})
        )
    yield Attack("open a websocket", _websocket, lambda answer: answer.status == 101)
