"""The parts of a service document, with the rules of single values, in OSCAR's order of emission.

Source: OSCAR v4.1, pkg/types.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationInfo

from fdl.engine import check_known, engine_settings
from fdl.names import check_annotation_name, check_variable_name
from fdl.quantities import parse_quantity


def is_strict(info: ValidationInfo) -> bool:
    """Whether a person wrote what is validated, and wants to hear about every slip."""
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
    if is_strict(info):
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
    def is_own(self) -> bool:
        """Whether that is the cluster's own object store, `minio.default`; a service describes all others itself."""
        return (self.provider_type, self.provider_id) == ("minio", "default")

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
    topology: Literal["", "none", "star", "mesh"] = "none"
    delegation: Literal["", "static", "random", "load-based", "topsis"] = "static"
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
