"""Runs that look around, reach out and write where they should not, in their sandbox."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infra.local.executors.sandbox import sandbox_for
from tests.cluster import COMMAND, Cluster, eventually
from tests.infra.local.faults.world import processes
from tests.infra.local.isolation.walls import has_bubblewrap, outcome, ran, tried, walled

pytestmark = pytest.mark.skipif(not has_bubblewrap(), reason="there is no bubblewrap that works; infra/sandbox-env.sh")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with walled(tmp_path_factory.mktemp("isolation") / "data") as running:
        yield running


def test_a_run_sees_of_the_data_folder_only_what_is_its_own(cluster: Cluster):
    cluster.deploy("other", script='echo secret > "$HOME/kept"; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"')
    outcome(cluster, "other")
    data = cluster.data
    script = f'find {data} -path "$TMPDIR" -prune -o -print | sort; cat {data}/credentials.json {data}/dioscar.db'
    job, log = ran(cluster, "looks", script)
    seen = {line.removeprefix(str(data)) for line in log.splitlines() if line.startswith(str(data))}
    checkpoint = f"/checkpoints/looks/{job['id']}"
    assert seen - {"/run", "/run/looks"} == {"", "/checkpoints", "/checkpoints/looks", checkpoint, "/home"}
    assert job["state"] == "Dead"
    assert "credentials.json: No such file or directory" in log and "dioscar.db: No such file" in job["reason"] + log


def test_a_warm_worker_sees_of_the_data_folder_only_what_is_its_service_s(cluster: Cluster):
    cluster.deploy("neighbour", script="sleep 30")
    cluster.put("neighbour", "in/a", b"x")
    eventually(lambda: cluster.jobs(service="neighbour", state="Running"))
    kept, run = (f"list {cluster.data}{name}" for name in ("", "/run"))
    keys = f"read {cluster.data}/credentials.json"
    said = tried(cluster, "warm-looks", kept, run, keys)
    assert said[kept] == "checkpoints home models run"
    assert said[run] == "warm-looks"
    assert said[keys] == "FileNotFoundError"
    for job in cluster.jobs(service="neighbour"):
        cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/cancel"))


def test_the_system_is_read_only_and_its_secrets_are_not_there(cluster: Cluster):
    script = """
    for file in /x /usr/x /etc/x /oscar; do touch $file && echo wrote $file; done
    for file in /etc/shadow /root /home /var/lib /run/systemd; do [ -r $file ] && ls -A $file; done
    id -u; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; ls /proc | grep -c '^[0-9]'
    touch "$TMPDIR/ok" /tmp/ok "$HOME/ok" /dev/shm/ok && echo mine
    """
    job, log = ran(cluster, "writes", script)
    assert job["state"] == "Succeeded", log
    lines = log.splitlines()
    assert "wrote" not in log and lines.count("mine") == 1
    assert "CapEff:\t0000000000000000" in lines and "NoNewPrivs:\t1" in lines and "1000" in lines
    assert int(lines[-2]) < 10  # processes
    assert sum("Read-only file system" in line for line in lines) == 4


def test_a_run_inherits_nothing_but_its_variables_and_its_output(cluster: Cluster):
    script = 'ls -l /proc/self/fd | grep -o "[0-9]* -> .*"; env | sort'
    job, log = ran(cluster, "inherits", script, environment={"variables": {"MINE": "1"}})
    assert job["state"] == "Succeeded", log
    own = {"/dev/null", f"{cluster.data}/logs/inherits/{job['id']}.log"}
    held = [line.split(" -> ")[1] for line in log.splitlines() if " -> " in line]
    assert set(held) - {one for one in held if one.startswith(("/proc/", "pipe:"))} == own
    assert sum(one.startswith("pipe:") for one in held) == 1  # to grep
    names = {line.partition("=")[0] for line in log.splitlines() if "=" in line}
    assert "MINE" in names and not names & {"PYTEST_CURRENT_TEST", "DIOSCAR_SANDBOX", "OSCAR_PASSWORD", "USER"}


@pytest.mark.parametrize("kind", ["process", "warm"])
def test_the_network_is_there_only_for_those_who_ask(cluster: Cluster, kind: str):
    address = urlsplit(cluster.facts["s3"]).netloc
    for annotations, said in (({}, "ConnectionRefusedError"), ({"dioscar/network": "true"}, "connected")):
        name = f"calls-{kind}-{len(annotations)}"
        if kind == "warm":
            connect = f"connect {address}"
            assert tried(cluster, name, connect, **annotations)[connect] == said
        else:
            host, _, port = address.partition(":")
            code = f"import socket; socket.create_connection(('{host}', {port}), 5); print('connected')"
            _, log = ran(cluster, name, f'exec python3 -c "{code}"', annotations=annotations)
            assert said in log
    outside = tried(cluster, "interfaces", "interfaces ")
    assert outside == {"interfaces ": "lo"}


def test_a_home_is_one_service_s_and_goes_with_it(cluster: Cluster):
    script = 'ls -A "$HOME"; echo x > "$HOME/left-$OSCAR_SERVICE_NAME"'
    assert ran(cluster, "home-a", script)[1] == ""
    assert outcome(cluster, "home-a", key="in/b")[1].strip() == "left-home-a"
    assert ran(cluster, "home-b", script)[1] == ""
    assert cluster.http.delete(cluster.url("/system/services/home-a")).status_code == 204
    assert ran(cluster, "home-a", script)[1] == ""


def test_sigterm_means_in_a_sandbox_what_it_means_outside(cluster: Cluster):
    script = 'trap "echo told; exit 75" TERM; echo ready; while :; do sleep 0.1; done'
    job, log = ran(cluster, "told", script, annotations={"dioscar/timeout": "1"})
    assert "told" in log and job["reason"].startswith("Timeout: took longer than 1 s")
    job, _ = ran(cluster, "untrapped", "sleep 600", annotations={"dioscar/timeout": "1"})
    assert job["reason"].startswith("Timeout: took longer than 1 s")


@pytest.mark.parametrize(
    "script, code, said",
    [
        ("exit 7", 7, "status 7"),
        ("kill -SEGV $$", -signal.SIGSEGV, "signal 11"),
        ("kill -KILL $$", -signal.SIGKILL, "was killed (SIGKILL)"),
    ],
)
def test_an_end_is_told_as_it_was(cluster: Cluster, script: str, code: int, said: str):
    job, _ = ran(cluster, f"ends-{abs(code)}", script)
    assert (job["exit_code"], said in job["reason"]) == (code, True), job["reason"]


def test_what_a_run_leaves_behind_dies_with_it(cluster: Cluster):
    before = set(processes(cluster.data))
    job, _ = ran(cluster, "leaves", "setsid sleep 600 & setsid sh -c 'sleep 600 & sleep 600' & exit 0")
    assert job["state"] == "Succeeded"
    eventually(lambda: set(processes(cluster.data)) <= before, what="the end of what was left running")


def test_a_killed_cluster_leaves_no_sandbox_behind(tmp_path: Path):
    with walled(tmp_path / "data") as cluster:
        cluster.deploy("sleeps", script="echo began; sleep 600")
        cluster.put("sleeps", "in/a", b"x")
        eventually(lambda: [job for job in cluster.jobs(service="sleeps") if "began" in cluster.job_log(job)])
        cluster.kill()
        eventually(lambda: not processes(cluster.data), what="the end of its runs")


def test_a_sandbox_that_is_required_and_cannot_be_is_one_sentence(tmp_path: Path):
    empty = tmp_path / "bin"
    empty.mkdir()
    for value, said in (
        ("require", 'DIOSCAR_SANDBOX: is "require", and bubblewrap does not work here (there is no bwrap;'),
        ("always", 'DIOSCAR_SANDBOX: "always" is none of auto, off, require; write "auto"'),
    ):
        environ = {**os.environ, "PATH": str(empty), "DIOSCAR_SANDBOX": value}
        command = [*COMMAND, "--data", str(tmp_path / "data"), "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0"]
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode != 0 and said in ended.stderr and "Traceback" not in ended.stderr


def test_where_it_is_not_required_the_log_says_that_it_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox_for(tmp_path, {}) is None
    assert "runs are not sandboxed: there is no bwrap; install bubblewrap" in caplog.text
