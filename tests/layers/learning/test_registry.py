"""The registry: versions that never change, promotions that say which one serves, and what is refused."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layers.learning import registry as module
from layers.learning.registry import (
    Conflict,
    Manifest,
    NotPassed,
    Promotion,
    Registry,
    RegistryError,
    promotion_files,
    report_files,
    version_files,
    write,
)
from layers.objects.errors import ObjectError
from layers.runtime import models

MODEL = "tiny-model"
PASSED = json.dumps({"passed": True, "f1": 0.9}).encode()
FAILED = json.dumps({"passed": False}).encode()
Add = Callable[..., str]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """Store a version whose model is `content`, and a gate's report on it."""

    def store(registry: Registry, content: bytes, report: bytes = PASSED, **facts: Any) -> str:
        path = tmp_path / "model"
        path.write_bytes(content)
        version = registry.add(Manifest.of(MODEL, content, **facts), path)
        for name, data in report_files(version, report).items():
            registry._client.put(registry.bucket, f"{MODEL}/{name}", data)
        return version

    return store


def put(registry: Registry, key: str, data: bytes) -> None:
    registry._client.put(registry.bucket, f"{MODEL}/{key}", data)


def test_a_version_is_named_by_its_bytes_and_told_by_its_manifest(any_registry: Registry, add: Add, tmp_path: Path):
    facts = {
        "metrics": {"macro_f1": 0.91},
        "data": [{"bucket": "labelled", "key": "a.h5", "sha256": "ab" * 32}],
        "code": "0.1.0+abc",
        "units": {"image": "sigma"},
        "training_range": {"dm_pc_cm3": [5, 500]},
        "request": {"seed": 7},
    }
    version = add(any_registry, b"3", **facts)

    assert version == "4e07408562bedb8b"  # sha256 of "3"
    assert any_registry.models() == [MODEL] and any_registry.versions(MODEL) == [version]
    manifest = any_registry.manifest(MODEL, version)
    assert manifest == Manifest.of(MODEL, b"3", **facts)
    assert manifest.data_hashes == {"ab" * 32} and manifest.size == 1
    assert any_registry.get(MODEL, version, tmp_path / "back").read_bytes() == b"3"


def test_a_version_never_changes(any_registry: Registry, add: Add):
    version = add(any_registry, b"3", metrics={"f1": 0.5})
    again = add(any_registry, b"3", metrics={"f1": 0.9})

    assert again == version
    assert any_registry.manifest(MODEL, version).metrics == {"f1": 0.5}


def test_a_file_that_is_not_the_manifests_is_not_stored(registry: Registry, tmp_path: Path):
    (tmp_path / "model").write_bytes(b"4")
    with pytest.raises(RegistryError, match="is not the model of the manifest"):
        registry.add(Manifest.of(MODEL, b"3"), tmp_path / "model")
    assert registry.models() == []


def test_what_was_promoted_last_serves_and_its_history_is_told(any_registry: Registry, add: Add):
    one, two = add(any_registry, b"1"), add(any_registry, b"2")
    assert any_registry.serving(MODEL) is None and any_registry.history(MODEL) == []

    first = any_registry.promote(MODEL, one)
    second = any_registry.promote(MODEL, two, reason="the new receiver")

    assert (first.number, first.previous, second.number, second.previous) == (1, "", 2, one)
    assert second.report == module.hashlib.sha256(PASSED).hexdigest()
    assert any_registry.serving(MODEL) == second
    assert [served.promotion for served in any_registry.history(MODEL)] == [first, second]
    assert any_registry.promote(MODEL, two) == second, "what serves is not promoted again"
    assert len(any_registry.history(MODEL)) == 2


def test_a_rollback_is_a_new_promotion(any_registry: Registry, add: Add):
    one, two, three = (add(any_registry, content) for content in (b"1", b"2", b"3"))
    for version in (one, two, three):
        any_registry.promote(MODEL, version)

    back = any_registry.rollback(MODEL)
    assert (back.version, back.number, back.previous, back.reason) == (two, 4, three, f"rolled back from {three}")
    further = any_registry.rollback(MODEL, to=one, reason="the old receiver is back")
    assert any_registry.serving(MODEL) == further
    assert (further.version, further.number, further.reason) == (one, 5, "the old receiver is back")
    assert further.report == back.report != ""


def test_a_rollback_to_nowhere_is_refused(registry: Registry, add: Add):
    with pytest.raises(RegistryError, match="nothing was promoted"):
        registry.rollback(MODEL)
    registry.promote(MODEL, add(registry, b"1"))
    with pytest.raises(RegistryError, match="the shipped file served"):
        registry.rollback(MODEL)
    with pytest.raises(RegistryError, match="has never served"):
        registry.rollback(MODEL, to=add(registry, b"2"))


def test_a_version_that_no_gate_has_passed_is_promoted_by_force_only_and_with_a_reason(registry: Registry, add: Add):
    version = add(registry, b"1", FAILED)
    with pytest.raises(NotPassed, match="no gate has let it through"):
        registry.promote(MODEL, version)
    with pytest.raises(RegistryError, match="needs a reason"):
        registry.promote(MODEL, version, force=True)
    assert registry.serving(MODEL) is None

    promoted = registry.promote(MODEL, version, force=True, reason="for the beam test")

    assert promoted.forced and registry.serving(MODEL) == promoted
    assert promoted.reason == "for the beam test" and promoted.report == ""


def test_a_version_that_is_not_there_is_not_promoted(registry: Registry, add: Add):
    add(registry, b"1")
    with pytest.raises(RegistryError, match="no such version"):
        registry.promote(MODEL, "0123456789abcdef", force=True, reason="x")
    with pytest.raises(RegistryError, match="there are 6b86b273ff34fce1"):
        registry.version(MODEL, "0123")
    assert registry.version(MODEL, "6b8") == "6b86b273ff34fce1"


def test_a_damaged_version_is_neither_fetched_nor_promoted(registry: Registry, add: Add, tmp_path: Path):
    version = add(registry, b"1")
    put(registry, f"versions/{version}/model.onnx", b"other")

    with pytest.raises(RegistryError, match="is damaged"):
        registry.get(MODEL, version, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with pytest.raises(RegistryError, match="is damaged"):
        registry.promote(MODEL, version)
    put(registry, f"versions/{version}/manifest.json", b"{")
    with pytest.raises(RegistryError, match=r"manifest\.json: is no manifest"):
        registry.manifest(MODEL, version)
    put(registry, f"versions/{version}/manifest.json", Manifest.of(MODEL, b"2").to_bytes())
    with pytest.raises(RegistryError, match="is the manifest of another version"):
        registry.manifest(MODEL, version)


@pytest.mark.parametrize(
    "data, why",
    [
        (b"{", "is no promotion"),
        (b"[]", "is no promotion"),
        (b'{"version": "6b86b273ff34fce1", "sha256": "00"}', "is another"),
        (json.dumps({"version": "6b86b273ff34fce1", "sha256": "00" * 32}).encode(), "begins otherwise"),
        (json.dumps({"version": "0123456789abcdef", "sha256": "01" * 32}).encode(), "is another"),
    ],
)
def test_a_promotion_that_contradicts_its_name_is_an_error(registry: Registry, data: bytes, why: str):
    put(registry, "promotions/00000001-6b86b273ff34fce1.json", data)
    with pytest.raises(RegistryError, match=why):
        registry.serving(MODEL)


def test_names_order_promotions_and_not_clocks(registry: Registry, add: Add):
    one, two = add(registry, b"1"), add(registry, b"2")
    first, second = registry.promote(MODEL, one), registry.promote(MODEL, two)
    put(registry, first.place.key.removeprefix(f"{MODEL}/"), first.to_bytes())  # as a job does that runs again
    assert registry.serving(MODEL) == second


def test_aliases_have_promotions_of_their_own(registry: Registry, add: Add):
    one, two = add(registry, b"1"), add(registry, b"2")
    registry.promote(MODEL, one)
    canary = registry.promote(MODEL, two, alias="canary")

    assert canary.number == 1 and canary.place.key == f"{MODEL}/promotions/canary/00000001-{two}.json"
    assert registry.aliases(MODEL) == ["canary", "serving"]
    assert [alias.version if (alias := registry.serving(MODEL, name)) else "" for name in ("serving", "canary")] == [
        one,
        two,
    ]
    with pytest.raises(RegistryError, match="is no alias"):
        registry.promote(MODEL, one, alias="../x")


def test_the_lineage_ends_where_the_registry_does(registry: Registry, add: Add):
    grandparent = add(registry, b"1", parent="45ae8c5b00000000")
    parent = add(registry, b"2", parent=grandparent)
    child = add(registry, b"3", parent=parent)

    assert [manifest.version for manifest in registry.lineage(MODEL, child)] == [child, parent, grandparent]
    with pytest.raises(RegistryError, match="no such version"):
        list(registry.lineage(MODEL, "45ae8c5b00000000"))


def test_of_two_promotions_at_once_one_serves_and_nobody_is_told_otherwise(any_registry: Registry, add: Add):
    versions = [add(any_registry, bytes([65 + number])) for number in range(6)]
    told: dict[str, Promotion | Conflict] = {}
    together = threading.Barrier(len(versions))

    def promote(version: str) -> None:
        together.wait()
        try:
            told[version] = any_registry.promote(MODEL, version)
        except Conflict as error:
            told[version] = error

    threads = [threading.Thread(target=promote, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    now = any_registry.serving(MODEL)
    assert now is not None and told.keys() == set(versions)
    assert told[now.version] == now, "the one that serves was told so"
    history = [served.promotion for served in any_registry.history(MODEL)]
    assert [one for one in told.values() if isinstance(one, Promotion) and one not in history] == []
    last = [one for one in history if one.number == now.number]
    assert last[-1] == now


def test_the_same_promotion_by_another_reason_at_once_is_a_conflict(registry: Registry, add: Add):
    version = add(registry, b"1")
    meanwhile = Promotion(MODEL, 1, version, Manifest.of(MODEL, b"1").sha256, reason="mine")
    put(registry, meanwhile.place.key.removeprefix(f"{MODEL}/"), meanwhile.to_bytes())
    with pytest.raises(Conflict, match="just now"):
        registry._promote(Promotion(MODEL, 1, version, meanwhile.sha256, reason="yours"))
    assert registry._promote(meanwhile) == meanwhile, "an answer that was lost is no conflict"


def test_a_registry_whose_bucket_is_not_there_is_empty(cluster: Any):
    registry = Registry(cluster.s3, "nowhere-at-all")
    assert registry.models() == [] and registry.serving(MODEL) is None
    with pytest.raises(RegistryError, match="is no name of a model"):
        registry.serving("../x")


def test_a_store_without_the_condition_is_asked_before(registry: Registry, add: Add, monkeypatch: pytest.MonkeyPatch):
    client = registry._client
    real = client.put

    def old(*arguments: Any, if_absent: bool = False, **more: Any) -> Any:
        if if_absent:
            raise ObjectError("not implemented", status=501, code="NotImplemented")
        return real(*arguments, **more)

    monkeypatch.setattr(client, "put", old)
    version = add(registry, b"1", metrics={"f1": 0.5})
    add(registry, b"1", metrics={"f1": 0.9})
    assert registry.manifest(MODEL, version).metrics == {"f1": 0.5}


def test_functions_write_the_same_as_files(registry: Registry, add: Add, tmp_path: Path):
    """What a validating function leaves in its destination, sent to `models/<model>`, is what `promote` writes."""
    one = add(registry, b"1")
    served = tmp_path / "served" / "model.onnx"
    served.parent.mkdir()
    served.write_bytes(b"1")
    manifest = Manifest.of(MODEL, b"2", parent=one)
    first = promotion_files(Manifest.of(MODEL, b"1"), served, PASSED)
    assert list(first) == [f"promotions/00000001-{one}.json"], "the shipped file has no promotion beside it"
    (served.parent / models.PROMOTION).write_bytes(registry.promote(MODEL, one).to_bytes())

    files = {
        **version_files(manifest, b"2"),
        **report_files(manifest.version, PASSED),
        **promotion_files(manifest, served, PASSED),
    }
    write(tmp_path / "out", files)
    for path in sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        put(registry, str(path.relative_to(tmp_path / "out")), path.read_bytes())

    now = registry.serving(MODEL)
    assert now is not None and (now.number, now.version, now.previous) == (2, manifest.version, one)
    assert registry.manifest(MODEL, now.version) == manifest
    assert [verdict.passed for verdict in registry.verdicts(MODEL, now.version)] == [True]
    (served.parent / models.PROMOTION).write_text("{}")
    with pytest.raises(RegistryError, match="is no promotion"):
        promotion_files(manifest, served, PASSED)


def test_a_promotion_that_cannot_be_followed_is_told_and_mended_by_another(registry: Registry, add: Add):
    one, two = add(registry, b"1"), add(registry, b"2")
    registry.promote(MODEL, one)
    put(registry, f"promotions/00000002-{two}.json", b"{")

    last = registry.history(MODEL)[-1]
    assert last.promotion.version == two and "is no promotion" in last.problem
    back = registry.rollback(MODEL)
    assert (back.version, back.number, back.previous) == (one, 3, two)
    put(registry, f"promotions/00000004-{two}.json", b"{")
    assert registry.promote(MODEL, two).number == 5
    assert registry.serving(MODEL) == registry.history(MODEL)[-1].promotion


def test_before_the_first_promotion_the_shipped_file_served(registry: Registry, add: Add):
    shipped, one = add(registry, b"0"), add(registry, b"1")
    registry.promote(MODEL, one)
    back = registry.rollback(MODEL, shipped=shipped)
    assert (back.version, back.number, back.previous) == (shipped, 2, one)
    assert registry.rollback(MODEL).version == one
