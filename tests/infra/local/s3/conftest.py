"""A real S3 endpoint under uvicorn, on a free port of the loopback address, and the clients that people use."""

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass, field

import pytest
import uvicorn
import uvloop
from minio import Minio

from infra.local.blobs import Blobs
from infra.local.connections import Connection
from infra.local.database import Database
from infra.local.objects import ObjectStore
from infra.local.s3.app import S3App
from layers.objects.client import S3Client
from tests.infra.local.s3.helpers import ACCESS, SECRET, boto


class Server(uvicorn.Server):
    def capture_signals(self):
        return contextlib.nullcontext()


@dataclass
class Endpoint:
    """A running endpoint; `call` runs a coroutine function on its loop."""

    data: object
    certificate: object = None
    key: object = None
    port: int = 0
    loop: asyncio.AbstractEventLoop = None
    store: ObjectStore = None
    server: Server = None
    app: S3App = None
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self):
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}"

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def call(self, function, *args):
        async def run():
            result = function(*args)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)

    def write(self, work):
        return self.call(self.store.database.write, work)

    def files(self):
        """The blob files on disk, once the store has had its time to clean up."""
        self.call(self.store.garbage.collect)
        return sorted(path for path in (self.data / "blobs").rglob("*") if path.is_file())

    def run(self):
        with socket.socket(proto=socket.IPPROTO_TCP) as listener:  # else no loop turns Nagle's algorithm off
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(listener))

    async def _serve(self, listener):
        self.loop = asyncio.get_running_loop()
        database = Database(self.data / "dioscar.db")
        blobs = Blobs(database, self.data / "blobs")
        self.store = ObjectStore(database, blobs)
        self.store.targets.append(lambda arn: arn.startswith("arn:minio:sqs:") and arn.endswith(":webhook"))
        self.app = app = S3App(self.store, {ACCESS: SECRET}.get)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            ssl_certfile=self.certificate,
            ssl_keyfile=self.key,
        )
        self.server = Server(config)
        await self.store.start()
        serving = asyncio.create_task(self.server.serve(sockets=[listener]))
        while not self.server.started:
            await asyncio.sleep(0.005)
        self.ready.set()
        await serving
        await self.store.stop()
        blobs.close()
        database.close()


@contextlib.contextmanager
def serving(data, certificate=None, key=None):
    endpoint = Endpoint(data, certificate, key)
    thread = threading.Thread(target=endpoint.run)
    thread.start()
    assert endpoint.ready.wait(20)
    try:
        yield endpoint
    finally:
        endpoint.server.should_exit = True
        endpoint.server.force_exit = True
        thread.join()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("data")) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def s3(endpoint):
    client = boto(endpoint.url)
    yield client
    client.close()


@pytest.fixture(scope="module")
def minio(endpoint):
    client = Minio(f"127.0.0.1:{endpoint.port}", ACCESS, SECRET, secure=False)
    yield client
    client._http.clear()


@pytest.fixture(scope="module")
def client(endpoint):
    with S3Client(endpoint.url, ACCESS, SECRET) as client:
        yield client


@pytest.fixture
def bucket(s3, request):
    """A bucket of this test's own."""
    name = f"b{abs(hash(request.node.nodeid)):x}"[:40]
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def anyio_backend():
    return "asyncio"
