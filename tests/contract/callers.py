"""Everyone who runs functions, behind one face: what went in, what came out."""

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from events.notifications import Notification, build
from layers.runtime import wire
from layers.runtime.contract import Input
from layers.runtime.function import sha256_of
from layers.runtime.inputs import read_references, resolve, write_manifest
from layers.runtime.testing import call
from tests.cluster import FUNCTION_SCRIPT, TWIN, Cluster, eventually

REAL_SUPERVISOR = Path(__file__).parents[2] / ".venv-supervisor" / "bin" / "python"


@dataclass(frozen=True)
class Ran:
    """What a run left: `code` is None where the caller drops it; paths in `outputs` are below `out/`."""

    code: int | None
    outputs: dict[str, bytes] = field(default_factory=dict)
    forwarded: dict[str, bytes] = field(default_factory=dict)
    log: str = ""
    reply: bytes | None = None


@dataclass(frozen=True)
class Order:
    """What is to run, as an FDL and an event would say it. `objects` (by bucket and key) are there beforehand."""

    function: str
    data: bytes
    key: str = "in/a.txt"
    settings: Mapping[str, str] = field(default_factory=dict)
    objects: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    service: str = field(default_factory=lambda: f"s{uuid.uuid4().hex[:12]}")


class Caller(Protocol):
    def run(self, order: Order) -> Ran: ...

    def reply(self, order: Order) -> Ran: ...

    def run_and_stop(self, order: Order, when: Callable[[], object]) -> Ran: ...


class Direct:
    """From a test or a notebook."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, order: Order) -> Ran:
        return self._call(order, reply=False)

    def reply(self, order: Order) -> Ran:
        return self._call(order, reply=True)

    def run_and_stop(self, order: Order, when: Callable[[], object]) -> Ran:
        stopping = threading.Event()

        def stop() -> None:
            when()
            stopping.set()

        thread = threading.Thread(target=stop)
        thread.start()
        try:
            return self._call(order, reply=False, stopping=stopping)
        finally:
            thread.join()

    def progress_file(self, order: Order) -> Path:
        return self._folder / order.service / "progress.json"

    def _call(self, order: Order, *, reply: bool, stopping: threading.Event | None = None) -> Ran:
        folder = self._folder / order.service
        source, destination = folder / Path(order.key).name, folder / "out" / uuid.uuid4().hex
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(order.data)
        log = io.StringIO()
        with contextlib.redirect_stdout(log):
            outcome = call(
                order.function,
                source,
                destination,
                key=order.key,
                settings={"DIOSCAR_PROGRESS": str(self.progress_file(order)), **order.settings},
                inputs=_staged(order, source, folder),
                checkpoint=folder / "checkpoints",
                stopping=stopping,
                reply=reply,
            )
        outputs = read_folder(destination)
        forwarded = {f"{f.bucket}/{f.key}": outputs[f.path] for f in outcome.forwards}
        answer = next(iter(outputs.values())) if reply else None
        return Ran(outcome.code, outputs, forwarded, log.getvalue(), answer)


class Worker:
    """A warm worker, spoken to over its socket as the engine does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, order: Order) -> Ran:
        return self._serve(order, {"JOB_UUID": "job-1"})

    def reply(self, order: Order) -> Ran:
        return self._serve(order, {})

    def run_and_stop(self, order: Order, when: Callable[[], object]) -> Ran:
        return self._serve(order, {"JOB_UUID": "job-1"}, when)

    def progress_file(self, order: Order) -> Path:
        return self._folder / order.service / "progress.json"

    def _serve(self, order: Order, more: Mapping[str, str], when: Callable[[], object] | None = None) -> Ran:
        folder = self._folder / order.service
        received, produced = folder / "in", folder / "out" / uuid.uuid4().hex
        produced.mkdir(parents=True)
        received.mkdir(exist_ok=True)
        direct = not more
        source = received / (f"event-file-{uuid.uuid4()}" if direct else Path(order.key).name)
        source.write_bytes(order.data)
        environ = {
            **more,
            "INPUT_FILE_PATH": str(source),
            "TMP_OUTPUT_DIR": str(produced),
            "DIOSCAR_PROGRESS": str(self.progress_file(order)),
        }
        if not direct:
            environ |= {"STORAGE_OBJECT_KEY": order.key, "EVENT": json.dumps(event(order))}
        staged = _staged(order, source, folder)
        if staged:
            write_manifest(staged, folder / "inputs.json")
            environ["DIOSCAR_INPUTS"] = str(folder / "inputs.json")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "layers.runtime.worker", "--fd", str(theirs.fileno())],
                env={
                    **os.environ,
                    "PYTHONPATH": str(TWIN),
                    "DIOSCAR_FUNCTION": order.function,
                    "OSCAR_SERVICE_NAME": order.service,
                    "DIOSCAR_ENGINE": "embedded",
                    "DIOSCAR_CHECKPOINT": str(folder / "checkpoints"),
                    **order.settings,
                },
                pass_fds=(theirs.fileno(),),
            )
            theirs.close()
            with ours.makefile("rb") as stream, process:
                assert wire.read(stream) == ({"ready": True}, b"")
                log = folder / "log"
                ours.sendall(wire.pack({"environ": environ, "log": str(log), "folder": None}))
                if when:
                    when()
                    process.send_signal(signal.SIGTERM)
                answered = wire.read(stream)
                ours.shutdown(socket.SHUT_RDWR)
            told = answered[0] if answered else {"code": process.returncode, "forwards": []}
        if told["code"] == 0:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # as an engine does when it has the outputs
        outputs = read_folder(produced) if answered else {}  # an engine takes nothing from a worker that died
        forwarded = {f"{f['bucket']}/{f['key']}": outputs[f["path"]] for f in told["forwards"]}
        answer = next(iter(outputs.values()), b"") if direct else None
        return Ran(told["code"], outputs, forwarded, log.read_text(), answer)


class Supervised:
    """A supervisor process over `fdl/function.sh`: ours, or the one of OSCAR, with a real object store.

    `alone`: as in a pod of which nothing is left when it ends.
    """

    def __init__(self, cluster: Cluster, folder: Path, *, real: bool, alone: bool = False) -> None:
        self._cluster = cluster
        self._folder = folder
        self._real = real
        self._alone = alone

    def run(self, order: Order) -> Ran:
        return self._supervise(order, direct=False)

    def reply(self, order: Order) -> Ran:
        return self._supervise(order, direct=True)

    def run_and_stop(self, order: Order, when: Callable[[], object]) -> Ran:
        return self._supervise(order, direct=False, when=when)

    def progress_file(self, order: Order) -> Path:
        return self._folder / order.service / "progress.json"

    def _supervise(self, order: Order, *, direct: bool, when: Callable[[], object] | None = None) -> Ran:
        folder = self._folder / order.service
        folder.mkdir(parents=True, exist_ok=True)
        buckets(self._cluster, order)
        clear(self._cluster, order)
        if not direct:
            self._cluster.put(order.service, order.key, order.data)
        body = base64.b64encode(order.data) if direct else json.dumps(event(order)).encode()
        python, module = (
            (str(REAL_SUPERVISOR), "faassupervisor.supervisor")
            if self._real
            else (sys.executable, "layers.runtime.supervisor")
        )
        environ = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": "" if self._real else str(TWIN),
            "HOME": str(folder),
            "FUNCTION_CONFIG": base64.b64encode(yaml.safe_dump(self._config(order)).encode()).decode(),
            "SCRIPT": base64.b64encode(self._script().encode()).decode(),
            "OSCAR_SERVICE_NAME": order.service,
            "DIOSCAR_FUNCTION": order.function,
            **({} if self._alone else {"DIOSCAR_CHECKPOINT": str(folder / "checkpoints")}),
            "DIOSCAR_PROGRESS": str(self.progress_file(order)),
            "TMPDIR": tempfile.mkdtemp(dir=folder),
            **order.settings,
            **({} if direct else {"JOB_UUID": "job-1"}),
        }
        arguments = [python, "-W", "ignore", "-m", module]
        process = subprocess.Popen(
            arguments, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
        )
        assert process.stdin is not None
        process.stdin.write(body)
        process.stdin.close()
        process.stdin = None
        if when:
            when()
            process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=60)
        log = printed.decode(errors="replace") + errors.decode(errors="replace")
        answer = base64.b64decode(printed) if direct and process.returncode in (0, 1, 65) else None
        return Ran(
            None if self._real else process.returncode,
            outputs_of(self._cluster, order) if not direct else {},
            forwarded_of(self._cluster, order),
            log,
            answer,
        )

    def _script(self) -> str:
        """OSCAR's supervisor runs in an environment of its own: the function's needs its search path all the same."""
        lines = FUNCTION_SCRIPT.splitlines()
        return "\n".join([lines[0], f"export PYTHONPATH='{TWIN}'", *lines[1:]]) + "\n"

    def _config(self, order: Order) -> dict[str, Any]:
        facts = self._cluster.facts
        store = {
            "endpoint": facts["s3"],
            "verify": False,
            "access_key": facts["minio_access_key"],
            "secret_key": facts["minio_secret_key"],
            "region": "us-east-1",
        }
        return {
            "name": order.service,
            "log_level": "CRITICAL",
            "input": [{"storage_provider": "minio.default", "path": f"{order.service}/in"}],
            "output": [{"storage_provider": "minio.default", "path": f"{order.service}/out"}],
            "storage_providers": {"minio": {"default": store}},
        }


class Embedded:
    """The embedded cluster, with one of its executors."""

    def __init__(self, cluster: Cluster, executor: str, image: str = "ghcr.io/dioscar/test", node: str = "") -> None:
        self._cluster = cluster
        self._executor = executor
        self._image = image
        self._node = node

    def run(self, order: Order) -> Ran:
        self._deploy(order)
        before = len(self._cluster.jobs(service=order.service))
        self._cluster.put(order.service, order.key, order.data)
        job = eventually(lambda: self._ended_after(order, before), what="the job's end")
        return self._left(order, job)

    def reply(self, order: Order) -> Ran:
        self._deploy(order)
        response = self._cluster.run(order.service, order.data)
        codes = {200: 0, 400: 65, 500: 1}
        answer = base64.b64decode(response.content) if response.ok else response.content
        return Ran(codes[response.status_code], reply=answer, forwarded=forwarded_of(self._cluster, order))

    def run_and_stop(self, order: Order, when: Callable[[], object]) -> Ran:
        """The cluster tries again by itself: what it shows is the transition, and the end."""
        self._deploy(order)
        self._cluster.put(order.service, order.key, order.data)
        eventually(lambda: self._steps(order) > 3, what="the third step")
        signal_function(order.service, signal.SIGTERM)
        job = self._cluster.job(self._cluster.ended(order.service)[0]["id"])
        stopped = [t for t in job["transitions"] if "Checkpointed" in t["detail"]]
        return Ran(75 if stopped else 0, {}, {}, self._cluster.job_log(job))

    def finished(self, order: Order) -> Ran:
        return self._left(order, self._cluster.ended(order.service)[0])

    def _steps(self, order: Order) -> float:
        found = self._cluster.jobs(service=order.service)
        progress = found[0]["progress"] if found else None
        return float(progress["done"]) if progress else 0.0

    def _ended_after(self, order: Order, before: int) -> dict[str, Any] | None:
        found = self._cluster.jobs(service=order.service)
        ended = found and len(found) > before and found[0]["state"] in ("Succeeded", "Dead")
        return found[0] if ended else None

    def _left(self, order: Order, job: dict[str, Any]) -> Ran:
        return Ran(
            job["exit_code"],
            outputs_of(self._cluster, order),
            forwarded_of(self._cluster, order),
            self._cluster.job_log(job) + job["reason"],
        )

    def _deploy(self, order: Order) -> None:
        buckets(self._cluster, order)
        clear(self._cluster, order)
        self._cluster.deploy(
            order.service,
            variables={"DIOSCAR_FUNCTION": order.function, **order.settings},
            annotations={"dioscar/executor": self._executor, "dioscar/retries": "0"},
            image=self._image,
            interlink_node_name=self._node,
        )


class OnNode(Embedded):
    """The embedded cluster, with its jobs on the interLink node that is this machine."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, "process", node="hpc")

    def run_and_stop(self, order: Order, when: Callable[[], object]) -> Ran:
        """The node's plugin runs it again by itself: what it shows is the log."""
        self._deploy(order)
        self._cluster.put(order.service, order.key, order.data)
        eventually(lambda: self._steps(order) > 3, what="the third step")
        signal_function(order.service, signal.SIGTERM)
        job = self._cluster.ended(order.service)[0]
        log = self._cluster.job_log(job)
        return Ran(75 if "Checkpointed" in log else 0, {}, {}, log)

    def _steps(self, order: Order) -> float:
        """By its checkpoint: there is no file of progress in a pod, and its log has a line of it in ten seconds."""
        with contextlib.suppress(OSError, ValueError, StopIteration):
            kept = self._cluster.data / "interlink" / "checkpoints"
            state = next(path for path in kept.rglob("state.json") if order.service in path.parts)
            return float(json.loads(state.read_text())["done"])
        return 0.0


class Elsewhere(Embedded):
    """The embedded cluster with its objects in another store, where equal bytes within a second are one version."""

    _last = 0

    def run(self, order: Order) -> Ran:
        eventually(lambda: int(time.time()) > self._last, what="the next second")
        try:
            return super().run(order)
        finally:
            self._last = int(time.time())


def event(order: Order) -> dict[str, Any]:
    """What MinIO would post for the order's object."""
    return build(Notification(order.service, order.key, size=len(order.data)))


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def buckets(cluster: Cluster, order: Order) -> None:
    """The buckets that an order needs, with what is in them beforehand."""
    wanted = {order.service, "other-box", *(bucket for bucket, _ in order.objects)}
    client = boto(cluster)
    try:
        existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for bucket in wanted - existing:
            client.create_bucket(Bucket=bucket)
        for (bucket, key), data in order.objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=data)
    finally:
        client.close()


def clear(cluster: Cluster, order: Order) -> None:
    """Nothing left of an earlier run of the same order."""
    for found in list(cluster.s3.list(order.service, "out/")):
        cluster.s3.delete(order.service, found.key)
    for found in list(cluster.s3.list("other-box", f"{order.service}/")):
        cluster.s3.delete("other-box", found.key)


def outputs_of(cluster: Cluster, order: Order) -> dict[str, bytes]:
    found = cluster.objects(order.service, "out/")
    return {key.removeprefix("out/"): data for key, data in found.items()}


def forwarded_of(cluster: Cluster, order: Order) -> dict[str, bytes]:
    found = cluster.objects("other-box", f"{order.service}/")
    return {f"other-box/{key}": data for key, data in found.items()}


def boto(cluster: Cluster) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=cluster.facts["s3"],
        aws_access_key_id=cluster.facts["minio_access_key"],
        aws_secret_access_key=cluster.facts["minio_secret_key"],
        region_name="us-east-1",
    )


def signal_function(service: str, number: signal.Signals) -> None:
    """Signal the Python processes that run functions of a service."""
    mark = f"OSCAR_SERVICE_NAME={service}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = mark in (folder / "environ").read_bytes().split(b"\0")
            if ours and b"layers.runtime" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), number)


def step_reached(progress_file: Path, step: int) -> Callable[[], object]:
    """Blocks until the function says that it has come so far."""

    def wait() -> object:
        def look() -> bool:
            with contextlib.suppress(OSError, ValueError):
                return bool(json.loads(progress_file.read_text())["done"] >= step)
            return False

        return eventually(look, what=f"step {step}")

    return wait


def _staged(order: Order, source: Path, folder: Path) -> list[Input]:
    """What an engine stages for a request: the objects that it names, as files."""
    references = read_references(source)
    if references is None:
        return []

    def keys(bucket: str, prefix: str) -> list[str]:
        return [key for b, key in order.objects if b == bucket and key.startswith(prefix)]

    staged = []
    for index, reference in enumerate(resolve(references, keys)):
        path = folder / "inputs" / str(index) / Path(reference.key).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(order.objects[reference.bucket, reference.key])
        staged.append(Input(reference.bucket, reference.key, sha256_of(path), path))
    return staged
