"""`ls`, `put`, `get`: files go up and come down whole, under names that a person would expect."""

from collections.abc import Callable
from pathlib import Path

import pytest
from minio import Minio

from infra.cli.errors import CliError
from infra.cli.objects import inside
from tests.cluster import Cluster
from tests.infra.cli.conftest import Dioscar

Fdl = Callable[..., Path]


@pytest.fixture
def bucket(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-")[-60:].strip("-")
    address = cluster.facts["s3"].removeprefix("http://")
    keys = cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"]
    Minio(address, access_key=keys[0], secret_key=keys[1], secure=False, region="us-east-1").make_bucket(name)
    return name


def test_a_file_goes_up_and_comes_down(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "größe 1.bin"
    source.write_bytes(bytes(range(256)) * 1000)
    assert on("put", source, f"{bucket}/in").out == f"{bucket}/in/größe 1.bin (250.0 KiB)\n"
    said = on("get", f"{bucket}/in/größe 1.bin", "--to", tmp_path / "back")
    assert said.out == f"{tmp_path}/back/größe 1.bin (250.0 KiB)\n"
    assert (tmp_path / "back/größe 1.bin").read_bytes() == source.read_bytes()


def test_a_large_file_goes_up_in_parts(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "large.bin"
    source.write_bytes(b"0123456789abcdef" * (2 * 2**20 + 1))
    assert on("put", source, bucket).status == 0
    assert on("get", f"{bucket}/large.bin", "--to", tmp_path / "back").status == 0
    assert (tmp_path / "back/large.bin").read_bytes() == source.read_bytes()


def test_a_file_may_get_another_name(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert on("put", tmp_path / "a.txt", f"{bucket}/in/", "--name", "b.txt").out.startswith(f"{bucket}/in/b.txt ")
    assert on("put", tmp_path / "a.txt", tmp_path / "a.txt", bucket, "--name", "b").status == 2


def test_a_folder_goes_up_with_what_is_below_it(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    for name in ("run/a.txt", "run/deep/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    on("put", tmp_path / "run", f"{bucket}/in")
    found = on("ls", "-r", "--json", bucket).json
    assert [entry["key"] for entry in found] == ["in/run/a.txt", "in/run/deep/b.txt"]


def test_folders_and_patterns_come_down_below_what_was_named(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.json", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    on("put", tmp_path / "a.png", tmp_path / "b.json", f"{bucket}/out")
    on("put", tmp_path / "deep/c.png", f"{bucket}/out/deep")
    on("get", f"{bucket}/out/", "--to", tmp_path / "all")
    assert sorted(path.name for path in (tmp_path / "all").rglob("*.*")) == ["a.png", "b.json", "c.png"]
    assert (tmp_path / "all/deep/c.png").is_file()
    on("get", f"{bucket}/out/*.png", "--to", tmp_path / "some")
    assert sorted(path.name for path in (tmp_path / "some").rglob("*.*")) == ["a.png", "c.png"]


def test_a_folder_comes_down_without_its_slash_too(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    for name in ("a", "deep/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        on("put", tmp_path / name, f"{bucket}/out/{Path(name).parent}".removesuffix("/."))
    on("get", f"{bucket}/out", "--to", tmp_path / "back")
    assert (tmp_path / "back/a").read_text() == "a"
    assert (tmp_path / "back/deep/b").read_text() == "deep/b"
    on("put", tmp_path / "a", bucket, "--name", "out")
    assert on("get", f"{bucket}/out", "--to", tmp_path / "one").out.startswith(f"{tmp_path}/one/out "), (
        "an object first"
    )


def test_beside_a_mailbox_nothing_starts_and_that_is_said(on: Dioscar, fdl_file: Fdl, tmp_path: Path) -> None:
    assert on("apply", fdl_file("put-beside")).status == 0
    (tmp_path / "a.txt").write_text("a")
    for folder in ("put-beside", "put-beside/inn"):
        said = on("put", tmp_path / "a.txt", folder)
        assert (said.status, said.out) == (0, f"{folder}/a.txt (1 B)\n")
        assert said.err == (
            f"note: no service listens to {folder}/a.txt, so nothing starts; put-beside listens to put-beside/in\n"
        )
    assert on("put", tmp_path / "a.txt", "put-beside/in").err == ""


def test_a_bucket_where_nobody_listens_needs_no_note(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert on("put", tmp_path / "a.txt", f"{bucket}/raw").err == ""


def test_ls_shows_buckets_then_folders_then_objects(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    on("put", tmp_path / "a.txt", f"{bucket}/in")
    assert bucket in on("ls").out
    assert {"bucket": bucket}.items() <= next(e for e in on("ls", "--json").json if e["bucket"] == bucket).items()
    assert [entry["key"] for entry in on("ls", "--json", bucket).json] == ["in/"]
    for place in (f"{bucket}/in", f"{bucket}/in/"):
        (entry,) = on("ls", "--json", place).json
        assert (entry["key"], entry["size"], entry["folder"]) == ("in/a.txt", 3, False)
    assert on("ls", f"{bucket}/nothing").out == f"There is nothing in {bucket}/nothing yet.\n"


@pytest.mark.parametrize("place", ["no-such-bucket/", "no-such-bucket/*.x"])
def test_what_is_not_there_is_not_found(on: Dioscar, place: str) -> None:
    said = on("get", place)
    assert said.status == 66
    assert said.err == f"dioscar: {place}: there is no such bucket; dioscar ls shows what there is\n"


def test_an_object_that_is_not_there_is_not_found(on: Dioscar, bucket: str, tmp_path: Path) -> None:
    for place in (f"{bucket}/gone", f"{bucket}/gone/", f"{bucket}/*.gone"):
        said = on("get", place, "--to", tmp_path / "out")
        assert said.status == 66
        assert "there is no such object" in said.err
    assert not list(tmp_path.rglob("gone*"))


def test_a_file_that_is_not_there_is_a_slip_of_the_command(on: Dioscar) -> None:
    said = on("put", "gone.fil", "pulsar-preprocess/in")
    assert said.status == 2
    assert "gone.fil" in said.err


def test_a_bucket_is_made_for_what_belongs_to_no_service(on: Dioscar, tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("abc")
    said = on("put", tmp_path / "x.h5", "mb-labelled/frames")
    assert said.status == 66
    assert said.err.endswith(
        "there is no such bucket; dioscar ls shows what there is, dioscar mb mb-labelled makes it\n"
    )
    assert on("mb", "mb-labelled").out == "mb-labelled made\n"
    assert on("mb", "mb-labelled").out == "mb-labelled is there already\n"
    assert on("put", tmp_path / "x.h5", "mb-labelled/frames").out == "mb-labelled/frames/x.h5 (3 B)\n"
    assert on("mb", "mb-labelled/frames").status == 2
    assert on("mb", "No_Bucket").status == 2


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "", "a\0b"])
def test_a_key_never_leads_out_of_the_folder(key: str) -> None:
    with pytest.raises(CliError, match="leads out of"):
        inside(Path("here"), key)


def test_what_is_no_bucket_is_said_to_be_none(on: Dioscar) -> None:
    said = on("get", "-")
    assert said.status == 2 and '"-": begins with no name of a bucket; write BUCKET/KEY' in said.err
