"""What a function's outputs are named after, whatever store its input came from."""

import json
from pathlib import Path

import pytest

from events.notifications import Notification, build
from layers.runtime.invocation import from_environment

DCACHE = {"event": {"name": "a b.fil", "mask": ["IN_CREATE"]}, "subscription": "https://door/1"}
ONEDATA = {"Key": "/space/in/crab/a.fil", "Records": [{"eventSource": "OneTrigger", "objectKey": "a.fil"}]}
RUCIO = {"event_type": "close", "payload": {"scope": "me", "name": "run1"}}


@pytest.mark.parametrize(
    "event, told, bucket, name",
    [
        (build(Notification("b", "in/crab/a b.fil")), "in/crab/a b.fil", "b", "crab/a b.fil"),
        (DCACHE, "deep/in/a b.fil", "", "a b.fil"),
        (ONEDATA, "/space/in/crab/a.fil", "space", "crab/a.fil"),
        (RUCIO, "run1", "me", "run1"),
        ({"any": "JSON"}, "", "", "file"),
    ],
)
def test_outputs_are_named_after_the_input_below_the_mailbox(
    event: dict[str, object], told: str, bucket: str, name: str, tmp_path: Path
) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"abc")
    environ = {
        "INPUT_FILE_PATH": str(source),
        "TMP_OUTPUT_DIR": str(tmp_path / "out"),
        "DIOSCAR_FUNCTION": "x.y",
        "EVENT": json.dumps(event),
        "STORAGE_OBJECT_KEY": told,
        "JOB_UUID": "x-1",
    }
    invocation = from_environment(environ)
    assert (invocation.bucket, invocation.name, invocation.reply) == (bucket, name, False)
