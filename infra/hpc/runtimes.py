"""How one container is started on a compute node: a small shell script for each, which its job's script runs.

Apptainer (or Singularity), podman, or no container at all: a plain process, which sees its mounts by bubblewrap where
that works, and where it does not, finds them below DIOSCAR_POD_ROOT: paths of mounts in its command and variables are
rewritten. A plain process is not shut in: it is a process of the account that runs the job.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.hpc.environment import Environment
from infra.hpc.flags import Ranks, annotation, gpus_of
from infra.hpc.launcher import words_of
from infra.hpc.mounts import Mount, image_mounts, target_of
from infra.hpc.protocol import Container, Pod, PodRefused
from infra.hpc.settings import Settings

START, VARIABLES, FILE, LARGE, MOVED = "start", "variables", "variables.env", "large", "moved"
ROOT, WORK = "root", "work"
"""What stands in a container's own folder below the pod's."""
INSIDE = "/.dioscar/large"
"""Where a container finds the variables that no process can be handed."""
RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
OPTIONS = re.compile(
    r"--(nv|rocm|cleanenv|contain|containall|no-home|no-eval|writable-tmpfs|fakeroot|ipc|pid|unsquash)"
)
"""The options of Apptainer that an annotation may give: none opens the node's files to the container."""


@dataclass(frozen=True)
class Start:
    """A container that is about to be written: everything that its start script is made of."""

    pod: Pod
    container: Container
    folder: Path
    """The container's own."""
    mounts: Sequence[Mount]
    environment: Environment
    ranks: Ranks
    settings: Settings


def start_script(start: Start) -> str:
    """The text of a container's start script. Raises PodRefused."""
    runtimes = {"apptainer": _apptainer, "podman": _podman, "process": _process}
    return "#!/bin/sh\n" + _prologue(start) + runtimes[start.settings.runtime](start)


def with_image(
    container: Container, mounts: Sequence[Mount], more: Mapping[str, str], settings: Settings
) -> list[Mount]:
    """A container's mounts and, in an image, the folders that variables of ours name; else what an image would hold."""
    taken = {mount.target for mount in mounts}
    if settings.runtime == "process":
        return [*(one for one in image_mounts(container.image, settings) if one.target not in taken), *mounts]
    return [*mounts, *(Mount(Path(path), path) for path in more.values() if path not in taken)]


def image_of(container: Container, pod: Pod, settings: Settings) -> str:
    """An image as Apptainer names it: paths and what names a transport as they are, others with the root's prefix.

    The prefix is that of the annotation `image-root`, else the site's, else `docker://`.
    """
    image = container.image.strip()
    if not image or image.startswith("-") or not image.isprintable():
        raise PodRefused(f'container {container.name}: "{image}" is no image; name one, e.g. docker://alpine:3')
    if image.startswith("/") or "://" in image:
        return image
    prefix = annotation(pod.metadata.annotations, "image-root") or settings.image_prefix or "docker://"
    if prefix.startswith("-") or not prefix.isprintable():
        raise PodRefused(f'annotation image-root: "{prefix}" is no beginning of an image; write docker://HOST/')
    return prefix + image


def files_of(start: Start) -> dict[str, str]:
    """The files that a start script reads, by their names in the container's folder."""
    environment = start.environment
    files = {LARGE: environment.own()} if environment.large else {}
    if start.settings.runtime == "apptainer":
        return {**files, VARIABLES: environment.assignments()}
    if start.settings.runtime == "podman":
        return {**files, VARIABLES: environment.exports_of(environment.handed_on), FILE: environment.file()}
    moved = environment.exports(lambda value: _rewritten(value, start))
    return {**files, VARIABLES: environment.exports(), MOVED: moved}


def _prologue(start: Start) -> str:
    lines = [f"here={shlex.quote(str(start.folder))}"]
    annotated = _annotated_mounts(start.pod, start.settings) if start.settings.runtime == "apptainer" else []
    sources = [str(mount.source) for mount in (*start.mounts, *annotated) if mount.of_the_node]
    if sources:
        lines.append(STILL_BELOW.format(sources=shlex.join(sources), allowed=shlex.join(start.settings.host_paths)))
    if _ranked(start):
        lines += [
            WHICH_RANK.format(total=start.ranks.total, unless="0" if start.ranks.total == 1 else "none"),
            "MASTER_ADDR=${DIOSCAR_FIRST_NODE:-127.0.0.1}",
            'getent hosts "$MASTER_ADDR" >/dev/null 2>&1 || MASTER_ADDR=${SLURM_LAUNCH_NODE_IPADDR:-127.0.0.1}',
            "MASTER_PORT=${DIOSCAR_FIRST_PORT:-29500}",
            f"export {' '.join(RANK_VARIABLES)}",
        ]
    return "\n".join(lines) + "\n"


STILL_BELOW = """for source in {sources}; do
    real=$(realpath -m -- "$source") || exit 126
    within=
    for allowed in {allowed}; do
        allowed=$(realpath -m -- "$allowed") || exit 126
        case $real/ in "${{allowed%/}}"/*) within=1 ;; esac
    done
    [ -n "$within" ] || {{ echo "$source: leads out of what this site allows (setting host_paths)" >&2; exit 126; }}
done"""
"""A pod that may write to a host path can put links into it; none may lead another, or itself, out of it."""


WHICH_RANK = """if [ -n "${{OMPI_COMM_WORLD_RANK-}}" ]; then
    RANK=$OMPI_COMM_WORLD_RANK WORLD_SIZE=${{OMPI_COMM_WORLD_SIZE:-{total}}}
    LOCAL_RANK=${{OMPI_COMM_WORLD_LOCAL_RANK:-$RANK}}
elif [ -n "${{PMI_RANK-}}" ]; then
    RANK=$PMI_RANK WORLD_SIZE=${{PMI_SIZE:-{total}}}
    LOCAL_RANK=${{MPI_LOCALRANKID:-${{SLURM_LOCALID:-$RANK}}}}
elif [ -n "${{SLURM_STEP_ID-}}" ]; then
    RANK=$SLURM_PROCID WORLD_SIZE=${{SLURM_STEP_NUM_TASKS:-${{SLURM_NTASKS:-{total}}}}}
    LOCAL_RANK=${{SLURM_LOCALID:-$RANK}}
else
    RANK=${{RANK:-{unless}}} WORLD_SIZE={total}
    LOCAL_RANK=$RANK
fi
if ! [ "$RANK" -lt "$WORLD_SIZE" ] 2>/dev/null; then
    echo "rank $RANK of $WORLD_SIZE: what starts the ranks does not say which one this is" >&2
    exit 64
fi"""
"""Which rank this is, and of how many, by what has started it. Not knowing is no rank 0: all would do all the work."""


def _ranked(start: Start) -> bool:
    return start.ranks.total > 1 or annotation(start.pod.metadata.annotations, "mpi-flags") is not None


def _command(start: Start, large: str) -> list[str]:
    return start.environment.sourced([*start.container.command, *start.container.args], large)


def _apptainer(start: Start) -> str:
    options = ["--containall", "--no-eval", "--env-file", str(start.folder / VARIABLES)]
    options += ["--workdir", str(start.folder / WORK)]  # else /tmp and HOME are a few MiB of memory
    if gpus_of(start.pod):
        options.append("--nv")
    if start.container.working_dir:
        options += ["--pwd", target_of(start.container.working_dir, f"container {start.container.name}: workingDir")]
    options += [*start.settings.runtime_options, *_options(start.pod)]
    mounts = [*start.mounts, *_annotated_mounts(start.pod, start.settings)]
    if start.environment.large:
        mounts.append(Mount(start.folder / LARGE, INSIDE, read_only=True))
    for mount in mounts:
        if set(str(mount.source)) & set(':,"'):
            raise PodRefused(
                f"{mount.source}: Apptainer binds no path with a colon or comma; give the root another name"
            )
        options += ["--bind", f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"]
    words = ["exec" if start.container.command else "run", *options]
    ranked = "".join(f' --env "{name}=${name}"' for name in RANK_VARIABLES) if _ranked(start) else ""
    handed_on = HAND_ON_MPI if _ranked(start) else ""
    image = [image_of(start.container, start.pod, start.settings), *_command(start, INSIDE)]
    return f"""{_program(start, "apptainer", "singularity")}{handed_on}mkdir -p "$here"/{WORK}
cd "$here"/{WORK} || exit 73
exec "$program" {shlex.join(words)}{ranked} {shlex.join(image)}
"""


HAND_ON_MPI = """for name in $(env | sed -n 's/^\\([A-Z]*_[A-Za-z0-9_]*\\)=.*/\\1/p'); do
    case $name in
    PMI_* | PMIX_* | OMPI_* | PRTE_* | SLURM_* | MPI_* | HYDRA_*)
        eval "APPTAINERENV_$name=\\$$name SINGULARITYENV_$name=\\$$name"
        export "APPTAINERENV_$name" "SINGULARITYENV_$name"
        ;;
    esac
done
"""
"""How an MPI library in a container finds those outside that have started it."""


def _podman(start: Start) -> str:
    container = start.container
    name = f"dioscar-{start.pod.metadata.uid}-{container.name}"
    options = ["--rm", "--replace", "--network=host", "--ipc=host", "--user=0:0", "--security-opt=label=disable"]
    options += ["--log-driver=none", "--env-file", str(start.folder / FILE)]
    if container.working_dir:
        options += ["--workdir", target_of(container.working_dir, f"container {container.name}: workingDir")]
    if gpus_of(start.pod):
        options.append("--device=nvidia.com/gpu=all")
    options += start.settings.runtime_options
    mounts = [*start.mounts, *([Mount(start.folder / LARGE, INSIDE, True)] if start.environment.large else [])]
    for mount in mounts:
        if ":" in str(mount.source):
            raise PodRefused(f"{mount.source}: podman binds no path with a colon; give the root another name")
        options.append(f"--volume={mount.source}:{mount.target}{':ro' if mount.read_only else ''}")
    inherited = [f"--env={name}" for name in start.environment.handed_on]
    ranked = [f"--env={name}" for name in RANK_VARIABLES] if _ranked(start) else []
    command = _command(start, INSIDE)
    if container.command:
        options.append(f"--entrypoint={command.pop(0)}")
    image = image_of(container, start.pod, start.settings).removeprefix("docker://")
    image_and_command = shlex.join([image, *command])
    with_variables = f"""/bin/sh -c '. "$0"; exec "$@"' "$here"/{VARIABLES}"""
    run = shlex.join(["run", *options, *inherited, *ranked])
    # a container's first process hears no SIGTERM that it does not ask for, and those below it hear none at all
    return f"""{_program(start, "podman")}{OWN_LIMITS}name={name}-${{RANK:-0}}
ended="$here"/ended-${{RANK:-0}}
rm -f "$ended"
(
    trap : TERM
    setsid {with_variables} "$program" {run} $limits --name "$name" {image_and_command}
    echo $? >"$ended"
) &
running=$!
stop() {{
    "$program" exec "$name" /bin/sh -c 'kill -TERM -1; kill -TERM 1' 2>/dev/null ||
        "$program" kill --signal=TERM "$name" >/dev/null 2>&1
}}
trap stop TERM
wait "$running"
while kill -0 "$running" 2>/dev/null; do wait "$running"; done
code=
read -r code <"$ended"
exit "${{code:-1}}"
"""


OWN_LIMITS = """limits=$(awk '
    function least(most) { most = (most + 0 && most < 8192) ? most : 8192; return most ":" most }
    /^Max open files/ { print "--ulimit=nofile=" least($5) }
    /^Max processes/ { print "--ulimit=nproc=" least($4) }' /proc/self/limits)
"""
"""What the job may have itself: podman asks for more, which not every node grants."""


def _process(start: Start) -> str:
    container = start.container
    if not container.command:
        raise PodRefused(
            f"container {container.name}: has no command, and a plain process has no image that has one; set command"
        )
    large = start.folder / LARGE
    mounts = sorted(start.mounts, key=lambda mount: mount.target)
    if start.environment.large:
        mounts.append(Mount(large, INSIDE, read_only=True))
    bound = _command(start, INSIDE)
    moved = [_rewritten(word, start) for word in _command(start, str(large))]
    workdir = container.working_dir
    binds = "".join(
        f'    set -- "$@" {"--ro-bind" if mount.read_only else "--bind"} {shlex.quote(str(mount.source))} '
        f'"$(realpath -m {shlex.quote(mount.target)})"\n'
        for mount in mounts
    )
    chdir = f'    set -- "$@" --chdir {shlex.quote(workdir)}\n' if workdir else ""
    found = shlex.quote(start.settings.runtime_command or "bwrap")
    return f"""mkdir -p "$here"/{WORK} && cd "$here"/{WORK} || exit 73
{TREE.format(targets=shlex.join([mount.target for mount in mounts]))}
if program=$(command -v {found}) && clean=$(command -v env); then
    IFS='
'
    set -f
    set -- "$program" $(tree)
    set +f
    unset IFS
{binds}{chdir}    set -- "$@" -- "$clean" --default-signal=TERM
    if "$@" true 2>/dev/null; then
        . "$here"/{VARIABLES}
        trap '' TERM
        exec "$@" {shlex.join(bound)}
    fi
fi
case $here in
*[[:space:]]*)
    echo "without bubblewrap, no folder above $here may have a blank in its name" >&2
    exit 126
    ;;
esac
export DIOSCAR_POD_ROOT="$here"/{ROOT}
. "$here"/{MOVED}
{f"cd {shlex.quote(_rewritten(workdir, start))} || exit 73" if workdir else ":"}
exec {shlex.join(moved)}
"""


TREE = """entries() {{
    for entry in "$1"/* "$1"/.[!.]*; do
        if [ -L "$entry" ]; then printf '%s\\n' --symlink "$(readlink "$entry")" "$entry"
        elif [ -e "$entry" ]; then printf '%s\\n' --dev-bind "$entry" "$entry"; fi
    done
}}
tree() {{
    set +f
    entries ""
    for target in {targets}; do
        real=$(realpath -m "$target")
        [ ! -e "$real" ] || continue
        above=${{real%/*}}
        while [ ! -d "${{above:-/}}" ]; do above=${{above%/*}}; done
        [ -z "$above" ] || printf '%s\\n' "$above"
    done | sort -u | while IFS= read -r above; do
        printf '%s\\n' --tmpfs "$above"
        entries "$above"
    done
}}"""
"""The node's own tree, entry by entry; folders in which a mount point is to be made are made anew in memory."""


def _rewritten(text: str, start: Start) -> str:
    return rewrite(text, [mount.target for mount in start.mounts], start.folder / ROOT)


def rewrite(text: str, targets: Sequence[str], root: Path) -> str:
    """A text in which the paths of mounts are those below `root`.

    >>> rewrite("cp -r /kit/* /data; echo x/data /database", ["/data", "/kit"], Path("/r"))
    'cp -r /r/kit/* /r/data; echo x/data /database'

    Base64 stays as it is: its slashes stand between letters.
    """
    if not targets:
        return text
    paths = "|".join(re.escape(target) for target in sorted(targets, key=len, reverse=True))
    return re.sub(rf"(?<![\w./+-])(?:{paths})(?![\w.+=-])", lambda match: f"{root}{match[0]}", text)


def _program(start: Start, *names: str) -> str:
    if start.settings.runtime_command:
        return f"program={shlex.quote(start.settings.runtime_command)}\n"
    looks = " || ".join(f"command -v {name}" for name in names)
    missing = " nor ".join(names)
    return f"program=$({looks}) || {{ echo 'no {missing} on this node' >&2; exit 127; }}\n"


def _options(pod: Pod) -> list[str]:
    given = annotation(pod.metadata.annotations, "singularity-options")
    words = words_of(given or "", "singularity-options")
    for word in words:
        if not OPTIONS.fullmatch(word):
            raise PodRefused(
                f'annotation slurm-job.vk.io/singularity-options: "{word}" is not allowed here; leave it out'
            )
    return words


def _annotated_mounts(pod: Pod, settings: Settings) -> list[Mount]:
    """`--bind SOURCE:TARGET[:ro]`, with or without the option's name; sources as for hostPath."""
    import os

    where = "annotation slurm-job.vk.io/singularity-mounts"
    mounts = []
    words = words_of(annotation(pod.metadata.annotations, "singularity-mounts") or "", "singularity-mounts")
    for word in words:
        if word in ("--bind", "-B"):
            continue
        for bind in word.removeprefix("--bind=").split(","):
            source, _, rest = bind.partition(":")
            target, _, mode = rest.partition(":")
            real = Path(os.path.realpath(source))
            if not source.startswith("/") or mode not in ("", "ro", "rw"):
                raise PodRefused(f'{where}: "{bind}" is no mount; write --bind /SOURCE:/TARGET:ro')
            if not any(real.is_relative_to(os.path.realpath(above)) for above in settings.host_paths):
                raise PodRefused(f"{where}: {source}: is not below a path that this site allows (setting host_paths)")
            mounts.append(Mount(real, target_of(target or source, where), mode == "ro", of_the_node=True))
    return mounts
