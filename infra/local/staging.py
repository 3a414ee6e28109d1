"""Stage in: the input of a run, and what its request names, as files of its own."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

from infra.local import buckets, jobs, providers
from infra.local.database import Database
from infra.local.jobs import Job
from infra.local.objects import ObjectStore, StoredObject
from infra.local.services import Deployed
from infra.local.workspace import Workspace, checkpoint_path
from layers.runtime import inputs
from layers.runtime.contract import Input, InputError
from layers.runtime.incoming import Payload, StorageEvent, interpret
from layers.runtime.storage import OWN
from layers.runtime.supervisor import LARGEST_VARIABLE, script_variables
from layers.runtime.wire import TRAVELS

LONGEST_NAME = 255


class Stager:
    """Copies objects into workspaces: a function can do what it likes with its input, never with the store's."""

    def __init__(self, database: Database, store: ObjectStore, data: Path) -> None:
        self._data = data
        self._database = database
        self._store = store

    async def stage_job(
        self, deployed: Deployed, job: Job, workspace: Workspace, stored: StoredObject | None
    ) -> Workspace:
        """The workspace with the job's input, exactly the version of its event, and its request's inputs."""
        body = jobs.body(self._database.read, job)
        event = interpret(body)
        if job.object is not None and stored is None:
            raise InputError(f"{job.bucket}/{job.key}: this version of the object is gone; upload it again")
        staged = await self.stage_event(event, workspace, stored, deployed=deployed)
        variables = {**staged.job_variables, "JOB_UUID": job.id, "RESOURCE_ID": "dioscar"}
        variables["DIOSCAR_CHECKPOINT"] = checkpoint_path(self._data, job)
        source = variables.get("INPUT_FILE_PATH")
        if "DIOSCAR_FUNCTION" in deployed.variables and source is not None:
            references = (
                inputs.read_references(Path(source))
                if staged.content is None
                else inputs.references_in(staged.content, source.rpartition("/")[2])
            )
            if references is not None:
                staged = staged.unpacked()
                manifest = workspace.folder / "inputs.json"
                inputs.write_manifest(await self._stage_inputs(deployed, job, references, workspace), manifest)
                variables["DIOSCAR_INPUTS"] = str(manifest)
        elif isinstance(event, Payload) and len(body) < LARGEST_VARIABLE - len("EVENT=") and b"\0" not in body:
            variables["EVENT"] = body.decode(errors="surrogateescape")
        return replace(staged, job_variables=variables)

    async def stage_event(
        self,
        event: StorageEvent | Payload,
        workspace: Workspace,
        stored: StoredObject | None = None,
        *,
        deployed: Deployed | None = None,
    ) -> Workspace:
        """The workspace with the event's object or payload, and the variables that OSCAR's supervisor exports.

        What is small is the workspace's `content`, for which no file is made here.
        """
        download = not (deployed and deployed.service.file_stage_in)
        elsewhere = isinstance(event, StorageEvent) and event.notification.provider != OWN
        if deployed is not None and isinstance(event, StorageEvent) and elsewhere:
            event = providers.located(deployed, event)
            elsewhere = event.notification.provider != OWN
        folder = str(workspace.folder)
        variables = script_variables(event, f"{folder}/input", f"{folder}/output", staged=download)
        variables["DIOSCAR_CHECKPOINT"] = f"{folder}/checkpoint"
        variables["TMPDIR"] = folder
        variables["DIOSCAR_PROGRESS"] = f"{folder}/progress.json"
        if isinstance(event, Payload):
            small = replace(workspace, job_variables=variables, content=event.body)
            return small if len(event.body) <= TRAVELS else small.unpacked()
        staged = replace(workspace, job_variables=variables)
        if download:
            _check_length(variables["INPUT_FILE_PATH"].rpartition("/")[2])
        if download and deployed is not None and elsewhere:
            staged.create()
            await providers.fetch(deployed, event.notification, Path(variables["INPUT_FILE_PATH"]))
            return staged
        if download:
            self._check_reads(deployed, event.notification.bucket)
            stored = stored or await self._store.look(event.notification.bucket, event.notification.key)
            if stored is None:
                name = f"{event.notification.bucket}/{event.notification.key}"
                raise InputError(f"{name}: there is no such object; upload it first")
            content = self._store.small(stored)
            if content is not None:
                return replace(staged, content=content)
        staged.create()
        if download and stored is not None:
            await self._store.materialise(stored, Path(variables["INPUT_FILE_PATH"]))
        return staged

    def _check_reads(self, deployed: Deployed | None, bucket: str) -> None:
        """Raises InputError where a user's service asks for what its owner may not see."""
        if deployed is None or not deployed.tenant:
            return
        if not buckets.is_seen(self._database.read, bucket, deployed.tenant):
            raise InputError(f'the bucket "{bucket}" is not shared with the owner of "{deployed.name}"')

    async def _stage_inputs(
        self,
        deployed: Deployed,
        job: Job,
        references: list[inputs.Reference | inputs.Select],
        workspace: Workspace,
    ) -> list[Input]:
        """The request's objects as files; found once, then the same versions on every attempt."""
        for reference in references:
            self._check_reads(deployed, reference.bucket)
        found = self._pinned(job) if job.pinned else await self._find(references)
        if not job.pinned:
            entries = [
                {"id": str(stored.id), "bucket": stored.bucket, "key": stored.key, "sha256": wanted}
                for stored, wanted in found
            ]

            def work(connection: sqlite3.Connection) -> None:
                jobs.pin(connection, job, entries)
                for stored, _ in found:
                    self._store.pin(connection, stored.id, job.id)

            await self._database.write(work)
        staged = []
        for index, (stored, wanted) in enumerate(found):
            path = workspace.folder / "inputs" / str(index) / Path(stored.key).name
            path.parent.mkdir(parents=True)
            sha256 = await self._store.materialise(stored, path)
            inputs.check(inputs.Reference(stored.bucket, stored.key, wanted), sha256)
            staged.append(Input(stored.bucket, stored.key, sha256, path))
        return staged

    def _pinned(self, job: Job) -> list[tuple[StoredObject, str]]:
        """The request's objects, and the SHA-256 that each must have (empty: any)."""
        found = []
        for entry in json.loads(job.pinned or "[]"):
            stored = self._store.by_id(int(entry["id"]))
            if stored is None:
                raise InputError(
                    f"{entry['bucket']}/{entry['key']}: is gone since the first attempt; write a new request"
                )
            found.append((stored, entry["sha256"]))
        return found

    async def _find(self, references: list[inputs.Reference | inputs.Select]) -> list[tuple[StoredObject, str]]:
        listed = {
            (select.bucket, select.prefix): tuple(await self._store.names(select.bucket, select.prefix))
            for select in references
            if isinstance(select, inputs.Select)
        }
        found = []
        for reference in inputs.resolve(references, lambda bucket, prefix: listed[bucket, prefix]):
            stored = await self._store.look(reference.bucket, reference.key)
            if stored is None:
                raise InputError(f"{reference.bucket}/{reference.key}: {inputs.MISSING}")
            if stored.sha256:
                inputs.check(reference, stored.sha256)
            found.append((stored, stored.sha256 or reference.sha256))
        return found


def _check_length(name: str) -> None:
    if len(name.encode()) > LONGEST_NAME:
        raise InputError(f"{name[:40]}…: the name is longer than {LONGEST_NAME} bytes; shorten it")
