"""The object storage of the cluster that runs this job, with the credentials that OSCAR mounts in it."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layers.objects.client import S3Client

CONFIG = Path("/oscar/config/function_config.yaml")
SECRETS = Path("/var/run/secrets/providers")


class StorageError(Exception):
    """The job's own object storage cannot be used; the message says what is missing."""


@dataclass(frozen=True)
class Output:
    """One entry of the service's `output`: where files go whose path below `out/` passes the filters."""

    bucket: str
    folder: str
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        """Whether a file at `path` (relative to TMP_OUTPUT_DIR) belongs here; an empty filter takes all."""
        return (not self.prefixes or path.startswith(self.prefixes)) and (
            not self.suffixes or path.endswith(self.suffixes)
        )

    def key(self, path: str) -> str:
        """The object key of the file at `path`."""
        return f"{self.folder}/{path}".lstrip("/")


@dataclass(frozen=True)
class ServiceConfig:
    """What the runtime reads of the service's own document."""

    name: str = ""
    outputs: tuple[Output, ...] = ()
    minio: Mapping[str, Any] = field(default_factory=dict)
    file_stage_in: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


def read_config(environ: Mapping[str, str], path: Path = CONFIG) -> ServiceConfig:
    """The service document, mounted by OSCAR or passed (base64) in `FUNCTION_CONFIG`; empty where there is neither."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif "FUNCTION_CONFIG" in environ:
        text = base64.b64decode(environ["FUNCTION_CONFIG"]).decode()
    else:
        return ServiceConfig()
    import yaml

    document = yaml.safe_load(text) or {}
    providers = document.get("storage_providers") or {}
    return ServiceConfig(
        name=str(document.get("name") or ""),
        outputs=tuple(output_of(entry) for entry in document.get("output") or []),
        minio=(providers.get("minio") or {}).get("default") or {},
        file_stage_in=bool(document.get("file_stage_in")),
        variables=(document.get("environment") or {}).get("variables") or {},
    )


def output_of(entry: Mapping[str, Any]) -> Output:
    """An `output` entry of a service document; only its first path segment is the bucket."""
    bucket, _, folder = str(entry.get("path") or "").strip("/ ").partition("/")
    return Output(bucket, folder, tuple(entry.get("prefix") or ()), tuple(entry.get("suffix") or ()))


def client(config: ServiceConfig, secrets: Path = SECRETS) -> S3Client | None:
    """A client with the mounted credentials (or, as the supervisor before 1.6 has them, those of the document).

    None where the job has no credentials, as in a pod that serves `/run`.
    """
    endpoint = str(config.minio.get("endpoint") or "")
    mount = secrets / "minio.default"
    if (mount / "accessKey").is_file():
        access, secret = ((mount / name).read_text(encoding="utf-8").strip() for name in ("accessKey", "secretKey"))
    else:
        access, secret = (str(config.minio.get(name) or "") for name in ("access_key", "secret_key"))
    if not endpoint or not access or access == "hidden":
        return None
    return S3Client(
        endpoint,
        access,
        secret,
        region=str(config.minio.get("region") or "us-east-1"),
        verify=bool(config.minio.get("verify", True)),
    )
