"""Converts names to keys and back, and the engine's attribute to a header and back. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from wal.storage.rooted import split

ATTRIBUTE = "metatree"  # the user metadata that carries the engine's attribute
TOKEN = "metatree-token"  # noqa: S105 - a key of metadata: it tells a writer its own object
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_SAFE = "{}[]\":,'!#$&()*+-./;<=>?@^_`|~\\"  # needs no quoting in a header: all printable characters except % and space
_EMPTY = "%"  # for an empty attribute, since proxies may drop an empty header; no other value encodes to it


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and the prefix in it that serves as the root."""

    bucket: str
    prefix: str  # ends in "/", or is empty for the whole bucket

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """The key of `name`. Raises ValueError for a name that could lead elsewhere, and for the root."""
        if not name:
            raise ValueError("the root itself is not an object")
        return self.prefix + checked(name)

    def below(self, name: str) -> str:
        """The prefix of the keys below the folder `name`; "" is the root."""
        return self.prefix + f"{checked(name)}/" if name else self.prefix

    def name(self, key: str) -> str | None:
        """The name of a key below the root; None if it is not valid as a name here (such as a folder marker)."""
        name = key[len(self.prefix) :]
        return name if key.startswith(self.prefix) and is_name(name) else None

    def describe(self, name: str) -> str:
        """The URL of `name`, for messages."""
        return f"s3://{self.bucket}/{self.prefix}{name}"


def parse_url(url: str) -> Place:
    """`s3://bucket` or `s3://bucket/prefix`. Raises ValueError for anything else."""
    scheme, separator, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    # The message does not repeat the URL, which may hold a password before an `@`.
    if scheme.lower() not in ("s3", "s3a") or not separator or not _BUCKET.fullmatch(bucket):
        raise ValueError("not the URL of a place in a bucket: s3://bucket/prefix is expected")
    prefix = prefix.strip("/")
    return Place(bucket, f"{checked(prefix)}/" if prefix else "")


def checked(name: str) -> str:
    """`name`, if it stays below the root. Raises ValueError.

    A backslash is refused too: SeaweedFS stores `a\\b` as `a/b`, so `..\\x` would lead out of the root.
    """
    split(name)
    if "\\" in name:
        raise ValueError(f"not a name below the root: {name!r}")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"not a name below the root: {name!r}") from error
    return name


def is_name(name: str) -> bool:
    try:
        return bool(checked(name))
    except ValueError:
        return False


def to_header(attribute: bytes) -> str:
    """An attribute as the value of a header: printable ASCII without spaces, JSON nearly as it is."""
    return quote_from_bytes(attribute, safe=_SAFE) if attribute else _EMPTY


def from_header(value: str | None) -> bytes | None:
    """The attribute; None if there is none."""
    if value is None:
        return None
    return b"" if value == _EMPTY else unquote_to_bytes(value)
