"""A data folder as SQL text, one for each version of the schema, and what makes today's anew:

    .venv/bin/python -P -m tests.infra.local.data_folder

Until a version has been released its file is made anew when the schema changes. After that it stays, the change gets a
migration (infra/local/migrations.py), and the command writes the file of the next version.
"""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from infra.local.contents import INLINE, place
from infra.local.database import Database
from infra.local.migrations import MIGRATIONS, newest
from tests.cluster import Cluster, eventually, running_cluster
from tests.contract.callers import boto

SCHEMAS = Path(__file__).parent / "schemas"
LARGE = b"x" * (INLINE + 1)
"""The contents of every blob that has a file of its own: text holds the rows, and this is all that is beside them."""
COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'


def file_of(version: int) -> Path:
    """The data folder of a version, as SQL."""
    return SCHEMAS / f"{version}.sql"


def restore(version: int, folder: Path) -> Path:
    """Make the data folder of a version; returns its database."""
    path = folder / "dioscar.db"
    for shard in range(256):
        (folder / "blobs" / f"{shard:02x}").mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(file_of(version).read_text(encoding="utf-8"))
        for number, size in connection.execute("SELECT id, size FROM blobs WHERE data IS NULL"):
            (folder / "blobs" / place(number)).write_bytes(b"x" * size)
    return path


def schema_of(path: Path) -> dict[str, Any]:
    """All that a database's tables, indexes and triggers are, however they came about."""
    with closing(sqlite3.connect(path)) as connection:
        found: dict[str, Any] = {}
        named = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
        for kind, name, table, sql in connection.execute(named).fetchall():
            if kind != "table":
                found[f"{kind} {name}"] = table, " ".join(sql.split())
                continue
            columns = connection.execute(f"PRAGMA table_xinfo ({name})").fetchall()
            keys = connection.execute(f"PRAGMA foreign_key_list ({name})").fetchall()
            without_rowid, strict = connection.execute(
                "SELECT wr, strict FROM pragma_table_list WHERE name = ?", (name,)
            ).fetchone()
            found[f"table {name}"] = columns, keys, bool(without_rowid), bool(strict), "AUTOINCREMENT" in sql
        return found


def fill(cluster: Cluster) -> None:
    """Something in every table: objects that stay, change and go, jobs that ended, failed and run, an event to post."""
    for method, path, body in (
        ("PUT", "/system/quotas/user/somebody", '{"minio": {"buckets": "3"}}'),
        ("POST", "/system/volumes", '{"name": "kept", "size": "1Gi"}'),
        ("PUT", "/system/config", '{"allowed_image_repositories": ["ghcr.io"]}'),
    ):
        cluster.http.request(method, cluster.url(path), data=body).raise_for_status()
    cluster.deploy("copies", script=COPY)
    cluster.run("copies", b"called")
    cluster.get("/system/metrics")  # with which the call is on disk
    cluster.deploy("fails", script="echo no; exit 3", annotations={"dioscar/retries": "0"})
    cluster.deploy("runs", script=f"sleep 1; {COPY}")
    watched = {"service": "copies", "gather": {"bucket": "copies", "prefix": "out/", "objects": 1000}}
    schedules = {"schedules": {"nightly": {"service": "runs", "cron": "0 2 1 1 *"}, "watched": watched}}
    cluster.http.put(cluster.url("/dioscar/v1/schedules"), json=schedules).raise_for_status()
    client = boto(cluster)
    client.create_bucket(Bucket="events")
    queue = {"QueueArn": "arn:minio:sqs:us-east-1:NOBODY:webhook", "Events": ["s3:ObjectCreated:*"]}
    client.put_bucket_notification_configuration(
        Bucket="events", NotificationConfiguration={"QueueConfigurations": [queue]}
    )
    client.put_object(Bucket="events", Key="a", Body=b"told", Tagging="colour=red", Metadata={"run": "7"})
    upload = client.create_multipart_upload(Bucket="events", Key="unfinished")["UploadId"]
    client.upload_part(Bucket="events", Key="unfinished", UploadId=upload, PartNumber=1, Body=b"part")
    client.close()
    cluster.put("copies", "in/large", LARGE)
    cluster.put("copies", "in/small", b"before")
    cluster.ended("copies", 2)
    cluster.put("copies", "in/small", b"small")
    cluster.ended("copies", 3)
    eventually(lambda: cluster.get("/dioscar/v1/schedules/watched")["arrived"]["objects"] == 2)
    cluster.put("fails", "in/a", b"first")
    cluster.ended("fails")
    cluster.put("fails", "in/a", b"second")  # the first version is kept for its dead letter
    cluster.ended("fails", 2)
    cluster.put("runs", "in/a", b"goes on")
    eventually(lambda: cluster.jobs(service="runs", state="Running"))


def record() -> Path:
    """Write the data folder of today's version."""
    os.environ["MINIO_NOTIFY_WEBHOOK_ENABLE_NOBODY"] = "on"
    os.environ["MINIO_NOTIFY_WEBHOOK_ENDPOINT_NOBODY"] = "http://127.0.0.1:9/"
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        with running_cluster(data) as cluster:
            fill(cluster)
            cluster.kill()
        Database(data / "dioscar.db").close()
        with closing(sqlite3.connect(data / "dioscar.db")) as connection:
            lines = list(connection.iterdump())
    target = file_of(newest(MIGRATIONS))
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    print(record())
