"""States are read as the virtual kubelet reads them; what says nothing ends nothing."""

import json

import pytest

from infra.local.interlink.status import UNKNOWN, Phase, PodState, read_status, read_statuses


def read(containers: str, init: str = "null") -> PodState:
    text = f'{{"name": "p", "UID": "u", "namespace": "n", "containers": {containers}, "initContainers": {init}}}'
    return read_status(json.loads(text))


def one(state: str, name: str = "oscar-container") -> str:
    return f'[{{"name": "{name}", "state": {state}}}]'


@pytest.mark.parametrize(
    "containers",
    [
        "null",
        "[]",
        one("{}"),
        one('{"waiting": {"reason": "NotCreated"}}'),
        one("null"),
        '[{"name": "oscar-container"}]',
    ],
)
def test_what_says_nothing_is_unknown_and_no_success(containers: str) -> None:
    assert read(containers) == UNKNOWN


def test_waiting_says_why() -> None:
    found = read(one('{"waiting": {"reason": "Resources", "message": "needs 64 cores"}}'))
    assert (found.phase, found.reason) == (Phase.WAITING, "Resources: needs 64 cores")


def test_a_reason_is_not_said_twice() -> None:
    found = read(one('{"waiting": {"reason": "Resources", "message": "job 17 waits in the queue: Resources"}}'))
    assert found.reason == "job 17 waits in the queue: Resources"
    assert read(one('{"waiting": {"reason": "Priority"}}')).reason == "Priority"


def test_running_says_since_when() -> None:
    found = read(one('{"running": {"startedAt": "2026-11-22T03:42:37Z"}}'))
    assert (found.phase, found.started) == (Phase.RUNNING, 1795318957.0)


def test_a_time_that_is_none_is_left_out() -> None:
    assert read(one('{"running": {"startedAt": "0001-01-01T00:00:00Z"}}')).started is None
    assert read(one('{"running": {}}')).started is None


def test_an_end_has_its_code_and_its_message() -> None:
    found = read(one('{"terminated": {"exitCode": 7, "reason": "Error: 7", "message": "NonZeroExitCode"}}'))
    assert (found.phase, found.code, found.reason) == (Phase.ENDED, 7, "NonZeroExitCode")


def test_an_end_without_a_code_is_no_success() -> None:
    assert read(one('{"terminated": {"reason": "Completed"}}')).code == 1


def test_a_failed_init_container_ends_the_pod() -> None:
    init = one('{"terminated": {"exitCode": 1, "message": "no space left"}}', "supervisor-container")
    found = read(one('{"waiting": {"reason": "PodInitializing"}}'), init)
    assert (found.phase, found.code, found.container) == (Phase.ENDED, 1, "supervisor-container")


def test_a_pod_whose_init_container_is_at_work_waits() -> None:
    init = one('{"running": {"startedAt": "2026-11-22T03:42:37Z"}}', "supervisor-container")
    assert read(one('{"waiting": {"reason": "PodInitializing"}}'), init).phase is Phase.WAITING


def test_answers_are_told_apart_by_uid() -> None:
    answer = json.loads('[{"UID": "a", "containers": []}, {"UID": "b", "containers": null}]')
    assert read_statuses(answer) == {"a": UNKNOWN, "b": UNKNOWN}
    assert read_statuses(None) == {}


@pytest.mark.parametrize("answer", ['{"detail": "x"}', '"ok"', "[1]"])
def test_what_is_no_list_of_statuses_is_an_error(answer: str) -> None:
    with pytest.raises(ValueError, match="no list of statuses"):
        read_statuses(json.loads(answer))
