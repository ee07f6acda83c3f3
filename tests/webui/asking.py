"""Asks a page as its own script in a browser does: reads its parts, and calls its handlers."""

import http.client
import json
import time
import urllib.request
from typing import Any

from tests.webui.attacks import Target, request

_ANSWER_SECONDS = 4.0


def page_config(target: Target, page: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{target.origin}/{page}", timeout=10) as answer:
        text = answer.read().decode()
    start = text.index("window.gradio_config = ") + len("window.gradio_config = ")
    found: dict[str, Any] = json.JSONDecoder().raw_decode(text[start:])[0]
    return found


def call(
    target: Target, function: int, data: list[Any], session: str, *, patience_seconds: float = _ANSWER_SECONDS
) -> str:
    """Call a handler as the page's own script does, and return everything that is answered."""
    body = json.dumps({"data": data, "fn_index": function, "session_hash": session, "event_data": None}).encode()
    headers = {"Origin": target.origin, "Content-Type": "application/json"}
    joined = request(target, "POST", "/gradio_api/queue/join", headers, body)
    if joined.status != 200:
        return joined.body
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=patience_seconds)
    connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
    response, found, give_up = connection.getresponse(), "", time.monotonic() + patience_seconds
    try:
        while time.monotonic() < give_up and "process_completed" not in found and "close_stream" not in found:
            found += response.readline().decode("utf-8", "replace")
    except OSError:
        pass  # it is at work for longer than we wait
    finally:
        connection.close()
    return found
