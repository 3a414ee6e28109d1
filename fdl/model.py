"""The service document: OSCAR's fields, defaults and rules, in OSCAR's order of emission.

One model, two ways in. An FDL file is read strictly (`fdl.document`): a person wrote it and wants to hear about every
slip. A REST body is read as leniently as OSCAR's own decoder does (`service_from_json`): keys in any case, unknown ones
ignored, null is an absent value, an unknown log level is INFO.

Source: OSCAR v4.1, pkg/types and pkg/handlers/create.go.
"""

import json
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from fdl.engine import EngineSettings, engine_settings
from fdl.errors import FdlError, PlacedError, quoted
from fdl.folding import fold, sentence
from fdl.names import check_bucket_name, check_service_name, did_you_mean
from fdl.parts import (
    Annotations,
    Cluster,
    Environment,
    Expose,
    Federation,
    Filled,
    Kserve,
    Labels,
    MinioProvider,
    Mount,
    Part,
    Quantity,
    StorageIO,
    StorageProviders,
    Synchronous,
    Volume,
    VolumeStatus,
    is_strict,
)
from fdl.quantities import parse_cpu, parse_memory

__all__ = [
    "MinioProvider",
    "Service",
    "StorageIO",
    "StorageProviders",
    "dumps",
    "service_from_entry",
    "service_from_json",
]

LOG_LEVELS = ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PROVIDER_TYPES = ("minio", "s3", "onedata", "webdav", "rucio")
INPUT_PROVIDER_TYPES = ("minio", "webdav", "rucio")


def service_from_json(value: Any) -> "Service":
    """The service in the decoded body of a REST call. Raises FdlError (without a file) naming field and mend."""
    return _service(value, strict=False)


def service_from_entry(value: Any) -> "Service":
    """The service in one entry of an FDL file, its script already inlined. Raises FdlError naming field and mend."""
    return _service(value, strict=True)


def dumps(value: Any) -> str:
    """JSON as OSCAR writes it: compact, keys in the order given."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _service(value: Any, *, strict: bool) -> "Service":
    folded = fold(Service, _whole_characters(value, strict=strict), strict=strict)
    try:
        return Service.model_validate(folded, context={"strict": strict})
    except ValidationError as error:
        field, problem = sentence(error.errors(include_url=False)[0])
        raise FdlError(problem, field=field) from None


def _whole_characters(value: Any, *, strict: bool) -> Any:
    """The value with halves of surrogate pairs replaced, as Go's decoder does; a person hears of them instead."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    except (ValueError, RecursionError):
        raise FdlError("holds a value within a value without end; remove it") from None
    try:
        text.encode()
    except UnicodeEncodeError:
        if strict:
            raise FdlError("holds half a character (a lone surrogate); write the whole one") from None
        return json.loads(text.encode("utf-8", "replace"))
    return value


class Service(Part):
    """A deployed function, as OSCAR knows it."""

    omit_empty = frozenset(
        {"federation", "image_pull_secrets", "storage_providers", "clusters", "namespace", "volume"}
        | {"deployment", "kserve"}
    )

    name: str
    cluster_id: str = ""
    memory: str = "256Mi"
    cpu: str = "0.2"
    total_memory: Quantity = ""
    total_cpu: Quantity = ""
    ephemeral_storage_request: Quantity = ""
    enable_gpu: bool = False
    enable_sgx: bool = False
    image_prefetch: bool = False
    synchronous: Synchronous = Synchronous()
    federation: Federation | None = None
    log_level: str = "INFO"
    image: Filled
    alpine: bool = False
    token: str = ""
    file_stage_in: bool = False
    input: list[StorageIO] = Field(default_factory=list)
    output: list[StorageIO] = Field(default_factory=list)
    script: Filled
    image_pull_secrets: list[str] = Field(default_factory=list)
    expose: Expose = Expose()
    environment: Environment = Environment()
    annotations: Annotations = Field(default_factory=dict)
    vo: str = ""
    labels: Labels = Field(default_factory=dict)
    storage_providers: StorageProviders | None = None
    clusters: dict[str, Cluster] = Field(default_factory=dict)
    owner: str = ""
    namespace: str = ""
    interlink_node_name: str = ""
    visibility: str = "private"
    allowed_users: list[str] = Field(default_factory=list)
    isolation_level: str = "SERVICE"
    bucket_list: list[str] = Field(default_factory=list)
    mount: Mount = Mount()
    volume: Volume | None = None
    volume_status: VolumeStatus = VolumeStatus()
    deployment: dict[str, Any] = Field(default_factory=dict)
    kserve: Kserve | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return check_service_name(name)

    @field_validator("memory", "cpu", "visibility", "isolation_level", mode="before")
    @classmethod
    def _default_if_empty(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.model_fields[str(info.field_name)].default if value == "" else value

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, text: str) -> str:
        parse_memory(text)
        return text

    @field_validator("cpu")
    @classmethod
    def _check_cpu(cls, text: str) -> str:
        parse_cpu(text)
        return text

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, level: str, info: ValidationInfo) -> str:
        if level.upper() in LOG_LEVELS:
            return level.upper()
        return _choose(level, LOG_LEVELS, "INFO", info)

    @field_validator("visibility")
    @classmethod
    def _known_visibility(cls, value: str, info: ValidationInfo) -> str:
        return _choose(value, ("private", "restricted", "public"), value, info)

    @field_validator("isolation_level")
    @classmethod
    def _known_isolation(cls, value: str, info: ValidationInfo) -> str:
        return _choose(value.upper(), ("SERVICE", "USER"), value, info)

    @field_validator("script")
    @classmethod
    def _unix_lines(cls, script: str) -> str:
        return script.replace("\r\n", "\n").replace("\r", "\n")

    @field_validator("input", "output")
    @classmethod
    def _check_stores(cls, entries: list[StorageIO], info: ValidationInfo) -> list[StorageIO]:
        name = info.data.get("name", "")
        return [_with_path(entry, name, str(info.field_name), index) for index, entry in enumerate(entries)]

    @model_validator(mode="after")
    def _stores_are_defined(self) -> "Service":
        for side, entries in (("input", self.input), ("output", self.output)):
            for index, entry in enumerate(entries):
                if not entry.is_own and not (self.storage_providers and self.storage_providers.defines(entry)):
                    raise PlacedError(
                        f".{side}[{index}].storage_provider",
                        f'the StorageProvider "{entry.provider_type}.{entry.provider_id}" is not '
                        'defined; describe it under storage_providers, or write "minio.default"',
                    )
        return self

    @property
    def mailboxes(self) -> list[StorageIO]:
        """The inputs in the cluster's own object store: an object that arrives there triggers the service."""
        return [entry for entry in self.input if entry.is_own]

    @property
    def own_outputs(self) -> list[StorageIO]:
        """The outputs in the cluster's own object store."""
        return [entry for entry in self.output if entry.is_own]

    @property
    def own_buckets(self) -> set[str]:
        """The buckets in the cluster's own object store that inputs and outputs name."""
        return {entry.bucket for entry in (*self.mailboxes, *self.own_outputs)}

    @property
    def engine(self) -> EngineSettings:
        """What the annotations tell the embedded engine."""
        return engine_settings(self.annotations)

    @property
    def exposed(self) -> bool:
        """Whether the service is a long-running one behind a port."""
        return bool(self.expose.api_port)


def _choose(value: str, choices: tuple[str, ...], otherwise: str, info: ValidationInfo) -> str:
    if value in choices or not is_strict(info):
        return value if value in choices else otherwise
    mend = did_you_mean(value, choices) or choices[0]
    raise ValueError(f'{quoted(value)} is none of {", ".join(choices)}; write "{mend}"')


def _with_path(entry: StorageIO, service: str, side: str, index: int) -> StorageIO:
    """The entry with OSCAR's path rule applied: trimmed, and below the service's own bucket if it names no bucket."""
    known = INPUT_PROVIDER_TYPES if side == "input" else PROVIDER_TYPES
    if entry.provider_type not in known:
        mend = did_you_mean(entry.provider_type, known) or "minio"
        raise PlacedError(
            f"[{index}].storage_provider",
            f"{quoted(entry.storage_provider)} is an unrecognized {side} (valid ones are "
            f'{", ".join(known)}); write "{mend}.{entry.provider_id}"',
        )
    path = entry.path.strip(" /")
    default = "in" if side == "input" else "out"
    if not path:
        raise PlacedError(f"[{index}].path", f'{side} path cannot be empty; write "{service}/{default}"')
    if entry.provider_type in ("minio", "s3"):
        if "/" not in path:
            path = f"{service}/{path}"
        bucket, _, folder = path.partition("/")
        try:
            check_bucket_name(bucket)
        except ValueError as error:
            raise PlacedError(f"[{index}].path", error) from None
        if any(part in ("", ".", "..") for part in folder.split("/")):
            raise PlacedError(
                f"[{index}].path", f'{quoted(path)} has an empty or dotted folder; write "{bucket}/{default}"'
            )
    return entry.model_copy(update={"path": path})
