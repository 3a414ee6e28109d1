"""A cluster that can be broken at a step of its own, and what must hold after every fault."""

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import requests

from infra.local.workspace import MARK, Scratch
from layers.objects import sigv4
from tests.cluster import COMMAND, Cluster, eventually

TWIN = Path(__file__).parent / "twin"
RUNNER = (sys.executable, "-P", "-m", "tests.infra.local.faults.runner")
COUNT = 'printf x >> "$HOME/ran-$OSCAR_SERVICE_NAME"\n'
"""In a script: how often a service ran is told by the length of a file."""
COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"\n'


class Broken(Cluster):
    """A cluster that dies at a step, once it is armed."""

    def __init__(self, data: Path, *, step: str = "", **environ: str) -> None:
        super().__init__(data)
        self.armed = data.parent / f"{data.name}.armed"
        self.command = RUNNER
        self.always = environ
        self.environ = dict(environ)
        if step:
            self.environ |= {"FAULT_DIE": step, "FAULT_ARMED": str(self.armed)}

    def arm(self) -> None:
        self.armed.touch()

    def die(self) -> list[int]:
        """Wait for the death, and start again, sound; returns the processes that it left."""
        assert self.process is not None
        assert self.process.wait(30) == -9, self.log
        left = processes(self.data)
        self.s3.close()
        self.http.close()
        self.command, self.environ = COMMAND, self.always
        self.start()
        return left

    def ask(
        self, method: str, path: str, data: bytes = b"", query: str = "", *, late_s: float = 0
    ) -> requests.Response:
        """One signed request, sent once: nobody tries again behind our back."""
        host = urlsplit(str(self.facts["s3"])).netloc
        credentials = sigv4.Credentials(self.facts["minio_access_key"], self.facts["minio_secret_key"])
        headers = sigv4.sign(
            method,
            path,
            query,
            {"host": host},
            payload=sha256(data).hexdigest(),
            credentials=credentials,
            region="us-east-1",
            now=datetime.fromtimestamp(datetime.now(UTC).timestamp() + late_s, UTC),
        )
        url = f"http://{host}{path}" + (f"?{query}" if query else "")
        return requests.request(method, url, data=data, headers=headers, timeout=60)

    def acknowledged(self, method: str, path: str, data: bytes = b"", query: str = "") -> bool:
        """Whether a request was answered with success before the cluster died."""
        try:
            return self.ask(method, path, data, query).status_code < 300
        except requests.RequestException:
            return False

    def seen(self) -> Path:
        """The data folder as it is seen from here."""
        return self.data

    def ran(self, service: str) -> int:
        with suppress(FileNotFoundError):
            return (self.seen() / "home" / f"ran-{service}").stat().st_size
        return 0

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """What the database holds, behind the cluster's back."""
        with closing(sqlite3.connect(f"file:{self.seen()}/dioscar.db?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def idle(self) -> None:
        """Wait until no job is open: one look, since jobs follow from jobs."""
        look = "SELECT 1 FROM jobs WHERE state IN ('Pending', 'Running', 'Retrying') LIMIT 1"
        eventually(lambda: not self.rows(look), what="the end of all jobs")


@contextmanager
def broken(data: Path, *, step: str = "", template: Path | None = None, **environ: str) -> Iterator[Broken]:
    """A cluster that is to be broken, on a copy of `template` where one is given; killed at the end."""
    if template is not None:
        shutil.copytree(template, data, ignore=shutil.ignore_patterns("cluster.*", "*.lock"))
    cluster = Broken(data, step=step, **environ)
    cluster.start()
    try:
        yield cluster
    finally:
        if cluster.process is not None and cluster.process.poll() is None:
            cluster.kill()
        for pid in processes(data):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(Scratch(data.resolve())._memory, ignore_errors=True)  # a killed cluster cannot


def chain(cluster: Cluster, *, warm: bool) -> None:
    """Two services: what `first` makes, `second` gets."""
    if warm:
        copy = {"DIOSCAR_FUNCTION": "faults.count", "PYTHONPATH": str(TWIN)}
        cluster.deploy("second", variables=copy)
        cluster.deploy("first", variables={**copy, "FORWARD": "*.copy -> second/in"})
        return
    cluster.deploy("second", script=COUNT + COPY)
    both = [{"storage_provider": "minio.default", "path": path} for path in ("first/out", "second/in")]
    cluster.deploy(
        "first",
        script=f'{COUNT}for n in 1 2; do cp "$INPUT_FILE_PATH" "$INPUT_FILE_PATH.$n"; done\n'
        'mv "$INPUT_FILE_PATH".? "$TMP_OUTPUT_DIR/"\n',
        output=both,
    )


def is_clean(cluster: Broken, left: list[int]) -> None:
    """Nothing that a fault may leave is left: files, versions, workspaces, processes."""

    def blobs() -> bool:
        files = {int(path.name, 16) for path in (cluster.seen() / "blobs").glob("*/*")}
        return files == {row[0] for row in cluster.rows("SELECT id FROM blobs WHERE data IS NULL")}

    eventually(blobs, 20, "the end of orphaned contents")
    dead = "SELECT id FROM jobs WHERE state = 'Dead'"  # what is dead may be replayed: its input stays
    eventually(lambda: not cluster.rows(f"SELECT * FROM pins WHERE holder NOT IN ({dead})"), 20, "the end of all pins")
    eventually(lambda: not cluster.rows("SELECT * FROM garbage"), 20, "the end of old versions")
    unused = "SELECT id FROM blobs WHERE id NOT IN (SELECT blob FROM objects UNION SELECT blob FROM parts)"
    assert cluster.rows(unused) == []
    scratch = Scratch(cluster.data.resolve())
    for folder in (cluster.seen() / "run", scratch._memory):
        eventually(lambda folder=folder: not list(folder.glob("*/*")), 20, f"the end of workspaces in {folder}")  # type: ignore[misc]
    assert not set(left) & set(processes(cluster.data)), "processes of the cluster that was killed"


def processes(data: Path) -> list[int]:
    """The processes that a cluster on this folder has started."""
    mark = f"{MARK}={data.resolve()}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
