"""A plugin in a process of its own, before the batch system in a folder: one that can be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from infra.hpc import server
from infra.hpc.batch import Submission
from infra.hpc.protocol import CreateRequest
from infra.hpc.settings import Settings
from tests.infra.hpc.plugin import fake
from tests.infra.hpc.plugin.fake import Client, FolderBatch, until


class Killable(Client):
    """A client that can kill its plugin."""

    process: subprocess.Popen[str]

    def kill(self) -> None:
        """As a power cut would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@contextmanager
def alone(folder: Path) -> Iterator[Killable]:
    """A plugin that has said where it listens."""
    command = [sys.executable, "-P", "-m", "tests.infra.hpc.plugin.alone", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().split()[-1]
            client = Killable(url, folder / "root", FolderBatch(folder / "batch"))
            client.process = process
            yield client
        finally:
            process.terminate()


def reached(client: Client) -> None:
    """Return when the plugin has come to a fault at which it hangs."""
    until(lambda: client.batch.has("reached"))


def _write(pod: CreateRequest, folder: Path, settings: Settings) -> Submission:
    if (settings.root.parent / "batch" / "hang-write").exists():
        (settings.root.parent / "batch" / "reached").touch()
        time.sleep(3600)
    return fake.write(pod, folder, settings)


if __name__ == "__main__":
    here = Path(sys.argv[1])
    with (
        mock.patch.object(server, "batch_of", return_value=FolderBatch(here / "batch")),
        mock.patch.object(server, "writer", return_value=_write),
    ):
        server.serve(fake.settings(here / "root", listen="127.0.0.1:0"))
