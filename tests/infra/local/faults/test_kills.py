"""SIGKILL at each step of an upload, a job and a webhook: what was acknowledged is there, and everything ran once."""

from pathlib import Path

import pytest

from tests.cluster import eventually, running_cluster
from tests.infra.local.faults.world import Broken, broken, chain, is_clean
from tests.infra.local.receiver import receiving

SMALL, LARGE = b"x" * 1000, b"y" * 300_000

UPLOADS = {
    "the body has come": ("infra.local.contents:Spill.finish:before", SMALL, False),
    "the body of a large one has come": ("infra.local.contents:Spill.finish:before", LARGE, False),
    "its blob is written": ("infra.local.contents:Folder.seal:before", LARGE, False),
    "its blob is on disk": ("infra.local.contents:Folder.seal:after", LARGE, False),
    "before the commit": ("infra.local.objects:ObjectStore.insert:after", SMALL, False),
    "before the commit of a large one": ("infra.local.objects:ObjectStore.insert:after", LARGE, False),
    "committed, not answered": ("infra.local.s3.objects:put_object:after", SMALL, None),
    "a large one committed, not answered": ("infra.local.s3.objects:put_object:after", LARGE, None),
    "answered": ("infra.local.s3.app:_answer:after", LARGE, True),
}
"""Where the cluster dies, what is uploaded, and whether it is there then (None: it is, though nobody was told)."""

ONCE, TWICE = (1,), (2,)
JOBS = {
    "staged": ("infra.local.staging:Stager.stage_job:after", ONCE),
    "its start is noted": ("infra.local.jobs:start:after", (0, 1, 2)),
    "started": ("infra.local.executors.process:within:before", (1, 2)),
    "the script has ended": ("infra.local.executors.process:ProcessExecutor.run:after", TWICE),
    "one output is taken in": ("infra.local.objects:ObjectStore.ingest:after", TWICE),
    "both outputs are taken in": ("infra.local.objects:ObjectStore.ingest:after:2", TWICE),
    "before the commit of its end": ("infra.local.jobs:succeed:after", TWICE),
    "its end is committed": ("infra.local.finishing:Finisher.succeed:after", ONCE),
    "before its folder is removed": ("infra.local.workspace:Workspace.remove:before", ONCE),
    "its folder is removed": ("infra.local.workspace:Workspace.remove:after", ONCE),
}
"""Where the cluster dies, and how often the first script of the chain may then have run."""

WARM = {
    "handed over": ("infra.local.executors.warm:Channel.ask:after", (1, 2)),
    "the function has ended": ("infra.local.executors.warm:WarmExecutor.run:after", TWICE),
    "before the commit of its end": ("infra.local.jobs:succeed:after", TWICE),
    "its end is committed": ("infra.local.finishing:Finisher.succeed:after", ONCE),
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployed(tmp_path_factory.mktemp("scripts") / "data", warm=False)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployed(tmp_path_factory.mktemp("functions") / "data", warm=True)


def deployed(data: Path, *, warm: bool) -> Path:
    """A data folder with the chain in it, to be copied: a start costs more than anything else here."""
    with running_cluster(data) as cluster:
        chain(cluster, warm=warm)
    return data


def went_through(cluster: Broken, data: bytes, *, warm: bool = False) -> None:
    """One input has gone through the chain, and its outputs are there once."""
    cluster.idle()
    names = ["a.copy"] if warm else ["a.1", "a.2"]
    assert [(job["key"], job["state"]) for job in cluster.jobs(service="first")] == [("in/a", "Succeeded")]
    second = sorted((job["key"], job["state"]) for job in cluster.jobs(service="second"))
    assert second == [(f"in/{name}", "Succeeded") for name in names]
    for name in names:
        assert cluster.read("first", f"out/{name}") == data
        assert cluster.read("second", f"out/{name}{'.copy' if warm else ''}") == data
    made = 6 if warm else 7  # by functions: an output and a record each, and what is forwarded
    assert cluster.rows("SELECT max(id) FROM objects") == [(made,)], "an output that was made twice"


@pytest.mark.parametrize("step", UPLOADS)
def test_an_upload_is_whole_or_absent(scripts: Path, tmp_path: Path, step: str):
    where, data, there = UPLOADS[step]
    with broken(tmp_path / "data", step=where, template=scripts) as cluster:
        cluster.arm()
        assert cluster.acknowledged("PUT", "/first/in/a", data) is bool(there)
        left = cluster.die()
        if there is False:
            assert cluster.ask("GET", "/first/in/a").status_code == 404
            assert cluster.jobs(service="first") == []
            assert cluster.acknowledged("PUT", "/first/in/a", data)
        assert cluster.ask("GET", "/first/in/a").content == data
        went_through(cluster, data)
        is_clean(cluster, left)


@pytest.mark.parametrize("step", JOBS)
def test_a_job_leaves_what_it_leaves_once(scripts: Path, tmp_path: Path, step: str):
    where, times = JOBS[step]
    at_once = {"FAULT_SET": "infra.local.attempts:TOLD_S=0"} if "start" in step else {}
    with broken(tmp_path / "data", step=where, template=scripts, **at_once) as cluster:
        cluster.arm()
        assert cluster.acknowledged("PUT", "/first/in/a", LARGE)
        left = cluster.die()
        went_through(cluster, LARGE)
        assert cluster.ran("first") in times
        is_clean(cluster, left)


@pytest.mark.parametrize("step", WARM)
def test_a_job_on_a_warm_worker_leaves_what_it_leaves_once(functions: Path, tmp_path: Path, step: str):
    where, times = WARM[step]
    with broken(tmp_path / "data", step=where, template=functions) as cluster:
        cluster.arm()
        assert cluster.acknowledged("PUT", "/first/in/a", SMALL)
        left = cluster.die()
        went_through(cluster, SMALL, warm=True)
        assert cluster.ran("first") in times
        is_clean(cluster, left)


@pytest.mark.parametrize(
    "when, attempts",
    [("jobs:fail:after", 1), ("finishing:Finisher.fail:after", 0), ("finishing:Finisher.fail:before", 1)],
)
def test_a_failure_counts_once(scripts: Path, tmp_path: Path, when: str, attempts: int):
    with broken(tmp_path / "data", step=f"infra.local.{when}", template=scripts) as cluster:
        cluster.deploy(
            "failing",
            script='printf x >> "$HOME/ran-$OSCAR_SERVICE_NAME"; exit 3',
            annotations={"dioscar/retries": "1"},
        )
        cluster.arm()
        assert cluster.acknowledged("PUT", "/failing/in/a", SMALL)
        left = cluster.die()
        job = cluster.job(cluster.ended("failing")[0]["id"])
        assert (job["state"], job["attempt"], job["exit_code"]) == ("Dead", 2, 3)
        assert [t["state"] for t in job["transitions"]].count("Failed") == 2
        assert cluster.ran("failing") == 2 + attempts
        is_clean(cluster, left)


MULTIPART = {
    "a part is on disk": ("infra.local.multipart:Uploads.add:before", "part"),
    "before the commit of a part": ("infra.local.blobs:Blobs.insert:after", "part"),
    "a part is committed": ("infra.local.multipart:Uploads.add:after", "part"),
    "put together": ("infra.local.multipart:Uploads.join:after", "complete"),
    "before the commit": ("infra.local.garbage:Collector.abort:after", "complete"),
    "committed, not answered": ("infra.local.multipart:Uploads.complete:after", "complete"),
}


@pytest.mark.parametrize("step", MULTIPART)
def test_an_upload_in_parts_goes_on_after_a_kill(scripts: Path, tmp_path: Path, step: str):
    where, during = MULTIPART[step]
    parts = [b"1" * (5 << 20), b"2" * 100_000]
    with broken(tmp_path / "data", step=where, template=scripts) as cluster:
        text = cluster.ask("POST", "/first/in/a", query="uploads=").text
        upload = f"uploadId={text.partition('<UploadId>')[2].partition('<')[0]}"
        assert cluster.acknowledged("PUT", "/first/in/a", parts[0], f"partNumber=1&{upload}")
        if during == "part":
            cluster.arm()
            assert not cluster.acknowledged("PUT", "/first/in/a", parts[1], f"partNumber=2&{upload}")
            left = cluster.die()
        assert cluster.acknowledged("PUT", "/first/in/a", parts[1], f"partNumber=2&{upload}")
        listed = cluster.ask("GET", "/first/in/a", query=upload).text
        tags = [piece.partition("</ETag>")[0] for piece in listed.split("<ETag>")[1:]]
        wanted = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>" for number, tag in enumerate(tags, 1)
        )
        body = f"<CompleteMultipartUpload>{wanted}</CompleteMultipartUpload>".encode()
        if during == "complete":
            cluster.arm()
            assert not cluster.acknowledged("POST", "/first/in/a", body, upload)
            left = cluster.die()
        assert cluster.acknowledged("POST", "/first/in/a", body, upload)  # if it is done: that it is done
        went_through(cluster, b"".join(parts))
        is_clean(cluster, left)


@pytest.mark.parametrize(
    "where, times",
    [("posting:Poster.post:before", 1), ("posting:Poster.post:after", 2), ("webhooks:_Delivery._remove:after", 2)],
)
def test_a_webhook_gets_its_event_at_least_once(scripts: Path, tmp_path: Path, where: str, times: int):
    with receiving() as receiver:
        hook = {
            "MINIO_NOTIFY_WEBHOOK_ENABLE_HERE": "on",
            "MINIO_NOTIFY_WEBHOOK_ENDPOINT_HERE": receiver.url,
        }
        with broken(tmp_path / "data", step=f"infra.local.{where}", template=scripts, **hook) as cluster:
            document = (
                b"<NotificationConfiguration><QueueConfiguration><Queue>arn:minio:sqs:us-east-1:HERE:webhook</Queue>"
                b"<Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>"
            )
            assert cluster.acknowledged("PUT", "/second", document, "notification=")
            cluster.arm()
            assert cluster.acknowledged("PUT", "/second/elsewhere/a", SMALL)
            left = cluster.die()
            eventually(lambda: not cluster.rows("SELECT * FROM webhook_events"), what="the end of the queue")
            assert receiver.keys() == ["second/elsewhere/a"] * times
            is_clean(cluster, left)
