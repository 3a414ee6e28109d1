"""The protocol between interLink's API server and a plugin, key by key (interLink 0.6.1; its keys are not uniform).

Go sends empty lists as null and leaves out what is unset; other versions send more. So nulls are read as empty, and
what is not known is kept aside. Read these models by their Python names; `wire()` writes the protocol's.
"""

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

NOT_CREATED = "NotCreated"
"""The waiting reason of a pod that the plugin has not been asked to create (yet, or for good); it may be created."""


class PodRefused(Exception):  # noqa: N818 - an answer, not a defect
    """This pod will never run here as it is; the message is one sentence that names the field and the mend."""


def _none_is_empty(kind: type) -> BeforeValidator:
    return BeforeValidator(lambda value: kind() if value is None else value)


_LIST = _none_is_empty(list)
_DICT = _none_is_empty(dict)
_TEXT = _none_is_empty(str)
_FLAG = _none_is_empty(bool)

Text = Annotated[str, _TEXT]
Flag = Annotated[bool, _FLAG]
Texts = Annotated[list[str], _LIST]
TextMap = Annotated[dict[str, str], _DICT]


class Wire(BaseModel):
    """An object on the wire: camelCase keys unless said, Python names accepted, unknown keys tolerated."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True)

    def wire(self) -> dict[str, Any]:
        """What is sent: the protocol's keys, nothing that is None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Metadata(Wire):
    """The metadata of a Kubernetes object."""

    name: Text = ""
    namespace: Text = ""
    uid: Text = ""
    labels: TextMap = Field(default_factory=dict)
    annotations: TextMap = Field(default_factory=dict)


class EnvVar(Wire):
    """A variable; the virtual kubelet resolves `valueFrom` before it sends a pod, so a leftover has no value."""

    name: str
    value: Text = ""
    value_from: dict[str, Any] | None = None


class VolumeMount(Wire):
    """Where a container sees a volume."""

    name: str
    mount_path: str
    sub_path: Text = ""
    sub_path_expr: Text = ""
    read_only: Flag = False


class Resources(Wire):
    """Kubernetes quantities by resource: `cpu`, `memory`, `nvidia.com/gpu`."""

    limits: Annotated[dict[str, str | int | float], _DICT] = Field(default_factory=dict)
    requests: Annotated[dict[str, str | int | float], _DICT] = Field(default_factory=dict)


class Container(Wire):
    """A container of a pod, or one of its init containers."""

    name: str
    image: Text = ""
    command: Texts = Field(default_factory=list)
    args: Texts = Field(default_factory=list)
    working_dir: Text = ""
    restart_policy: Text = ""
    """`Always` of an init container, which is a sidecar then: it would run beside those after it."""
    env: Annotated[list[EnvVar], _LIST] = Field(default_factory=list)
    env_from: Annotated[list[dict[str, Any]], _LIST] = Field(default_factory=list)
    resources: Annotated[Resources, _DICT] = Field(default_factory=Resources)
    volume_mounts: Annotated[list[VolumeMount], _LIST] = Field(default_factory=list)
    liveness_probe: dict[str, Any] | None = None
    readiness_probe: dict[str, Any] | None = None
    startup_probe: dict[str, Any] | None = None
    lifecycle: dict[str, Any] | None = None
    security_context: dict[str, Any] | None = None


class KeyToPath(Wire):
    """One key of a ConfigMap or Secret, and the file that it becomes."""

    key: str
    path: str
    mode: int | None = None


class ConfigMapVolume(Wire):
    """A volume of a ConfigMap's keys."""

    name: Text = ""
    items: Annotated[list[KeyToPath], _LIST] = Field(default_factory=list)
    default_mode: int | None = None
    optional: Flag = False


class SecretVolume(Wire):
    """A volume of a Secret's keys."""

    secret_name: Text = ""
    items: Annotated[list[KeyToPath], _LIST] = Field(default_factory=list)
    default_mode: int | None = None
    optional: Flag = False


class ProjectedVolume(Wire):
    """A volume of several sources; its files come as a ConfigMap of the volume's name, see `ContainerData`."""

    sources: Annotated[list[dict[str, Any]], _LIST] = Field(default_factory=list)
    default_mode: int | None = None


class HostPathVolume(Wire):
    """A folder or file of the compute node."""

    path: str
    type: Text = ""


class Volume(Wire):
    """A volume: exactly one kind is set. Kinds that are not named here (PVC, NFS, CSI) are in `kind` all the same."""

    name: str
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    projected: ProjectedVolume | None = None
    empty_dir: dict[str, Any] | None = None
    host_path: HostPathVolume | None = None

    @property
    def kind(self) -> str:
        """The key of the kind on the wire, e.g. `configMap`, `persistentVolumeClaim`; `` where none is set."""
        for field in ("config_map", "secret", "projected", "empty_dir", "host_path"):
            if getattr(self, field) is not None:
                return to_camel(field)
        return next((key for key, value in (self.model_extra or {}).items() if value is not None), "")


class PodSecurityContext(Wire):
    """Who the pod's processes would be."""

    run_as_user: int | None = None


class PodSpec(Wire):
    """What a pod is to run."""

    init_containers: Annotated[list[Container], _LIST] = Field(default_factory=list)
    containers: Annotated[list[Container], _LIST] = Field(default_factory=list)
    volumes: Annotated[list[Volume], _LIST] = Field(default_factory=list)
    restart_policy: Text = ""
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    security_context: PodSecurityContext | None = None
    node_name: Text = ""


class Pod(Wire):
    """A pod as Kubernetes has it."""

    metadata: Metadata = Field(default_factory=Metadata)
    spec: PodSpec = Field(default_factory=PodSpec)


class ConfigMap(Wire):
    """Files as text, or as base64 in `binaryData`; either may be missing."""

    metadata: Metadata = Field(default_factory=Metadata)
    data: TextMap = Field(default_factory=dict)
    binary_data: TextMap = Field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """The content of each key. Raises PodRefused for what is no base64."""
        texts = {key: value.encode() for key, value in self.data.items()}
        where = f"ConfigMap {self.metadata.name}"
        return texts | {key: _decoded(f"{where}: binaryData.{key}", value) for key, value in self.binary_data.items()}


class Secret(Wire):
    """Files as base64."""

    metadata: Metadata = Field(default_factory=Metadata)
    type: Text = ""
    data: TextMap = Field(default_factory=dict)
    string_data: TextMap = Field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """The content of each key. Raises PodRefused for what is no base64."""
        where = f"Secret {self.metadata.name}"
        decoded = {key: _decoded(f"{where}: data.{key}", value) for key, value in self.data.items()}
        return decoded | {key: value.encode() for key, value in self.string_data.items()}


class ContainerData(Wire):
    """The objects that one container mounts. A projected volume is a ConfigMap of the volume's name, keys are paths."""

    name: str
    config_maps: Annotated[list[ConfigMap], _LIST] = Field(
        default_factory=list, validation_alias="configMaps", serialization_alias="configMaps"
    )
    projected_volume_maps: Annotated[list[ConfigMap], _LIST] = Field(
        default_factory=list, validation_alias="projectedvolumemaps", serialization_alias="projectedvolumemaps"
    )
    secrets: Annotated[list[Secret], _LIST] = Field(default_factory=list)
    empty_dirs: Texts = Field(default_factory=list, validation_alias="emptyDirs", serialization_alias="emptyDirs")


class CreateRequest(Wire):
    """The body of POST /create: a pod, and the objects that its containers mount (init containers first)."""

    pod: Pod
    container: Annotated[list[ContainerData], _LIST] = Field(default_factory=list)
    job_config: Annotated[dict[str, Any], _DICT] = Field(default_factory=dict)
    job_script: Text = ""
    """Where not empty: the site's own script, to run in place of the containers."""


class CreateReply(Wire):
    """The reply to POST /create; the pod's uid must be the one that was sent."""

    pod_uid: str = Field(validation_alias="PodUID", serialization_alias="PodUID")
    pod_jid: str = Field(validation_alias="PodJID", serialization_alias="PodJID")


class Waiting(Wire):
    """A container that does not run yet, and why."""

    reason: str
    message: str = ""


class Running(Wire):
    """A container that runs."""

    started_at: AwareDatetime


class Terminated(Wire):
    """A container that has ended. The virtual kubelet overwrites the reason: what is to be read is in `message`."""

    exit_code: int
    reason: str = ""
    message: str = ""
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    signal: int | None = None


class ContainerState(Wire):
    """Exactly one of the three; an empty one would leave the pod hanging."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Wire):
    """A container's status; it replaces the whole one in the pod."""

    name: str
    state: ContainerState
    ready: bool = False
    started: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = Field(default="", validation_alias="imageID", serialization_alias="imageID")


class PodStatus(Wire):
    """The status of a pod: each of its containers, never none (none would be a success)."""

    name: str
    uid: str = Field(validation_alias="UID", serialization_alias="UID")
    namespace: str
    jid: str = Field(default="", validation_alias="JID", serialization_alias="JID")
    containers: list[ContainerStatus]
    init_containers: list[ContainerStatus] = Field(default_factory=list)


class Accelerator(Wire):
    """GPUs of one type, e.g. `nvidia.com/gpu`."""

    resource_type: str
    available: str


class PingResources(Wire):
    """What the node has in all, as Kubernetes quantities."""

    cpu: str
    memory: str
    pods: str
    accelerators: list[Accelerator] = Field(default_factory=list)


class PingResponse(Wire):
    """The reply to a ping, which is GET /status with an empty list."""

    status: Literal["ok"] = "ok"
    resources: PingResources


class LogOptions(Wire):
    """What part of a log is wanted; 0, false and the year 1 are unset."""

    tail: Annotated[int, _none_is_empty(int)] = Field(default=0, validation_alias="Tail", serialization_alias="Tail")
    bytes: Annotated[int, _none_is_empty(int)] = Field(default=0, validation_alias="Bytes", serialization_alias="Bytes")
    timestamps: Flag = Field(default=False, validation_alias="Timestamps", serialization_alias="Timestamps")
    follow: Flag = Field(default=False, validation_alias="Follow", serialization_alias="Follow")
    previous: Flag = Field(default=False, validation_alias="Previous", serialization_alias="Previous")
    since_seconds: Annotated[int, _none_is_empty(int)] = Field(
        default=0, validation_alias="SinceSeconds", serialization_alias="SinceSeconds"
    )
    since_time: AwareDatetime | None = Field(
        default=None, validation_alias="SinceTime", serialization_alias="SinceTime"
    )


class LogRequest(Wire):
    """The body of GET /getLogs."""

    namespace: Text = Field(default="", validation_alias="Namespace", serialization_alias="Namespace")
    pod_uid: str = Field(validation_alias="PodUID", serialization_alias="PodUID")
    pod_name: Text = Field(default="", validation_alias="PodName", serialization_alias="PodName")
    container_name: str = Field(validation_alias="ContainerName", serialization_alias="ContainerName")
    options: Annotated[LogOptions, _DICT] = Field(
        default_factory=LogOptions, validation_alias="Opts", serialization_alias="Opts"
    )


def _decoded(where: str, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise PodRefused(f"{where}: is no base64; Kubernetes sends it as base64") from None
