"""What the runtime reads of a service's document: its outputs, its stores and the credentials for them.

The cluster's own store is the provider `minio.default`; its credentials are those that OSCAR mounts in the job.
"""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layers.objects.client import S3Client
from layers.objects.errors import ObjectError
from layers.runtime.contract import InputError
from layers.runtime.podstore import PodStore, is_pod

if TYPE_CHECKING:
    from events.notifications import Notification

ROOT = os.environ.get("DIOSCAR_POD_ROOT", "")
"""Where a pod that is a plain process has its mounts; in a container they are where Kubernetes puts them."""
CONFIG = Path(f"{ROOT}/oscar/config/function_config.yaml")
SECRETS = Path(f"{ROOT}/var/run/secrets/providers")
OWN = "minio.default"


class StorageError(Exception):
    """A store cannot be used; the message says what is missing."""


@dataclass(frozen=True)
class Output:
    """One entry of the service's `output`: where files go whose path below `out/` passes the filters."""

    bucket: str
    folder: str
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    provider: str = OWN

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
    """What the runtime reads of the service's own document; `inputs` are pairs of provider and path."""

    name: str = ""
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: tuple[Output, ...] = ()
    providers: Mapping[str, Any] = field(default_factory=dict)
    file_stage_in: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "INFO"
    private_buckets: tuple[str, ...] = ()

    def provider(self, name: str) -> Mapping[str, Any] | None:
        """What the document says of the store `type.id`; None where it does not describe it."""
        kind, _, identifier = name.partition(".")
        found = (self.providers.get(kind) or {}).get(identifier)
        return found if isinstance(found, dict) else None

    def located(self, found: "Notification") -> "Notification":
        """The notification with what the service's own document knows of its store.

        A dCache event says nothing of the folder, an Onedata event nothing of the provider. Raises InputError where
        no input of the service fits.
        """
        kind = found.provider.partition(".")[0]
        if kind == "webdav":
            folders = [path for provider, path in self.inputs if provider == found.provider]
            if not folders:
                raise InputError(f"{found.key}: the event is dCache's; give the service an input {found.provider}")
            return replace(found, key=f"{folders[0]}/{found.key}")
        if kind == "onedata":
            for provider, _ in self.inputs:
                known = self.provider(provider) or {}
                if provider.startswith("onedata.") and known.get("space") == found.bucket:
                    return replace(found, provider=provider)
            spaces = self.providers.get("onedata") or {}
            for identifier, known in spaces.items():
                if isinstance(known, dict) and known.get("space") == found.bucket:
                    return replace(found, provider=f"onedata.{identifier}")
            raise InputError(f"{found.bucket}: no storage provider of the service has this space of Onedata; add it")
        if kind == "s3" and self.provider(found.provider) is None:
            return replace(found, provider=OWN)  # many a store gives itself out for Amazon's
        return found

    def mailbox(self, bucket: str) -> tuple[str, str]:
        """Provider and name of the bucket that is the service's own: its input's, that of the event before others.

        Empty where no MinIO has it, and where it is an input as a whole: what is put there would run the service.
        """
        inputs = [(provider, *_bucket_and_folder(path)) for provider, path in self.inputs]
        outputs = [(output.provider, output.bucket, output.folder) for output in self.outputs]
        for provider, own, folder in (*sorted(inputs, key=lambda one: one[1] != bucket), *outputs):
            if provider.startswith("minio.") and folder and (provider, own, "") not in inputs:
                return provider, bucket if bucket in self.private_buckets else own
        return "", ""

    def outputs_of(self, found: "Notification | None") -> tuple[Output, ...]:
        """Where the outputs of a run go: with `isolation_level: USER`, to the bucket that the event came from."""
        if found is None or found.bucket not in self.private_buckets:
            return self.outputs
        return tuple(
            replace(output, bucket=found.bucket) if output.provider.startswith("minio.") and output.folder else output
            for output in self.outputs
        )


def read_config(environ: Mapping[str, str], path: Path = CONFIG) -> ServiceConfig:
    """The service document, mounted by OSCAR or passed (base64) in `FUNCTION_CONFIG`; empty where there is neither."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
    elif "FUNCTION_CONFIG" in environ:
        text = base64.b64decode(environ["FUNCTION_CONFIG"]).decode()
    else:
        return ServiceConfig(log_level=environ.get("LOG_LEVEL") or "INFO")
    import yaml

    document = yaml.safe_load(text) or {}
    level = environ.get("LOG_LEVEL")
    return config_of({**document, "log_level": level} if level else document)


def config_of(document: Mapping[str, Any]) -> ServiceConfig:
    """What the runtime needs of a service's document."""
    isolated = str(document.get("isolation_level") or "").upper() == "USER"
    return ServiceConfig(
        name=str(document.get("name") or ""),
        inputs=tuple((_provider(entry), _path(entry)) for entry in document.get("input") or []),
        outputs=tuple(output_of(entry) for entry in document.get("output") or []),
        providers=document.get("storage_providers") or {},
        file_stage_in=bool(document.get("file_stage_in")),
        variables=(document.get("environment") or {}).get("variables") or {},
        log_level=str(document.get("log_level") or "INFO").upper(),
        private_buckets=tuple(document.get("bucket_list") or ()) if isolated else (),
    )


def output_of(entry: Mapping[str, Any]) -> Output:
    """An `output` entry of a service document; only its first path segment is the bucket."""
    bucket, _, folder = _path(entry).partition("/")
    return Output(bucket, folder, tuple(entry.get("prefix") or ()), tuple(entry.get("suffix") or ()), _provider(entry))


def _bucket_and_folder(path: str) -> tuple[str, str]:
    bucket, _, folder = path.partition("/")
    return bucket, folder


def _path(entry: Mapping[str, Any]) -> str:
    return str(entry.get("path") or "").strip("/ ")


def _provider(entry: Mapping[str, Any]) -> str:
    """`type.id`, the type in lower case; without an id it is `default`."""
    kind, _, identifier = str(entry.get("storage_provider") or OWN).partition(".")
    return f"{kind.lower()}.{identifier or 'default'}"


def client(config: ServiceConfig, secrets: Path = SECRETS, provider: str = OWN) -> S3Client | None:
    """A client of a MinIO with the mounted credentials (or, as the supervisor before 1.6 has them, the document's).

    None where the job has no credentials, as in a pod that serves `/run`.
    """
    known = config.provider(provider) or {}
    endpoint = str(known.get("endpoint") or "")
    mount = secrets / provider
    if (mount / "accessKey").is_file():
        access, secret = ((mount / name).read_text(encoding="utf-8").strip() for name in ("accessKey", "secretKey"))
    else:
        access, secret = (str(known.get(name) or "") for name in ("access_key", "secret_key"))
    if not endpoint or not access or access == "hidden":
        return None
    region, verify = str(known.get("region") or "us-east-1"), bool(known.get("verify", True))
    try:
        if not is_pod():
            return S3Client(endpoint, access, secret, region=region, verify=verify)
        store = PodStore(endpoint, access, secret, region=region, verify=verify)
        store.job = os.environ["JOB_UUID"]
        return store
    except ObjectError as error:
        raise StorageError(f"storage_providers.{provider}: {error}") from None
