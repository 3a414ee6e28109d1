"""Jobs: each event runs once, failures are seen and retried, and a killed cluster loses nothing."""

import base64
import json
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.cluster import Cluster, eventually, running_cluster

COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"\n'


def test_a_script_that_fails_is_tried_again_and_then_kept(cluster: Cluster):
    script = 'echo "attempt"; exit 3'
    cluster.deploy("job-retry", script=script, annotations={"dioscar/retries": "1"})
    cluster.put("job-retry", "in/a", b"x")
    job = cluster.job(cluster.ended("job-retry")[0]["id"])
    assert [t["state"] for t in job["transitions"]] == [
        "Pending",
        "Running",
        "Failed",
        "Retrying",
        "Running",
        "Failed",
        "Dead",
    ]
    assert (job["state"], job["exit_code"], job["attempt"]) == ("Dead", 3, 2)
    assert job["reason"] == "the script ended with status 3: attempt"
    log = cluster.job_log(job)
    assert re.fullmatch(r"attempt\n\[dioscar: attempt 2, \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\]\nattempt\n", log), log


def test_a_log_tells_attempts_apart_and_none_answers_for_another(cluster: Cluster, tmp_path: Path):
    marker = tmp_path / "seen"
    script = f"[ -e {marker} ] || {{ touch {marker}; printf unfinished; }}; exit 3"
    cluster.deploy("job-apart", script=script, annotations={"dioscar/retries": "1"})
    cluster.put("job-apart", "in/a", b"x")
    job = cluster.job(cluster.ended("job-apart")[0]["id"])
    assert re.fullmatch(r"unfinished\n\[dioscar: attempt 2, \S+\]\n", cluster.job_log(job))
    assert job["reason"] == "the script ended with status 3"
    assert "the script ended with status 3: unfinished" in [step["detail"] for step in job["transitions"]]
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/replay"))
    eventually(lambda: "attempt 1, " in cluster.job_log(job))


def test_bad_input_is_not_tried_again(cluster: Cluster):
    cluster.deploy("job-bad", variables={"DIOSCAR_FUNCTION": "contract.fail"})
    cluster.put("job-bad", "in/a", b"bad input")
    job = cluster.ended("job-bad")[0]
    assert (job["state"], job["attempt"], job["exit_code"]) == ("Dead", 1, 65)
    assert job["reason"] == "InputError: a: is no telescope file; write SIGPROC"


def test_a_second_attempt_can_succeed(cluster: Cluster, tmp_path: Path):
    marker = tmp_path / "seen"
    script = f'[ -e {marker} ] || {{ touch {marker}; exit 1; }}; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'
    cluster.deploy("job-second", script=script)
    cluster.put("job-second", "in/a", b"x")
    job = cluster.ended("job-second")[0]
    assert (job["state"], job["attempt"]) == ("Succeeded", 2)
    assert cluster.objects("job-second", "out/") == {"out/a": b"x"}


@pytest.mark.parametrize("executor", ["process", "warm"])
def test_a_run_that_takes_too_long_is_stopped_and_says_so(cluster: Cluster, executor: str):
    name = f"job-slow-{executor}"
    cluster.deploy(
        name,
        variables={"DIOSCAR_FUNCTION": "contract.train"},
        annotations={"dioscar/timeout": "1", "dioscar/retries": "0", "dioscar/executor": executor},
    )
    cluster.put(name, "in/r.json", b'{"steps": 1000, "pause_s": 0.1}')
    job = cluster.ended(name)[0]
    assert job["reason"] == "Timeout: took longer than 1 s and was stopped; raise the annotation dioscar/timeout"


@pytest.mark.parametrize("executor", ["process", "warm"])
def test_a_crash_is_seen_and_the_next_job_runs(cluster: Cluster, executor: str):
    name = f"job-crash-{executor}"
    cluster.deploy(
        name,
        variables={"DIOSCAR_FUNCTION": "contract.fail"},
        annotations={"dioscar/retries": "0", "dioscar/executor": executor},
    )
    cluster.put(name, "in/a", b"crash")
    cluster.put(name, "in/b", b"fine")
    by_key = {job["key"]: job for job in cluster.ended(name, 2)}
    assert by_key["in/a"]["state"] == "Dead"
    assert "3" in by_key["in/a"]["reason"]
    assert by_key["in/b"]["state"] == "Succeeded"


def test_a_warm_worker_serves_many_runs(cluster: Cluster):
    cluster.deploy(
        "job-warm", variables={"DIOSCAR_FUNCTION": "contract.copy"}, annotations={"dioscar/concurrency": "1"}
    )
    for index in range(10):
        cluster.put("job-warm", f"in/{index}", b"x")
    assert {job["state"] for job in cluster.ended("job-warm", 10)} == {"Succeeded"}
    workers = [worker for worker in cluster.get("/dioscar/v1/status")["workers"] if worker["service"] == "job-warm"]
    assert [worker["served"] for worker in workers] == [10]


def test_a_new_revision_gets_a_new_worker(cluster: Cluster):
    for greeting in ("one", "two"):
        cluster.deploy("job-revised", variables={"DIOSCAR_FUNCTION": "contract.copy", "GREETING": greeting})
        cluster.put("job-revised", f"in/{greeting}", b"x")
        key = f"out/{greeting}.json"
        found = eventually(lambda key=key: cluster.objects("job-revised", key))  # type: ignore[misc]
        assert json.loads(found[key])["greeting"] == greeting


def test_an_edited_function_runs_as_it_is_now(tmp_path: Path):
    twin = tmp_path / "mine" / "functions" / "sketchbook"
    twin.mkdir(parents=True)

    def write(text: str) -> None:
        (twin / "note.py").write_text(
            f"def run(source, destination, settings):\n    (destination / 'out.txt').write_text({text!r})\n"
        )

    write("before")
    with running_cluster(tmp_path / "data") as cluster:
        variables = {"DIOSCAR_FUNCTION": "sketchbook.note", "PYTHONPATH": str(tmp_path / "mine")}
        cluster.deploy("edited", variables=variables)
        for text in ("before", "after it was edited"):
            write(text)
            assert base64.b64decode(cluster.run("edited", b"x").content).decode() == text


def test_jobs_of_one_key_run_in_the_order_of_their_events_each_with_its_own_version(cluster: Cluster, tmp_path: Path):
    log = tmp_path / "order"
    script = f'sleep 0.1; cat "$INPUT_FILE_PATH" >> {log}'
    cluster.deploy("job-order", script=script)
    for index in range(6):
        cluster.put("job-order", "in/same", f"{index}".encode())
    cluster.ended("job-order", 6)
    assert log.read_text() == "012345"


def test_different_keys_run_beside_each_other(cluster: Cluster):
    cluster.deploy("job-both", script="sleep 1")
    began = time.monotonic()
    cluster.put("job-both", "in/a", b"")
    cluster.put("job-both", "in/b", b"")
    cluster.ended("job-both", 2)
    assert time.monotonic() - began < 1.9


def test_an_upload_outside_the_mailbox_triggers_nothing(cluster: Cluster):
    cluster.deploy("job-prefix", script="true")
    cluster.put("job-prefix", "elsewhere/a", b"")
    cluster.put("job-prefix", "in/a", b"")
    assert [job["key"] for job in cluster.ended("job-prefix")] == ["in/a"]


def test_output_filters_choose_the_files(cluster: Cluster):
    outputs = [
        {"storage_provider": "minio.default", "path": "job-filter/images", "suffix": ["png"]},
        {"storage_provider": "minio.default", "path": "job-filter/texts", "suffix": ["txt"], "prefix": ["d/"]},
    ]
    script = "cd $TMP_OUTPUT_DIR; mkdir d; touch a.png b.txt d/c.txt"
    cluster.deploy("job-filter", script=script, output=outputs)
    cluster.put("job-filter", "in/a", b"")
    cluster.ended("job-filter")
    keys = [key for key in cluster.objects("job-filter") if not key.startswith("in/")]
    assert keys == ["images/a.png", "texts/d/c.txt"]


def test_a_function_cannot_damage_the_store_through_its_input(cluster: Cluster):
    cluster.deploy("job-damage", script='echo gone > "$INPUT_FILE_PATH"')
    cluster.put("job-damage", "in/a", b"x" * 200_000)
    cluster.ended("job-damage")
    assert cluster.read("job-damage", "in/a") == b"x" * 200_000


def test_a_forward_to_nowhere_is_one_sentence_and_no_output(cluster: Cluster):
    variables = {"DIOSCAR_FUNCTION": "contract.copy", "FORWARD": "*.copy -> no-such-bucket/in"}
    cluster.deploy("job-nowhere", variables=variables)
    cluster.put("job-nowhere", "in/a", b"x")
    job = cluster.ended("job-nowhere")[0]
    assert job["state"] == "Dead"
    assert 'there is no bucket "no-such-bucket"' in job["reason"]
    assert cluster.objects("job-nowhere", "out/") == {}


def test_a_loop_of_forwards_ends(cluster: Cluster):
    variables = {"DIOSCAR_FUNCTION": "contract.copy", "FORWARD": "*.copy -> job-loop/in"}
    cluster.deploy("job-loop", variables=variables, annotations={"dioscar/loop": "job-loop/in"})
    cluster.put("job-loop", "in/a", b"x")
    dead = eventually(lambda: cluster.jobs(service="job-loop", state="Dead"))
    assert "the chain is a loop" in dead[0]["reason"]
    assert len(cluster.jobs(service="job-loop")) == 33


def test_forwarded_objects_tell_where_they_come_from(cluster: Cluster):
    cluster.deploy("job-consumer", script="true")
    variables = {"DIOSCAR_FUNCTION": "contract.copy", "FORWARD": "*.copy -> job-consumer/in"}
    cluster.deploy("job-producer", variables=variables)
    cluster.put("job-producer", "in/a", b"x")
    cluster.ended("job-consumer")
    metadata = {name.lower(): value for name, value in cluster.s3.head("job-consumer", "in/a.copy").metadata.items()}
    assert metadata == {"dioscar-producer": "job-producer", "dioscar-input": "job-producer/in/a", "dioscar-hops": "1"}


def test_what_waits_at_a_stop_runs_after_the_start(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy("stopped", script=f"sleep 1; {COPY}")
        for index in range(4):
            cluster.put("stopped", f"in/{index}", b"x")
        assert cluster.stop() == 0
        cluster.start()
        assert {job["state"] for job in cluster.ended("stopped", 4)} == {"Succeeded"}


def test_a_second_cluster_on_one_data_folder_is_refused(cluster: Cluster):
    command = [sys.executable, "-P", "-m", "infra.local", "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0", "--data"]
    second = subprocess.run([*command, str(cluster.data)], capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1
    assert "in use by another process; stop it or choose another data folder" in second.stderr
    assert "Traceback" not in second.stderr


def test_uploads_survive_kills_at_random_moments(tmp_path: Path):
    """200 uploads, the cluster killed again and again: every acknowledged object is processed, once."""
    uploads, generator = 200, random.Random(20261121)
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy("killed-second", variables={"DIOSCAR_FUNCTION": "contract.copy"})
        variables = {"DIOSCAR_FUNCTION": "contract.copy", "FORWARD": "*.copy -> killed-second/in"}
        cluster.deploy("killed", variables=variables, annotations={"dioscar/retries": "5"})
        acknowledged: list[str] = []
        restarted = threading.Event()
        restarted.set()
        done = threading.Event()

        def upload() -> None:
            index = 0
            while index < uploads:
                restarted.wait(30)
                key = f"in/{index:03d}"
                try:
                    cluster.put("killed", key, f"{index}".encode())
                except Exception:
                    time.sleep(0.05)
                    continue  # not acknowledged: the client tries again
                acknowledged.append(key)
                index += 1
            done.set()

        uploader = threading.Thread(target=upload)
        uploader.start()
        kills = 0
        while not done.wait(generator.uniform(0.2, 0.7)):
            restarted.clear()
            cluster.kill()
            kills += 1
            cluster.start()
            restarted.set()
        uploader.join()
        assert kills >= 3
        assert len(acknowledged) == uploads
        for name, suffix in (("killed", ""), ("killed-second", ".copy")):
            wanted = {f"{key}{suffix}" for key in acknowledged}
            eventually(
                lambda name=name, wanted=wanted: (
                    {j["key"] for j in cluster.jobs(service=name, state="Succeeded")} >= wanted
                ),  # type: ignore[misc]
                120,
                f"every upload through {name}",
            )
            cluster_jobs = cluster.jobs(service=name)
            assert {job["state"] for job in cluster_jobs} == {"Succeeded"}
        # an upload that was committed but whose answer the kill cut off is sent twice: two events, two jobs
        produced = cluster.objects("killed", "out/")
        records = [key for key in produced if "/_runs/" in key]
        assert len(records) == uploads
        first = [job["key"] for job in cluster.jobs(service="killed")]
        second = [job["key"] for job in cluster.jobs(service="killed-second")]
        assert sorted(f"{key}.copy" for key in first) == sorted(second)
        for index, key in enumerate(acknowledged):
            assert produced[f"out/{key.removeprefix('in/')}.copy"] == str(index).encode()
        # and nobody is left over from the clusters that were killed
        assert base64.b64decode(cluster.run("killed-second", b"still here").content) == b"still here"


def test_a_service_that_runs_one_at_a_time_starts_the_next_when_the_last_is_stored(cluster: Cluster):
    script = 'head -c 30000000 /dev/zero >"$TMP_OUTPUT_DIR/large"'
    cluster.deploy("job-single", script=script, annotations={"dioscar/concurrency": "1"})
    for key in ("in/a", "in/b", "in/c"):
        cluster.put("job-single", key, b"x")
    first, second, third = sorted(cluster.ended("job-single", 3), key=lambda job: job["started"])
    assert first["finished"] <= second["started"] and second["finished"] <= third["started"]
