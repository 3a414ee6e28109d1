"""Exposed services of users: who gets in, and that no service gets a user's token."""

from tests.cluster import FUNCTION_SCRIPT, Cluster, eventually
from tests.infra.local.users.conftest import Person

EXPOSED = {
    "script": FUNCTION_SCRIPT,
    "environment": {"variables": {"DIOSCAR_FUNCTION": "contract.answer"}},
    "expose": {"api_port": 8080, "min_scale": 1, "set_auth": True, "auth_type": "forward"},
    "input": [],
    "output": [],
}


def test_who_sees_a_service_gets_in_and_keeps_the_token(cluster: Cluster, alice: Person, bob: Person) -> None:
    alice.deploy("alice-exposed", **EXPOSED)
    path = "/system/services/alice-exposed"
    try:
        eventually(lambda: alice.get(f"{path}/deployment").json()["state"] == "ready")
        answer = alice.get(f"{path}/exposed/echo")
        assert answer.status_code == 200, answer.text
        assert alice.token()[:20] not in answer.text
        assert bob.get(f"{path}/exposed/echo").status_code == 403
        assert bob.ask("POST", f"{path}/stop").status_code == 403
        alice.deploy("alice-exposed", 204, change=True, visibility="public", **EXPOSED)
        eventually(lambda: alice.get(f"{path}/deployment").json()["state"] == "ready")
        answer = bob.get(f"{path}/exposed/echo")
        assert (answer.status_code, "authorization" in answer.text.lower()) == (200, False), answer.text
        assert "user-agent" in answer.text.lower(), "it echoes the headers that it gets"
        assert bob.ask("POST", f"{path}/stop").status_code == 403
    finally:
        alice.ask("DELETE", path)
