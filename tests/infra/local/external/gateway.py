"""MinIO's own code base as a store that can be stopped, killed and started again, always at the same address."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.infra.local.s3.conformance import juicefs
from tests.infra.local.s3.helpers import ACCESS, SECRET

KEYS = {"MINIO_ACCESS_KEY": ACCESS, "MINIO_SECRET_KEY": SECRET}


class Gateway:
    """A gateway of JuiceFS on one folder and one port."""

    def __init__(self, data: Path, port: int) -> None:
        self.program = juicefs.command()
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.data = data
        self.process: subprocess.Popen[bytes] | None = None
        data.mkdir(parents=True)
        storage = ["--storage", "file", "--bucket", f"{data}/blobs/", "--trash-days", "0"]
        command = [self.program, "format", self.meta, "tests", *storage]
        subprocess.run(command, check=True, capture_output=True, env=self.environ({}))

    @property
    def meta(self) -> str:
        return f"sqlite3://{self.data}/meta.db"

    def environ(self, more: Mapping[str, str]) -> dict[str, str]:
        root = {"MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET}
        return {**os.environ, "HOME": str(self.data), **root, **more}

    def start(self, webhook: str = "", token: str = "", queue: bool = False) -> None:
        """Start, with a webhook PRIMARY to a URL where one is given; `queue`: its events survive on disk."""
        name = "MINIO_NOTIFY_WEBHOOK_"
        more = {}
        if webhook:
            more = {f"{name}ENABLE_PRIMARY": "on", f"{name}ENDPOINT_PRIMARY": webhook}
            more[f"{name}AUTH_TOKEN_PRIMARY"] = token
        if queue:
            more[f"{name}QUEUE_DIR_PRIMARY"] = str(self.data / "events")
        places = ["--cache-dir", f"{self.data}/cache", "--cache-size", "0", "--log", f"{self.data}/log"]
        command = [self.program, "gateway", self.meta, f"127.0.0.1:{self.port}", *juicefs.OPTIONS, *places]
        environ = self.environ(more)
        with (self.data / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--metrics", "127.0.0.1:0"], env=environ, stdout=output, stderr=output
            )
        juicefs.wait(self.process, self.port, self.data, environ)

    def queued(self) -> list[Path]:
        """Events that it has not delivered yet."""
        return [path for path in (self.data / "events").rglob("*") if path.is_file()]

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
