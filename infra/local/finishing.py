"""Stage out: a run's outputs, its forwards, the jobs they trigger and its own end, in one transaction."""

import asyncio
import mimetypes
import sqlite3
from collections.abc import Mapping

from infra.local import jobs, providers
from infra.local.blobs import Blob
from infra.local.database import Database, DatabaseError
from infra.local.executors import Ended
from infra.local.interlink import record
from infra.local.interlink.lineage import run_key_of
from infra.local.jobs import Job, OutputRow, State
from infra.local.objects import ObjectStore, Origin, StoreError, Target
from infra.local.services import Deployed
from infra.local.workspace import Workspace
from layers.runtime.contract import Exit, InputError
from layers.runtime.execution import MOST_FILES
from layers.runtime.forward import Forward, forwards, next_hop, parse_forward
from layers.runtime.incoming import StorageEvent, interpret
from layers.runtime.storage import Output
from layers.runtime.supervisor import followed

CLUSTER_PAUSE_S = 10.0
"""Before an attempt that the cluster itself could not make is made again."""
CREATED = "s3:ObjectCreated:Put"


class Finisher:
    """Ends attempts. `emitting` is the job whose outputs are being stored; it belongs to the writer's thread."""

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store
        self.emitting = ""

    async def succeed(
        self,
        deployed: Deployed,
        job: Job,
        workspace: Workspace,
        ended: Ended,
        trace: Mapping[str, str],
        began: float | None = None,
    ) -> int:
        """Store what the run made, all of it with everything that follows from it, or nothing; returns its bytes.

        `trace` is metadata for every object; `began` the time of the attempt's start, where nothing tells it yet.

        Raises InputError where a forward cannot be delivered, or where there are too many files.
        """
        carried = ended.files
        if carried is not None:
            files = list(carried)
        else:
            files = workspace.files()
        if len(files) > MOST_FILES:
            raise InputError(f"left {len(files)} files, more than {MOST_FILES}; write one archive (HDF5, tar) instead")
        targets: list[Target] = [
            (path, output.bucket, output.key(path), {})
            for output in self._outputs(deployed, job)
            for path in filter(output.takes, files)
        ]
        targets += self._forwards(deployed, job, files)
        await providers.send(deployed, files, workspace, carried)
        blobs: dict[str, Blob] = {}
        for index, path in enumerate(dict.fromkeys(path for path, *_ in targets)):
            if index % 100 == 99:
                await asyncio.sleep(0)  # small files are stored without waiting for anything: let others have a turn
            if carried is not None:
                blobs[path] = await self._store.ingest_bytes(carried[path])
            else:
                blobs[path] = await self._store.ingest(followed(workspace.produced / path), workspace.folder.parent)
        await self._store.publish(job, targets, blobs, trace)
        origin = Origin(principal=deployed.name, user=deployed.tenant)

        def work(connection: sqlite3.Connection) -> bool:
            if not jobs.is_open(connection, job):
                return False  # cancelled while it ran: its outputs never were
            self.emitting = job.id
            try:
                rows = []
                for path, bucket, key, metadata in targets:
                    stored = self._store.insert(
                        connection,
                        bucket,
                        key,
                        blobs[path],
                        content_type=mimetypes.guess_type(path)[0] or "application/octet-stream",
                        metadata={**metadata, **trace},
                        event=CREATED,
                        origin=origin,
                    )
                    rows.append(OutputRow(bucket, key, stored.size, stored.sha256))
                jobs.succeed(connection, job, rows, ended.run_key, printed=ended.printed, began=began)
                self._store.unpin(connection, job.id)
                return True
            finally:
                self.emitting = ""

        try:
            stored = await self._database.write(work)
        except StoreError as error:
            self._discard(blobs)
            raise InputError(f"{error}; correct the FDL's output or FORWARD, or create the bucket") from None
        except DatabaseError:
            self._discard(blobs)
            raise
        if not stored:
            self._discard(blobs)
        return sum(blob.size for blob in blobs.values())

    def _discard(self, blobs: Mapping[str, Blob]) -> None:
        for blob in blobs.values():
            self._store.blobs.discard(blob)

    async def succeed_away(self, job: Job, began: float | None = None) -> bool:
        """The end of a job that has stored its outputs by itself; whether it was still open."""

        def work(connection: sqlite3.Connection) -> bool:
            if not jobs.is_open(connection, job):
                return False
            jobs.succeed(connection, job, [], run_key_of(connection, job), began=began)
            self._store.unpin(connection, job.id)
            return True

        return await self._database.write(work)

    async def fail(
        self, job: Job, ended: Ended, reason: str, *, counted: bool = True, began: float | None = None
    ) -> State:
        """Record how an attempt ended, and its start (`began`) where that is not yet; returns the job's new state."""

        def work(connection: sqlite3.Connection) -> State:
            if not jobs.is_open(connection, job):
                return State.CANCELLED
            record.end(connection, job.id)
            if began is not None:
                jobs.start(connection, job, began)
            if ended.code == Exit.AGAIN or not counted:
                jobs.again(connection, job, ended.code, reason, jobs.AGAIN_S if counted else CLUSTER_PAUSE_S)
                return State.PENDING
            return jobs.fail(connection, job, ended.code, reason, final=ended.code == Exit.BAD_INPUT)

        return await self._database.write(work)

    def _forwards(self, deployed: Deployed, job: Job, files: list[str]) -> list[Target]:
        """What the function's FORWARD sends on, with the metadata that tells where it came from."""
        if "DIOSCAR_FUNCTION" not in deployed.variables:
            return []
        emitted: list[Forward] = list(forwards(parse_forward(deployed.variables.get("FORWARD", "")), files))
        if not emitted:
            return []
        source = self._store.by_id(job.object) if job.object is not None else None
        metadata = next_hop(dict(source.metadata) if source else {}, deployed.name, job.bucket, job.key)
        return [(forward.path, forward.bucket, forward.key, metadata) for forward in emitted]

    def _outputs(self, deployed: Deployed, job: Job) -> list[Output]:
        """The service's outputs in the cluster's own store.

        With `isolation_level: USER` those of a user's own bucket go back to it, as OSCAR's supervisor has it.
        """
        service = deployed.service
        private = ""
        if service.isolation_level == "USER" and service.bucket_list:
            event = interpret(jobs.body(self._database.read, job))
            bucket = event.notification.bucket if isinstance(event, StorageEvent) else ""
            private = bucket if bucket in service.bucket_list else ""
        return [
            Output(
                private if private and entry.folder else entry.bucket,
                entry.folder,
                tuple(entry.prefix),
                tuple(entry.suffix),
            )
            for entry in service.own_outputs
        ]
