"""The plugin's settings: a YAML file, and `DIOSCAR_HPC_<NAME>` in the environment, which goes before it."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

PREFIX = "DIOSCAR_HPC_"
UNIX = "unix://"

ALLOWED_FLAGS = (
    "--account",
    "--partition",
    "--qos",
    "--reservation",
    "--time",
    "--time-min",
    "--nodes",
    "--ntasks",
    "--ntasks-per-node",
    "--ntasks-per-socket",
    "--ntasks-per-core",
    "--cpus-per-task",
    "--cpus-per-gpu",
    "--mem",
    "--mem-per-cpu",
    "--mem-per-gpu",
    "--gres",
    "--gpus",
    "--gpus-per-node",
    "--gpus-per-task",
    "--gpu-bind",
    "--constraint",
    "--exclusive",
    "--licenses",
    "--hint",
    "--nice",
    "--begin",
    "--deadline",
    "--signal",
    "--tmp",
    "--threads-per-core",
    "--sockets-per-node",
    "--cores-per-socket",
    "--distribution",
    "--switches",
    "--contiguous",
    "--requeue",
    "--no-requeue",
)
"""The sbatch options that a pod's annotations may give; none names a file, a user, a folder or another job."""


class SettingsError(Exception):
    """One sentence that names the file or variable, the setting and the mend."""


def _pattern_map(value: Any) -> Any:
    return {} if value is None else value


class Settings(BaseModel):
    """What a site decides. Times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path
    """The folder of the pods' folders; compute nodes must see it under the same path unless `shared` is false."""
    listen: str = ""
    """`HOST:PORT` or `unix:///path`; by default the socket `plugin.sock` in the root."""
    batch: Literal["slurm", "local"] = "slurm"
    runtime: Literal["apptainer", "podman", "process"] = "apptainer"
    runtime_command: str = ""
    """The runtime's program where it is not on PATH under its own name, e.g. `/opt/apptainer/bin/apptainer`."""
    runtime_options: tuple[str, ...] = ()
    """Options for each start of a container, e.g. `--nv`."""
    image_prefix: str = ""
    """Put before an image that is no path and names no transport; `docker://` where it is empty."""
    images: Annotated[dict[str, dict[str, str]], BeforeValidator(_pattern_map)] = Field(default_factory=dict)
    """For the plain-process runtime: `{image pattern: {container path: host path}}`, what an image would have held."""
    shared: bool = True
    """Whether compute nodes see the root, under the same path; there is no other way for a job's files yet."""
    allowed_flags: tuple[str, ...] = ALLOWED_FLAGS
    """The sbatch options that annotations may give."""
    default_flags: tuple[str, ...] = ()
    """The site's own sbatch options for each job, before those of annotations, e.g. `--partition=gpu`."""
    pre_exec: bool = False
    """Whether the annotation `slurm-job.vk.io/pre-exec` (shell that runs as the plugin's account) is honoured."""
    host_paths: tuple[str, ...] = ()
    """The folders at or below which a pod may mount host paths; none by default."""
    checkpoints: Path | None = None
    """A shared folder for checkpoints: each pod gets `DIOSCAR_CHECKPOINT=<folder>/<namespace>/<service>`."""
    slurm_bin: Path | None = None
    """The folder of sbatch, squeue, scancel, sinfo and scontrol, where they are not on PATH."""
    cpus: int = 1
    """Cores of a job whose pod sets no limit."""
    memory: str = "2Gi"
    """Memory of a job whose pod sets no limit, a Kubernetes quantity."""
    accelerator: str = "nvidia.com/gpu"
    """The Kubernetes resource as which the node offers the site's GPUs."""
    grace: int = Field(default=60, ge=1, le=3600)
    """Between SIGTERM and SIGKILL: how long before the time limit a job is told to stop."""
    requeue: int = Field(default=100, ge=0)
    """How often a pod that exits with 75 (checkpointed, run me again) is submitted again."""
    poll: float = Field(default=5.0, gt=0, le=300)
    """How old the batch system's answer may be: it is asked once in this time for all pods together."""
    submit_within: float = Field(default=90.0, gt=0, le=110)
    """How long /create tries to reach the batch system; interLink waits 120 s, and does not try again."""
    lost_after: float = Field(default=120.0, ge=0)
    """After how long a job that the batch system does not know, and whose end nobody has recorded, is lost."""
    settle: float | None = Field(default=None, ge=0)
    """How long the files of a job that has ended may take to be seen here; by default 60 s, and none on one machine."""
    sweep: float = Field(default=60.0, gt=0)
    """How often jobs of deleted pods are looked for by name."""
    keep_logs: float = Field(default=7 * 86400.0, ge=0)
    """How long the logs of a deleted pod are kept."""
    keep_ended: float = Field(default=30 * 86400.0, ge=0)
    """How long a pod that has ended is kept where nobody deletes it."""

    @field_validator("root", "checkpoints", "slurm_bin")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError(f'"{value}" is no absolute path')
        return value

    @field_validator("shared")
    @classmethod
    def _must_be_shared(cls, value: bool) -> bool:
        if not value:
            raise ValueError("compute nodes must see the root; name one on a file system that they share")
        return value

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        if value.startswith(UNIX):
            if not value.removeprefix(UNIX).startswith("/"):
                raise ValueError(f'"{value}" is no socket; write unix:///absolute/path')
        elif value:
            host, _, port = value.rpartition(":")
            if not host or not port.isdigit() or int(port) > 65535:
                raise ValueError(f'"{value}" is no address; write HOST:PORT or unix:///path')
        return value

    @property
    def settle_s(self) -> float:
        """How long to wait for the files of a job that has ended: NFS may show a folder as it was 60 s ago."""
        if self.settle is not None:
            return self.settle
        return 0.0 if self.batch == "local" else 60.0

    @property
    def address(self) -> str:
        """Where to listen: as set, else the socket in the root."""
        return self.listen or f"{UNIX}{self.root / 'plugin.sock'}"


def load(path: Path | None, environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """The settings of a file, of the environment over it, of `given` over both. Raises SettingsError."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if path is not None:
        values = _read(path)
        sources = dict.fromkeys(values, str(path))
    for variable in environ:
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name not in (*Settings.model_fields, "job"):  # a job's own number
            raise SettingsError(f"{variable}: {_unknown(name)}")
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        if environ.get(variable, "") != "":
            values[name] = _value(variable, environ[variable])
            sources[name] = variable
    values |= {name: value for name, value in given.items() if value is not None}
    if "root" not in values:
        raise SettingsError(
            f"{path or 'settings'}: root: is not set; name the folder of the jobs, there or in {PREFIX}ROOT"
        )
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        where = sources.get(str(first["loc"][0]) if first["loc"] else "", str(path or "settings"))
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"{where}: {name}: {_unknown(name)}") from None
        message = _sentence(first)
        raise SettingsError(f"{where}: {name}: {message}") from None


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, 1, 0.75)
    return f'is no setting; write "{close[0]}"' if close else "is no setting; docs/hpc.md lists them"


def _sentence(error: Any) -> str:
    """What is wrong with a value, and what to write."""
    if error["type"] == "literal_error":
        return f'"{error["input"]}" is not known; write {error["ctx"]["expected"].replace(chr(39), "")}'
    if error["type"] == "tuple_type":
        return 'is no list; write ["..."]'
    return str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should")


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SettingsError(f"{path}: {line}is no YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError(f"{path}: is no YAML: it holds bytes or characters that text has not") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise SettingsError(f"{path}: is no list of settings; write lines such as `root: /scratch/interlink`")
    return document


def _value(variable: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f'{variable}: "{text}" is no YAML value') from None
