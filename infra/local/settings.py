"""What a cluster is told at its start, and the credentials that its data folder keeps."""

import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

REGION = "us-east-1"
CREDENTIALS = "credentials.json"
_NAMES = {
    "oscar_username": "OSCAR_USERNAME",
    "oscar_password": "OSCAR_PASSWORD",
    "minio_access_key": "MINIO_ACCESS_KEY",
    "minio_secret_key": "MINIO_SECRET_KEY",
    "events_token": "DIOSCAR_EVENTS_TOKEN",
}
EXTERNAL = "DIOSCAR_S3_EXTERNAL"
EVENTS_ARN = "DIOSCAR_EVENTS_ARN"
RECONCILE = "DIOSCAR_RECONCILE_SECONDS"
RECONCILE_S = 60.0


@dataclass(frozen=True)
class Credentials:
    """Basic auth of OSCAR's API, the root keys of the object store, and what an external one bears with its events."""

    oscar_username: str
    oscar_password: str
    minio_access_key: str
    minio_secret_key: str
    events_token: str = ""


@dataclass(frozen=True)
class StoreAddress:
    """The object store as clients and services are told of it."""

    endpoint: str
    region: str = REGION
    verify: bool = False
    """Whether the certificate of an `https` endpoint is checked."""


@dataclass(frozen=True)
class ExternalSettings:
    """Another store than the built-in one: where it is, and how it is heard of what happens there."""

    address: StoreAddress
    arn: str = "arn:minio:sqs::DIOSCAR:webhook"
    """The store's own name for the webhook that posts to this cluster."""
    reconcile_s: float = RECONCILE_S
    """Seconds between two listings of the mailboxes."""


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0 is any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `HOST:PORT`. Raises ValueError with the mend."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(f'"{text}" is no address; write HOST:PORT, e.g. 127.0.0.1:8080')
        return cls(host.strip("[]"), int(port))

    @property
    def url(self) -> str:
        """The address as an HTTP URL."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def credentials(data: Path, environ: Mapping[str, str]) -> Credentials:
    """Those of the environment (the names are the real server's), else those kept in `data`, else new ones, kept."""
    path = data / CREDENTIALS
    kept: dict[str, str] = {}
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
    generated = {
        "oscar_username": "oscar",
        "oscar_password": secrets.token_urlsafe(24),
        "minio_access_key": "minio",
        "minio_secret_key": secrets.token_urlsafe(30),
        "events_token": secrets.token_urlsafe(30),
    }
    values = {name: environ.get(variable) or kept.get(name) or generated[name] for name, variable in _NAMES.items()}
    found = Credentials(**values)
    write_private(path, json.dumps(asdict(found), indent=2) + "\n")
    return found


def domains(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The domains below which a host name is a bucket's: MinIO's own variable `MINIO_DOMAIN`, and `localhost`."""
    named = (one.strip() for one in environ.get("MINIO_DOMAIN", "").split(","))
    return ("localhost", *filter(None, named))


def external_store(given: str, environ: Mapping[str, str]) -> ExternalSettings | None:
    """The external store that `given` or the environment names, if any. Raises ValueError, naming the setting."""
    endpoint = (given or environ.get(EXTERNAL, "")).strip().rstrip("/")
    if not endpoint:
        return None
    _check_endpoint("--s3-external" if given else EXTERNAL, endpoint)
    for name in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        if not environ.get(name):
            raise ValueError(f"{name}: is not set; {endpoint} asks for the keys that it knows")
    arn = environ.get(EVENTS_ARN, "") or ExternalSettings.arn
    if len(arn.split(":")) != 6 or not arn.startswith("arn:"):
        raise ValueError(f'{EVENTS_ARN}: "{arn}" is no ARN; write "{ExternalSettings.arn}"')
    verify = environ.get("MINIO_TLS_VERIFY", "true").strip().lower() not in ("false", "0", "no")
    address = StoreAddress(endpoint, environ.get("MINIO_REGION") or REGION, verify)
    return ExternalSettings(address, arn, _period(environ.get(RECONCILE, "")))


def _check_endpoint(name: str, endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if valid and "@" in parts.netloc:
        raise ValueError(f"{name}: has keys in it; put them into MINIO_ACCESS_KEY and MINIO_SECRET_KEY")
    if not valid or parts.path or parts.query:
        raise ValueError(f'{name}: "{endpoint}" is no S3 endpoint; write "http://HOST:PORT" or "https://HOST"')


def _period(text: str) -> float:
    try:
        seconds = float(text or RECONCILE_S)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 86_400:
        raise ValueError(f'{RECONCILE}: "{text}" is no number of seconds between 0.1 and 86400; write e.g. 60')
    return seconds


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:  # noqa: PTH123
        stream.write(text)
    part.replace(path)
