"""The four routes of the interLink protocol. Only 200 is a success to interLink; an error is one sentence of text."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio.to_thread
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from infra.hpc.batch import Batch, BatchUnavailable
from infra.hpc.folder import file_of
from infra.hpc.lifecycle import Deleted, Lifecycle, Unavailable, Writer
from infra.hpc.logs import LogOptionsError, Part, Reader, check, select, stream
from infra.hpc.pods import Pods, Record, Run
from infra.hpc.protocol import (
    Accelerator,
    CreateReply,
    CreateRequest,
    LogRequest,
    PingResources,
    PingResponse,
    Pod,
    PodRefused,
    PodStatus,
)
from infra.hpc.settings import Settings
from infra.hpc.status import CHECKPOINTED, deleted_status, lost_status, pod_status, unknown_status

log = logging.getLogger(__name__)

CREATE_LIMIT = 32 << 20
"""A pod with all its ConfigMaps and Secrets, 1 MiB each in Kubernetes; in bytes."""
STATUS_LIMIT = 64 << 20
"""A list of whole pods."""
LOGS_LIMIT = 64 << 10
JOB_ANNOTATION = "JobID"
"""The virtual kubelet's note on a pod that a plugin has created."""

_Model = TypeVar("_Model", bound=BaseModel)
_PODS = TypeAdapter(list[Pod])


class Plugin:
    """The routes, over the pods of one root and one batch system."""

    def __init__(self, settings: Settings, pods: Pods, batch: Batch, write: Writer) -> None:
        self._settings = settings
        self._pods = pods
        self._batch = batch
        self._life = Lifecycle(pods, batch, settings, write)

    def app(self) -> Starlette:
        """The web application; its pods are looked after as long as it runs."""
        routes = [
            Route("/create", self._create, methods=["POST"]),
            Route("/delete", self._delete, methods=["POST"]),
            Route("/status", self._status, methods=["GET"]),
            Route("/getLogs", self._logs, methods=["GET"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={HTTPException: _http, 500: _bug})

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._life.start()
        try:
            yield
        finally:
            await self._life.close()
            await self._batch.close()

    async def _create(self, request: Request) -> Response:
        create = _object(CreateRequest, await _body(request, CREATE_LIMIT), "/create")
        try:
            made = await self._life.create(create)
        except PodRefused as error:
            return PlainTextResponse(str(error), 422)
        except Deleted as error:
            return PlainTextResponse(str(error), 409)
        except Unavailable as error:
            return PlainTextResponse(str(error), 503)
        except asyncio.CancelledError:
            return PlainTextResponse("the plugin stops; whether the pod has a job is found out at its next start", 503)
        return JSONResponse(CreateReply(pod_uid=made.uid, pod_jid=made.job).wire())

    async def _delete(self, request: Request) -> Response:
        pod = _object(Pod, await _body(request, CREATE_LIMIT), "/delete")
        await self._life.delete(pod)
        return PlainTextResponse("deleted")

    async def _status(self, request: Request) -> Response:
        pods = _list(await _body(request, STATUS_LIMIT))
        if not pods:
            return await self._ping()
        await self._life.watch.fresh()
        statuses = []
        unknowable = ""
        for pod in pods:
            try:
                statuses.append((await self._status_of(pod)).wire())
            except Unavailable as error:  # left out, it stays as it is
                unknowable = str(error)
        if not statuses:
            return PlainTextResponse(f"cannot be told now: {unknowable}", 503)
        return JSONResponse(statuses)

    async def _status_of(self, pod: Pod) -> PodStatus:
        metadata, spec = pod.metadata, pod.spec
        record = self._pods.get(metadata.uid)
        if record is not None and record.deleted and not record.final:
            return deleted_status(record if record.containers else _bare(pod))
        if record is not None and (record.runs or record.final) and not record.abandoned:
            return pod_status(record, {} if record.final else self._life.watch.marks(record))
        if not spec.containers:
            raise HTTPException(400, f"pod {metadata.name}: spec.containers is empty, and the pod is not known here")
        if record is not None or JOB_ANNOTATION not in metadata.annotations:
            return unknown_status(_bare(pod))
        job = await self._life.find(metadata.uid)
        if job is None or job.state.is_final:
            return lost_status(_bare(pod))
        found = _bare(pod)
        found.runs.append(Run(intent=job.submitted or 0.0, id=job.id))
        found.heard(job)
        return pod_status(found, self._life.watch.marks(found))

    async def _ping(self) -> Response:
        try:
            has = await self._batch.ping()
        except BatchUnavailable as error:
            return PlainTextResponse(f"the batch system does not answer: {error}", 503)
        gpus: dict[str, int] = {}
        for kind, count in has.accelerators.items():
            resource = kind if "/" in kind else self._settings.accelerator
            gpus[resource] = gpus.get(resource, 0) + count
        accelerators = [Accelerator(resource_type=kind, available=str(count)) for kind, count in gpus.items()]
        resources = PingResources(
            cpu=str(has.cpus), memory=str(has.memory), pods=str(has.pods), accelerators=accelerators
        )
        return JSONResponse(PingResponse(resources=resources).wire())

    async def _logs(self, request: Request) -> Response:
        wanted = _object(LogRequest, await _body(request, LOGS_LIMIT), "/getLogs")
        try:
            check(wanted.options)
        except LogOptionsError as error:
            return PlainTextResponse(str(error), 400)
        record = self._pods.get(wanted.pod_uid)
        if record is None or (wanted.namespace and wanted.namespace != record.namespace):
            return PlainTextResponse(f"pod {wanted.namespace}/{wanted.pod_name}: is not known here", 404)
        name = wanted.container_name
        if name not in record.all_containers:
            known = ", ".join(record.all_containers) or "none"
            return PlainTextResponse(f'pod {record.name} has no container "{name[:80]}"; it has {known}', 404)
        whole = Part(0, None)
        if wanted.options.previous:
            if len(record.runs) < 2:
                return PlainTextResponse(f"container {name} has not run before", 400)
            before = [run.offsets.get(name, 0) for run in record.runs]
            whole = Part(before[-2], before[-1])
        folder = self._pods.folder(record)
        files = file_of(folder, name, "log"), file_of(folder, name, "times")
        part = await anyio.to_thread.run_sync(select, *files, wanted.options, whole)
        is_interlink = request.headers.get("User-Agent", "").startswith("Go-http-client")
        reader = Reader(request.is_disconnected, impatient=is_interlink)
        blocks = stream(*files, wanted.options, part, self._writes(record, name), reader)
        return StreamingResponse(blocks, media_type="text/plain; charset=utf-8")

    def _writes(self, record: Record, container: str) -> Callable[[], bool]:
        """Whether a container may still write to its log, also one that is about to run again."""

        def writes() -> bool:
            if record.final or record.deleted or record.abandoned:
                return False
            return self._life.watch.marks(record)[container].code in (None, CHECKPOINTED)

        return writes


def _bare(pod: Pod) -> Record:
    """A record of what a pod itself says, which is kept nowhere."""
    metadata, spec = pod.metadata, pod.spec
    containers = [container.name for container in spec.containers]
    initial = [container.name for container in spec.init_containers]
    return Record(metadata.uid, metadata.namespace, metadata.name, containers, initial)


async def _body(request: Request, limit: int) -> bytes:
    """The body of a request, also of a GET."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise HTTPException(413, f"the body is longer than {limit >> 10} KiB")
        parts.append(part)
    return b"".join(parts)


def _object(model: type[_Model], body: bytes, route: str) -> _Model:
    if body.lstrip()[:1] == b"[":
        raise HTTPException(400, f"{route}: the body is a list; send one object")
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(400, f"{route}: {_sentence(error)}") from None


def _list(body: bytes) -> list[Pod]:
    if body.strip() in (b"", b"null"):  # null is how Go writes a list that is nil
        return []
    if body.lstrip()[:1] != b"[":
        raise HTTPException(400, "/status: the body is no list; send a list of pods, or [] as a ping")
    try:
        return _PODS.validate_json(body)
    except ValidationError as error:
        raise HTTPException(400, f"/status: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    """The first of what is wrong, without the value: that may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])


async def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers: Mapping[str, str] | None = error.headers
    return PlainTextResponse(error.detail, error.status_code, headers=headers)


async def _bug(_request: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return PlainTextResponse(f"the plugin failed: {type(error).__name__}; see its log", 500)
