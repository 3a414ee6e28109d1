"""The table: scripts and events, what each leaves everywhere, and where OSCAR's supervisor deviates.

A case without `differs` is the same in all three ways. The names of deviations stand in `deviations.py`.
"""

import base64
import json
from pathlib import Path
from typing import Any

from tests.contract.supervisor.ways import CLUSTER, OSCAR, OURS, Case, Left, event

REPORTING = """
LISTING=$(ls -A "$TMP_INPUT_DIR" | sed 's/event-file-[0-9a-f-]*$/event-file/')
export LISTING
env -0 >"$TMP_OUTPUT_DIR/env"
"""
COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/got"'
KEY = "in/x/a b é's.txt"
FOLDERS = {"TMP_INPUT_DIR": "a folder", "TMP_OUTPUT_DIR": "a folder"}
POD = {
    **FOLDERS,
    "OSCAR_SERVICE_NAME": "SERVICE",
    "OSCAR_SERVICE_TOKEN": "a token",
    "OSCAR_SERVICE_BASE_PATH": "/system/services/SERVICE/exposed",
    "OWN_VARIABLE": "my own",
}
JOB = {**POD, "JOB_UUID": "SERVICE-a uuid", "RESOURCE_ID": "a node"}
DIRECT = {"INPUT_FILE_PATH": "TMP_INPUT_DIR/event-file-a uuid", "LISTING": "event-file"}
OBJECT = {
    "INPUT_FILE_PATH": "TMP_INPUT_DIR/a b é's.txt",
    "LISTING": "a b é's.txt",
    "STORAGE_OBJECT_KEY": KEY,
    "EVENT_TIME": "a time",
    "EVENT": "minio:s3 SERVICE in%2Fx%2Fa+b+%C3%A9%27s.txt",
}
FAILED = Left(ended=False)


def with_script(variables: dict[str, str]) -> Left:
    """OSCAR puts the script that it is given in SCRIPT beside the input."""
    return Left(variables={**variables, "LISTING": f"{variables['LISTING']}\nscript.sh".strip()})


def wrapped(document: Any, **more: object) -> bytes:
    return json.dumps({**more, "event": json.dumps(document)}).encode()


def gateway(**call: object) -> bytes:
    return json.dumps({"httpMethod": "POST", "headers": {}, **call}).encode()


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


VARIABLES = [
    Case(
        "an upload's variables",
        REPORTING,
        "upload",
        Left(variables={**JOB, **OBJECT}),
        data=b"abc",
        key=KEY,
        differs={OSCAR: ("script-beside-input", with_script({**JOB, **OBJECT}))},
    ),
    Case(
        "the variables of an asynchronous call",
        REPORTING,
        "job",
        Left(variables={**JOB, **DIRECT, "EVENT": b64(b"abc").decode()}),
        data=b64(b"abc"),
        differs={OSCAR: ("script-beside-input", with_script({**JOB, **DIRECT, "EVENT": b64(b"abc").decode()}))},
    ),
    Case(
        "the variables of a synchronous call",
        REPORTING,
        "run",
        Left(variables={**POD, **DIRECT}),
        data=b64(b"abc"),
        differs={OSCAR: ("script-beside-input", with_script({**POD, **DIRECT}))},
    ),
    Case(
        "query parameters of an API gateway",
        REPORTING,
        "run",
        Left(variables={**POD, **DIRECT, "CONT_VAR_dm": "56.7", "CONT_VAR_name": "a b é"}),
        data=gateway(body="aGk=", queryStringParameters={"dm": "56.7", "name": "a b é"}),
        differs={
            OSCAR: (
                "script-beside-input",
                with_script({**POD, **DIRECT, "CONT_VAR_dm": "56.7", "CONT_VAR_name": "a b é"}),
            )
        },
    ),
    Case(
        "an event that another cluster passes on",
        REPORTING,
        "job",
        Left(
            variables={
                **JOB,
                "INPUT_FILE_PATH": "TMP_INPUT_DIR/a.txt",
                "LISTING": "a.txt",
                "STORAGE_OBJECT_KEY": "other/a.txt",
                "EVENT_TIME": "a time",
                "EVENT": "minio:s3 SERVICE other%2Fa.txt",
            }
        ),
        data=wrapped(event("SERVICE", "other/a.txt"), storage_provider="default"),
        objects={"other/a.txt": b"abc"},
        differs={
            OSCAR: (
                "script-beside-input",
                with_script(
                    {
                        **JOB,
                        "INPUT_FILE_PATH": "TMP_INPUT_DIR/a.txt",
                        "LISTING": "a.txt",
                        "STORAGE_OBJECT_KEY": "other/a.txt",
                        "EVENT_TIME": "a time",
                        "EVENT": "minio:s3 SERVICE other%2Fa.txt",
                    }
                ),
            )
        },
    ),
    Case(
        "file_stage_in leaves the object where it is",
        REPORTING,
        "upload",
        Left(variables={**JOB, **{k: v for k, v in OBJECT.items() if k != "INPUT_FILE_PATH"}, "LISTING": ""}),
        key=KEY,
        document={"file_stage_in": True},
        differs={
            OSCAR: (
                "script-beside-input",
                with_script(
                    {**JOB, **{k: v for k, v in OBJECT.items() if k != "INPUT_FILE_PATH"}, "LISTING": ""},
                ),
            )
        },
    ),
]

EVENTS = [
    Case("an uploaded file", COPY, "upload", Left(outputs={"SERVICE/out/got": b"abc"}), data=b"abc", key=KEY),
    Case("an empty object", COPY, "upload", Left(outputs={"SERVICE/out/got": b""})),
    Case(
        "an event of Amazon's S3",
        COPY,
        "job",
        Left(outputs={"SERVICE/out/got": b"abc"}),
        data=json.dumps(event("SERVICE", "other/a.txt", source="aws:s3")).encode(),
        objects={"other/a.txt": b"abc"},
    ),
    Case(
        "a wrapper that names the store with its type",
        COPY,
        "job",
        Left(outputs={"SERVICE/out/got": b"abc"}),
        data=wrapped(event("SERVICE", "other/a.txt"), storage_provider="minio.default"),
        objects={"other/a.txt": b"abc"},
        differs={
            OSCAR: (
                "unknown-store",
                Left(outputs={"SERVICE/out/got": json.dumps(event("SERVICE", "other/a.txt")).encode()}),
            )
        },
    ),
    Case("base64", COPY, "run", Left(reply=bytes(range(256))), data=b64(bytes(range(256)))),
    Case("base64 in lines", COPY, "run", Left(reply=b"abc" * 99), data=base64.encodebytes(b"abc" * 99)),
    Case("no body", COPY, "run", Left(reply=b"")),
    Case(
        "a JSON object",
        COPY,
        "run",
        Left(reply='{"a":1, "é": [2]}'.encode()),
        data='{"a":1, "é": [2]}'.encode(),
        differs={OSCAR: ("json-rewritten", Left(reply=rb'{"a": 1, "\u00e9": [2]}'))},
    ),
    Case("a JSON list", COPY, "run", Left(reply=b"[1,2]"), data=b"[1,2]", differs={OSCAR: ("json-lists", FAILED)}),
    Case("a JSON number", COPY, "run", Left(reply=b"42"), data=b"42", differs={OSCAR: ("json-lists", FAILED)}),
    Case("base64 in quotation marks", COPY, "run", Left(reply=b"hi"), data=b'"aGk="'),
    Case("JSON in quotation marks", COPY, "run", Left(reply=b'{"a":1}'), data=b'"{\\"a\\":1}"'),
    Case("what is neither JSON nor base64", COPY, "run", FAILED, data=b"some plain text"),
    Case(
        "text that is base64 by half",
        COPY,
        "run",
        FAILED,
        data=b"plain old text!!",
        differs={OSCAR: ("garbage", Left(reply=base64.b64decode(b"plainoldtext")))},
    ),
    Case(
        "JSON that has an event of its own",
        COPY,
        "run",
        Left(reply=b'{"event": "GW150914", "snr": 24}'),
        data=b'{"event": "GW150914", "snr": 24}',
        differs={OSCAR: ("event-key", Left(reply=base64.b64decode(b"GW150914")))},
    ),
    Case("a wrapped file", COPY, "run", Left(reply=b"hi"), data=b'{"event": "aGk="}'),
    Case("a gateway's base64", COPY, "run", Left(reply=b"hi"), data=gateway(body="aGk=", isBase64Encoded=True)),
    Case("a gateway's base64, not said so", COPY, "run", Left(reply=b"hi"), data=gateway(body="aGk=")),
    Case("a gateway's JSON", COPY, "run", Left(reply=b'{"dm": 3}'), data=gateway(body='{"dm": 3}')),
    Case(
        "a gateway's text",
        COPY,
        "run",
        Left(reply=b"some plain text"),
        data=gateway(body="some plain text", isBase64Encoded=False),
        differs={OSCAR: ("garbage", FAILED)},
    ),
    Case(
        "a gateway that passes a notification on",
        COPY,
        "job",
        Left(outputs={"SERVICE/out/got": b"abc"}),
        data=gateway(body=event("SERVICE", "other/a.txt")),
        objects={"other/a.txt": b"abc"},
    ),
    Case(
        "several records",
        'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR"',
        "job",
        Left(outputs={"SERVICE/out/1.txt": b"one", "SERVICE/out/2.txt": b"two"}),
        data=json.dumps(
            {"Records": [event("SERVICE", f"other/{number}.txt")["Records"][0] for number in (1, 2)]}
        ).encode(),
        objects={"other/1.txt": b"one", "other/2.txt": b"two"},
        jobs=2,
        differs={OSCAR: ("first-record", Left(outputs={"SERVICE/out/1.txt": b"one"}))},
    ),
    Case(
        "a notification in a synchronous call",
        'cat "$INPUT_FILE_PATH"; echo " and more"',
        "run",
        Left(reply="abc and more"),
        data=json.dumps(event("SERVICE", "other/a.txt")).encode(),
        objects={"other/a.txt": b"abc"},
        differs={CLUSTER: ("run-notification", FAILED)},
    ),
    Case("an object that is not there", COPY, "job", FAILED, data=json.dumps(event("SERVICE", "in/no.txt")).encode()),
    Case("a folder marker", COPY, "job", FAILED, data=json.dumps(event("SERVICE", "in/a/")).encode()),
    Case(
        "a synchronous call with file_stage_in",
        COPY,
        "run",
        Left(reply=b"hi"),
        data=b64(b"hi"),
        document={"file_stage_in": True},
        differs={OSCAR: ("stage-in-direct", Left(reply="cp: cannot stat '': No such file or directory"))},
    ),
    Case(
        "no credentials for the event's store",
        COPY,
        "upload",
        FAILED,
        data=b"abc",
        credentials=False,
        ways=(OURS, OSCAR),
        differs={OSCAR: ("unknown-store", Left())},
    ),
]

TRUE = Path("/bin/true").read_bytes()
FILES = """
cd "$TMP_OUTPUT_DIR"
mkdir -p 'deep er/é' none
: >empty.txt
printf 1 >a.h5
printf 2 >'deep er/é/b c.h5'
printf 3 >'deep er/ä+%&=?.json'
printf 4 >run_c.json
"""
ALL = {
    "empty.txt": b"",
    "a.h5": b"1",
    "deep er/é/b c.h5": b"2",
    "deep er/ä+%&=?.json": b"3",
    "run_c.json": b"4",
}


def output(path: str, **filters: list[str]) -> dict[str, Any]:
    return {"storage_provider": "minio.default", "path": path, **filters}


OUTPUTS = [
    Case(
        "nested folders, empty files, odd names",
        FILES,
        "upload",
        Left(outputs={f"SERVICE/out/{path}": data for path, data in ALL.items()}),
    ),
    Case(
        "filters and several outputs",
        FILES,
        "upload",
        Left(
            outputs={
                "SERVICE/out/h5/a.h5": b"1",
                "SERVICE/out/h5/deep er/é/b c.h5": b"2",
                "SERVICE-b/deep/deep er/ä+%&=?.json": b"3",
                "SERVICE/runs/run_c.json": b"4",
                "SERVICE/runs/empty.txt": b"",
            }
        ),
        document={
            "output": [
                output("SERVICE/out/h5", suffix=[".h5"]),
                output("SERVICE-b/deep", prefix=["deep er/", "nothing"], suffix=[".json", ".csv"]),
                output("SERVICE/runs", prefix=["run_", "emp"]),
            ]
        },
    ),
    Case("several files are a zip", FILES, "run", Left(reply=ALL)),
    Case("one empty file", ': >"$TMP_OUTPUT_DIR/a"', "run", Left(reply=b"")),
    Case("no file: what is printed", "echo out; echo 'and err' >&2; echo é", "run", Left(reply="out\nand err\né")),
    Case(
        "what an asynchronous call prints is its log",
        'echo one; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/got"; echo \'and two\' >&2',
        "job",
        Left(outputs={"SERVICE/out/got": b"hi"}, printed="one\nand two\n"),
        data=b64(b"hi"),
        printed=True,
        differs={OSCAR: ("base64-log", Left(outputs={"SERVICE/out/got": b"hi"}, printed="aGk=\n"))},
    ),
    Case(
        "bytes that are no text",
        r"printf 'a\377b\r\nc\n'",
        "run",
        Left(reply="a\\xffb\r\nc"),
        differs={OSCAR: ("printed-text", Left(reply="ab\nc"))},
    ),
    Case(
        "a link to the input",
        'ln -s "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/got"; ln -s . "$TMP_OUTPUT_DIR/round"',
        "upload",
        Left(outputs={"SERVICE/out/got": b"abc"}),
        data=b"abc",
    ),
    Case(
        "a link to what is not the run's",
        'ln -s /bin/true "$TMP_OUTPUT_DIR/got"',
        "upload",
        FAILED,
        differs={OSCAR: ("foreign-link", Left(outputs={"SERVICE/out/got": TRUE}))},
    ),
    Case("a link to nothing", 'ln -s nothing "$TMP_OUTPUT_DIR/got"', "upload", FAILED),
    Case(
        "an output whose bucket is not there",
        f"echo done; {COPY}",
        "upload",
        Left(ended=False, printed=None),
        document={"output": [output("SERVICE-gone/out")]},
        missing="SERVICE-gone",
        ways=(OURS, OSCAR),
    ),
]

LINES = "python3 - \"$INPUT_FILE_PATH\" <<'END'\nimport sys\nprint(open(sys.argv[1]).read() * 2)\nEND\n"
LONG = ": " + "x" * 1022 + "\n"

SCRIPTS = [
    Case("no shebang", "echo $0 | sed 's/.*\\.sh$/sh/'", "run", Left(reply="sh")),
    Case("carriage returns", "#!/bin/sh\r\nif true\r\nthen echo 'a b'\r\nfi\r\n", "run", Left(reply="a b")),
    Case("Python", LINES, "run", Left(reply="a ba b"), data=b64(b"a b")),
    Case("Python, in place of the shell", f"exec {LINES}", "run", Left(reply="a ba b"), data=b64(b"a b")),
    Case("awk", "awk '{print $2, $1}' \"$INPUT_FILE_PATH\"", "run", Left(reply="b a"), data=b64(b"a b")),
    Case("standard input is empty", "wc -c | tr -d ' '; echo a b", "run", Left(reply="0\na b"), data=b64(b"a b")),
    Case(
        "a shebang is not read",
        "#!/usr/bin/env python3\nimport sys\nprint(f'{sys.argv}')\n",
        "upload",
        FAILED,
        differs={OSCAR: ("exit-status", Left())},
    ),
    Case(
        "an exit status after outputs",
        f"{COPY}; exit 7",
        "upload",
        FAILED,
        data=b"abc",
        differs={OSCAR: ("exit-status", Left(outputs={"SERVICE/out/got": b"abc"}))},
    ),
    Case(
        "an exit status in a synchronous call",
        f"{COPY}; exit 7",
        "run",
        FAILED,
        data=b64(b"abc"),
        differs={OSCAR: ("exit-status", Left(reply=b"abc"))},
    ),
    Case(
        "a script of nearly 1 MiB, all that a ConfigMap holds",
        LONG * 1_000 + COPY,
        "run",
        Left(reply=b"abc"),
        data=b64(b"abc"),
        ways=(OURS, CLUSTER),  # OSCAR's reads one so large from a place of its own only
    ),
]
PERL = Case(
    "Perl",
    'perl -e \'open my $f, "<", $ARGV[0]; print uc <$f>\' "$INPUT_FILE_PATH"',
    "run",
    Left(reply="A B"),
    data=b64(b"a b"),
)

LOG_CASES = [
    Case(
        "log lines in a reply",
        COPY,
        "run",
        Left(reply=b"abc"),
        data=b64(b"abc"),
        document={"log_level": "INFO"},
        differs={OSCAR: ("log-lines", Left(reply="log lines, then YWJj"))},
    ),
    Case(
        "log lines in the log of a job",
        "echo said",
        "upload",
        Left(printed="log lines and said"),
        document={"log_level": "INFO"},
        printed=True,
        differs={CLUSTER: ("job-log", Left(printed="said\n"))},
    ),
]

CASES = [*VARIABLES, *EVENTS, *OUTPUTS, *SCRIPTS, PERL]
