"""Files by path or by address: what a pattern names, and reading any part of one. Addresses are `fsspec`'s.

Nothing is opened but what the pattern names, and nothing is kept on this machine.
"""

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from imagesets.errors import PictureError, SourceError

MAX_FILES = 100_000
"""More names than any set has shards: braces with a slip of the pen must not fill the memory."""

_END_BYTES = 2**16
_HTTP_NOT_FOUND = 404
_QUERY = re.compile(r"(?<=://)([^\s'\"?]*)\?[^\s'\"]*")
_USER = re.compile(r"//[^\s/'\"@]*@")
_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")
_PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "http": "'fsspec[http]'",
    "https": "'fsspec[http]'",
    "abfs": "adlfs",
}
"""What opens addresses of a protocol, beside `fsspec`."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a file, read when it is called.

    Attributes:
        address: the file's path or address.
        offset: where the part begins, in bytes.
        size: how many bytes it has; -1 to the end.
    """

    address: str
    offset: int
    size: int

    def __call__(self) -> bytes:
        """Return the bytes.

        Raises:
            PictureError: the file cannot be read, or is shorter now.
        """
        try:
            with open_address(self.address) as file:
                file.seek(self.offset)
                content = bytes(file.read(self.size))
        except SourceError as error:
            raise PictureError(str(error)) from error
        except (OSError, ValueError) as error:
            raise PictureError(f"{shown_address(self.address)} cannot be read: {_said(error)}") from error
        if self.size >= 0 and len(content) != self.size:
            raise PictureError(f"{shown_address(self.address)} is shorter than it was. Start again")
        return content


def is_remote(address: str) -> bool:
    """Whether it is an address for `fsspec` rather than a path on this machine."""
    return "://" in address


def shown_address(address: str) -> str:
    """Return an address without what may be secret in it: a user's password, or a signature behind a '?'."""
    if not is_remote(address):
        return address
    protocol, _, rest = address.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{protocol}://{host.rpartition('@')[2]}{slash}{path}"


def name_of(address: str) -> str:
    """Return the last part of a path or address."""
    return shown_address(address).replace(os.sep, "/").rpartition("/")[2]


def expand(pattern: str, endings: tuple[str, ...]) -> list[str]:
    """Return the files a pattern names, in its order: braces as in `a-{000..127}.tar`, then `*` and `?`; or a folder.

    Args:
        pattern: a path, or an address that `fsspec` opens.
        endings: of the files that are taken where it names a folder.

    Raises:
        SourceError: it names nothing, or too much.
    """
    from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

    ranges = [abs(int(last) - int(first)) for first, last in _RANGE.findall(pattern)]
    try:
        # The library makes a range whole before it gives its first name.
        patterns = [] if max(ranges, default=0) > MAX_FILES else list(islice(braceexpand(pattern), MAX_FILES + 1))
    except UnbalancedBracesError as error:
        raise SourceError(f"{shown_address(pattern)!r} has a brace without its partner") from error
    if not 0 < len(patterns) <= MAX_FILES:
        raise SourceError(f"{shown_address(pattern)!r} names more than {MAX_FILES} files")
    found = [name for each in patterns for name in (_remote(each) if is_remote(each) else _local(each, endings))]
    if not found:
        if not is_remote(pattern) and Path(pattern).is_dir():
            raise SourceError(f"the folder {pattern} holds no {endings[0]} file")
        raise SourceError(f"{shown_address(pattern)!r} names no file that is there")
    return found


def _local(pattern: str, endings: tuple[str, ...]) -> list[str]:
    """Return what a pattern without braces names; a name without `*` or `?` is itself, so that it is missed by name."""
    if Path(pattern).is_dir():
        return sorted(str(path) for path in Path(pattern).iterdir() if path.name.endswith(endings))
    if glob.has_magic(pattern) and not Path(pattern).exists():
        anchor = Path(pattern).anchor
        return sorted(str(path) for path in Path(anchor or ".").glob(pattern.removeprefix(anchor)))
    return [pattern]


def _remote(pattern: str) -> list[str]:
    if not glob.has_magic(pattern.partition("?")[0].replace("?", "")):
        return [pattern]  # a '?' in an address begins its query
    with _opening(pattern):
        import fsspec

        system, path = fsspec.core.url_to_fs(pattern)
        return sorted(system.unstrip_protocol(name) for name in system.glob(path))


def brief_facts(address: str) -> tuple[int, str] | None:
    """Return the size and a hash of both ends of a file on this machine, which tell it from most others at once.

    None for an address, which would have to be asked, or where the file cannot be read.
    """
    if is_remote(address):
        return None
    try:
        with Path(address).open("rb") as file:
            beginning = file.read(_END_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END_BYTES))
            return size, hashlib.sha256(beginning + file.read(_END_BYTES)).hexdigest()
    except OSError:
        return None


@contextmanager
def open_address(address: str) -> Iterator[IO[bytes]]:
    """Open a file for reading at any place.

    Raises:
        SourceError: it is not there or cannot be opened.
    """
    with _opening(address):
        if is_remote(address):
            import fsspec

            opened: Any = fsspec.open(address, "rb")
            file = opened.open()
        else:
            file = Path(address).open("rb")  # noqa: SIM115  # it is closed below
    with file:
        yield file


@contextmanager
def _opening(address: str) -> Iterator[None]:
    """Put what stands against opening an address into words."""
    shown = shown_address(address)
    protocol = address.partition("://")[0]
    try:
        yield
    except FileNotFoundError as error:
        # A server that cannot be reached is told as a missing file, too, with what went wrong as its cause.
        cause: BaseException | None = error
        while isinstance(cause, FileNotFoundError):
            cause = cause.__cause__
        if cause is not None and getattr(cause, "status", None) != _HTTP_NOT_FOUND:
            raise SourceError(f"{shown} cannot be opened: {_said(cause)}") from error
        raise SourceError(f"{shown} does not exist") from error
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        remedy = f"pip install {package}" if package else _said(error)
        raise SourceError(f"{shown}: addresses with {protocol}:// need another package: {remedy}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{shown} cannot be opened: {_said(error)}") from error
    # A server's library has errors of its own kind for a refused connection or a wrong password.
    except Exception as error:
        if not is_remote(address):
            raise
        raise SourceError(f"{shown} cannot be opened: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """Return an error's first line; what may be secret in an address, which libraries repeat, is taken out."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return _USER.sub("//", _QUERY.sub(r"\1", line))
