"""Stands before every request: who is asked for, who asks, and for what. It reads no body and serves nothing itself.

A browser sends any page's requests to 127.0.0.1, and any name may be made to mean 127.0.0.1 (DNS rebinding). So the
Host has to be one of ours, and whatever changes something has to come from our own page: by its Origin, and by
Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/) where the browser sends it. Of Gradio's addresses only those the
page needs are let through, and of files only those inside the folders named at the start, links followed.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webui.places import Places

API = "/gradio_api"
FILE = f"{API}/file="
SHOWN_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
SENT_ENDINGS = (*SHOWN_ENDINGS, ".safetensors", ".json", ".yaml", ".txt", ".md", ".zip")
"""Files of a run or a set of pictures that may be sent; only pictures are shown, the others are saved."""

_READ = re.compile(
    rf"/(assets|static|svelte)/[^\\]*|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|logout)/?"
    rf"|{API}/(queue/data|heartbeat/[0-9a-z]+|startup-events|theme\.css|login_check|user|app_id|upload_progress"
    rf"|custom_component/.*)/?",
    re.ASCII,
)
_CHANGED = re.compile(rf"/login/?|{API}/(queue/join|cancel|reset|upload)/?", re.ASCII)

_PORT = re.compile(r":[0-9]{1,5}", re.ASCII)
_SHARED = ".gradio.live"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
}
_FILE_HEADERS = {"Content-Security-Policy": "default-src 'none'; sandbox"}


@dataclass(frozen=True)
class Names:
    """What the page may be asked for by, in lower case and without ports.

    Attributes:
        known: names and addresses.
        addresses: whether any address will do: rebinding needs a name. For a page that listens beyond this machine.
        shared: whether Gradio's public addresses will do.
    """

    known: frozenset[str]
    addresses: bool = False
    shared: bool = False

    def fit(self, host: str) -> bool:
        """Whether a Host header asks for this page."""
        if host.startswith("["):
            name, _, rest = host[1:].lower().partition("]")
            if rest and _PORT.fullmatch(rest) is None:
                return False
        else:
            name, colon, rest = host.lower().partition(":")
            if colon and _PORT.fullmatch(f":{rest}") is None:
                return False
        if name in self.known:
            return True
        return (self.shared and name.endswith(_SHARED)) or (self.addresses and _is_address(name))


class Guard:
    """ASGI middleware around the whole page."""

    def __init__(
        self, app: ASGIApp, *, places: Places, names: Names, pages: Iterable[str], max_body_bytes: int
    ) -> None:
        """Guard `app`.

        Args:
            app: what is behind.
            places: whose files may be sent.
            names: what it may be asked for by.
            pages: the addresses of its pages, without slashes.
            max_body_bytes: of what may be sent to it.
        """
        self.app = app
        self.places = places
        self.names = names
        self.pages = frozenset(pages)
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with why not."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = (421, "no websocket is served here") if scope["type"] != "http" else self.refusal(scope)
        if refusal is not None:
            status, reason = refusal
            await PlainTextResponse(f"atelier: {reason}\n", status, headers=_HEADERS)(scope, receive, send)
            return
        await self.app(scope, _Limited(receive, self.max_body_bytes), _with_headers(send, scope["path"]))

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the words a request is refused with; None lets it through."""
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self.names.fit(host):
            return 421, "this page is not served under that name"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return 403, "another site's page may not ask this one"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "another site's page may not ask this one"
        if method in ("GET", "HEAD"):
            return self._refusal_of_reading(path)
        if method != "POST" or _CHANGED.fullmatch(path) is None:
            return 404, "there is nothing here"
        if origin is None and headers.get("sec-fetch-site") != "same-origin":
            return 403, "only this page itself may do that: the request names no origin"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.max_body_bytes:
            return 413, f"at most {self.max_body_bytes} bytes may be sent at once"
        return None

    def _refusal_of_reading(self, path: str) -> tuple[int, str] | None:
        if path.startswith(FILE):
            return self._refusal_of_file(path.removeprefix(FILE))
        if path.strip("/") in self.pages or _READ.fullmatch(path):
            return None
        return 404, "there is nothing here"

    def _refusal_of_file(self, name: str) -> tuple[int, str] | None:
        path = Path(name)
        if "\0" in name or ".." in path.parts or not path.is_absolute():
            return 403, "this is no file of this page"
        if not name.lower().endswith(SENT_ENDINGS) or any(part.startswith(".") for part in path.parts[1:]):
            return 403, "files of this kind are not sent"
        shown = name.lower().endswith(SHOWN_ENDINGS)
        return None if self.places.is_served(path, shown=shown) else (403, "this is no file of this page")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Limited:
    """A request's body, cut off with an error where it is longer than it may be, whatever its header says."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self.receive, self.left = receive, max_bytes

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            self.left -= len(message.get("body", b""))
            if self.left < 0:
                return {"type": "http.disconnect"}
        return message


def _with_headers(send: Send, path: str) -> Send:
    """Add what every answer tells the browser: to guess no types, to be framed by none, to run no other's scripts."""
    is_file = path.startswith(FILE)
    added = {**_HEADERS, **(_FILE_HEADERS if is_file else {})}
    if is_file and not path.lower().endswith(SHOWN_ENDINGS):
        added["Content-Disposition"] = "attachment"
    names = {name.lower().encode() for name in added}

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name.lower() not in names]
            message["headers"] = [*kept, *((name.lower().encode(), value.encode()) for name, value in added.items())]
        await send(message)

    return send_with_headers
