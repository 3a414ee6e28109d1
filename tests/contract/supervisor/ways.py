"""The ways in which a script runs: our supervisor, OSCAR's own (faas-supervisor 1.5.8), the embedded cluster."""

import base64
import binascii
import io
import json
import re
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from events.notifications import Notification, build
from fdl.model import dumps, service_from_json
from tests.cluster import Cluster
from tests.contract.callers import REAL_SUPERVISOR, boto

OURS, OSCAR, CLUSTER = "ours", "oscar", "cluster"
WAYS = (OURS, OSCAR, CLUSTER)
Send = Literal["upload", "job", "run"]
REPORT = "env"
"""The output in which a script reports its variables."""
EXPORTED = re.compile(
    r"INPUT_FILE_PATH|TMP_INPUT_DIR|TMP_OUTPUT_DIR|STORAGE_OBJECT_KEY|EVENT|EVENT_TIME|JOB_UUID|RESOURCE_ID"
    r"|OSCAR_SERVICE_\w+|CONT_VAR_\w+|LISTING|OWN_\w+"
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - supervisor - [A-Z]+ - ")
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
VARIABLE = 128 * 1024
"""Bytes that Linux takes in one environment variable."""

Reply = bytes | str | Mapping[str, bytes] | None


@dataclass(frozen=True)
class Left:
    """What a run left: by key below the service's buckets, what it answered, what it printed, what a script saw.

    `reply` is the file (bytes), the files (a mapping) or the text that a synchronous call was answered with; of a run
    that failed, and of what a case does not look at, nothing is kept.
    """

    ended: bool = True
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    reply: Reply = None
    printed: str | None = None
    variables: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Case:
    """A script and an event. `SERVICE` stands for the service's name in keys, bodies and paths.

    `objects` are there beforehand, by key, or by bucket and key with `//` between them.
    """

    name: str
    script: str
    send: Send
    left: Left
    data: bytes = b""
    key: str = "in/a.txt"
    objects: Mapping[str, bytes] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, tuple[str, Left]] = field(default_factory=dict)
    ways: tuple[str, ...] = WAYS
    printed: bool = False
    jobs: int = 1
    missing: str = ""
    credentials: bool = True
    inputs: tuple[Mapping[str, str], ...] = ()
    """What OSCAR's server would not take as an input, and its supervisor needs."""

    def expected(self, way: str) -> Left:
        """What this way leaves: what all do, unless it deviates."""
        return self.differs[way][1] if way in self.differs else self.left

    def body(self, service: str) -> bytes:
        """The body of a call, or the event of an upload."""
        if self.send == "upload":
            return json.dumps(event(service, self.key, len(self.data))).encode()
        return self.data.replace(b"SERVICE", service.encode())


def event(bucket: str, key: str, size: int = 3, source: str = "minio:s3") -> dict[str, Any]:
    """What MinIO posts for an object."""
    document = build(Notification(bucket, key, size=size))
    document["Records"][0]["eventSource"] = source
    return document


class _Oscars:
    """OSCAR's supervisor, imported once; each run is a process of its own. One at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, environ: Mapping[str, str], body: bytes, folder: Path) -> tuple[int, bytes]:
        """Its exit status, and what it printed."""
        if self._process is None:
            command = [str(REAL_SUPERVISOR), "-W", "ignore", str(Path(__file__).with_name("forking.py"))]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None and self._process.stdout is not None
        log = folder / "oscar.log"
        order = {"environ": environ, "body": base64.b64encode(body).decode(), "folder": str(folder), "log": str(log)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), log.read_bytes()

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            with self._process as process:
                assert process.stdin is not None
                process.stdin.close()


class Ways:
    """Runs cases; a service of its own for each."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = self._cluster = cluster
        self.prepare: Callable[[str], None] = lambda service: None
        """What is to be there before a service of that name runs."""
        self.reason = ""
        """Why the cluster's last job or call failed."""
        self._folder = folder
        self._s3 = boto(cluster)
        self._oscar = _Oscars()
        self._answers: dict[tuple[str, str], bytes] = {}
        self.elsewhere: Mapping[str, bytes] = {}
        """What other stores hold, by path: it counts as output where the path has the service's name in it."""

    def close(self) -> None:
        """Close the client."""
        self._s3.close()
        self._oscar.close()

    def run(self, case: Case, way: str) -> Left:
        """What the case leaves in this way, with all that differs from run to run made equal."""
        service = f"c{uuid.uuid4().hex[:12]}"
        self.prepare(service)
        left = self._in_cluster(case, service) if way == CLUSTER else self._supervised(case, service, way)
        if not left.ended:
            left = replace(left, reply=None, variables=None)
        if not case.printed:
            left = replace(left, printed=None)
        return left

    def answer(self, case: Case, way: str) -> bytes:
        """What a supervisor prints in this case, byte for byte."""
        self.run(case, way)
        return self._answers[case.name, way]

    def _document(self, case: Case, service: str) -> dict[str, Any]:
        """The service's document as OSCAR keeps it: its server, not the supervisor, mends the script's lines."""
        given = {
            "name": service,
            "image": "ghcr.io/dioscar/test",
            "cpu": "1.0",
            "memory": "512Mi",
            "log_level": "CRITICAL",
            "script": case.script,
            "input": [{"storage_provider": "minio.default", "path": "SERVICE/in"}],
            "output": [{"storage_provider": "minio.default", "path": "SERVICE/out"}],
            "environment": {"variables": {"OWN_VARIABLE": "my own"}},
            "annotations": {"dioscar/retries": "0", "dioscar/executor": "process"},
            **case.document,
        }
        return dict(json.loads(dumps(given).replace("SERVICE", service)))

    def _in_cluster(self, case: Case, service: str) -> Left:
        cluster = self._cluster
        document = self._document(case, service)
        answer = cluster.http.post(cluster.url("/system/services"), data=dumps(document))
        assert answer.status_code == 201, answer.text
        self._put_objects(case, service)
        if case.send == "upload":
            self._put(service, case.key, case.data)
        else:
            response = cluster.invoke(case.send, service, case.body(service))
            if not response.ok:
                self.reason = f"{response.status_code} {response.text}"
            if case.send == "run":
                return self._report(case, document, response.ok, response.content, "")
            if not response.ok:
                return Left(ended=False)
        jobs = cluster.ended(service, case.jobs)
        self.reason = jobs[0]["reason"]
        printed = "".join(cluster.job_log(job) for job in jobs)
        return self._report(case, document, all(job["state"] == "Succeeded" for job in jobs), None, printed)

    def _supervised(self, case: Case, service: str, way: str) -> Left:
        document = self._document(case, service)
        kept = service_from_json(document)
        store = {
            "endpoint": self._cluster.facts["s3"],
            "verify": False,
            "access_key": self._cluster.facts["minio_access_key"],
            "secret_key": self._cluster.facts["minio_secret_key"],
            "region": "us-east-1",
        }
        given = document.get("storage_providers", {})
        minio = given.get("minio", {}) if case.credentials else None
        config = {
            **kept.model_dump(mode="json"),
            "script": "",
            "input": [*kept.model_dump(mode="json")["input"], *case.inputs],
            "storage_providers": {**given, "minio": {"default": store, **minio} if minio is not None else {}},
        }
        for bucket in _buckets(document) - {case.missing.replace("SERVICE", service)}:
            self._s3.create_bucket(Bucket=bucket)
        self._put_objects(case, service)
        if case.send == "upload":
            self._put(service, case.key, case.data)
        body = case.body(service)
        folder = self._folder / service
        folder.mkdir(parents=True)
        environ = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "FUNCTION_CONFIG": base64.b64encode(yaml.safe_dump(config).encode()).decode(),
            "AWS_ACCESS_KEY_ID": store["access_key"],
            "AWS_SECRET_ACCESS_KEY": store["secret_key"],
            "AWS_ENDPOINT_URL_S3": store["endpoint"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "OWN_VARIABLE": "my own",
            "OSCAR_SERVICE_NAME": service,
            "OSCAR_SERVICE_TOKEN": "0" * 64,
            "OSCAR_SERVICE_BASE_PATH": f"/system/services/{service}/exposed",
            **case.environ,
        }
        if case.send != "run":
            environ |= {"EVENT": body.decode(), "JOB_UUID": f"{service}-{uuid.uuid4()}", "RESOURCE_ID": "node-1"}
        encoded = base64.b64encode(kept.script.encode()).decode()
        start = []
        if len(encoded) < VARIABLE - len("SCRIPT="):
            environ["SCRIPT"] = encoded
        else:  # OSCAR mounts it
            (folder / "script.sh").write_text(kept.script)
            start = ["-c", STARTED_ON.format(path=str(folder / "script.sh"))]
        environ = {name: value for name, value in environ.items() if value}
        if way == OSCAR:
            code, output = self._oscar.run(environ, body, folder)
        else:
            command = [sys.executable, "-P", *(start or ["-m", "layers.runtime.supervisor"])]
            ran = subprocess.run(  # a pod's two streams are one log, and one reply
                command,
                env=environ,
                input=body,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                check=False,
            )
            code, output = ran.returncode, ran.stdout
        self._answers[case.name, way] = output
        printed = None if case.send == "run" else output.decode(errors="replace")
        return self._report(case, document, code == 0, output, printed)

    def _report(
        self, case: Case, document: Mapping[str, Any], ended: bool, reply: bytes | None, printed: str | None
    ) -> Left:
        """What is left, the script's report taken out of it."""
        service = str(document["name"])
        outputs = self._outputs(document, service, case.missing.replace("SERVICE", service))
        answered = _reply(reply) if case.send == "run" and reply is not None else None
        if isinstance(answered, bytes) and b"TMP_INPUT_DIR=" in answered:
            return Left(ended, variables=_variables(answered, service))
        report = next((data for key, data in outputs.items() if key.endswith(f"/{REPORT}")), None)
        outputs = {key: data for key, data in outputs.items() if data is not report}
        if case.send == "run":
            outputs = {}  # whether a pod that serves /run can store them is the cluster's choice
        return Left(ended, outputs, answered, printed, _variables(report, service) if report else None)

    def _outputs(self, document: Mapping[str, Any], service: str, missing: str) -> dict[str, bytes]:
        """Every object of the service's buckets but those that were put there."""
        found = {
            path.replace(service, "SERVICE"): data
            for path, data in list(self.elsewhere.items())
            if f"/{service}/out/" in path and not path.endswith("/")
        }
        for bucket in sorted(_buckets(document) - {missing}):
            for entry in self._s3.list_objects_v2(Bucket=bucket).get("Contents", []):
                key = entry["Key"]
                if not key.startswith(("in/", "other/")) and not key.endswith("/"):
                    data = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                    found[f"{bucket.replace(service, 'SERVICE')}/{key}"] = data.replace(service.encode(), b"SERVICE")
        return found

    def _put(self, bucket: str, key: str, data: bytes) -> None:
        self._s3.put_object(Bucket=bucket, Key=key, Body=data)

    def _put_objects(self, case: Case, service: str) -> None:
        for key, data in case.objects.items():
            bucket, named, rest = key.replace("SERVICE", service).partition("//")
            self._put(bucket, rest, data) if named else self._put(service, key, data)


def _buckets(document: Mapping[str, Any]) -> set[str]:
    entries = (*document["input"], *document["output"])
    return {entry["path"].partition("/")[0] for entry in entries if entry["storage_provider"] == "minio.default"}


def check(ways: Ways, case: Case) -> None:
    """The case leaves what it should, in all its ways at once."""
    tried = [way for way in case.ways if way != OSCAR or REAL_SUPERVISOR.exists()]
    with ThreadPoolExecutor(len(tried)) as pool:
        found = dict(zip(tried, pool.map(lambda way: _told_alike(ways.run(case, way)), tried), strict=True))
    wrong = [f"{way}: {found[way]}\nnot {case.expected(way)}" for way in tried if found[way] != case.expected(way)]
    assert not wrong, "\n".join([*wrong, f"the cluster last said: {ways.reason}"])


STARTED_ON = """
import sys
from pathlib import Path
from layers.runtime import supervisor
supervisor.SCRIPT = Path({path!r})
sys.exit(supervisor.main())
"""


def _told_alike(left: Left) -> Left:
    """The same with a supervisor's own lines in a log taken together: they have times in them."""
    lines = (left.printed or "").splitlines(keepends=True)
    others = [line for line in lines if not LOG_LINE.match(line.encode())]
    if len(others) == len(lines):
        return left
    return replace(left, printed=f"log lines and {''.join(others).strip()}")


def _reply(body: bytes) -> Reply:
    """What a synchronous call was answered with; the newlines at its end do not count."""
    body = body.rstrip(b"\n")
    if LOG_LINE.match(body):
        return f"log lines, then {body.decode().splitlines()[-1]}"
    try:
        decoded = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return body.decode(errors="backslashreplace")
    if not decoded.startswith(b"PK\x03\x04"):
        return decoded
    with zipfile.ZipFile(io.BytesIO(decoded)) as archive:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        return {name: archive.read(name) for name in archive.namelist()}


def _variables(report: bytes, service: str) -> dict[str, str]:
    """The contract's variables of `env -0`, without what is different in every run."""
    lines = [line.partition("=") for line in report.decode().split("\0") if line]
    found = {name: value for name, _, value in lines if EXPORTED.fullmatch(name)}
    received, produced = found["TMP_INPUT_DIR"], found["TMP_OUTPUT_DIR"]
    assert Path(received).is_absolute() and Path(produced).is_absolute() and received != produced
    equal: dict[str, Callable[[str], str]] = {
        "TMP_INPUT_DIR": lambda _: "a folder",
        "TMP_OUTPUT_DIR": lambda _: "a folder",
        "RESOURCE_ID": lambda _: "a node",
        "OSCAR_SERVICE_TOKEN": lambda value: re.sub("[0-9a-f]{64}", "a token", value),
        "EVENT_TIME": lambda value: TIME.sub("a time", value),
        "EVENT": _told,
    }
    same = {}
    for name, value in found.items():
        value = equal.get(name, str)(value).replace(received, "TMP_INPUT_DIR").replace(service, "SERVICE")
        same[name] = re.sub(UUID, "a uuid", value)
    return same


def _told(value: str) -> str:
    """An event by what it tells of; its sender's details are the sender's."""
    try:
        document = json.loads(value)
        record = document["Records"][0]
        return f"{record['eventSource']} {record['s3']['bucket']['name']} {record['s3']['object']['key']}"
    except (ValueError, KeyError, TypeError):
        return value
