"""The job script, run by a real shell: what containers see, and what is known of how they ended."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.hpc.protocol import PodRefused
from infra.hpc.runtimes import rewrite
from tests.cluster import eventually
from tests.infra.hpc.slurm.pods import base64_of, bring, container, log, pod, run, start, status, written

WITHOUT_BUBBLEWRAP = {"runtime_command": "/nowhere/bwrap"}
DUMP = f'exec {sys.executable} -c \'import json, os; json.dump(dict(os.environ), open(os.environ["TO"], "w"))\''


@pytest.fixture(params=["bubblewrap", "rewritten"])
def how(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings for either way in which a plain process finds its mounts."""
    if request.param == "rewritten":
        return WITHOUT_BUBBLEWRAP
    probe = ["bwrap", "--dev-bind", "/", "/", "true"]
    if not shutil.which("bwrap") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("bubblewrap does not work here; infra/sandbox-env.sh installs it")
    return {}


def oscar_pod(event: str, code: int = 0) -> dict[str, Any]:
    """As OSCAR sends it, its supervisor a script that tells what it sees."""
    share = {"name": "supervisor-share-data", "mountPath": "/data"}
    config = {"name": "oscar-config", "mountPath": "/oscar/config", "readOnly": True}
    secret = {"name": "minio-user", "mountPath": "/var/run/secrets/providers/minio.default", "readOnly": True}
    init = {
        "name": "supervisor-container",
        "image": "ghcr.io/grycap/faas-supervisor-kit:1",
        "command": ["/bin/sh", "-c"],
        "args": ["cp -r /supervisor/* /data"],
        "volumeMounts": [share],
    }
    main = container(
        "echo $EVENT | base64 -d | /data/supervisor",
        "oscar-container",
        env=[{"name": "EVENT", "value": event}, {"name": "CODE", "value": str(code)}],
        volumeMounts=[config, share, secret],
    )
    volumes = [
        {"name": "oscar-config", "configMap": {"name": "a-service"}},
        {"name": "supervisor-share-data", "emptyDir": {}},
        {"name": "minio-user", "secret": {"secretName": "minio-user"}},
    ]
    request = pod(main, initContainers=[init], volumes=volumes)
    request["container"][1] |= {
        "configMaps": [{"metadata": {"name": "a-service"}, "data": {"script.sh": "echo hello\n"}}],
        "secrets": [{"metadata": {"name": "minio-user"}, "data": {"accessKey": base64_of(b"key\0\xff")}}],
    }
    return request


@pytest.mark.parametrize("size", [10, 200_000])
def test_the_pod_that_oscar_sends_runs(tmp_path: Path, how: dict[str, Any], size: int) -> None:
    kit = tmp_path / "kit"
    kit.mkdir()
    (kit / "supervisor").write_text(
        "#!/bin/sh\nwc -c; cat $DIOSCAR_POD_ROOT/oscar/config/script.sh\n"
        "wc -c <$DIOSCAR_POD_ROOT/var/run/secrets/providers/minio.default/accessKey; exit $CODE\n"
    )
    (kit / "supervisor").chmod(0o755)
    event = base64.b64encode(os.urandom(size)).decode()
    submission = written(tmp_path, oscar_pod(event, 7), images={"*supervisor*": {"/supervisor": str(kit)}}, **how)
    assert run(submission) == 7
    assert log(submission, "oscar-container").split() == [str(size), "echo", "hello", "5"]
    assert (status(submission, "supervisor-container"), status(submission, "oscar-container")) == (0, 7)
    started = int((submission.folder / "oscar-container.started").read_text())
    assert 0 <= int((submission.folder / "oscar-container.finished").read_text()) - started < 120
    for path in submission.folder.rglob("*"):
        assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path
    assert event not in submission.script.read_text()


VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
SHELL_LIKE = st.sampled_from(
    ['{"a": "b\'c"}', "$HOME `id` $(id)", "a\nb\n\n", "\\n\\", "'", '"', " x ", "*", "", "é😀\t\r"]
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES | SHELL_LIKE, min_size=1, max_size=8), content=st.binary(max_size=300), text=VALUES)
def test_values_and_files_arrive_as_they_are(tmp_path: Path, values: list[str], content: bytes, text: str) -> None:
    target = tmp_path / "environ.json"
    env = [{"name": f"V{number}", "value": value} for number, value in enumerate(values)]
    request = pod(
        container(
            DUMP, env=[*env, {"name": "TO", "value": str(target)}], volumeMounts=[{"name": "v", "mountPath": "/v"}]
        ),
        volumes=[{"name": "v", "configMap": {"name": "m"}}],
    )
    files = {"data": {"text": text}, "binaryData": {"bytes": base64_of(content)}}
    submission = written(
        tmp_path, bring(request, configMaps=[{"metadata": {"name": "m"}, **files}]), **WITHOUT_BUBBLEWRAP
    )
    assert run(submission) == 0, log(submission)
    seen = json.loads(target.read_text())
    assert [seen[f"V{number}"] for number in range(len(values))] == values
    volume = submission.folder / "volumes" / "v"
    assert (volume / "bytes").read_bytes() == content and (volume / "text").read_bytes() == text.encode()


def test_values_are_in_no_argument(tmp_path: Path) -> None:
    request = pod(container("tr '\\0' ' ' </proc/$$/cmdline; sleep 0", env=[{"name": "KEY", "value": "s3cret"}]))
    submission = written(tmp_path, request)
    assert run(submission) == 0 and "s3cret" not in log(submission)
    assert "s3cret" not in submission.script.read_text()


def test_a_variable_that_no_process_can_have_is_refused_unless_a_shell_reads_it(tmp_path: Path) -> None:
    env = [{"name": "EVENT", "value": "x" * 140_000}]
    assert run(written(tmp_path, pod(container("echo ${#EVENT}", env=env)))) == 0
    with pytest.raises(PodRefused, match=r"EVENT.*128 KiB"):
        written(tmp_path, pod({"name": "main", "image": "x", "command": ["python3"], "env": env}))
    many = [{"name": f"V{number}", "value": "x" * 130_000} for number in range(10)]
    with pytest.raises(PodRefused, match="1 MiB"):
        written(tmp_path, pod(container("true", env=many)))


@pytest.mark.parametrize("name, value", [("a.b", "x"), ("1A", "x"), ("A", "x\0y"), ("A", "\ud800")])
def test_variables_that_no_shell_has_are_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(PodRefused, match="env"):
        written(tmp_path, pod(container("true", env=[{"name": name, "value": value}])))


def test_volumes_hold_what_was_chosen_at_its_mode(tmp_path: Path, how: dict[str, Any]) -> None:
    mounts = [
        {"name": "chosen", "mountPath": "/etc/chosen"},
        {"name": "secret", "mountPath": "/one-file", "subPath": "deep/key"},
        {"name": "tokens", "mountPath": "/tokens"},
        {"name": "maybe", "mountPath": "/maybe"},
        {"name": "share", "mountPath": "/share"},
    ]
    volumes = [
        {"name": "chosen", "configMap": {"name": "m", "items": [{"key": "run", "path": "bin/run", "mode": 0o755}]}},
        {
            "name": "secret",
            "secret": {"secretName": "s", "items": [{"key": "key", "path": "deep/key"}], "defaultMode": 0o400},
        },
        {"name": "tokens", "projected": {"sources": []}},
        {"name": "maybe", "configMap": {"name": "absent", "optional": True}},
        {"name": "share", "emptyDir": {"medium": "Memory"}},
    ]
    text = "/etc/chosen/bin/run; ls /etc/chosen; cat /one-file /tokens/deep/token; ls /maybe"
    text += "; echo x >/share/f; cat /share/f"
    request = bring(
        pod(container(text, volumeMounts=mounts), volumes=volumes),
        configMaps=[{"metadata": {"name": "m"}, "data": {"run": "#!/bin/sh\necho ran\n", "other": ""}}],
        secrets=[{"metadata": {"name": "s"}, "data": {"key": base64_of(b"k\n")}}],
        projectedvolumemaps=[{"metadata": {"name": "tokens"}, "data": {"deep/token": "t\n"}}],
    )
    submission = written(tmp_path, request, **how)
    assert run(submission) == 0, log(submission)
    assert log(submission).split() == ["ran", "bin", "k", "t", "x"]
    assert (submission.folder / "volumes/secret/deep/key").stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize(
    "volume, words",
    [
        ({"persistentVolumeClaim": {"claimName": "c"}}, "volume v: is persistentVolumeClaim"),
        ({"nfs": {"server": "s"}}, "volume v: is nfs"),
        ({"csi": {}}, "volume v: is csi"),
        ({"hostPath": {"path": "/etc"}}, "volume v: hostPath /etc: this site allows none"),
        ({"configMap": {"name": "absent"}}, "volume v: its ConfigMap absent did not come"),
        ({"secret": {"secretName": "absent"}}, "volume v: its Secret absent did not come"),
        ({"configMap": {"name": "m", "items": [{"key": "k", "path": "../../x"}]}}, "does not stay inside"),
        ({"configMap": {"name": "m", "items": [{"key": "no", "path": "x"}]}}, 'there is no key "no"'),
        ({}, "volume v: is of no kind"),
    ],
)
def test_what_cannot_be_mounted_is_refused_by_name(tmp_path: Path, volume: dict[str, Any], words: str) -> None:
    request = pod(container("true", volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=[{"name": "v", **volume}])
    bring(request, configMaps=[{"metadata": {"name": "m"}, "data": {"k": "v"}}])
    with pytest.raises(PodRefused, match=words) as refused:
        written(tmp_path, request)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "mount",
    [
        *({"mountPath": path} for path in ("v", "/", "/a/../b", "/a:b", "/a,b", "/a\nb")),
        {"mountPath": "/v", "subPath": "../x"},
        {"mountPath": "/v", "subPathExpr": "$(X)"},
        {"mountPath": "/v", "subPath": "a-link-by-then"},
    ],
)
def test_mounts_outside_are_refused(tmp_path: Path, mount: dict[str, str]) -> None:
    request = pod(container("true", volumeMounts=[{"name": "v", **mount}]), volumes=[{"name": "v", "emptyDir": {}}])
    with pytest.raises(PodRefused, match="v"):
        written(tmp_path, request)


def test_host_paths_are_mounted_where_the_site_allows_them(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "deep").mkdir(parents=True)
    (allowed / "out").symlink_to("/etc")

    def request(path: Path) -> dict[str, Any]:
        mount = {"name": "v", "mountPath": "/v"}
        volume = {"name": "v", "hostPath": {"path": str(path), "type": "Directory"}}
        return pod(container("echo x >/v/f", volumeMounts=[mount]), volumes=[volume])

    assert run(written(tmp_path, request(allowed / "deep"), host_paths=(str(allowed),))) == 0
    assert (allowed / "deep" / "f").read_text() == "x\n"
    with pytest.raises(PodRefused, match="must be below"):
        written(tmp_path, request(allowed / "out"), host_paths=(str(allowed),))


@pytest.mark.parametrize("sub_path", ["", "below"])
def test_a_link_that_a_pod_makes_leads_it_nowhere(tmp_path: Path, how: dict[str, Any], sub_path: str) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    (allowed / "own" / "below").mkdir(parents=True)
    secret.mkdir()
    (secret / "key").write_text("key")
    victim = "/all/own/below" if sub_path else "/all/own"
    first = container(
        f"rm -rf {victim} && ln -s {secret} {victim}", "first", volumeMounts=[{"name": "all", "mountPath": "/all"}]
    )
    main = container("cat /mine/key", volumeMounts=[{"name": "own", "mountPath": "/mine", "subPath": sub_path}])
    volumes = [
        {"name": "all", "hostPath": {"path": str(allowed)}},
        {"name": "own", "hostPath": {"path": str(allowed / "own")}},
    ]
    request = pod(main, initContainers=[first], volumes=volumes)
    submission = written(tmp_path, request, host_paths=(str(allowed),), **how)
    assert run(submission) == 126, log(submission, "first") + log(submission)
    assert "leads out of what this site allows" in log(submission)


def test_a_sub_path_through_a_link_out_of_its_volume_is_refused(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "out").symlink_to("/etc")
    main = container("ls /v", volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "out"}])
    request = pod(main, volumes=[{"name": "v", "hostPath": {"path": str(allowed)}}])
    with pytest.raises(PodRefused, match="a link leads out"):
        written(tmp_path, request, host_paths=(str(allowed),))


def test_containers_run_at_once_and_after_init_containers(tmp_path: Path) -> None:
    meet = "while [ ! -e {} ]; do sleep 0.05; done"
    one = container(f"touch {tmp_path}/a; {meet.format(tmp_path / 'b')}; exit 4", "one")
    two = container(f"touch {tmp_path}/b; {meet.format(tmp_path / 'a')}; exit 2", "two")
    inits = [container(f"[ ! -e {tmp_path}/a ] && echo {number}", f"init-{number}") for number in range(2)]
    submission = written(tmp_path, pod(one, two, initContainers=inits))
    assert run(submission) == 4
    assert [status(submission, name) for name in ("init-0", "init-1", "one", "two")] == [0, 0, 4, 2]


def test_nothing_runs_after_an_init_container_that_fails(tmp_path: Path) -> None:
    inits = [container("exit 9", "first"), container("true", "second")]
    submission = written(tmp_path, pod(container("true"), initContainers=inits))
    assert run(submission) == 9
    assert [status(submission, name) for name in ("first", "second", "main")] == [9, None, None]


def test_sigterm_reaches_all_and_leaves_time_for_a_checkpoint(tmp_path: Path, how: dict[str, Any]) -> None:
    wait = "touch {}; while :; do sleep 0.05; done"
    # the last of a pipe, below a shell that no trap of its own keeps: as OSCAR's supervisor is
    function = f"trap 'sleep 0.3; echo saved; exit 75' TERM; {wait.format(tmp_path / 'inner')}"
    one = container(f"echo event | cat | sh -c {json.dumps(function)}", "one")
    two = container(wait.format(tmp_path / "two") + "; exit 0", "two")
    done = container(
        f"sh -c 'trap \"exit 0\" TERM; touch {tmp_path}/done; while :; do sleep 0.05; done'; echo on", "done"
    )
    submission = written(tmp_path, pod(one, two, done), **how)
    process = start(submission)
    for name in ("inner", "two", "done"):
        eventually((tmp_path / name).exists)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    assert "saved" in log(submission, "one") and "on" in log(submission, "done").split()
    assert [status(submission, name) for name in ("one", "two", "done")] == [75, 143, 0]


def test_a_pod_that_runs_again_goes_on_in_its_folder(tmp_path: Path) -> None:
    mount = {"name": "v", "mountPath": "/v"}
    text = "echo run; if [ -e /v/step ]; then exit 0; fi; touch /v/step; exit 75"
    request = pod(container(text, volumeMounts=[mount]), volumes=[{"name": "v", "emptyDir": {}}])
    submission = written(tmp_path, request)
    assert run(submission) == 75
    assert start(submission, job="2").wait(60) == 0  # another job of the same submission touches nothing
    assert status(submission) == 75 and "as job 1" in (submission.folder / "job.out").read_text()
    assert run(submission) == 0  # the same job, put back into the queue
    assert (status(submission), log(submission)) == (0, "run\nrun\n")


def test_an_end_that_cannot_be_written_down_is_no_success(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("a small file system can only be mounted by root")
    root = tmp_path / "small"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", root], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        fill = f"cat /dev/zero >{root}/fill 2>/dev/null; exit 0"
        submission = written(root, pod(container(fill)), **WITHOUT_BUBBLEWRAP)
        code = run(submission)
        assert code == 73 and status(submission) is None
        (root / "fill").unlink()
        assert run(written(root, pod(container("exit 0"), uid="another"), **WITHOUT_BUBBLEWRAP)) == 0
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_ranks_without_a_batch_system_run_on_this_machine(tmp_path: Path) -> None:
    text = f"echo $RANK $LOCAL_RANK $WORLD_SIZE >{tmp_path}/$RANK; [ $MASTER_PORT -ge 20000 ] && exit $((RANK * 3))"
    submission = written(
        tmp_path, pod(container(text), annotations={"dioscar/nodes": "1", "dioscar/tasks-per-node": "3"})
    )
    assert run(submission) == 6 and status(submission) == 6
    assert [(tmp_path / str(rank)).read_text().split()[:3] for rank in range(3)] == [
        [str(r), str(r), "3"] for r in range(3)
    ]


@pytest.mark.parametrize(
    "metadata, folder",
    [
        ({}, "default/train"),
        ({"namespace": "alice"}, "alice/train"),
        ({"labels": {"oscar_service": "other"}}, "default/other"),
    ],
)
def test_checkpoints_have_a_folder_of_their_namespace_and_service(
    tmp_path: Path, metadata: dict[str, Any], folder: str
) -> None:
    text = "echo x >$DIOSCAR_CHECKPOINT/step"
    request = pod(container(text, env=[{"name": "OSCAR_SERVICE_NAME", "value": "train"}]))
    request["pod"]["metadata"] |= metadata
    assert run(written(tmp_path, request, checkpoints=tmp_path / "kept")) == 0
    assert (tmp_path / "kept" / folder / "step").exists()


@pytest.mark.parametrize("metadata", [{"namespace": ""}, {"namespace": ".."}, {"labels": {"oscar_service": "../x"}}])
def test_no_folder_for_checkpoints_is_outside_of_theirs(tmp_path: Path, metadata: dict[str, Any]) -> None:
    main = container('echo "<$DIOSCAR_CHECKPOINT>"', env=[{"name": "OSCAR_SERVICE_NAME", "value": "train"}])
    request = pod(main)
    request["pod"]["metadata"] |= metadata
    submission = written(tmp_path, request, checkpoints=tmp_path / "kept")
    assert run(submission) == 0
    assert log(submission) == "<>\n"


@pytest.mark.parametrize("given_pod, words", [
    (pod(container("true"), annotations={"slurm-job.vk.io/pre-exec": "id"}), "pre-exec"),
    (pod(container("true"), annotations={"job.vk.io/pre-exec": "id"}), "pre-exec"),
    (pod({"name": "main", "image": "docker://x"}), "main: has no command"),
    (pod(container("true"), container("true")), "containers"),
    (pod(container("true", "no/name")), "containers"),
    (pod(), "has no container"),
    (pod(container("true"), initContainers=[container("x", "side", restartPolicy="Always")]), "side: restartPolicy"),
    ({**pod(container("true")), "jobScript": "#!/bin/sh\n"}, "jobScript"),
])  # fmt: skip
def test_pods_that_cannot_run_here_are_refused(tmp_path: Path, given_pod: dict[str, Any], words: str) -> None:
    with pytest.raises(PodRefused, match=words):
        written(tmp_path, given_pod)


def test_pre_exec_runs_where_the_site_allows_it(tmp_path: Path) -> None:
    request = pod(container("echo $FROM_IT"), annotations={"job.vk.io/pre-exec": "export FROM_IT=hello"})
    submission = written(tmp_path, request, pre_exec=True)
    assert run(submission) == 0 and log(submission) == "hello\n"


@given(st.binary(max_size=200))
def test_rewriting_paths_leaves_base64_alone(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert rewrite(text, ["/data", "/a", "/z9"], Path("/r")) in (text, f"/r{text}")


def test_mpiexec_starts_the_ranks_where_mpi_flags_are_its_own(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_in = programs / "mpiexec"  # what mpich's does: so many copies, each of which knows its rank
    stand_in.write_text(f"#!/bin/sh\necho $* >{tmp_path}/told\nshift 4\nPMI_RANK=0 $* &\nPMI_RANK=1 $* && wait $!\n")
    stand_in.chmod(0o755)
    annotations = {"slurm-job.vk.io/mpi-flags": "--bind-to none", "slurm-job.vk.io/flags": "-n 2"}
    submission = written(tmp_path, pod(container(f"echo $RANK $WORLD_SIZE >{tmp_path}/$RANK"), annotations=annotations))
    assert run(submission, PATH=f"{programs}:{os.environ['PATH']}") == 0, log(submission)
    assert (tmp_path / "told").read_text().startswith("-np 2 --bind-to none /bin/sh ")
    assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == ["0 2\n", "1 2\n"]


MPIEXEC = """#!/bin/sh
[ "$1" = -np ] && count=$2 && shift 2
rank=0
while [ $rank -lt $count ]; do
    {tell} "$@" &
    rank=$((rank + 1))
done
wait
"""


@pytest.mark.parametrize("tell", [
    "OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_SIZE=$count OMPI_COMM_WORLD_LOCAL_RANK=$rank",
    "PMI_RANK=$rank PMI_SIZE=$count MPI_LOCALRANKID=$rank",
    "SLURM_STEP_ID=0 SLURM_PROCID=$rank SLURM_STEP_NUM_TASKS=$count SLURM_LOCALID=$rank",
])  # fmt: skip
@pytest.mark.parametrize("flags", ["", "--ntasks=3"])
def test_ranks_are_counted_by_what_starts_them(tmp_path: Path, tell: str, flags: str) -> None:
    environ = programs(tmp_path / "bin", mpiexec=MPIEXEC.format(tell=f"env {tell}"))
    annotations = {"slurm-job.vk.io/mpi-flags": "-np 2", "slurm-job.vk.io/flags": flags}
    text = f"echo rank $RANK of $WORLD_SIZE, here $LOCAL_RANK >{tmp_path}/$RANK"
    submission = written(tmp_path, pod(container(text), annotations=annotations))
    # as in a batch script of Slurm's, which is a task itself
    run(submission, SLURM_PROCID="0", SLURM_NTASKS="5", SLURM_LOCALID="0", **environ)
    assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == [
        "rank 0 of 2, here 0\n",
        "rank 1 of 2, here 1\n",
    ], log(submission)


def test_ranks_that_are_not_told_which_they_are_do_nothing(tmp_path: Path) -> None:
    environ = programs(tmp_path / "bin", mpiexec="#!/bin/sh\nshift 2\n$* & first=$!\n$* && wait $first\n")
    request = pod(container("echo all the work"), annotations={"slurm-job.vk.io/mpi-flags": "-np 2"})
    submission = written(tmp_path, request)
    assert run(submission, SLURM_PROCID="0", SLURM_NTASKS="2", **environ) == 64
    assert log(submission).count("does not say which one") == 2 and "all the work" not in log(submission)


def test_slurms_commands_are_found_where_the_site_has_them(tmp_path: Path) -> None:
    # srun as here, but that there is one rank; its options end where the shell begins
    srun = '#!/bin/sh\nwhile [ "$1" != /bin/sh ]; do shift; done\n'
    srun += 'SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 exec "$@"\n'
    programs(tmp_path / "slurm", srun=srun, scontrol="#!/bin/sh\necho localhost\n")
    request = pod(container("echo $MASTER_ADDR $MASTER_PORT"), annotations={"slurm-job.vk.io/mpi-flags": "true"})
    submission = written(tmp_path, request, slurm_bin=tmp_path / "slurm")
    assert run(submission, job="", SLURM_JOB_ID="19999") == 0, log(submission)
    address, port = log(submission).split()
    assert address == "localhost"
    assert 20000 <= int(port) < 32768, "not one that a connection may have taken"


def programs(folder: Path, **texts: str) -> dict[str, str]:
    """The variable that finds these programs before others."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {"PATH": os.pathsep.join((str(folder), os.environ["PATH"]))}
