"""The address of a WebHDFS root, from a URL and options, and paths of names below it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

PORT = 9870  # of Hadoop 3; fsspec's default, 50070, is Hadoop 2's
# The options of fsspec's WebHDFS, which silently ignores all others, even misspelt ones.
_OPTIONS = frozenset(
    {
        *("user", "password", "token", "proxy_to", "kerberos", "kerb_kwargs"),
        *("data_proxy", "use_https", "session_cert", "session_verify"),
    }
)


@dataclass(frozen=True, slots=True)
class Address:
    """A NameNode, and the options for connecting to it."""

    host: str
    port: int
    path: str  # of the root: begins with "/", and ends with one only if it is "/"
    options: Mapping[str, Any]  # for fsspec
    connect_timeout: float  # seconds
    read_timeout: float  # seconds without a byte

    @property
    def url(self) -> str:
        """The URL without user and secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"webhdfs://{host}:{self.port}{self.path}"

    def secrets(self) -> list[str]:
        """Texts that no message may show."""
        return [str(self.options[name]) for name in ("token", "password") if self.options.get(name)]

    def join(self, name: str) -> str:
        """The path of a name below the root."""
        return f"{self.path.rstrip('/')}/{name}" if name else self.path


def parse(url: str, options: Mapping[str, Any]) -> Address:
    """`webhdfs://host:port/path`, or `webhdfs:///path` with `host` and `port` among the options.

    `connect_timeout` (10) and `read_timeout` (60) are seconds; all other options are fsspec's. Raises ValueError for a
    URL that cannot be a root, TypeError for unknown options.
    """
    parts = urlsplit(url)
    rest = dict(options)
    host = parts.hostname or rest.pop("host", None)
    port = parts.port or rest.pop("port", None) or PORT
    for name, given in (("host", parts.hostname), ("port", parts.port)):
        if given is not None and rest.get(name, given) != given:
            raise ValueError(f"the URL and the options name different values for {name}")
        rest.pop(name, None)
    for name, value in (("user", parts.username), ("password", parts.password)):
        if value is not None:
            rest.setdefault(name, unquote(value))
    timeouts = float(rest.pop("connect_timeout", 10.0)), float(rest.pop("read_timeout", 60.0))
    unknown = sorted(set(rest) - _OPTIONS)
    if unknown:
        raise TypeError(f"unknown options for a webhdfs root: {', '.join(unknown)}")
    if not isinstance(host, str) or not host:
        raise ValueError("a webhdfs root needs a host: webhdfs://host:port/path, or the option host=")
    if parts.query or parts.fragment:
        raise ValueError("a webhdfs root is a plain path, without ? and #")
    return Address(host, int(port), _root(unquote(parts.path)), rest, *timeouts)


def _root(path: str) -> str:
    segments = [segment for segment in path.split("/") if segment]
    if not path.startswith("/") or any(segment in (".", "..", ".reserved") for segment in segments):
        raise ValueError(f"not an absolute path on HDFS: {path!r}")
    return "/" + "/".join(check_segments(segments))


def check_name(name: str) -> list[str]:
    """The segments of a name below the root; "" is the root and has none.

    Raises ValueError for a name that could lead elsewhere, or that HDFS refuses.
    """
    if not name:
        return []
    segments = name.split("/")
    if "\0" in name or any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(f"not a name below the root: {name!r}")
    return check_segments(segments)


def check_segments(segments: list[str]) -> list[str]:
    """The same segments. Raises ValueError for one that HDFS refuses."""
    for segment in segments:
        if ":" in segment:
            raise ValueError(f"HDFS allows no colon in a name: {segment!r}")
        if segment in (".reserved", ".snapshot"):
            raise ValueError(f"HDFS reserves this name: {segment!r}")
    return segments


def below(folder: str, name: str) -> str:
    """`name` relative to the folder it lies in. Raises ValueError if it does not."""
    segments, above = check_name(name), check_name(folder)
    if len(segments) <= len(above) or segments[: len(above)] != above:
        raise ValueError(f"{name!r} is not below {folder!r}")
    return "/".join(segments[len(above) :])
