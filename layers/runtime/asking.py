"""One HTTP request to a store that a service describes, and whom it may go to.

Whoever asks for somebody else says which hosts may be asked: it is called with the name in the URL, with every name
that a redirection leads to, and with the address at the other end of a connection before anything is said there, since
a name may mean another address the second time it is looked up.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from layers.objects.errors import AccessRefused, NoSuchObject, ObjectError, StoreUnavailable

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

CONNECT_S, SILENCE_S = 10.0, 60.0

Allowed = Callable[[str], None]
"""Raises StorageError for a host, or an address, that is not to be asked."""


def anywhere(host: str) -> None:
    """What runs in its own pod may ask whom it likes."""


@contextmanager
def asked(
    method: str,
    url: str,
    *,
    allowed: Allowed,
    accept: tuple[int, ...] = (),
    body: IO[bytes] | None = None,
    **how: Any,
) -> "Iterator[requests.Response]":
    """The answer to one request, its body not yet read; a status of 300 and more raises, unless it is accepted."""
    import requests

    data = body if body is None or os.fstat(body.fileno()).st_size else b""  # what is empty would be sent in chunks
    how = {"auth": _nobody, **how}
    try:
        with requests.Session() as session:
            session.mount("http://", _guarded(allowed))
            session.mount("https://", _guarded(allowed))
            with session.request(method, url, data=data, stream=True, timeout=(CONNECT_S, SILENCE_S), **how) as answer:
                if answer.status_code >= 300 and answer.status_code not in accept:
                    raise _refusal(f"{method} {url}: answered {answer.status_code} {answer.reason}", answer.status_code)
                yield answer
    except requests.RequestException as error:
        raise StoreUnavailable(f"{method} {url}: {error}") from None


def _nobody(request: "requests.PreparedRequest") -> "requests.PreparedRequest":
    """So that no password of a .netrc is sent to a host that a service names."""
    return request


def _guarded(allowed: Allowed) -> "HTTPAdapter":
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    def checked(connection: HTTPConnection, opened: socket) -> socket:
        if connection.proxy is None:  # which is of the operator's choice, and looks names up itself
            try:
                allowed(str(opened.getpeername()[0]))
            except BaseException:
                opened.close()
                raise
        return opened

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket:
            return checked(self, super()._new_conn())

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket:
            return checked(self, super()._new_conn())

    class Guarded(HTTPAdapter):
        """Every request passes here, those that a redirection asks for among them."""

        def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
            super().init_poolmanager(*arguments, **more)
            self.poolmanager.pool_classes_by_scheme = {
                "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": Plain}),
                "https": type("Pool", (HTTPSConnectionPool,), {"ConnectionCls": Secure}),
            }

        def send(self, request: "requests.PreparedRequest", *arguments: Any, **more: Any) -> "requests.Response":
            allowed(urlsplit(request.url or "").hostname or "")
            return super().send(request, *arguments, **more)

    return Guarded()


def _refusal(message: str, status: int) -> ObjectError:
    if status == 404:
        return NoSuchObject(message, status=status)
    if status in (401, 403):
        return AccessRefused(message, status=status)
    return (StoreUnavailable if status >= 500 else ObjectError)(message, status=status)
