"""What a cluster is told at its start, and the credentials that its data folder keeps."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

REGION = "us-east-1"
CREDENTIALS = "credentials.json"
_NAMES = {
    "oscar_username": "OSCAR_USERNAME",
    "oscar_password": "OSCAR_PASSWORD",
    "minio_access_key": "MINIO_ACCESS_KEY",
    "minio_secret_key": "MINIO_SECRET_KEY",
}


@dataclass(frozen=True)
class Credentials:
    """Basic auth of OSCAR's API, and the root keys of the object store."""

    oscar_username: str
    oscar_password: str
    minio_access_key: str
    minio_secret_key: str


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
    }
    values = {name: environ.get(variable) or kept.get(name) or generated[name] for name, variable in _NAMES.items()}
    found = Credentials(**values)
    write_private(path, json.dumps(asdict(found), indent=2) + "\n")
    return found


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:  # noqa: PTH123
        stream.write(text)
    part.replace(path)
