"""A batch system in a folder, which tests move by hand, and a plugin before it. For what a real one does too seldom."""

import asyncio
import functools
import json
import socket
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import requests
import uvicorn
from starlette.applications import Starlette

from infra.hpc.app import Plugin
from infra.hpc.batch import BatchBusy, BatchJob, BatchRefused, BatchState, BatchUnavailable, Resources, Submission
from infra.hpc.folder import file_of, pod_folder
from infra.hpc.lifecycle import Writer
from infra.hpc.pods import Pods
from infra.hpc.protocol import CreateRequest, PodRefused
from infra.hpc.settings import Settings

OSCAR = Path(__file__).with_name("oscar.json")
UID = "0d5a7c1e-2f3b-4c6d-8e9f-a0b1c2d3e4f5"
MAIN, INIT = "oscar-container", "supervisor-container"


class FolderBatch:
    """Satisfies `infra.hpc.batch.Batch`. A file named as a fault in its folder makes it happen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.questions = 0
        self.submissions = 0
        self.lookups = 0
        self.looked_for: Collection[str] = ()

    def fault(self, name: str, on: bool = True) -> None:
        """`down`, `silent` (taken, but says that it is down), `refuse`, `busy`, `hang-before`, `hang-after`,
        `hidden` (known by its name only).
        """
        if on:
            (self.folder / name).touch()
        else:
            (self.folder / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def jobs(self) -> list[BatchJob]:
        found = []
        for path in sorted(self.folder.glob("*.json"), key=lambda path: int(path.stem)):
            values = json.loads(path.read_text())
            found.append(BatchJob(**{**values, "state": BatchState(values["state"])}))
        return found

    def put(self, job: BatchJob) -> None:
        part = self.folder / f"{job.id}.part"
        part.write_text(json.dumps(asdict(job)))
        part.rename(self.folder / f"{job.id}.json")

    def set(self, number: str, state: BatchState, **values: Any) -> None:
        [job] = [job for job in self.jobs() if job.id == number]
        self.put(replace(job, state=state, **values))

    def purge(self, number: str) -> None:
        (self.folder / f"{number}.json").unlink()

    def add(self, name: str, state: BatchState = BatchState.PENDING, submitted: float | None = None) -> str:
        number = str(1 + max((int(job.id) for job in self.jobs()), default=0))
        self.put(BatchJob(number, name, state, submitted=submitted or time.time()))
        return number

    def _up(self) -> None:
        if self.has("down"):
            raise BatchUnavailable("Unable to contact slurm controller (connect failure)")

    async def submit(self, submission: Submission) -> str:
        self.submissions += 1
        assert submission.script.is_file()
        if self.has("hang-before"):
            (self.folder / "reached").touch()
            await asyncio.sleep(3600)
        self._up()
        if self.has("refuse"):
            raise BatchRefused("invalid partition specified: nosuch")
        if self.has("busy"):
            raise BatchBusy("Required partition not available (inactive or drain)")
        number = self.add(submission.name)
        if self.has("hang-after"):
            (self.folder / "reached").touch()
            await asyncio.sleep(3600)
        if self.has("silent"):
            raise BatchUnavailable("Socket timed out on send/recv operation")
        return number

    async def named(self, names: Collection[str]) -> list[BatchJob]:
        self.lookups += 1
        self.looked_for = names
        self._up()
        return [job for job in self.jobs() if job.name in names]

    async def query(self, ids: Collection[str]) -> dict[str, BatchJob]:
        self.questions += 1
        self._up()
        return {job.id: job for job in self.jobs() if job.id in ids and not self.has("hidden")}

    async def cancel(self, job: str) -> None:
        self._up()
        for one in self.jobs():
            if one.id == job and not one.state.is_final:
                self.put(replace(one, state=BatchState.CANCELLED, ended=time.time()))

    async def ping(self) -> Resources:
        self._up()
        return Resources(cpus=128, memory=256 << 30, pods=1000, accelerators={"a100": 4, "gpu": 2})

    async def close(self) -> None:
        pass


def write(pod: CreateRequest, folder: Path, settings: Settings) -> Submission:
    """As the real writer, but for a script that nobody runs."""
    for volume in pod.pod.spec.volumes:
        if volume.kind == "persistentVolumeClaim":
            raise PodRefused(f"spec.volumes: {volume.name}: a persistentVolumeClaim cannot be reached from here")
    (folder / "secrets").mkdir(mode=0o700, exist_ok=True)
    for container in pod.container:
        for secret in container.secrets:
            for key, content in secret.files().items():
                (folder / "secrets" / key).write_bytes(content)
    script = folder / "job.sh"
    script.write_text("#!/bin/sh\n")
    return Submission(pod.pod.metadata.uid, f"{pod.pod.metadata.namespace}/{pod.pod.metadata.name}", script, folder)


class Client:
    """Talks to a plugin as interLink's API server does."""

    def __init__(self, url: str, root: Path, batch: FolderBatch) -> None:
        self.url = url
        self.root = root
        self.batch = batch
        self.uid = UID
        self.headers = {"User-Agent": "Go-http-client/1.1"}

    def send(self, method: str, route: str, body: Any, **options: Any) -> requests.Response:
        content = body if isinstance(body, (bytes, str)) else json.dumps(body)
        headers = {"Content-Type": "application/json", "InterLink-Http-Session": "a-session", **self.headers}
        return requests.request(method, self.url + route, data=content, headers=headers, timeout=60, **options)

    def create(self, body: Any) -> requests.Response:
        return self.send("POST", "/create", body)

    def delete(self, pod: Any) -> requests.Response:
        return self.send("POST", "/delete", pod)

    def status(self, *pods: Any) -> requests.Response:
        return self.send("GET", "/status", list(pods))

    def logs(self, container: str = MAIN, uid: str = "", stream: bool = False, **options: Any) -> requests.Response:
        opts = {
            "Tail": 0,
            "Bytes": 0,
            "Timestamps": False,
            "Follow": False,
            "Previous": False,
            "SinceSeconds": 0,
            "SinceTime": "0001-01-01T00:00:00Z",
        }
        body = {"Namespace": "oscar-svc", "PodUID": uid or self.uid, "PodName": "p", "ContainerName": container}
        return self.send(
            "GET", "/getLogs", {**body, "Opts": {**opts, **options}}, stream=stream or bool(options.get("Follow"))
        )

    def folder(self, uid: str = "") -> Path:
        return pod_folder(self.root, "oscar-svc", uid or self.uid)

    def write(self, ending: str, text: str, container: str = MAIN, uid: str = "") -> None:
        """Leave a file as the job's script does."""
        path = file_of(self.folder(uid), container, ending)
        part = path.with_suffix(".new")
        part.write_text(text)
        part.rename(path)

    def run(self, *codes: int | None, uid: str = "") -> None:
        """Leave what a script does whose init container and container have ended with these codes; None: not ended."""
        for container, code in zip((INIT, MAIN), codes, strict=True):
            self.write("started", f"{time.time():.0f}", container, uid)
            if code is not None:
                self.write("finished", f"{time.time():.0f}", container, uid)
                self.write("status", str(code), container, uid)

    def state(self, pod: Any, container: str = MAIN) -> dict[str, Any]:
        """The state of a container, as /status tells it."""
        reply = self.status(pod)
        assert reply.status_code == 200, reply.text
        [status] = reply.json()
        [found] = [one for one in status["containers"] + status["initContainers"] if one["name"] == container]
        assert len(found["state"]) == 1
        return dict(found["state"])

    def ended(self, pod: Any, container: str = MAIN) -> dict[str, Any]:
        """How a container has ended, once it has."""
        return dict(until(lambda: self.state(pod, container).get("terminated")))


def until(found: Callable[[], Any], deadline_s: float = 30.0) -> Any:
    """What `found` returns once it is something."""
    deadline = time.monotonic() + deadline_s
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.02)


def oscar_pod(uid: str = UID) -> dict[str, Any]:
    """What interLink sends to create OSCAR's pod."""
    return dict(json.loads(OSCAR.read_text().replace(UID, uid)))


def settings(root: Path, **given: Any) -> Settings:
    """Settings with short times."""
    values = {"poll": 0.05, "settle": 0.0, "lost_after": 0.2, "sweep": 0.1, "submit_within": 5.0}
    return Settings(root=root, **{**values, **given})


class _Host:
    """A web server in a thread, for one plugin after another: to start and stop one takes longer than most tests."""

    def __init__(self) -> None:
        self.app: Starlette | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        config = uvicorn.Config(self, log_config=None, access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        until(lambda: self._server.started)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._listener])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the server's loop."""
        assert self.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


@functools.cache
def _host() -> _Host:
    return _Host()


@contextmanager
def serving(folder: Path, writer: Writer | None = None, **given: Any) -> Iterator[Client]:
    """A plugin in this process."""
    batch = FolderBatch(folder / "batch")
    chosen = settings(folder / "root", **given)
    pods = Pods(chosen.root)
    pods.open()
    host, before = _host(), _host().app
    app = Plugin(chosen, pods, batch, writer or write).app()
    lifespan = app.router.lifespan_context(app)
    host.do(lifespan.__aenter__())
    host.app = app
    try:
        yield Client(host.url, chosen.root, batch)
    finally:
        host.app = before
        host.do(lifespan.__aexit__(None, None, None))
        pods.close()
