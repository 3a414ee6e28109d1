"""How a cluster starts with users: what is wrong is named, and nothing is loaded that is not needed."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.database import Database
from infra.local.users import users
from infra.local.users.accounts import Accounts
from infra.local.users.identity import User
from infra.local.users.refusals import Refused
from infra.local.users.users import users_of
from tests.cluster import COMMAND, PATIENCE_S, Cluster

ON = {"OIDC_ENABLE": "true", "OIDC_ISSUERS": "https://aai.example.org/realms/x", "OIDC_GROUPS": "g"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "users.db")
    yield opened
    opened.close()


def refused_start(data: Path, environ: dict[str, str], *options: str) -> str:
    """What a cluster that does not start says."""
    command = [*COMMAND, "--data", str(data), "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0", *options]
    done = subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_wrong_setting_is_one_sentence(tmp_path: Path) -> None:
    said = refused_start(tmp_path, {**ON, "OIDC_GROUPS": ""})
    assert "OIDC_GROUPS: is empty" in said
    assert said.count("\n") == 1


def test_users_need_the_built_in_store(tmp_path: Path) -> None:
    keys = {"MINIO_ACCESS_KEY": "minio", "MINIO_SECRET_KEY": "miniosecret"}
    said = refused_start(tmp_path, {**ON, **keys}, "--s3-external", "http://127.0.0.1:9")
    assert "OIDC_ENABLE: users have keys of the built-in store only" in said


def test_a_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.setattr(users, "find_spec", lambda name: None)  # as on a machine without the extra
    with pytest.raises(ValueError, match=r'run "./dioscar install users"'):
        users_of(ON, database, "minio")


def test_without_an_issuer_nothing_is_loaded(database: Database) -> None:
    assert users_of({}, database, "minio") is None
    found = "import sys, infra.local.cluster; print([name for name in ('jwt', 'cryptography') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", found], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def entered(accounts: Accounts, uid: str, issuer: str) -> str:
    return (await accounts.enter(User(uid, is_admin=False), issuer)).secret_key


def test_the_same_name_of_another_issuer_is_somebody_else(database: Database) -> None:
    accounts = Accounts(database, frozenset({"minio"}))

    async def come() -> None:
        first = await asyncio.gather(*(entered(accounts, "alice", "https://one") for _ in range(5)))
        assert len(set(first)) == 1, "those who come at once get the same keys"
        with pytest.raises(Refused, match="of another issuer"):
            await entered(accounts, "alice", "https://two")
        for name in ("minio", "cluster_admin", "", "a b", "a,b", 'a"b', "a\\b", "é", "x" * 256):
            with pytest.raises(Refused, match="cannot be the name of a user"):
                await entered(accounts, name, "https://one")
        again = Accounts(database, frozenset())
        assert await entered(again, "alice", "https://one") == first[0]

    asyncio.run(come())


def test_users_whose_functions_are_not_sandboxed_are_warned_of(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "data")
    cluster.environ = {**ON, "DIOSCAR_SANDBOX": "off"}
    cluster.start()
    cluster.stop()
    assert "set DIOSCAR_SANDBOX=require" in cluster.log
