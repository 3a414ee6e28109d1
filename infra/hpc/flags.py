"""What a pod asks of the batch system: its annotations, limits and ranks, as sbatch options.

Later ones go before earlier ones: the site's `default_flags`, the pod's limits, the `dioscar/...` annotations, and last
the annotation `slurm-job.vk.io/flags`, of which only the options that the site allows are taken. A limit says what a
container may use wherever it runs; who writes a flag means this batch system.
"""

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fdl.quantities import parse_cpu, parse_memory
from infra.hpc.protocol import Container, Pod, PodRefused
from infra.hpc.settings import Settings

PREFIXES = ("slurm-job.vk.io/", "job.vk.io/")
"""Of the annotations of Slurm plugins; the second is what they were called once, and still are in OSCAR's documents."""
NODES, TASKS, GPUS = "dioscar/nodes", "dioscar/tasks-per-node", "dioscar/gpus-per-node"
GPU_LIMITS = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915")
SHORT = dict(
    zip(
        (f"-{letter}" for letter in "ApqtNncGCLbwxmDJoeidM"),
        (
            *("--account", "--partition", "--qos", "--time", "--nodes", "--ntasks", "--cpus-per-task", "--gpus"),
            *("--constraint", "--licenses", "--begin", "--nodelist", "--exclude", "--distribution", "--chdir"),
            *("--job-name", "--output", "--error", "--input", "--dependency", "--clusters"),
        ),
        strict=True,
    )
)
WITHOUT_VALUE = (
    "--exclusive",
    "--contiguous",
    "--requeue",
    "--no-requeue",
    "--hold",
    "--spread-job",
    "--use-min-nodes",
)
"""Options that take no value, or one only after `=`."""
INSTEAD = {
    "--mem": ("--mem-per-cpu", "--mem-per-gpu"),
    "--gres": ("--gpus", "--gpus-per-node", "--gpus-per-task"),
    "--requeue": ("--no-requeue",),
}
"""Options of ours that one of these makes superfluous, or wrong."""
UNCOUNTED = ("--gpus-per-task", "--ntasks-per-socket", "--ntasks-per-core")
"""Options that make tasks, or limit how many there are, without a number of all of them."""


@dataclass(frozen=True)
class Ranks:
    """How many times the command of a pod's container is started, at once: nodes, and tasks on each."""

    nodes: int = 1
    tasks: int = 1

    @property
    def total(self) -> int:
        """All of them."""
        return self.nodes * self.tasks


def annotation(annotations: Mapping[str, str], name: str) -> str | None:
    """A Slurm plugin's annotation, under its present name or its old one.

    >>> annotation({"job.vk.io/flags": "-t 5"}, "flags")
    '-t 5'
    """
    return next((annotations[prefix + name] for prefix in PREFIXES if prefix + name in annotations), None)


def flags_of(pod: Pod, settings: Settings) -> tuple[str, ...]:
    """The sbatch options of a pod's job. Raises PodRefused."""
    wanted = dict(map(_split, settings.default_flags))
    given = parse_flags(annotation(pod.metadata.annotations, "flags") or "", settings.allowed_flags)
    ours = {**_limits(pod, settings), **_ranks(pod)}
    if pod.spec.active_deadline_seconds:
        ours["--time"] = str(math.ceil(pod.spec.active_deadline_seconds / 60))
    ours["--requeue"] = ""
    for name, value in ours.items():
        if not any(other in given or other in wanted for other in INSTEAD.get(name, ())):
            wanted[name] = value
    for name in given:
        for other in (key for key, instead in INSTEAD.items() if name in instead):
            wanted.pop(other, None)
    wanted |= given
    if "--signal" not in wanted:
        wanted["--signal"] = f"B:TERM@{_grace(wanted.get('--time', ''), settings.grace)}"
    return tuple(f"{name}={value}" if value else name for name, value in wanted.items())


def ranks_of(pod: Pod, flags: Sequence[str]) -> Ranks:
    """How many tasks a job of these options has. Raises PodRefused where that is not known before it starts."""
    values = dict(map(_split, flags))
    counted = "--ntasks" in values or "--ntasks-per-node" in values
    for name in UNCOUNTED:
        if name in values and not counted:
            raise PodRefused(f"option {name}={values[name]}: does not say how many tasks; write --ntasks=NUMBER, too")
    nodes, total = _number("--nodes", values), _number("--ntasks", values)
    if "--ntasks" in values:
        return Ranks(1, total) if total % nodes else Ranks(nodes, total // nodes)
    return Ranks(nodes, _number("--ntasks-per-node", values))


def parse_flags(text: str, allowed: Iterable[str]) -> dict[str, str]:
    """The options in an annotation, by their long names; a value that an option does not have is empty.

    >>> parse_flags("-p gpu --time=30 -N2 --exclusive", ["--partition", "--time", "--nodes", "--exclusive"])
    {'--partition': 'gpu', '--time': '30', '--nodes': '2', '--exclusive': ''}

    Raises PodRefused for what is not among `allowed`.
    """
    where = f"annotation {PREFIXES[0]}flags"
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise PodRefused(f"{where}: {str(error).lower()}; close the quotes") from None
    permitted = set(allowed)
    options: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, equals, value = word.partition("=")
        else:
            name, value = SHORT.get(word[:2], word), word[2:]
            equals = value
        if name not in permitted:
            raise PodRefused(f'{where}: "{word}" is not allowed here; leave it out, or ask the site to allow {name}')
        if not equals and name not in WITHOUT_VALUE:
            if not words:
                raise PodRefused(f'{where}: "{word}" has no value; write {name}=VALUE')
            value = words.pop(0)
        if not value.isprintable():
            raise PodRefused(f"{where}: {name}: its value holds a character that cannot be printed; leave that out")
        options[name] = value
    return options


def seconds_of(time: str) -> int | None:
    """Slurm's time limit in seconds; None for none, or what is no time.

    >>> [seconds_of(text) for text in ("30", "1:30", "1:00:00", "1-12", "0-0:05", "UNLIMITED")]
    [1800, 90, 3600, 129600, 300, None]
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        return None
    days, *rest = (int(group) if group is not None else None for group in match.groups())
    first, second, third = rest[0] or 0, rest[1], rest[2]
    if days is not None:
        return days * 86400 + first * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:
        return first * 3600 + (second or 0) * 60 + third
    return first * 60 + (second or 0)


def gpus_of(pod: Pod) -> int:
    """How many GPUs a pod's limits name."""
    return max((_gpus(container) for container in (*pod.spec.init_containers, *pod.spec.containers)), default=0)


def _ranks(pod: Pod) -> dict[str, str]:
    counts = {}
    for name in (NODES, TASKS, GPUS):
        text = pod.metadata.annotations.get(name)
        if text is not None:
            if not re.fullmatch(r"[1-9]\d{0,4}", text) and not (name == GPUS and text == "0"):
                raise PodRefused(f'annotation {name}: "{text}" is no number of them; write "2"')
            counts[name] = int(text)
    if not counts:
        return {}
    gpus = counts.get(GPUS, 0)
    tasks = counts.get(TASKS, max(1, gpus))
    options = {"--nodes": str(counts.get(NODES, 1)), "--ntasks-per-node": str(tasks)}
    return {**options, **({"--gres": f"gpu:{gpus}"} if gpus else {})}


def _limits(pod: Pod, settings: Settings) -> dict[str, str]:
    """Containers run at once, init containers one by one before them."""
    cpus = max(sum(map(_cpu, pod.spec.containers)), *map(_cpu, pod.spec.init_containers), 0.0) or settings.cpus
    memory = max(sum(map(_memory, pod.spec.containers)), *map(_memory, pod.spec.init_containers), 0)
    ranks = int(_ranks(pod).get("--ntasks-per-node", "1"))
    megabytes = math.ceil((memory or int(parse_memory(settings.memory))) / 2**20) * ranks
    options = {"--cpus-per-task": str(math.ceil(cpus)), "--mem": f"{megabytes}M"}
    gpus = gpus_of(pod)
    return {**options, **({"--gres": f"gpu:{gpus}"} if gpus else {})}


def _cpu(container: Container) -> float:
    value = container.resources.limits.get("cpu")
    try:
        return float(parse_cpu(str(value))) if value is not None else 0.0
    except ValueError as error:
        raise PodRefused(f"container {container.name}: resources.limits.cpu: {error}") from None


def _memory(container: Container) -> int:
    value = container.resources.limits.get("memory")
    try:
        return int(parse_memory(str(value))) if value is not None else 0
    except ValueError as error:
        raise PodRefused(f"container {container.name}: resources.limits.memory: {error}") from None


def _gpus(container: Container) -> int:
    total = 0
    for name in GPU_LIMITS:
        value = str(container.resources.limits.get(name, "0"))
        if not value.isdecimal():
            raise PodRefused(f'container {container.name}: resources.limits.{name}: "{value}" is no number; write "1"')
        total += int(value)
    return total


def _grace(time: str, grace: int) -> int:
    """How long before the end SIGTERM comes: of a short job not so long before that it has done nothing."""
    limit = seconds_of(time)
    return grace if limit is None else max(1, min(grace, limit // 4))


def _split(flag: str) -> tuple[str, str]:
    name, _, value = flag.partition("=")
    return name, value


def _number(name: str, values: Mapping[str, str]) -> int:
    value = values.get(name, "1")
    if not re.fullmatch(r"[1-9]\d{0,5}", value):
        raise PodRefused(f"option {name}={value}: is not one number, so ranks cannot be counted; write {name}=2")
    return int(value)
