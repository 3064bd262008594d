"""fsspec's WebHDFS filesystem with time-outs for every request, which it lacks."""

from __future__ import annotations

from typing import Any

from wal.errors import UnsupportedError
from wal.storage.webhdfs_url import Address


def make_filesystem(address: Address) -> Any:
    """A filesystem with connections of its own. Raises UnsupportedError without the package requests.

    Imports are here because fsspec and requests take 0.1 s.
    """
    try:
        from fsspec.implementations.webhdfs import WebHDFS
        from requests.adapters import HTTPAdapter
    except ImportError as error:
        raise UnsupportedError("webhdfs:// needs the package requests: pip install 'metatreedb[hdfs]'") from error

    class PatientAdapter(HTTPAdapter):
        """Sends each request once, with time-outs."""

        def send(self, *arguments: Any, **options: Any) -> Any:
            options["timeout"] = (address.connect_timeout, address.read_timeout)
            return super().send(*arguments, **options)

    filesystem = WebHDFS(address.host, port=address.port, skip_instance_cache=True, **address.options)
    filesystem.session.mount("http://", PatientAdapter(max_retries=0))
    filesystem.session.mount("https://", PatientAdapter(max_retries=0))
    return filesystem
