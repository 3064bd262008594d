"""Storage options of an s3 root: those of s3fs, with the settings that a database needs."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from wal.errors import UnsupportedError

_CONNECT_TIMEOUT = 10.0  # seconds
_READ_TIMEOUT = 60.0  # seconds without a byte: the reply for a contended key can take long
_CONNECTIONS = 32
_SESSION = {"profile", "session_vars", "event_hooks", "include_builtin_handlers"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # where botocore looks
# Fixed here. `asynchronous`: this package runs s3fs in an event loop that it can abandon after a fork.
_DECIDED: dict[str, Any] = {
    "asynchronous": True,
    "use_listings_cache": False,  # a stale listing would show objects that another client has replaced
    "skip_instance_cache": True,  # a shared instance may have other settings, or be closed by others
    "max_concurrency": 1,
    "cache_regions": False,
}
_IGNORED = {"use_listings_cache", "skip_instance_cache", "max_concurrency", "cache_regions"}
# An older botocore silently drops conditions that it does not know, and every writer would win.
_CONDITIONS = {
    "PutObject": {"IfNoneMatch", "IfMatch"},
    "DeleteObject": {"IfMatch"},
    "CompleteMultipartUpload": {"IfNoneMatch", "IfMatch"},
    "UploadPartCopy": {"CopySourceIfMatch"},
}


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for `s3fs.S3FileSystem`. Raises TypeError for an option that s3fs does not know, ValueError for
    credentials in endpoint_url."""
    import s3fs

    # s3fs passes unknown keywords on to libraries that ignore them, so a misspelt one must be refused here.
    known = set(inspect.signature(s3fs.S3FileSystem.__init__).parameters) - {"self", "kwargs", "asynchronous", "loop"}
    unknown = sorted(set(options) - known - _SESSION - _IGNORED)
    if unknown:
        close = [name for option in unknown for name in difflib.get_close_matches(option, sorted(known | _SESSION), 1)]
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        raise TypeError(f"not an option of an s3 root: {', '.join(unknown)}{hint}")
    chosen = {key: value for key, value in options.items() if key not in _IGNORED}
    endpoint = endpoint_of(options)
    if "@" in urlsplit(endpoint).netloc:
        raise ValueError("endpoint_url holds credentials, which would be logged: pass them as key and secret")
    own_server = bool(endpoint or any(os.environ.get(name) for name in _ENDPOINTS))
    return {**chosen, "config_kwargs": _config(options.get("config_kwargs") or {}, own_server), **_DECIDED}


def endpoint_of(options: Mapping[str, Any]) -> str:
    """The server's URL, "" for the one that botocore finds by itself."""
    return str(options.get("endpoint_url") or (options.get("client_kwargs") or {}).get("endpoint_url") or "")


def _config(given: Mapping[str, Any], own_server: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "read_timeout": _READ_TIMEOUT,
        "max_pool_connections": _CONNECTIONS,
        "retries": {"total_max_attempts": 1},
    }
    if own_server:
        # Servers other than AWS: buckets have no host names of their own, and not all servers know the newer checksums.
        config["s3"] = {"addressing_style": "path"}
        config["request_checksum_calculation"] = config["response_checksum_validation"] = "when_required"
    if own_server and "s3" in given:
        given = {**given, "s3": {**config["s3"], **given["s3"]}}
    return {**config, **given}


@functools.cache
def check_botocore() -> None:
    """Raise UnsupportedError if this botocore would drop the conditions that every commit relies on."""
    import botocore
    import botocore.loaders

    shapes = botocore.loaders.Loader().load_service_model("s3", "service-2")["shapes"]
    for operation, needed in _CONDITIONS.items():
        missing = needed - set(shapes[f"{operation}Request"]["members"])
        if missing:
            raise UnsupportedError(
                f"botocore {botocore.__version__} does not know {', '.join(sorted(missing))} of {operation}: "
                "conditional writes would silently be unconditional; install a newer botocore (and aiobotocore)"
            )
