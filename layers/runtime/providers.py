"""The stores that events come from and outputs go to, one class each: MinIO and S3, WebDAV (dCache), Onedata.

Their requests are those of OSCAR's supervisor. What they raise is of `layers.objects.errors`, or a StorageError that
says what the service's document lacks.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlsplit

from layers.objects.client import S3Client
from layers.runtime import storage
from layers.runtime.asking import Allowed, anywhere, asked
from layers.runtime.storage import OWN, Output, ServiceConfig, StorageError

if TYPE_CHECKING:
    from events.notifications import Notification

BLOCK = 1 << 20
REGION = re.compile(r"[a-z0-9-]+")
CDMI = {"X-CDMI-Specification-Version": "1.1.1"}


class Provider(Protocol):
    """A store, opened."""

    def fetch(self, found: "Notification", target: Path) -> None:
        """Write the object of a notification to `target`, which is whole or not there."""

    def send(self, source: Path, output: Output, path: str) -> None:
        """Store the file `source`, whose path below TMP_OUTPUT_DIR is `path`, where `output` says."""


class Providers(dict[str, Provider]):
    """The stores of a service, each opened once, when it is first asked for."""

    def __init__(self, config: ServiceConfig, allowed: Allowed = anywhere) -> None:
        super().__init__()
        self._config = config
        self._allowed = allowed

    @property
    def has_own(self) -> bool:
        """Whether there are credentials for the cluster's own store: a pod that serves `/run` has none."""
        try:
            self[OWN]
        except StorageError:
            return False
        return True

    def __missing__(self, name: str) -> Provider:
        self[name] = opened = open_provider(self._config, name, allowed=self._allowed)
        return opened


def open_provider(
    config: ServiceConfig, name: str, secrets: Path = storage.SECRETS, allowed: Allowed = anywhere
) -> Provider:
    """The store `type.id` of a service. Raises StorageError where its document does not describe it."""
    kind = name.partition(".")[0]
    known = config.provider(name)
    if kind == "minio":
        client = storage.client(config, secrets, name)
        if client is None:
            where = "mount minio.default" if name == OWN else f"describe it in storage_providers.{name}"
            raise StorageError(f"there are no credentials for the object storage {name} here; {where}")
        allowed(urlsplit(client.endpoint).hostname or "")
        client.allowed = allowed
        return _Buckets(client)
    if kind == "rucio":
        raise StorageError(
            f"{name}: Rucio is not spoken here; set file_stage_in: true, and let the script fetch and upload"
        )
    if known is None:
        raise StorageError(f"{name}: the service does not describe this store; add storage_providers.{name}")
    if kind == "s3":
        region = str(known.get("region") or "us-east-1")
        access, secret = _texts(name, known, "access_key", "secret_key")
        if not REGION.fullmatch(region):
            raise StorageError(f'storage_providers.{name}.region: is no region of Amazon\'s; write "us-east-1"')
        return _Buckets(S3Client(_s3_endpoint(region), access, secret, region=region))
    if kind == "webdav":
        return _WebDav(allowed, *_texts(name, known, "hostname", "login", "password"))
    if kind == "onedata":
        return _Onedata(allowed, *_texts(name, known, "oneprovider_host", "token", "space"))
    raise StorageError(f"{name}: there is no such kind of store; write minio, s3, onedata or webdav")


def _texts(name: str, known: Mapping[str, Any], *fields: str) -> list[str]:
    for field in fields:
        if not known.get(field):
            raise StorageError(f"storage_providers.{name}.{field}: is empty; fill it in")
    return [str(known[field]) for field in fields]


def _s3_endpoint(region: str) -> str:
    """Amazon's, unless the variables of its own tools name another."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return named or f"https://s3.{region}.amazonaws.com"


class _Buckets:
    """MinIO, S3."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def fetch(self, found: "Notification", target: Path) -> None:
        self._client.get(found.bucket, found.key, target)

    def send(self, source: Path, output: Output, path: str) -> None:
        self._client.put(output.bucket, output.key(path), source)


class _WebDav:
    """A WebDAV server, such as dCache's door; folders are made where they are missing."""

    def __init__(self, allowed: Allowed, hostname: str, login: str, password: str) -> None:
        self._root = f"https://{hostname}"
        self._how: dict[str, Any] = {"allowed": allowed, "auth": (login, password)}

    def fetch(self, found: "Notification", target: Path) -> None:
        _download(f"{self._root}/{quote(found.key.lstrip('/'))}", target, **self._how)

    def send(self, source: Path, output: Output, path: str) -> None:
        whole = f"{output.bucket}/{output.key(path)}"
        url = f"{self._root}/{quote(whole)}"
        if _upload(url, source, **self._how):
            return
        for folder in _folders(whole):
            with asked("MKCOL", f"{self._root}/{quote(folder)}", accept=(403, 405), **self._how):
                pass  # it is there, or above what we may write
        _upload(url, source, last=True, **self._how)


class _Onedata:
    """A space of Onedata, through CDMI."""

    def __init__(self, allowed: Allowed, host: str, token: str, space: str) -> None:
        self._root = f"https://{host}/cdmi"
        self._space = space
        self._headers = {"X-Auth-Token": token}
        self._allowed = allowed

    def fetch(self, found: "Notification", target: Path) -> None:
        _download(
            f"{self._root}/{quote(f'{found.bucket}/{found.key}')}", target, allowed=self._allowed, headers=self._headers
        )

    def send(self, source: Path, output: Output, path: str) -> None:
        whole = f"{output.bucket}/{output.key(path)}"
        url = f"{self._root}/{quote(f'{self._space}/{whole}')}"
        if _upload(url, source, allowed=self._allowed, headers=self._headers):
            return
        for folder in _folders(whole):
            above = f"{self._root}/{quote(f'{self._space}/{folder}')}/"
            with asked("GET", above, accept=(404,), allowed=self._allowed, headers={**CDMI, **self._headers}) as answer:
                missing = answer.status_code == 404
            if missing:
                with asked("PUT", above, allowed=self._allowed, headers=self._headers):
                    pass
        _upload(url, source, last=True, allowed=self._allowed, headers=self._headers)


def _folders(path: str) -> list[str]:
    """The folders above a path, outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def _download(url: str, target: Path, **how: Any) -> None:
    with asked("GET", url, **how) as answer:
        try:
            with target.open("wb") as file:
                for block in answer.iter_content(BLOCK):
                    file.write(block)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _upload(url: str, source: Path, *, last: bool = False, **how: Any) -> bool:
    """Store a file; False where the folder above it is not there, which is an error the `last` time."""
    missing = (404, 409)
    with source.open("rb") as file, asked("PUT", url, accept=() if last else missing, body=file, **how) as answer:
        return answer.status_code not in missing
