"""The nodes of a cluster are what its settings say, and `hpc` is there without any."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.interlink.client import Plugin, PluginAway
from infra.local.interlink.nodes import SETTING, Node, interlink_nodes
from infra.local.settings import StoreAddress


def test_without_settings_there_is_our_own(tmp_path: Path) -> None:
    assert interlink_nodes(tmp_path, {}) == {"hpc": Node("hpc")}
    assert interlink_nodes(tmp_path, {})["hpc"].is_own


def test_the_file_of_the_data_folder_names_nodes(tmp_path: Path) -> None:
    (tmp_path / "interlink.yaml").write_text("leonardo: {url: http://10.0.0.7:4000, s3: https://s3.example.org}\n")
    nodes = interlink_nodes(tmp_path, {})
    assert nodes["leonardo"] == Node("leonardo", "http://10.0.0.7:4000", "https://s3.example.org")
    assert nodes["hpc"].is_own


def test_the_environment_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "interlink.yaml").write_text("leonardo: {url: http://10.0.0.7:4000}\n")
    nodes = interlink_nodes(tmp_path, {SETTING: "{hpc: {url: 'unix:///run/plugin.sock'}}"})
    assert nodes == {"hpc": Node("hpc", "unix:///run/plugin.sock")}
    other = tmp_path / "other.yaml"
    other.write_text("vega: {url: http://vega:4000}\n")
    assert set(interlink_nodes(tmp_path, {SETTING: str(other)})) == {"hpc", "vega"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{a: {}}", r"a\.url is missing"),
        ("{a: 3}", r"a\.url is missing"),
        ("{A_b: {url: 'http://x'}}", '"A_b" is no name of a node'),
        ("{a: {url: 'ftp://x'}}", r'a\.url: "ftp://x" is no address; write http://HOST:PORT or unix:///path'),
        ("{a: {url: 'unix://x'}}", r'"unix://x" is no socket'),
        ("{a: {url: 'http://x', s3: 'unix:///y'}}", r'a\.s3: "unix:///y" is no address; write http://HOST:PORT$'),
        ("{a: {url: 'http://x', token: y}}", r"a\.token is no setting of a node; there are url and s3"),
        ("{a: {ulr: 'http://x'}}", r"a\.ulr is no setting of a node; there are url and s3"),
        ("{a: [", f"{SETTING}: line 1: is no YAML: "),
        ("/nowhere/at/all.yaml", r"/nowhere/at/all\.yaml cannot be read: No such file or directory; name a YAML file"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        interlink_nodes(tmp_path, {SETTING: text})


def test_a_node_elsewhere_needs_a_store_that_it_reaches() -> None:
    here, there = StoreAddress("http://127.0.0.1:9000"), StoreAddress("http://192.0.2.7:9000")
    far = Node("leonardo", "http://10.0.0.7:4000")
    with pytest.raises(
        ValueError, match=r"on another machine, which cannot reach http://127\.0\.0\.1:9000; start .*--s3-a"
    ):
        far.store(here)
    assert far.store(there) == there
    assert (
        Node("leonardo", "http://10.0.0.7:4000", "https://s3.example.org").store(here).endpoint
        == "https://s3.example.org"
    )
    for near in (Node("hpc"), Node("a", "unix:///run/a.sock"), Node("b", "http://localhost:4000")):
        assert near.store(here) == here


def test_a_cluster_does_not_start_on_a_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "interlink.yaml").write_text("lab: {ulr: x}\n")
    command = [sys.executable, "-P", "-m", "infra.local", "--data", str(tmp_path)]
    command += ["--api", "127.0.0.1:0", "--s3", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 65
    wrong = f"{tmp_path}/interlink.yaml: lab.ulr is no setting of a node; there are url and s3"
    assert done.stderr.endswith(f"dioscar: {wrong}\n")


def test_a_plugin_that_is_away_is_told_by_its_address(tmp_path: Path) -> None:
    async def away(url: str) -> str:
        plugin = Plugin(url)
        try:
            with pytest.raises(PluginAway) as raised:
                await plugin.ping()
        finally:
            await plugin.close()
        return str(raised.value)

    assert asyncio.run(away(f"unix://{tmp_path}/none")) == f"{tmp_path}/none: No such file or directory"
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        assert asyncio.run(away(url)) == f"{url}: Connection refused"
