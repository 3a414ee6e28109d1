"""A pod that its plugin has lost is a failed attempt; one that it only says nothing of is waited for."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.executors import Ended
from infra.local.interlink import logs
from infra.local.interlink.client import Plugin, PluginAway
from infra.local.interlink.executor import Told, _Attempt
from infra.local.interlink.logs import PodLog
from infra.local.interlink.record import Sent
from infra.local.interlink.status import SILENT, UNKNOWN, Phase, PodState
from infra.local.interlink.watch import Watched
from tests.infra.local.interlink.standin import StandIn, standing_in
from tests.infra.local.interlink.test_pod import JOB, NAME, deployed

RUNNING = PodState(Phase.RUNNING)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PAUSE_S", 0.01)


def followed(tmp_path: Path, looks: list[PodState | PluginAway], *, lost_s: float, creates: list[str]) -> Ended:
    """The end of an attempt whose plugin gives these answers, one after the other, and the last again and again."""

    async def create() -> None:
        creates.append("created")

    async def go() -> Ended:
        plugin = Plugin(f"unix://{tmp_path}/nobody.sock")
        watched = Watched(NAME)
        lines = PodLog(plugin, NAME, tmp_path / "job.log", 0)
        attempt = _Attempt(
            deployed(), Sent(NAME, JOB.id, 1, 0), lines, Told(lambda when: None, lambda why: None), lost_s
        )
        following = asyncio.ensure_future(attempt.follow(watched, create, fresh=False))
        for look in looks:
            watched.tell(look)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        while not following.done():
            watched.tell(looks[-1])
            await asyncio.sleep(0.01)
        await lines.close()
        await plugin.close()
        return following.result()

    return asyncio.run(asyncio.wait_for(go(), 30))


def test_a_pod_that_was_known_and_is_no_more_is_lost_and_not_created_again(tmp_path: Path) -> None:
    creates: list[str] = []
    ended = followed(tmp_path, [RUNNING, UNKNOWN], lost_s=0.05, creates=creates)
    assert (ended.code, ended.error) == (1, "Lost")
    assert "the node hpc knows nothing of the job any more" in ended.message
    assert creates == []


def test_a_pod_that_nobody_has_known_is_created(tmp_path: Path) -> None:
    creates: list[str] = []
    followed(tmp_path, [UNKNOWN, RUNNING, PodState(Phase.ENDED)], lost_s=60, creates=creates)
    assert creates == ["created"]


def test_a_plugin_that_is_away_loses_nothing(tmp_path: Path) -> None:
    creates: list[str] = []
    looks: list[PodState | PluginAway] = [
        RUNNING,
        *[PluginAway("gone")] * 5,
        SILENT,
        RUNNING,
        UNKNOWN,
        PodState(Phase.ENDED, code=3),
    ]
    assert followed(tmp_path, looks, lost_s=30, creates=creates).code == 3
    assert creates == []


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[StandIn]:
    with standing_in(tmp_path / "p.sock") as plugin:
        yield plugin


def test_each_byte_of_a_log_is_taken_once_whatever_breaks(tmp_path: Path, plugin: StandIn) -> None:
    path = tmp_path / "logs" / "job.log"
    path.parent.mkdir()
    path.write_bytes(b"[an attempt before]\nfirst ")
    plugin.logs[NAME.uid] = b"first second third"

    async def go() -> None:
        client = Plugin(plugin.url)
        lines = PodLog(client, NAME, path, len(b"[an attempt before]\n"))
        lines.follow()
        await lines.finish()
        await lines.finish()
        await client.close()

    asyncio.run(go())
    assert path.read_bytes() == b"[an attempt before]\nfirst second third"


@pytest.mark.parametrize(("content", "sign"), [(b"", True), (b"\n", False), (b"\nhello", False)])
def test_a_sign_of_life_is_no_part_of_a_log(tmp_path: Path, plugin: StandIn, content: bytes, sign: bool) -> None:
    plugin.sign_of_life = sign
    plugin.logs[NAME.uid] = content
    plugin.run(NAME.uid)

    async def go() -> None:
        client = Plugin(plugin.url)
        lines = PodLog(client, NAME, tmp_path / "job.log", 0)
        lines.follow()
        await asyncio.sleep(0.2)
        plugin.logs[NAME.uid] += b" there"
        plugin.end(NAME.uid)
        await lines.finish()
        await client.close()

    asyncio.run(go())
    assert (tmp_path / "job.log").read_bytes() == content + b" there"


def test_a_failure_is_not_told_in_the_words_of_an_earlier_attempt(tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    earlier = b"dioscar: a b: InputError: of the first attempt\n"
    path.write_bytes(earlier)
    lines = PodLog(Plugin("unix:///nowhere"), NAME, path, len(earlier))
    assert lines.said() == ("", "")
    path.write_bytes(
        earlier + b"dioscar: a b: ValueError: of this one\n2026-11-22 10:00:00,000 - supervisor - ERROR - x\n"
    )
    assert lines.said() == ("ValueError", "of this one")
