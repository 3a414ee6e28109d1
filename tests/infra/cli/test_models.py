"""`models`: tables that a person can read, and promotions that are refused where they should be."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from infra.cli.errors import Exit
from layers.learning.manifest import Manifest, report_files
from layers.learning.registry import Registry
from tests.cluster import TWIN, Cluster
from tests.infra.cli.conftest import Dioscar, Said

MODEL = "tiny-model"
NUMBERS = count()
PASSED = json.dumps({"passed": True}).encode()
FAILED = json.dumps(
    {"passed": False, "reasons": [{"passed": False, "sentence": "macro F1 is below 0.8"}, {"passed": True}]}
).encode()


class Desk:
    """A registry of the test's own, and the commands that are told of it."""

    def __init__(self, cluster: Cluster, on: Dioscar, folder: Path) -> None:
        self.bucket = f"desk-{next(NUMBERS)}"
        cluster.http.post(cluster.url("/system/buckets"), json={"bucket_name": self.bucket}).raise_for_status()
        self.registry = Registry(cluster.s3, self.bucket)
        self._on = on
        self._folder = folder

    def __call__(self, *arguments: object) -> Said:
        return self._on("models", *arguments, "--registry", self.bucket)

    def add(self, content: bytes, report: bytes | None = PASSED, **facts: Any) -> str:
        path = self._folder / "model"
        path.write_bytes(content)
        version = self.registry.add(Manifest.of(MODEL, content, **facts), path)
        for name, data in report_files(version, report).items() if report else ():
            self.put(name, data)
        return version

    def put(self, name: str, data: bytes) -> None:
        self.registry._client.put(self.bucket, f"{MODEL}/{name}", data)


@pytest.fixture
def desk(cluster: Cluster, on: Dioscar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.syspath_prepend(str(TWIN))  # in this process, PYTHONPATH comes too late
    return Desk(cluster, on, tmp_path)


def test_an_empty_registry_says_what_serves(desk: Desk) -> None:
    assert desk("list").out == f"There are no models in {desk.bucket} yet; the shipped ones serve.\n"
    assert desk("list", "--json").json == []
    shown = desk("show", MODEL)
    assert shown.out.startswith(
        f"{MODEL} 4e07408562bedb8b  (the shipped file; nothing was promoted)\nfile    functions/"
    )
    listed = desk("list", MODEL)
    sentence = f"There are no versions of {MODEL} in {desk.bucket}; the shipped file serves"
    assert (listed.status, listed.out) == (0, f"{sentence}, functions/contract/{MODEL}.onnx.\n")
    assert desk("rollback", MODEL).status == Exit.NOT_FOUND


def test_a_model_that_nobody_knows_is_not_found(desk: Desk, on: Dioscar) -> None:
    for command in ("list", "show"):
        said = desk(command, "tiny-modle")
        assert (said.status, said.err) == (66, f"dioscar: there is no model tiny-modle; there is {MODEL}\n")
    said = on("models", "list", "--registry", "no-such-registry")
    assert said.status == 66 and "there is no bucket no-such-registry" in said.err
    version = desk.add(b"1")
    said = desk("show", MODEL, "--alias", "canary")
    assert (
        said.status == 66
        and f"nothing was promoted as canary; name a version: dioscar models show {MODEL} {version}" in said.err
    )
    assert desk("promote", MODEL, version, "--alias", "No_Alias").status == Exit.USAGE


def test_a_version_is_promoted_and_rolled_back(desk: Desk) -> None:
    one, two = desk.add(b"1"), desk.add(b"2")
    assert desk("promote", MODEL, one[:5]).out == (
        f"{MODEL}: {one} serves from the next run on; before, 4e07408562bedb8b did\n"
    ), "the shipped file has become a version"
    assert desk("promote", MODEL, one).out == f"{MODEL}: {one} serves already\n"
    assert desk("promote", MODEL, two, "--reason", "it is newer").status == 0
    assert desk("rollback", MODEL).out == f"{MODEL}: {one} serves from the next run on; before, {two} did\n"
    assert desk("rollback", MODEL, "--to", "4e07", "--json").json["version"] == "4e07408562bedb8b"

    (entry,) = desk("list", "--json").json
    assert (entry["model"], entry["serving"], entry["versions"]) == (MODEL, "4e07408562bedb8b", 3)
    assert entry["promotion"]["number"] == 4 and entry["promotion"]["reason"] == f"rolled back from {one}"
    assert "by hand" in desk("list").out.splitlines()[1]


def test_the_first_promotion_goes_back_to_what_was_shipped(desk: Desk) -> None:
    one = desk.add(b"1")
    desk.registry.promote(MODEL, one)  # as a validating function does, which cannot tell of the shipped file
    assert desk("rollback", MODEL).out.startswith(f"{MODEL}: 4e07408562bedb8b serves from the next run on")
    assert desk.registry.manifest(MODEL, "4e07408562bedb8b").request == {
        "shipped": "functions/contract/tiny-model.onnx"
    }


def test_what_no_gate_has_passed_needs_force_and_a_reason(desk: Desk) -> None:
    version = desk.add(b"1", FAILED)
    said = desk("promote", MODEL, version)
    assert (said.status, said.out) == (Exit.FAILED, "") and "no gate has let it through" in said.err
    assert desk("promote", MODEL, version, "--force").status == Exit.USAGE
    assert desk.registry.serving(MODEL) is None

    assert desk("promote", MODEL, version, "--force", "--reason", "beam test").status == 0
    promotion = desk.registry.serving(MODEL)
    assert promotion is not None and promotion.forced and promotion.reason == "beam test"
    shown = desk("show", MODEL).out
    assert "macro F1 is below 0.8" in shown and "by force" in shown and "beam test" in shown
    assert "by force" in desk("list").out


def test_what_is_not_there_is_not_promoted(desk: Desk) -> None:
    version = desk.add(b"1")
    said = desk("promote", MODEL, "0123456789abcdef")
    assert said.status == Exit.NOT_FOUND and f"there are {version}" in said.err
    desk.put(f"versions/{version}/model.onnx", b"damaged")
    said = desk("promote", MODEL, version)
    assert said.status == Exit.NOT_FOUND and "is damaged" in said.err
    assert desk.registry.history(MODEL) == []
    assert desk("promote", "../models", version).status == Exit.USAGE


def test_a_version_is_shown_with_all_that_is_known_of_it(desk: Desk) -> None:
    parent = desk.add(b"1", metrics={"macro_f1": 0.8})
    facts = {
        "parent": parent,
        "code": "0.1.0+abc",
        "metrics": {"macro_f1": 0.912345678, "by_class": {"none": 0.49999999999999994}},
        "data": [{"bucket": "labelled", "key": "a.h5", "sha256": "ab" * 32}],
        "units": {"image": "sigma"},
        "training_range": {"dm_pc_cm3": [5, 500]},
        "request": {"seed": 7, "name": "\x1b[31mred"},
    }
    child = desk.add(b"2", **facts)
    desk("promote", MODEL, parent)
    desk("promote", MODEL, child, "--reason", "better")

    shown = desk("show", MODEL).out
    for part in (
        f"{MODEL} {child}  (serving)",
        "0.1.0+abc",
        "1 objects",
        "units       image = sigma",
        "by_class.none = 0.5",
        " ago (report ",
        "macro_f1 = 0.912346",
        "trained on  dm_pc_cm3 = 5, 500",
        "seed = 7",
        "passed",
        f"{child} <- {parent}",
        "better",
    ):
        assert part in shown
    assert "\x1b" not in shown
    facts_shown = desk("show", MODEL, child[:6], "--json").json
    assert facts_shown["lineage"] == [parent] and facts_shown["serves"] is True
    assert [one["version"] for one in facts_shown["promotions"]] == [parent, child]

    rows = desk("list", MODEL).out.splitlines()
    assert len(rows) == 4 and "macro_f1 0.9123" in "".join(rows)
    by_version = {entry["version"]: entry for entry in desk("list", MODEL, "--json").json}
    assert by_version[child]["aliases"] == ["serving"] and by_version[parent]["gate"] == "passed"


def test_a_promotion_that_cannot_be_followed_is_shown(desk: Desk) -> None:
    one = desk.add(b"1")
    desk("promote", MODEL, one)
    desk.put("promotions/00000002-0123456789abcdef.json", b"{")
    assert "is no promotion" in desk("list").out
    assert desk("rollback", MODEL).status == 0
    assert "is no promotion" not in desk("list").out


def test_another_alias_is_promoted_on_its_own(desk: Desk) -> None:
    one = desk.add(b"1")
    assert desk("promote", MODEL, one, "--alias", "canary").status == 0
    assert desk.registry.serving(MODEL) is None and desk.registry.serving(MODEL, "canary") is not None
    assert "canary" in desk("list", MODEL).out


def test_a_cluster_that_does_not_answer_is_told(dioscar: Dioscar) -> None:
    said = dioscar("models", "list", "--cluster", "http://127.0.0.1:9")
    assert said.status != 0 and len(said.err.splitlines()) == 1
