"""What a pod has uploaded is what its job has made: so it says in the object's metadata, and so it is recorded."""

import sqlite3

from infra.local import jobs
from infra.local.interlink import record
from infra.local.jobs import Job
from infra.local.objects import Origin, StoredObject
from layers.runtime.forward import RECORDS
from layers.runtime.podstore import MADE_BY


def maker_of(connection: sqlite3.Connection, stored: StoredObject, origin: Origin) -> str:
    """The job whose pod has uploaded this object, which is now among the job's outputs; empty where there is none.

    Only what comes with the keys of the job's owner, while its pod is at work, is believed.
    """
    job_id = stored.metadata.get(MADE_BY, "")
    if not job_id or record.current(connection, job_id) is None:
        return ""
    job = jobs.get(connection, job_id)
    if job is None or job.tenant != origin.user or not jobs.is_open(connection, job):
        return ""
    same = (job.seq, stored.bucket, stored.key)
    connection.execute("DELETE FROM job_outputs WHERE job = ? AND bucket = ? AND key = ?", same)
    connection.execute("INSERT INTO job_outputs VALUES (?, ?, ?, ?, ?)", (*same, stored.size, stored.sha256))
    return job_id


def run_key_of(connection: sqlite3.Connection, job: Job) -> str:
    """The run key of a job, as the name of the record says that its pod has uploaded; empty where there is none."""
    rows = connection.execute("SELECT key FROM job_outputs WHERE job = ? ORDER BY rowid DESC", (job.seq,)).fetchall()
    for (key,) in rows:
        name = key.rpartition("/")[2].removesuffix(".json")
        if f"{RECORDS}/" in key and len(name) == 64:
            return str(name)
    return ""
