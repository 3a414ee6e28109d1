"""The clients that people use beside boto3 and minio's: aws CLI, s3fs, obstore (in an environment of their own)."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import requests

from tests.infra.local.s3.helpers import ACCESS, SECRET

ENVIRONMENT = Path(__file__).parents[4] / ".venv-clients" / "bin"
ODD = "in/Ünï +&%=#?;,'日本 🙂.txt"

pytestmark = pytest.mark.skipif(
    not (ENVIRONMENT / "aws").is_file(), reason="no .venv-clients; sh infra/clients-env.sh makes it"
)

S3FS = """
import json, sys
import s3fs

url, bucket, odd, folder = sys.argv[1:]
fs = s3fs.S3FileSystem(endpoint_url=url, skip_instance_cache=True, use_listings_cache=False, default_block_size=5 << 20)
big = bytes(range(256)) * (6 << 12)
fs.pipe_file(f"{bucket}/{odd}", b"hello")
with fs.open(f"{bucket}/big", "wb") as file:
    file.write(big)
with fs.open(f"{bucket}/big", "rb") as file:
    file.seek(-10, 2)
    tail = file.read()
fs.cp_file(f"{bucket}/{odd}", f"{bucket}/copy")
fs.put(folder, f"{bucket}/tree", recursive=True)
found = {
    "odd": fs.cat_file(f"{bucket}/{odd}").decode(),
    "tail": list(tail),
    "equal": fs.cat_file(f"{bucket}/big") == big,
    "copy": fs.cat_file(f"{bucket}/copy").decode(),
    "listed": sorted(fs.ls(bucket, detail=False)),
    "tree": sorted(fs.find(f"{bucket}/tree")),
    "size": fs.info(f"{bucket}/big")["size"],
    "url": fs.url(f"{bucket}/copy"),
    "absent": fs.exists(f"{bucket}/absent"),
}
fs.rm(f"{bucket}/tree", recursive=True)
found["left"] = sorted(fs.find(bucket))
try:
    fs.pipe_file(f"{bucket}/copy", b"again", mode="create")
    found["create"] = "overwritten"
except OSError:
    found["create"] = "refused"
print(json.dumps(found))
"""

OBSTORE = """
import json, sys
from datetime import timedelta
import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import S3Store

url, bucket, odd = sys.argv[1:]
store = S3Store(bucket, endpoint=url, region="us-east-1", client_options={"allow_http": True},
                virtual_hosted_style_request=False)
big = bytes(range(256)) * (6 << 12)
first = {"e_tag": obstore.put(store, odd, b"hello")["e_tag"]}
obstore.put(store, "big", big, use_multipart=True, chunk_size=5 << 20)

def outcome(call):
    try:
        call()
    except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
        return type(error).__name__
    return "done"

found = {
    "odd": bytes(obstore.get(store, odd).bytes()).decode(),
    "equal": bytes(obstore.get(store, "big").bytes()) == big,
    "range": list(bytes(obstore.get_range(store, "big", start=250, end=260))),
    "create": outcome(lambda: obstore.put(store, odd, b"again", mode="create")),
    "update": outcome(lambda: obstore.put(store, odd, b"newer", mode=first)),
    "stale": outcome(lambda: obstore.put(store, odd, b"newest", mode=first)),
    "absent": outcome(lambda: obstore.get(store, "absent")),
}
obstore.copy(store, odd, "copy")
obstore.rename(store, "copy", "in/renamed")
found["listed"] = sorted(one["path"] for batch in obstore.list(store) for one in batch)
tree = obstore.list_with_delimiter(store)
found["folders"] = list(tree["common_prefixes"])
found["signed"] = obstore.sign(store, "GET", "in/renamed", timedelta(seconds=60))
obstore.delete(store, ["big", "in/renamed"])
found["left"] = sorted(one["path"] for batch in obstore.list(store) for one in batch)
print(json.dumps(found))
"""


@pytest.fixture
def environ(endpoint, tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BOTO"))}
    return {
        **kept,
        "HOME": str(tmp_path / "home"),
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }


@pytest.fixture
def aws(environ):
    def aws(*arguments, status=0):
        command = [ENVIRONMENT / "python", ENVIRONMENT / "aws", *map(str, arguments)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return aws


@pytest.fixture
def script(environ):
    def script(text, *arguments):
        command = [ENVIRONMENT / "python", "-c", text, *map(str, arguments)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return script


@pytest.fixture
def tree(tmp_path):
    """A folder with a large file and some small ones."""
    folder = tmp_path / "tree"
    (folder / "run 1").mkdir(parents=True)
    (folder / "run 1" / "ü+.txt").write_bytes(b"small")
    (folder / "large.bin").write_bytes(os.urandom(9 << 20))  # the CLI sends more than 8 MiB in parts
    return folder


def test_aws_copies_and_lists(aws, s3, bucket, tree, tmp_path):
    large = tree / "large.bin"
    aws("s3", "cp", "--quiet", large, f"s3://{bucket}/{ODD}")
    assert s3.head_object(Bucket=bucket, Key=ODD)["ETag"].endswith('-2"')
    aws("s3", "cp", "--quiet", f"s3://{bucket}/{ODD}", f"s3://{bucket}/copied")
    aws("s3", "cp", "--quiet", f"s3://{bucket}/copied", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    listed = aws("s3", "ls", "--recursive", f"s3://{bucket}").splitlines()
    assert [line.split(maxsplit=3)[2:] for line in listed] == [[str(9 << 20), "copied"], [str(9 << 20), ODD]]


def test_aws_syncs_what_has_changed_and_removes(aws, s3, bucket, tree):
    there = f"s3://{bucket}/tree"
    assert len(aws("s3", "sync", "--no-progress", tree, there).splitlines()) == 2
    assert aws("s3", "sync", "--no-progress", tree, there) == ""
    (tree / "run 1" / "ü+.txt").write_bytes(b"longer than it was")
    (tree / "large.bin").unlink()
    changed = aws("s3", "sync", "--no-progress", "--delete", tree, there).splitlines()
    assert sorted(line.split()[0] for line in changed) == ["delete:", "upload:"]  # in any order: it works in parallel
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["tree/run 1/ü+.txt"]
    aws("s3", "rm", "--quiet", "--recursive", f"s3://{bucket}")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_aws_signs_and_puts_under_a_condition(aws, s3, bucket, tmp_path):
    s3.put_object(Bucket=bucket, Key=ODD, Body=b"hello")
    assert requests.get(aws("s3", "presign", f"s3://{bucket}/{ODD}").strip(), timeout=10).content == b"hello"
    (tmp_path / "body").write_bytes(b"again")
    put = ("s3api", "put-object", "--bucket", bucket, "--key", ODD, "--body", tmp_path / "body", "--if-none-match", "*")
    assert "PreconditionFailed" in aws(*put, status=255)
    assert s3.get_object(Bucket=bucket, Key=ODD)["Body"].read() == b"hello"


def test_s3fs(script, endpoint, bucket, tree):
    found = script(S3FS, endpoint.url, bucket, ODD, tree)
    assert (found["odd"], found["copy"], found["tail"]) == ("hello", "hello", list(range(246, 256)))
    assert found["equal"] and found["size"] == 6 << 20
    assert found["listed"] == [f"{bucket}/big", f"{bucket}/copy", f"{bucket}/in", f"{bucket}/tree"]
    assert found["tree"] == [f"{bucket}/tree/large.bin", f"{bucket}/tree/run 1/ü+.txt"]
    assert found["left"] == sorted([f"{bucket}/big", f"{bucket}/copy", f"{bucket}/{ODD}"])
    assert (found["absent"], found["create"]) == (False, "refused")
    assert requests.get(found["url"], timeout=10).content == b"hello"


def test_obstore(script, endpoint, s3, bucket):
    found = script(OBSTORE, endpoint.url, bucket, ODD)
    assert found["odd"] == "hello" and found["equal"]
    assert found["range"] == [*range(250, 256), *range(4)]
    assert (found["create"], found["update"], found["stale"]) == ("AlreadyExistsError", "done", "PreconditionError")
    assert found["absent"] == "FileNotFoundError"
    assert found["listed"] == sorted(["big", "in/renamed", ODD])
    assert found["folders"] == ["in"]
    assert found["left"] == [ODD]
    assert s3.get_object(Bucket=bucket, Key=ODD)["Body"].read() == b"newer"
    assert requests.get(found["signed"], timeout=10).status_code == 404  # signed for a key that is gone by now
