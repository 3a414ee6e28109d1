"""What an instance makes of its probes, with a real process and probes that come quickly."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fdl.model import service_from_json
from infra.local.executors.confinement import Confinement
from infra.local.executors.homes import Homes
from infra.local.executors.limits import Limits
from infra.local.exposed import health, instance
from infra.local.exposed.instance import Instance, State, Unavailable
from infra.local.exposed.ports import Ports, bound
from infra.local.exposed.upstream import Upstream
from infra.local.services import Deployed
from tests.infra.local.exposed.conftest import PATIENCE_S

WELL = 'touch well; exec python3 -m http.server "$PORT"\n'


def deployed(script: str, **expose: object) -> Deployed:
    document = {
        "name": "probed",
        "image": "x",
        "script": script,
        "expose": {"api_port": 8080, "min_scale": 1, **expose},
    }
    return Deployed(service_from_json(document), "f" * 64, "cluster_admin", 1)


async def until(look: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not look():
            await asyncio.sleep(0.01)
    assert look(), what


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "PERIOD_S", 0.05)


def run(
    tmp_path: Path, service: Deployed, check: Callable[[Instance, Path], object], demanded: str | None = None
) -> None:
    """Have `check` look at an instance of the service, where the cluster insists on an executor, if it does."""

    async def main() -> None:
        limits, upstream = Limits(memory=False), Upstream()
        bounds = limits, Confinement(Homes(tmp_path))
        running = Instance(service, tmp_path, bounds, upstream, Ports(), app=False, demanded=demanded)
        try:
            await check(running, instance.folder_of(tmp_path, service) / "work")
        finally:
            await running.close(remove=True)
            await upstream.close()
            await limits.close()

    asyncio.run(main())


def test_one_that_is_ill_is_degraded_and_then_started_anew(tmp_path: Path, quick: None):
    async def check(running: Instance, work: Path) -> None:
        await running.start()
        await running.ready()
        assert running.status.state == State.READY
        (work / "well").unlink()
        await until(lambda: running.status.state == State.DEGRADED, "degraded")
        assert running.status.reason.startswith("GET /well answers 404")
        await running.ready()  # requests are passed on all the same
        (work / "well").touch()
        await until(lambda: running.status.state == State.READY, "ready")
        (work / "well").unlink()
        await until(
            lambda: "is ended, since it does not answer" in "".join(line for _, line in running.log.tail(99)), ""
        )
        await until(lambda: running.status.state == State.READY, "another process, which is well")

    run(tmp_path, deployed(WELL, health_path="well"), check)


def test_one_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "START_S", 0.3)

    async def check(running: Instance, work: Path) -> None:
        await running.start()
        await until(lambda: "starts again in" in running.status.reason, "the end of its time")
        assert "was not ready within 0.3 s: nothing listens on port" in running.status.reason

    run(tmp_path, deployed("exec sleep 60"), check)


def test_a_request_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(instance, "WAIT_S", 0.2)

    async def check(running: Instance, work: Path) -> None:
        await running.start()
        with pytest.raises(Unavailable, match="was not ready within") as late:
            await running.ready()
        assert late.value.status == 504

    run(tmp_path, deployed("exec sleep 60"), check)


def test_one_that_is_going_away_keeps_nobody_waiting(tmp_path: Path):
    async def check(running: Instance, work: Path) -> None:
        await running.start()
        waiting = asyncio.create_task(running.ready())
        await asyncio.sleep(0)
        await running.close(remove=True)
        with pytest.raises(Unavailable, match="is going away"):
            await waiting

    run(tmp_path, deployed("exec sleep 60"), check)


def test_another_program_on_its_port_is_not_taken_for_it(tmp_path: Path):
    async def check(running: Instance, work: Path) -> None:
        await running.start()
        await until(lambda: (work / "port").exists() and (work / "port").read_text().strip(), "its port")
        port = int((work / "port").read_text())
        other = await asyncio.create_subprocess_exec(sys.executable, "-m", "http.server", str(port), cwd=tmp_path)
        try:
            said = f"another program listens on port {port} (its variable PORT)"
            await until(lambda: said in running.status.reason, "what is wrong")
            assert running.status.state == State.PENDING
        finally:
            other.kill()
            await other.wait()

    run(tmp_path, deployed('echo "$PORT" >port; exec sleep 60'), check)


def test_two_are_never_given_the_same_port():
    ports = Ports()
    with bound(0) as taken:
        wanted = taken.getsockname()[1]
    first, second = ports.take(wanted), ports.take(wanted)
    assert first == wanted != second
    ports.give_back(first)
    assert ports.take(wanted) == wanted


def test_what_needs_an_image_says_so(tmp_path: Path):
    async def check(running: Instance, work: Path) -> None:
        await running.start()
        await until(lambda: running.status.state == State.FAILED, "failed")
        assert running.status.reason.startswith("expose.default_command asks for the command of its image")

    run(tmp_path, deployed("true", default_command=True), check)


@pytest.mark.parametrize(
    "annotations, demanded, said",
    [
        ({"dioscar/executor": "container"}, None, "leave the annotation dioscar/executor: container out"),
        ({}, "container", "DIOSCAR_EXECUTOR of this cluster demands containers"),
    ],
)
def test_it_is_no_process_where_a_container_is_asked_for(
    tmp_path: Path, annotations: dict[str, str], demanded: str | None, said: str
):
    asked = deployed("touch began")
    document = {**asked.service.model_dump(mode="json"), "annotations": annotations}
    service = Deployed(service_from_json(document), asked.token, asked.owner, 1)

    async def check(running: Instance, work: Path) -> None:
        await running.start()
        await until(lambda: running.status.state == State.FAILED, "failed")
        assert said in running.status.reason
        assert not (work / "began").exists()

    run(tmp_path, service, check, demanded)
