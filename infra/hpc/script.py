"""From the protocol's pod to a folder of files and one job script, and what the batch system is to be asked for.

The script runs init containers one by one, then all containers at once. Each one's end stands in `<name>.status`
(see `infra.hpc.folder`). SIGTERM to the script, which comes before the time limit, reaches every process of the pod,
which then has until the limit to write a checkpoint and end with 75. The script may be run again in the same folder,
by the plugin after a 75, or by Slurm after the failure of a node (`--requeue`, unless the pod says `--no-requeue`: all
that DiOSCAR runs may run twice, and behind a virtual kubelet nobody else would try again).
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from infra.hpc.batch import Submission
from infra.hpc.environment import Environment
from infra.hpc.flags import Ranks, annotation, flags_of
from infra.hpc.folder import CLAIM, NAME, OUTPUT, sync_folder
from infra.hpc.launcher import launcher, started
from infra.hpc.mounts import Volumes, private_file, private_folder
from infra.hpc.protocol import Container, CreateRequest, Pod, PodRefused
from infra.hpc.runtimes import ROOT, START, Start, files_of, start_script, with_image
from infra.hpc.settings import Settings

SCRIPT, CONTAINERS, PRE_EXEC = "job.sh", "containers", "pre-exec"
NOT_WRITTEN = 73
"""The exit status of a job that could not write down how a container ended (EX_CANTCREAT)."""
STOPPED = 143
CHECKPOINT, SERVICE = "DIOSCAR_CHECKPOINT", "OSCAR_SERVICE_NAME"
SERVICE_LABEL = "oscar_service"
"""The label by which OSCAR finds the pods of a service."""


def write(request: CreateRequest, folder: Path, settings: Settings) -> Submission:
    """Write a pod's files and script into its folder, which is there. Raises PodRefused, OSError."""
    pod = request.pod
    _check(request, settings)
    flags = flags_of(pod, settings)
    ranks = started(pod, flags)
    many = ranks.total > 1 or annotation(pod.metadata.annotations, "mpi-flags") is not None
    if many and len(pod.spec.containers) > 1:
        raise PodRefused(f"pod {pod.metadata.name}: a pod of several ranks has one container; leave the others out")
    volumes = Volumes(request, folder, settings)
    for container in pod.spec.init_containers:
        _container(pod, container, folder, volumes, Ranks(), settings)
    for container in pod.spec.containers:
        _container(pod, container, folder, volumes, ranks, settings)
    pre_exec = annotation(pod.metadata.annotations, "pre-exec")
    if pre_exec:
        private_file(folder / PRE_EXEC, pre_exec.encode(errors="surrogateescape") + b"\n")
    private_file(folder / SCRIPT, _script(pod, folder, ranks, bool(pre_exec), settings).encode())
    (folder / OUTPUT).touch(mode=0o600)
    for above, _, _ in os.walk(folder):
        sync_folder(Path(above))
    return Submission(
        name=pod.metadata.uid,
        comment=f"{pod.metadata.namespace}/{pod.metadata.name}",
        script=folder / SCRIPT,
        folder=folder,
        flags=flags,
    )


def _check(request: CreateRequest, settings: Settings) -> None:
    pod = request.pod
    names = [container.name for container in (*pod.spec.init_containers, *pod.spec.containers)]
    for name in names:
        if not NAME.fullmatch(name) or names.count(name) > 1:
            raise PodRefused(f'pod {pod.metadata.name}: containers: "{name}" is no name of its own; write a DNS label')
    for container in pod.spec.init_containers:
        if container.restart_policy == "Always":
            raise PodRefused(
                f"container {container.name}: restartPolicy Always: a sidecar is not supported; start it in a container"
            )
    if not pod.spec.containers:
        raise PodRefused(f"pod {pod.metadata.name}: has no container; give it one")
    if request.job_script:
        raise PodRefused(f"pod {pod.metadata.name}: jobScript: scripts of a site are not supported; unset its template")
    if not settings.shared:
        raise PodRefused("setting shared: compute nodes must see the root; name a root on a shared file system")
    if annotation(pod.metadata.annotations, "pre-exec") and not settings.pre_exec:
        raise PodRefused("annotation slurm-job.vk.io/pre-exec: this site runs none (setting pre_exec); leave it out")


def _container(
    pod: Pod, container: Container, folder: Path, volumes: Volumes, ranks: Ranks, settings: Settings
) -> None:
    own = folder / CONTAINERS / container.name
    private_folder(own)
    more, mounts = _checkpoint(pod, container, settings), volumes.mounts(container)
    start = Start(
        pod=pod,
        container=container,
        folder=own,
        mounts=with_image(container, mounts, more, settings),
        environment=Environment(container, more),
        ranks=ranks,
        settings=settings,
    )
    private_file(own / START, start_script(start).encode())
    for name, text in files_of(start).items():
        private_file(own / name, text.encode())
    if settings.runtime == "process":
        _tree(start)


def _checkpoint(pod: Pod, container: Container, settings: Settings) -> Mapping[str, str]:
    """The variable that names the folder for checkpoints, and the folder made.

    A pod writes its own environment and labels, so that it may name any service; but not of another namespace.
    """
    environ = {variable.name: variable.value for variable in container.env}
    service = pod.metadata.labels.get(SERVICE_LABEL) or environ.get(SERVICE, "")
    if settings.checkpoints is None or not all(NAME.fullmatch(name) for name in (pod.metadata.namespace, service)):
        return {}
    folder = settings.checkpoints / pod.metadata.namespace / service
    private_folder(folder)
    return {CHECKPOINT: str(folder)}


def _tree(start: Start) -> None:
    """Links from where a pod's mounts are, below a root of its own, to what they are."""
    root = start.folder / ROOT
    private_folder(root)
    for mount in sorted(start.mounts, key=lambda mount: mount.target):
        link = root / mount.target.lstrip("/")
        private_folder(link.parent)
        if not link.is_symlink():
            link.symlink_to(mount.source)


def _script(pod: Pod, folder: Path, ranks: Ranks, pre_exec: bool, settings: Settings) -> str:
    names = [container.name for container in (*pod.spec.init_containers, *pod.spec.containers)]
    words = launcher(pod, ranks)
    comment = f"{pod.metadata.namespace}/{pod.metadata.name}"
    return HEAD.format(
        comment="".join(character if character.isprintable() else "?" for character in comment),
        folder=shlex.quote(str(folder)),
        programs=f"PATH={shlex.quote(str(settings.slurm_bin))}:$PATH\n" if settings.slurm_bin else "",
        claim=CLAIM,
        names=" ".join(names),
        not_written=NOT_WRITTEN,
        containers=CONTAINERS,
        start=START,
        stopped=STOPPED,
        steps='[ -z "${SLURM_JOB_ID-}" ] || scancel --quiet --signal=TERM "$SLURM_JOB_ID"' if words else ":",
    ) + "\n".join(
        [
            *([RANKS.format(total=ranks.total, launch=_launch(words, ranks), start=START)] if words else []),
            *([f'. "$folder"/{PRE_EXEC}'] if pre_exec else []),
            *(f"run {container.name} once\nended $!" for container in pod.spec.init_containers),
            *(f"run {container.name} {'ranks' if words else 'once'}\nkeep $!" for container in pod.spec.containers),
            TAIL,
        ]
    )


def _launch(words: list[str], ranks: Ranks) -> str:
    """What starts all ranks: a launcher of the batch system, or where there is none, this shell."""
    line = f'{shlex.join(words)} /bin/sh "$1"/{START}'
    if words[0] != "srun":
        return f"    {line}"
    return f"""    if [ -n "${{SLURM_JOB_ID-}}" ]; then
        setsid {line}
    else
        here_all "$1" {ranks.total}
    fi"""


HEAD = """#!/bin/sh
# The pod {comment}
umask 077
{programs}folder={folder}
cd "$folder" || exit {not_written}
job=${{SLURM_JOB_ID:-${{DIOSCAR_HPC_JOB:-$$}}}}

# one job at a time has the folder; the same job may come back to it
if ! mkdir {claim} 2>/dev/null; then
    tries=0
    while [ -d {claim} ] && [ ! -s {claim}/job ] && [ $tries -lt 10 ]; do
        sleep 1
        tries=$((tries + 1))
    done
    other=
    [ ! -s {claim}/job ] || read -r other <{claim}/job
    if [ -n "$other" ] && [ "$other" != "$job" ]; then
        echo "this pod runs already, as job $other"
        exit 0
    fi
fi
{{ echo "$job" >{claim}/job.part && mv {claim}/job.part {claim}/job; }} || exit {not_written}
for name in {names}; do
    rm -f "$name.status" "$name.started" "$name.finished"
done

stopping=
worst=0
waited=
stop() {{
    stopping=1
    trap '' TERM
    kill -TERM 0
    {steps}
    trap stop TERM
}}
# whatever the batch system sends before it ends a job
trap stop TERM INT HUP USR1 USR2

note() {{
    date +%s >".$1.part" && mv -f ".$1.part" "$1"
}}
once() {{
    /bin/sh "$1"/{start}
}}
# starts a container: its end is written down by a shell that only waits for it, and so knows it whatever signals come
run() {{
    [ -z "$stopping" ] || exit {stopped}
    (
        trap : TERM
        note "$1.started"
        "$2" "$folder"/{containers}/"$1" >>"$1.log" 2>&1 </dev/null
        code=$?
        note "$1.finished"
        if echo "$code" >".$1.status.part" && mv -f ".$1.status.part" "$1.status"; then exit "$code"; fi
        [ "$code" != 0 ] || code={not_written}
        exit "$code"
    ) &
    last=$1
}}
keep() {{
    waited="$waited $1:$last"
}}
# waits for a container whatever signals come; what it wrote goes before what `wait` was told
await() {{
    while :; do
        wait "$1"
        code=$?
        kill -0 "$1" 2>/dev/null || break
    done
    if [ -s "$2.status" ]; then read -r code <"$2.status"; elif [ "$code" = 0 ]; then code={not_written}; fi
    [ "$code" -le "$worst" ] || worst=$code
}}
ended() {{
    await "$1" "$last"
    [ "$worst" = 0 ] || exit "$worst"
}}
"""

RANKS = """
DIOSCAR_FIRST_NODE=$(scontrol show hostnames "${{SLURM_JOB_NODELIST-}}" 2>/dev/null | head -n 1)
DIOSCAR_FIRST_PORT=$((20000 + ${{SLURM_JOB_ID:-$$}} % 12000)) # below those that outgoing connections take
SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}
export DIOSCAR_FIRST_NODE DIOSCAR_FIRST_PORT SRUN_CPUS_PER_TASK
[ -n "${{SLURM_CPUS_PER_TASK-}}" ] || unset SRUN_CPUS_PER_TASK
: "${{SLURM_NTASKS:={total}}}"
# all ranks on this machine
here_all() {{
    rank=0
    running=
    while [ "$rank" -lt "$2" ]; do
        rm -f "$1/rank-$rank"
        (
            trap : TERM
            export RANK="$rank"
            /bin/sh "$1"/{start}
            echo $? >"$1/rank-$rank"
        ) &
        running="$running $!"
        rank=$((rank + 1))
    done
    for one in $running; do
        wait "$one"
        while kill -0 "$one" 2>/dev/null; do wait "$one"; done
    done
    highest=0
    while [ "$rank" -gt 0 ]; do
        rank=$((rank - 1))
        one=
        [ ! -s "$1/rank-$rank" ] || read -r one <"$1/rank-$rank"
        [ "${{one:-1}}" -le "$highest" ] || highest=${{one:-1}}
    done
    return "$highest"
}}
ranks() {{
{launch}
}}
"""

TAIL = """
for one in $waited; do
    await "${one%%:*}" "${one#*:}"
done
exit "$worst"
"""
