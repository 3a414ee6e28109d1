"""The service document: OSCAR's fields, defaults and rules, in OSCAR's order of emission.

One model, two ways in. An FDL file is read strictly (`fdl.document`): a person wrote it and wants to hear about every
slip. A REST body is read as leniently as OSCAR's own decoder does (`service_from_json`): keys in any case, unknown ones
ignored, null is an absent value, an unknown log level is INFO.

Source: OSCAR v4.1, pkg/types and pkg/handlers/create.go.
"""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fdl.engine import EngineSettings, check_known, engine_settings
from fdl.errors import FdlError, PlacedError
from fdl.folding import fold, sentence
from fdl.names import (
    check_annotation_name,
    check_bucket_name,
    check_service_name,
    check_variable_name,
    did_you_mean,
)
from fdl.quantities import parse_cpu, parse_memory, parse_quantity

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
    folded = fold(Service, value, strict=strict)
    try:
        return Service.model_validate(folded, context={"strict": strict})
    except ValidationError as error:
        field, problem = sentence(error.errors(include_url=False)[0])
        raise FdlError(problem, field=field) from None


# The rules of single values


def _strict(info: ValidationInfo) -> bool:
    return bool(info.context and info.context.get("strict"))


def _ports(value: Any) -> Any:
    """OSCAR before 4.1 wrote one number where later ones write a list; 0 was its way to say none."""
    ports = value if isinstance(value, list) else [value]
    return [port for port in ports if port != 0 or isinstance(port, bool)]


def _port_numbers(ports: list[int]) -> list[int]:
    for port in ports:
        if not 1 <= port <= 65535:
            raise ValueError(f"{port} is no port; write a number from 1 to 65535")
    return ports


def _quantity(text: str) -> str:
    if text:
        parse_quantity(text)
    return text


def _names(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        check_annotation_name(name)
    return value


def _engine_annotations(value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    engine_settings(value)
    if _strict(info):
        check_known(value)
    return value


def _variable_names(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        check_variable_name(name)
    return value


def _not_negative(value: int) -> int:
    if value < 0:
        raise ValueError(f"{value} is below zero; write 0 or more")
    return value


Ports = Annotated[list[int], BeforeValidator(_ports), AfterValidator(_port_numbers)]
Quantity = Annotated[str, AfterValidator(_quantity)]
Labels = Annotated[dict[str, str], AfterValidator(_names)]
Annotations = Annotated[Labels, AfterValidator(_engine_annotations)]
Variables = Annotated[dict[str, str], AfterValidator(_variable_names)]
Count = Annotated[int, AfterValidator(_not_negative)]
Filled = Annotated[str, StringConstraints(min_length=1)]


# The parts of a service


class Part(BaseModel):
    """A piece of a service document."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    omit_empty: ClassVar[frozenset[str]] = frozenset()
    """Fields that OSCAR leaves out of its JSON when they are empty."""

    def to_json(self) -> dict[str, Any]:
        """The part as OSCAR emits it: keys in OSCAR's order, every field present but the empty ones it omits."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: _plain(value) for name, value in fields.items() if value or name not in self.omit_empty}


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.to_json()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


class StorageIO(Part):
    """One input, output or mount: where in which store."""

    omit_empty = frozenset({"suffix", "prefix", "options"})

    storage_provider: Filled
    path: str = ""
    suffix: list[str] = []
    prefix: list[str] = []
    options: dict[str, Any] = {}

    @property
    def provider_type(self) -> str:
        """`minio` of `MinIO.default`."""
        return self.storage_provider.partition(".")[0].lower()

    @property
    def provider_id(self) -> str:
        """`mine` of `minio.mine`; `default` where it is left out."""
        return self.storage_provider.partition(".")[2] or "default"

    @property
    def bucket(self) -> str:
        """The first segment of the path."""
        return self.path.partition("/")[0]

    @property
    def folder(self) -> str:
        """The rest of the path, without slashes at its ends."""
        return self.path.partition("/")[2]


class Mount(Part):
    """A bucket that is mounted as a volume; empty when there is none."""

    omit_empty = frozenset({"options"})

    storage_provider: str = ""
    path: str = ""
    options: dict[str, Any] = {}


class Synchronous(Part):
    """How many replicas stand ready for synchronous calls (Knative)."""

    min_scale: Count = 0
    max_scale: Count = 0


class Member(Part):
    """A cluster or endpoint that jobs may be delegated to."""

    omit_empty = frozenset({"cluster_id", "service_name", "url", "headers"})

    type: Literal["oscar", "endpoint"]
    cluster_id: str = ""
    service_name: str = ""
    url: str = ""
    ssl_verify: bool = True
    priority: int = 0
    headers: dict[str, str] = {}


class Federation(Part):
    """Clusters that share a service's jobs."""

    group_id: str = ""
    topology: Literal["none", "star", "mesh"] = "none"
    delegation: Literal["static", "random", "load-based", "topsis"] = "static"
    rescheduler_threshold: Count = 0
    members: list[Member] = []


class Expose(Part):
    """A long-running service behind a port; exposed when `api_port` is given."""

    omit_empty = frozenset({"api_port", "nodePort", "auth_type", "probe_mode"})

    min_scale: Count = 0
    max_scale: Count = 0
    api_port: Ports = []
    cpu_threshold: Count = 0
    rewrite_target: bool = False
    nodePort: Ports = []  # noqa: N815 - OSCAR's spelling
    default_command: bool = False
    set_auth: bool = False
    auth_type: Literal["", "basic", "forward"] = ""
    health_path: str = ""
    probe_mode: Literal["", "legacy", "direct"] = ""


class Environment(Part):
    """The environment of the function: this is where configuration goes.

    Clients up to OSCAR 3.3 read `Variables`, later ones `variables`; a file may hold both.
    """

    spellings: ClassVar[frozenset[str]] = frozenset({"Variables", "Secrets"})

    variables: Variables = {}
    secrets: Variables = {}


class Volume(Part):
    """A persistent volume."""

    omit_empty = frozenset({"name", "size", "lifecycle_policy"})

    name: str = ""
    size: Quantity = ""
    mount_path: Filled
    lifecycle_policy: Literal["", "delete", "retain"] = ""


class VolumeStatus(Part):
    """What the cluster says about the volume."""

    omit_empty = frozenset({"name", "phase", "error"})

    enabled: bool = False
    name: str = ""
    phase: str = ""
    error: str = ""


class KserveInference(Part):
    """Which model server."""

    model_format: str = ""
    runtime: str = ""


class KserveLlmInference(Part):
    """Which language model server."""

    runtime_image: str = ""


class Kserve(Part):
    """A model server managed by KServe."""

    omit_empty = frozenset({"inference", "llm_inference"})

    type: str = ""
    inference: KserveInference | None = None
    llm_inference: KserveLlmInference | None = None
    storage_uri: str = ""
    api_version: Literal["", "v1", "v2"] = ""
    min_scale: Count = 0
    max_scale: Count = 0
    cpu: Quantity = ""
    memory: Quantity = ""
    args: list[str] = []
    env: dict[str, str] = {}
    enable_gpu: bool = False
    set_auth: bool = True


class S3Provider(Part):
    """Amazon S3."""

    access_key: str = ""
    secret_key: str = ""
    region: str = ""


class MinioProvider(Part):
    """A MinIO server; `default` is the cluster's own and overwritten by it."""

    endpoint: str = ""
    verify: bool = True
    access_key: str = ""
    secret_key: str = ""
    region: str = ""


class OnedataProvider(Part):
    """A Oneprovider."""

    oneprovider_host: str = ""
    token: str = ""
    space: str = ""


class WebdavProvider(Part):
    """A WebDAV server, such as dCache's door."""

    hostname: str = ""
    login: str = ""
    password: str = ""


class RucioProvider(Part):
    """A Rucio server."""

    host: str = ""
    account: str = ""
    rse: str = ""
    refresh_token: str = ""
    auth_host: str = ""
    oidc_audience: str = ""
    token_endpoint: str = ""


class StorageProviders(Part):
    """Stores by type and identifier."""

    omit_empty = frozenset({"s3", "minio", "onedata", "webdav", "rucio"})

    s3: dict[str, S3Provider] = {}
    minio: dict[str, MinioProvider] = {}
    onedata: dict[str, OnedataProvider] = {}
    webdav: dict[str, WebdavProvider] = {}
    rucio: dict[str, RucioProvider] = {}

    def defines(self, io: StorageIO) -> bool:
        """Whether the store of `io` is described here."""
        return io.provider_id in getattr(self, io.provider_type, {})


class Cluster(Part):
    """An OSCAR cluster that a document speaks of."""

    endpoint: str = ""
    auth_user: str = ""
    auth_password: str = ""
    ssl_verify: bool = True


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
    input: list[StorageIO] = []
    output: list[StorageIO] = []
    script: Filled
    image_pull_secrets: list[str] = []
    expose: Expose = Expose()
    environment: Environment = Environment()
    annotations: Annotations = {}
    vo: str = ""
    labels: Labels = {}
    storage_providers: StorageProviders | None = None
    clusters: dict[str, Cluster] = {}
    owner: str = ""
    namespace: str = ""
    interlink_node_name: str = ""
    visibility: str = "private"
    allowed_users: list[str] = []
    isolation_level: str = "SERVICE"
    bucket_list: list[str] = []
    mount: Mount = Mount()
    volume: Volume | None = None
    volume_status: VolumeStatus = VolumeStatus()
    deployment: dict[str, Any] = Field(default={})
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
                own = (entry.provider_type, entry.provider_id) == ("minio", "default")
                if not own and not (self.storage_providers and self.storage_providers.defines(entry)):
                    raise PlacedError(
                        f".{side}[{index}].storage_provider",
                        f'the StorageProvider "{entry.provider_type}.{entry.provider_id}" is not '
                        'defined; describe it under storage_providers, or write "minio.default"',
                    )
        return self

    @property
    def mailboxes(self) -> list[StorageIO]:
        """The inputs in the cluster's own object store: an object that arrives there triggers the service."""
        return [entry for entry in self.input if entry.provider_type == "minio"]

    @property
    def engine(self) -> EngineSettings:
        """What the annotations tell the embedded engine."""
        return engine_settings(self.annotations)

    @property
    def exposed(self) -> bool:
        """Whether the service is a long-running one behind a port."""
        return bool(self.expose.api_port)


def _choose(value: str, choices: tuple[str, ...], otherwise: str, info: ValidationInfo) -> str:
    if value in choices or not _strict(info):
        return value if value in choices else otherwise
    mend = did_you_mean(value, choices) or choices[0]
    raise ValueError(f'"{value}" is none of {", ".join(choices)}; write "{mend}"')


def _with_path(entry: StorageIO, service: str, side: str, index: int) -> StorageIO:
    """The entry with OSCAR's path rule applied: trimmed, and below the service's own bucket if it names no bucket."""
    known = INPUT_PROVIDER_TYPES if side == "input" else PROVIDER_TYPES
    if entry.provider_type not in known:
        mend = did_you_mean(entry.provider_type, known) or "minio"
        raise PlacedError(
            f"[{index}].storage_provider",
            f'"{entry.storage_provider}" is an unrecognized {side} (valid ones are '
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
            raise PlacedError(f"[{index}].path", f'"{path}" has an empty or dotted folder; write "{bucket}/{default}"')
    return entry.model_copy(update={"path": path})
