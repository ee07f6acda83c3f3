"""How a decoding process and its parent talk: a JSON object and, behind it, some bytes. Both sides use this.

No pickle: a process that a hostile picture has taken over must not be able to make its parent run anything.
"""

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

_HEADER = struct.Struct("<IQ")
_MAX_OBJECT_BYTES = 2**20


class MessageError(Exception):
    """What came is no message: the other side is gone, or not itself."""


def write_message(stream: IO[bytes], message: Mapping[str, Any], payload: bytes = b"") -> None:
    """Write one message and flush.

    Args:
        stream: where to.
        message: anything JSON can hold.
        payload: bytes that go with it.
    """
    text = json.dumps(message).encode("ascii")
    stream.write(_HEADER.pack(len(text), len(payload)) + text)
    if payload:
        stream.write(payload)
    stream.flush()


def read_message(stream: IO[bytes], max_payload_bytes: int) -> tuple[dict[str, Any], bytes]:
    """Read one message; wait until it is there.

    Args:
        stream: where from.
        max_payload_bytes: more than this is no message.

    Raises:
        EOFError: the stream has ended, at the beginning of a message or within one.
        MessageError: it is no message.
    """
    text_length, payload_length = _HEADER.unpack(_read_exactly(stream, _HEADER.size))
    if text_length > _MAX_OBJECT_BYTES or payload_length > max_payload_bytes:
        raise MessageError(f"a message of {text_length} + {payload_length} bytes is longer than any")
    try:
        message = json.loads(_read_exactly(stream, text_length))
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise MessageError(f"{type(message).__name__}, not an object")
    return message, _read_exactly(stream, payload_length)


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError("the stream has ended")
    return content
