"""The object store as a job's pod has it: what it uploads names the job, and a store that is away is waited for."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from layers.objects.client import S3Client
from layers.objects.errors import StoreUnavailable

MADE_BY = "dioscar-job"
"""Metadata of what a job uploads: the job."""
PATIENCE_S = 900.0
"""How long hours of work wait for their store: a cluster that is started anew is back by then."""
PAUSES_S = (2.0, 5.0, 10.0, 20.0, 30.0)


def is_pod(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is a job that stages and stores by itself, as on a real cluster."""
    return bool(environ.get("JOB_UUID")) and not environ.get("DIOSCAR_ENGINE")


class PodStore(S3Client):
    """An S3 client for one job."""

    job = ""
    patience_s = PATIENCE_S
    sleep: Callable[[float], None] = staticmethod(time.sleep)

    def _call(self, method: str, *args: Any, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        if method == "PUT" and self.job.isascii() and self.job.isprintable() and self.job:
            headers = {**(headers or {}), f"x-amz-meta-{MADE_BY}": self.job}
        waited = 0.0
        pauses = iter(PAUSES_S)
        pause = next(pauses)
        while True:
            try:
                return super()._call(method, *args, headers=headers, **more)
            except StoreUnavailable as error:
                if waited >= self.patience_s:
                    raise
                if not waited:
                    limit = f"for {self.patience_s / 60:g} min"
                    print(f"dioscar: waiting for the object store, {limit} at most: {error}", flush=True)  # noqa: T201
            self.sleep(pause)
            waited += pause
            pause = next(pauses, pause)
