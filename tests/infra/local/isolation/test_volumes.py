"""Volumes as runs have them: at their path in a sandbox and in a container, by a variable without either."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fdl.model import dumps
from infra.local import trees
from tests.cluster import Cluster, eventually, running_cluster
from tests.infra.local.isolation.test_container import EXECUTOR, IMAGE, works
from tests.infra.local.isolation.test_container import image as image
from tests.infra.local.isolation.walls import has_bubblewrap, outcome, ran, tried, walled

bubblewrapped = pytest.mark.skipif(not has_bubblewrap(), reason="there is no bubblewrap that works")
contained = pytest.mark.skipif(not works(), reason="there is no podman that works")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with walled(tmp_path_factory.mktemp("volumes") / "data") as running:
        yield running


def volume(cluster: Cluster, name: str, size: str = "1Gi") -> Path:
    answer = cluster.http.post(cluster.url("/system/volumes"), data=dumps({"name": name, "size": size}))
    assert answer.status_code == 201, answer.text
    return cluster.data / "volumes" / "oscar-svc" / name


def attached(name: str, path: str = "/mnt/data") -> dict[str, Any]:
    return {"volume": {"name": name, "mount_path": path}}


@bubblewrapped
@pytest.mark.parametrize("path", ["/data", "/mnt/deep/er", "/tmp/below", "/srv/some/where"])
def test_a_sandboxed_run_has_its_volume_at_its_path(cluster: Cluster, path: str):
    name = f"sandboxed{path.replace('/', '-')}"
    folder = volume(cluster, name)
    script = f'cat {path}/kept 2>/dev/null; echo "$DIOSCAR_VOLUME" > {path}/kept; touch {path}/../beside || true'
    job, log = ran(cluster, name, script, **attached(name, path))
    assert job["state"] == "Succeeded", job["reason"] + log
    assert (folder / "kept").read_text() == f"{path}\n"
    assert outcome(cluster, name, key="in/b")[1].splitlines()[0] == path
    assert sorted(file.name for file in folder.iterdir()) == ["kept"]


@bubblewrapped
def test_a_warm_worker_has_its_volume_at_its_path(cluster: Cluster):
    folder = volume(cluster, "warmed")
    (folder / "given").write_text("by another service")
    cluster.deploy("warmed", variables={"DIOSCAR_FUNCTION": "isolation.trespass"}, **attached("warmed"))
    job, log = outcome(cluster, "warmed", b"read /mnt/data/given\nwrite /mnt/data/new")
    assert job["state"] == "Succeeded", log
    assert (
        cluster.read("warmed", "out/said.txt") == b"read /mnt/data/given: by another service\nwrite /mnt/data/new: 1\n"
    )
    assert (folder / "new").read_text() == "x"
    assert cluster.run("warmed", b"list /mnt/data").content


@bubblewrapped
def test_nobody_else_sees_it(cluster: Cluster):
    folder = volume(cluster, "hidden")
    (folder / "secret").write_text("x")
    asked = [f"list {folder}", f"list {cluster.data}/volumes", "list /mnt/data"]
    assert set(tried(cluster, "looks-for-volumes", *asked).values()) == {"FileNotFoundError"}


@bubblewrapped
@pytest.mark.parametrize("path", ["/usr/data", "/etc/data", "/tmp", "/proc/1", "/home", "/bin"])
def test_a_path_that_the_sandbox_needs_itself_is_one_sentence(cluster: Cluster, path: str):
    if path == "/home":
        path = str(cluster.data.parent)  # above the data folder
    name = f"in-the-way-{abs(hash(path)) % 10**8}"
    volume(cluster, name)
    job, _ = ran(cluster, name, "true", **attached(name, path))
    assert job["state"] == "Dead"
    assert job["reason"].startswith(f"InputError: volume.mount_path: {path} is where the sandbox has the machine's")


@pytest.mark.parametrize("path", ["/", "/a/../b", "//a", "/a:/b", "/a\nb", "data", "/oscar/config/x"])
def test_a_path_that_is_none_is_refused_with_the_service(cluster: Cluster, path: str):
    document = {"name": "no-path", "image": "x", "script": "true", "volume": {"size": "1Gi", "mount_path": path}}
    answer = cluster.http.post(cluster.url("/system/services"), data=dumps(document))
    assert answer.status_code == 400 and "volume.mount_path" in answer.text


def test_a_node_elsewhere_has_no_volume_of_this_machine(cluster: Cluster):
    away = {"interlink_node_name": "hpc", "volume": {"size": "1Gi", "mount_path": "/data"}}
    document = {"name": "away", "image": "x", "script": "true", **away}
    answer = cluster.http.post(cluster.url("/system/services"), data=dumps(document))
    assert answer.status_code == 400 and 'jobs run on the node "hpc"' in answer.text


@bubblewrapped
def test_a_run_that_leaves_too_much_in_it_fails_and_one_that_clears_up_does_not(cluster: Cluster):
    volume(cluster, "small", "1Mi")
    script = 'cat "$INPUT_FILE_PATH" | sh'
    cluster.deploy("small", script=script, annotations={"dioscar/retries": "0"}, **attached("small"))

    def run(key: str, command: bytes) -> dict[str, Any]:
        return outcome(cluster, "small", command, f"in/{key}")[0]

    assert run("a", b"head -c 1000000 /dev/zero > /mnt/data/a")["state"] == "Succeeded"
    assert run("b", b"head -c 1000000 /dev/zero > /mnt/data/b; touch $TMP_OUTPUT_DIR/out")["reason"] == (
        'VolumeFull: the volume "small" holds 1.9 MiB, more than its 1 MiB (volume.size); '
        "remove files from it, or make a larger one"
    )
    assert cluster.objects("small", "out/") == {}
    assert run("c", b"true")["state"] == "Dead", "it is full still"
    assert run("d", b"rm /mnt/data/b")["state"] == "Succeeded"
    assert cluster.run("small", b"head -c 1000000 /dev/zero > /mnt/data/b").json()["error"]["type"] == "VolumeFull"


@bubblewrapped
def test_an_exposed_service_has_its_volume(cluster: Cluster):
    folder = volume(cluster, "exposed-volume")
    (folder / "page").write_text("from the volume")
    cluster.deploy(
        "exposed-volume",
        script='cd /mnt/data && exec python3 -m http.server --bind 127.0.0.1 "$PORT"',
        expose={"api_port": 8080, "min_scale": 1},
        **attached("exposed-volume"),
    )
    state = "/system/services/exposed-volume/deployment"
    eventually(lambda: cluster.get(state)["state"] == "ready")
    assert cluster.http.get(cluster.url("/system/services/exposed-volume/exposed/page")).text == "from the volume"
    cluster.deploy(
        "exposed-nowhere", script="true", expose={"api_port": 80, "min_scale": 1}, **attached("hidden", "/bin")
    )
    where = "/system/services/exposed-nowhere/deployment"
    failed = eventually(lambda: found if (found := cluster.get(where))["state"] == "failed" else None)
    assert "volume.mount_path: /bin is where the sandbox" in failed["reason"]


@contained
def test_a_container_has_it_at_its_path_and_hands_it_on_to_a_sandbox(cluster: Cluster, image: str):
    folder = volume(cluster, "in-container")
    script = (
        'cat /data/new/* 2>/dev/null; mkdir -p /data/new; echo "$DIOSCAR_VOLUME $OSCAR_SERVICE_NAME" > /data/new/$1'
    )
    container = {"image": IMAGE, "annotations": EXECUTOR}
    for number, more in enumerate((container, {}, container) if has_bubblewrap() else (container, container)):
        name = f"hands-on-{number}"
        job, log = ran(cluster, name, script.replace("$1", str(number)), **attached("in-container", "/data"), **more)
        assert job["state"] == "Succeeded", job["reason"] + log
        assert log.splitlines() == [f"/data hands-on-{before}" for before in range(number)]
    assert sorted(path.name for path in (folder / "new").iterdir()) == [str(n) for n in range(number + 1)]


def test_without_a_sandbox_a_script_must_ask_for_it_by_its_variable(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        folder = volume(cluster, "bare")
        job, _ = ran(cluster, "unaware", f"echo x > {tmp_path}/there/x", **attached("bare", f"{tmp_path}/there"))
        assert (job["state"], (tmp_path / "there").exists()) == ("Dead", False)
        assert job["reason"] == (
            f"InputError: volume.mount_path: nothing can be put at {tmp_path}/there for a process without a sandbox; "
            "install bubblewrap (infra/sandbox-env.sh), take dioscar/executor: container, "
            "or have the script use $DIOSCAR_VOLUME"
        )
        job, log = ran(cluster, "aware", 'echo x > "$DIOSCAR_VOLUME/kept"', **attached("bare"))
        assert job["state"] == "Succeeded", log
        assert (folder / "kept").read_text() == "x\n"


def test_a_backup_has_what_is_in_it(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        folder = volume(cluster, "kept")
        (folder / "below").mkdir()
        (folder / "below" / "file").write_bytes(b"kept")
        (folder / "below" / "file").chmod(0o755)
        (folder / "link").symlink_to("/etc/passwd")
        answer = cluster.http.post(cluster.url("/dioscar/v1/backup"), json={"to": str(tmp_path / "copy")})
        assert (answer.status_code, answer.json()["volumes"]) == (200, 1), answer.text
        (folder / "below" / "file").write_bytes(b"changed afterwards")
    with running_cluster(tmp_path / "copy") as copy:
        assert [found["name"] for found in copy.get("/system/volumes")] == ["kept"]
        script = 'cat "$DIOSCAR_VOLUME/below/file"; readlink "$DIOSCAR_VOLUME/link"; ls -l "$DIOSCAR_VOLUME/below"'
        _, log = ran(copy, "reads", script, **attached("kept"))
        assert log.startswith("kept/etc/passwd\n") and "-rwxr-xr-x" in log
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o700


def test_it_stays_as_long_as_another_service_has_it(cluster: Cluster):
    cluster.deploy("makes", script="true", volume={"name": "shared", "size": "1Gi", "mount_path": "/data"})
    cluster.deploy("shares", script="true", **attached("shared"))
    assert cluster.http.delete(cluster.url("/system/services/makes")).status_code == 204
    (found,) = [one for one in cluster.get("/system/volumes") if one["name"] == "shared"]
    assert [one["service_name"] for one in found["attachments"]] == ["shares"]
    assert (cluster.data / "volumes" / "oscar-svc" / "shared").is_dir()


def test_a_tree_is_walked_without_links_and_only_so_deep(tmp_path: Path):
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "a").mkdir(parents=True)
    outside.mkdir()
    (outside / "large").write_bytes(bytes(1000))
    (tree / "a" / "file").write_bytes(bytes(10))
    (tree / "a" / "again").hardlink_to(tree / "a" / "file")
    (tree / "link").symlink_to(outside)
    (tree / "a" / "link").symlink_to(outside / "large")
    assert trees.size_of(tree) == 10
    assert trees.copy(tree, tmp_path / "copied") == 20
    assert (tmp_path / "copied" / "link").is_symlink() and (tmp_path / "copied" / "a" / "link").is_symlink()
    trees.give(tree, outside.stat().st_uid, outside.stat().st_gid)
    deep = tree
    for _ in range(trees.DEEPEST + 2):
        deep /= "d"
    deep.mkdir(parents=True)
    for walk in (trees.size_of, lambda folder: trees.copy(folder, tmp_path / "deep")):
        with pytest.raises(OSError, match="folders one in the other"):
            walk(tree)
    shutil.rmtree(tree)
