"""A clock that jumps by hours, under a cluster that runs: nothing waits for hours, nothing is lost, order is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import eventually
from tests.infra.local.faults.world import COPY, Broken, broken, is_clean

HOURS = 3600.0
BOTH_WAYS = pytest.mark.parametrize("jump_s", [-5 * HOURS, 5 * HOURS], ids=["back", "forward"])


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    file = tmp_path / "clock"
    file.write_text("0")
    return file


@pytest.fixture
def cluster(tmp_path: Path, clock: Path) -> Iterator[Broken]:
    with broken(tmp_path / "data", FAULT_CLOCK=str(clock)) as running:
        yield running


@BOTH_WAYS
def test_a_retry_comes_soon_after(cluster: Broken, clock: Path, jump_s: float):
    script = 'if [ -e "$HOME/mended" ]; then exit 0; fi; exit 3'
    cluster.deploy("again", script=script, annotations={"dioscar/retries": "10"})
    assert cluster.acknowledged("PUT", "/again/in/a", b"x")
    eventually(lambda: cluster.jobs(service="again", state="Retrying"))
    clock.write_text(str(jump_s))
    (cluster.data / "home" / "mended").touch()
    job = cluster.ended("again", patience_s=30)[0]
    assert job["state"] == "Succeeded"
    is_clean(cluster, [])


def test_a_retry_comes_soon_after_a_restart_with_the_clock_set_back(cluster: Broken, clock: Path):
    clock.write_text(str(5 * HOURS))
    cluster.deploy("again", script='if [ -e "$HOME/mended" ]; then exit 0; fi; exit 3')
    assert cluster.ask("PUT", "/again/in/a", b"x", late_s=5 * HOURS).status_code == 200
    eventually(lambda: cluster.jobs(service="again", state="Retrying"))
    (cluster.data / "home" / "mended").touch()
    cluster.kill()
    clock.write_text("0")
    cluster.start()
    assert cluster.ended("again", patience_s=30)[0]["state"] == "Succeeded"


@BOTH_WAYS
def test_uploads_and_the_order_of_a_key_are_kept(cluster: Broken, clock: Path, jump_s: float):
    cluster.deploy("order", script='cat "$INPUT_FILE_PATH" >> "$HOME/seen"; sleep 0.1\n' + COPY)
    for number in range(6):
        if number == 3:
            clock.write_text(str(jump_s))
        late = jump_s if number >= 3 else 0
        assert cluster.ask("PUT", "/order/in/same", f"{number}".encode(), late_s=late).status_code == 200
        assert cluster.ask("PUT", f"/order/kept/{number}", bytes([number]) * 200_000, late_s=late).status_code == 200
    assert {job["state"] for job in cluster.ended("order", 6)} == {"Succeeded"}
    assert (cluster.data / "home" / "seen").read_text() == "012345"
    for number in range(6):
        assert cluster.ask("GET", f"/order/kept/{number}", late_s=jump_s).content == bytes([number]) * 200_000
    assert cluster.ask("GET", "/order/out/same", late_s=jump_s).content == b"5"
    is_clean(cluster, [])


@BOTH_WAYS
def test_a_client_whose_clock_differs_is_told_so(cluster: Broken, clock: Path, jump_s: float):
    cluster.deploy("skew", script="true")
    clock.write_text(str(jump_s))
    answer = cluster.ask("PUT", "/skew/in/a", b"x")
    assert answer.status_code == 403 and "<Code>RequestTimeTooSkewed</Code>" in answer.text
    assert cluster.jobs(service="skew") == []
    assert cluster.ask("PUT", "/skew/in/a", b"x", late_s=jump_s).status_code == 200
    assert cluster.ended("skew")[0]["state"] == "Succeeded"
