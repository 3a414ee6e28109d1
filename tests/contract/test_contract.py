"""The function contract, the same through everyone who runs functions."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdl.document import read_file
from tests.cluster import ROOT, TWIN, Cluster
from tests.contract.callers import (
    Caller,
    Direct,
    Elsewhere,
    Embedded,
    OnNode,
    Order,
    Supervised,
    Worker,
    step_reached,
)
from tests.infra.local.external.linked import linked
from tests.infra.local.isolation.walls import has_bubblewrap, walled

IMAGES = ROOT / "infra" / "cluster" / "images"
CALLERS = [
    "direct",
    "worker",
    "supervisor",
    "oscar-supervisor",
    "embedded-process",
    "embedded-warm",
    pytest.param("embedded-elsewhere", marks=pytest.mark.slow),
    pytest.param("embedded-container", marks=pytest.mark.slow),
    pytest.param("embedded-interlink", marks=pytest.mark.slow),
    pytest.param("sandboxed-process", marks=pytest.mark.slow),
    pytest.param("sandboxed-warm", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", autouse=True)
def _twin_is_importable() -> Iterator[None]:
    """`functions` is a namespace package: a twin from elsewhere merges into it."""
    sys.path.append(str(TWIN))
    yield
    sys.path.remove(str(TWIN))


@pytest.fixture(params=CALLERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose objects are in MinIO's own code base."""
    with linked(tmp_path_factory.mktemp("elsewhere")) as world:
        yield world.cluster


@pytest.fixture(scope="module")
def sandboxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose runs are in bubblewrap."""
    if not has_bubblewrap():
        pytest.skip("there is no bubblewrap that works; infra/sandbox-env.sh")
    with walled(tmp_path_factory.mktemp("sandboxed") / "data", PYTHONPATH=str(TWIN)) as running:
        yield running


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with the runtime and this suite's own functions, made as those of the twins are."""
    if not all(map(shutil.which, ("podman", "mmdebstrap"))):
        pytest.skip("there are no podman and mmdebstrap; infra/sandbox-env.sh")
    subprocess.run([IMAGES / "build.sh", "pulsar"], check=True, capture_output=True, timeout=1800)
    runtime = read_file(ROOT / "fdl" / "pulsar.yaml").services[0].image.replace("dioscar-pulsar", "dioscar-runtime")
    recipe = tmp_path_factory.mktemp("image") / "Containerfile"
    recipe.write_text(f"FROM {runtime}\nCOPY functions /opt/contract/functions\nENV PYTHONPATH=/opt/contract\n")
    made = "localhost/dioscar-contract:test"
    build = ["podman", "build", "--quiet", "--pull=never", "--network=none", "--file", recipe, "--tag", made, TWIN]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    yield made
    subprocess.run(["podman", "rmi", "--force", made], check=False, capture_output=True)


@pytest.fixture
def caller(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Caller:
    if name == "direct":
        return Direct(tmp_path)
    if name == "worker":
        return Worker(tmp_path)
    if name == "embedded-elsewhere":
        return Elsewhere(request.getfixturevalue("elsewhere"), "warm")
    if name.startswith("sandboxed-"):
        return Embedded(request.getfixturevalue("sandboxed"), name.removeprefix("sandboxed-"))
    cluster: Cluster = request.getfixturevalue("cluster")
    if name == "embedded-interlink":
        return OnNode(cluster)
    if name == "embedded-container":
        return Embedded(cluster, "container", request.getfixturevalue("image"))
    if name.endswith("supervisor"):
        return Supervised(cluster, tmp_path, real=name.startswith("oscar"))
    return Embedded(cluster, name.removeprefix("embedded-"))


def without_records(outputs: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in outputs.items() if not path.startswith("_runs/")}


def record_of(outputs: dict[str, bytes]) -> dict[str, object]:
    paths = [path for path in outputs if path.startswith("_runs/")]
    assert len(paths) == 1
    return dict(json.loads(outputs[paths[0]]))


def test_outputs_are_named_after_the_whole_input(caller: Caller):
    ran = caller.run(Order("contract.copy", b"abc"))
    assert ran.code in (0, None)
    assert without_records(ran.outputs) == {
        "a.txt.copy": b"abc",
        "a.txt.json": b'{"greeting": "hello", "times": 1}',
        "deeper/a.txt.txt": b"hello",
    }


def test_folders_below_the_mailbox_are_kept(caller: Caller):
    ran = caller.run(Order("contract.copy", b"abc", key="in/2026/crab/a.txt"))
    assert "2026/crab/a.txt.copy" in ran.outputs
    assert "2026/crab/deeper/a.txt.txt" in ran.outputs


@pytest.mark.parametrize("key", ["in/a b é.txt", "in/100%+&=?#;'\"$(x)`.dat", "in/日本/観測 1.fil", "in/-rf", "in/*"])
def test_odd_names_survive(caller: Caller, key: str):
    ran = caller.run(Order("contract.copy", b"abc", key=key))
    assert ran.outputs[f"{key.removeprefix('in/')}.copy"] == b"abc"


def test_an_empty_object_is_an_input_like_any_other(caller: Caller):
    assert caller.run(Order("contract.copy", b"")).outputs["a.txt.copy"] == b""


def test_settings_come_from_the_environment(caller: Caller):
    ran = caller.run(Order("contract.copy", b"ab", settings={"GREETING": "ciao", "TIMES": "2"}))
    assert ran.outputs["a.txt.copy"] == b"abab"
    assert json.loads(ran.outputs["a.txt.json"]) == {"greeting": "ciao", "times": 2}


def test_a_wrong_setting_is_one_sentence_and_no_output(caller: Caller):
    ran = caller.run(Order("contract.copy", b"ab", settings={"TIMES": "two"}))
    assert ran.code in (65, None)
    assert 'environment variable TIMES: "two" is no whole number; write whole number' in ran.log
    assert ran.outputs == {}


def test_bad_input_is_one_sentence_and_leaves_nothing(caller: Caller):
    ran = caller.run(Order("contract.fail", b"bad input"))
    assert ran.code in (65, None)
    assert "InputError: a.txt: is no telescope file; write SIGPROC" in ran.log
    assert "Traceback" not in ran.log
    assert ran.outputs == {}


def test_an_error_of_the_function_leaves_nothing(caller: Caller):
    ran = caller.run(Order("contract.fail", b"error"))
    assert ran.code in (1, None)
    assert "ValueError: a defect of the function" in ran.log
    assert ran.outputs == {}


def test_a_crash_leaves_nothing(caller: Caller, name: str):
    if name == "direct":
        pytest.skip("a direct call lives and dies with its process")
    ran = caller.run(Order("contract.fail", b"crash"))
    assert ran.code in (3, None)
    assert ran.outputs == {}


def test_a_link_out_of_the_destination_is_refused(caller: Caller):
    ran = caller.run(Order("contract.fail", b"link"))
    assert ran.code in (65, None)
    assert "passwd: is a symbolic link" in ran.log
    assert ran.outputs == {}


def test_an_unknown_function_is_one_sentence(caller: Caller):
    ran = caller.run(Order("contract.nowhere", b""))
    assert ran.code in (65, None)
    assert 'there is no function "contract.nowhere"' in ran.log
    assert ran.outputs == {}


def test_a_synchronous_call_is_answered_with_the_one_reply_file(caller: Caller):
    assert caller.reply(Order("contract.copy", b"abc")).reply == b"abc"


def test_a_synchronous_failure_is_an_error_object(caller: Caller):
    ran = caller.reply(Order("contract.fail", b"bad input"))
    error = json.loads(ran.reply or b"")["error"]
    assert error["type"] == "InputError"
    assert error["message"].endswith("is no telescope file; write SIGPROC")


def test_a_sentence_is_never_as_long_as_what_it_is_about(caller: Caller):
    message = json.loads(caller.reply(Order("contract.fail", b"bad input at length")).reply or b"")["error"]["message"]
    assert "is no telescope file: 000" in message and message.endswith(" characters)") and len(message) < 2100


def test_a_forward_goes_to_the_other_mailbox(caller: Caller):
    order = Order("contract.copy", b"abc", key="in/x/a.txt")
    order = Order(**{**vars(order), "settings": {"FORWARD": f"*.copy -> other-box/{order.service}"}})
    ran = caller.run(order)
    assert ran.forwarded == {f"other-box/{order.service}/x/a.txt.copy": b"abc"}
    assert "x/a.txt.copy" in ran.outputs


def test_a_failed_run_forwards_nothing(caller: Caller):
    order = Order("contract.fail", b"error")
    order = Order(**{**vars(order), "settings": {"FORWARD": f"* -> other-box/{order.service}"}})
    assert caller.run(order).forwarded == {}


def test_a_synchronous_call_cannot_forward(caller: Caller):
    ran = caller.reply(Order("contract.copy", b"abc", settings={"FORWARD": "*.copy -> other-box/in"}))
    assert "which a synchronous call cannot" in json.loads(ran.reply or b"")["error"]["message"]


def test_a_synchronous_call_cannot_read_inputs(caller: Caller):
    request = {"inputs": [{"bucket": "raw", "key": "1.txt"}], "steps": 1}
    ran = caller.reply(Order("contract.train", json.dumps(request).encode(), objects={("raw", "1.txt"): b"one"}))
    assert json.loads(ran.reply or b"")["error"]["type"] == "InputError"


def test_a_request_gets_the_objects_that_it_names(caller: Caller):
    request = {
        "inputs": [
            {"bucket": "raw", "key": "z.txt"},
            {"select": {"bucket": "raw", "prefix": "run1/", "suffix": ".txt"}},
        ],
        "steps": 2,
    }
    objects = {
        ("raw", "z.txt"): b"zed",
        ("raw", "run1/b.txt"): b"two",
        ("raw", "run1/a.txt"): b"one",
        ("raw", "run1/c.bin"): b"no",
    }
    ran = caller.run(Order("contract.train", json.dumps(request).encode(), key="in/r.json", objects=objects))
    model = json.loads(ran.outputs["r.json.model"])
    assert model["keys"] == ["z.txt", "run1/a.txt", "run1/b.txt"]
    assert model["texts"] == ["zed", "one", "two"]
    assert [entry["key"] for entry in record_of(ran.outputs)["inputs"]] == model["keys"]


def test_an_object_that_is_not_there_is_one_sentence(caller: Caller, name: str):
    if name in ("direct", "worker"):
        pytest.skip("whoever calls directly has the objects as files")
    request = {"inputs": [{"bucket": "raw", "key": "no.txt"}], "steps": 1}
    objects = {("raw", "other.txt"): b"one"}
    ran = caller.run(Order("contract.train", json.dumps(request).encode(), key="in/r.json", objects=objects))
    assert ran.code in (65, None)
    assert "raw/no.txt: there is no such object" in ran.log and "404" not in ran.log and ran.outputs == {}


def test_a_request_with_a_misspelt_key_is_one_sentence(caller: Caller):
    ran = caller.run(Order("contract.train", b'{"stepz": 3}', key="in/r.json"))
    assert ran.code in (65, None)
    assert 'r.json: "stepz" is no key of this request; write "steps"' in ran.log


def test_a_stopped_run_checkpoints_and_goes_on(caller: Caller, name: str):
    if name == "oscar-supervisor":
        pytest.skip("OSCAR's supervisor does not pass SIGTERM on to the script")
    order = Order("contract.train", b'{"steps": 40, "pause_s": 0.05}', key="in/r.json")
    if isinstance(caller, Embedded):
        assert caller.run_and_stop(order, lambda: None).code == 75
        ran = caller.finished(order)
    else:
        assert isinstance(caller, Direct | Worker | Supervised)
        stopped = caller.run_and_stop(order, step_reached(caller.progress_file(order), 3))
        assert stopped.code == 75
        assert stopped.outputs == {}
        ran = caller.run(order)
    model = json.loads(ran.outputs["r.json.model"])
    assert (model["steps"], model["starts"]) == (40, 2)


def test_a_function_serves_with_the_model_of_its_folder(caller: Caller):
    ran = caller.run(Order("contract.serve", b"14"))
    assert ran.outputs["a.txt.out"] == b"42"
    assert list(record_of(ran.outputs)["models"]) == ["tiny-model"]


def test_the_record_traces_every_output_to_its_input(caller: Caller):
    order = Order("contract.copy", b"abc", key="in/x/a.txt", service="traced")
    record = record_of(caller.run(order).outputs)
    hashes = {output["path"]: output["sha256"] for output in record["outputs"]}
    assert hashes["x/a.txt.copy"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert record["input"]["sha256"] == hashes["x/a.txt.copy"]
    assert record["input"]["key"] == "in/x/a.txt"
    assert record["settings"] == {"greeting": "hello", "times": 1}


def test_every_caller_finds_the_same_run_key(cluster: Cluster, tmp_path: Path):
    order = Order("contract.serve", b"14", key="in/x/a.txt", service="contract-serve")
    callers = [
        Direct(tmp_path / "1"),
        Worker(tmp_path / "2"),
        Supervised(cluster, tmp_path / "3", real=False),
        Supervised(cluster, tmp_path / "4", real=True),
        Embedded(cluster, "process"),
        Embedded(cluster, "warm"),
    ]
    records = [caller.run(order).outputs for caller in callers]
    paths = {path for outputs in records for path in outputs if path.startswith("_runs/x/a.txt/")}
    assert len(paths) == 1
    assert {record_of(outputs)["run_key"] for outputs in records} == {Path(paths.pop()).stem}


def test_the_same_input_gives_the_same_bytes(caller: Caller):
    order = Order("contract.train", b'{"steps": 3}', key="in/r.json")
    first, second = caller.run(order), caller.run(order)
    assert without_records(first.outputs) == without_records(second.outputs) != {}
