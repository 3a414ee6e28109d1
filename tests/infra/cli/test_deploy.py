"""`plan` and `apply` bring FDL files to any OSCAR cluster, and say what they do."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster import Cluster
from tests.fdl.conftest import small_oscar
from tests.infra.cli.conftest import Dioscar

Fdl = Callable[..., Path]


def test_a_plan_says_what_apply_then_does_and_a_second_apply_does_nothing(on: Dioscar, fdl_file: Fdl) -> None:
    path = fdl_file("deploy-one")
    assert "create    deploy-one\n1 of 1 services would change" in on("plan", path).out
    assert on("apply", path).out == "deploy-one created\n"
    assert on("apply", path).out == "deploy-one unchanged\n"
    path.write_text(path.read_text().replace("1Gi", "2Gi"))
    assert "memory: 1Gi -> 2Gi" in on("plan", path).out
    assert on("apply", path).out == "deploy-one updated\n"


def test_programs_get_json(on: Dioscar, fdl_file: Fdl) -> None:
    path = fdl_file("deploy-json")
    planned = on("plan", "--json", path).json
    assert planned["instructions"] == [{"service": "deploy-json", "action": "create", "changes": []}]
    assert planned["graphs"][0]["services"] == ["deploy-json"]
    assert on("apply", "--json", path).json == [{"service": "deploy-json", "action": "create", "error": None}]


def test_a_prefix_deploys_a_second_one_beside_the_first(on: Dioscar, fdl_file: Fdl, cluster: Cluster) -> None:
    path = fdl_file("deploy-twice")
    assert on("apply", path).status == 0
    assert on("apply", "--prefix", "mine", path).out == "mine-deploy-twice created\n"
    assert cluster.get("/system/services/mine-deploy-twice")["input"][0]["path"] == "mine-deploy-twice/in"


def test_images_come_from_the_registry_that_was_asked_for(on: Dioscar, fdl_file: Fdl, cluster: Cluster) -> None:
    on("apply", "--registry", "registry.example/x", "--tag", "main", fdl_file("deploy-image"))
    image = cluster.get("/system/services/deploy-image")["image"]
    assert image == "registry.example/x/dioscar-contract:main"


def test_a_split_needs_no_cluster(dioscar: Dioscar, fdl_file: Fdl, tmp_path: Path) -> None:
    said = dioscar("plan", "--split", tmp_path / "out", fdl_file("one"))
    assert said.out == f"{tmp_path}/out/one.yaml\n"
    assert (tmp_path / "out/one.sh").is_file()
    assert "- dioscar:\n" in (tmp_path / "out/one.yaml").read_text()
    dioscar("plan", "--split", tmp_path / "out", "--cluster", "lab", fdl_file("one"))
    assert "- lab:\n" in (tmp_path / "out/one.yaml").read_text(), "oscar-python wants its own name for the cluster"


def test_a_wrong_file_is_bad_input_in_one_sentence(on: Dioscar, fdl_file: Fdl) -> None:
    path = fdl_file("deploy-bad")
    path.write_text(path.read_text().replace("1Gi", "1GB"))
    said = on("apply", path)
    assert (said.status, said.out) == (65, "")
    assert said.err == (f'dioscar: {path}: functions.oscar[0].memory: "1GB" is no Kubernetes quantity; write "1Gi"\n')


def test_the_same_service_in_two_files_is_bad_input(on: Dioscar, fdl_file: Fdl, tmp_path: Path) -> None:
    path = fdl_file("deploy-same")
    other = tmp_path / "other.yaml"
    other.write_text(path.read_text())
    said = on("apply", path, other)
    assert said.status == 65
    assert f"other.yaml: the service deploy-same stands in {path} too" in said.err


def test_no_cluster_is_said_to_be_none(dioscar: Dioscar, fdl_file: Fdl, tmp_path: Path) -> None:
    said = dioscar("apply", fdl_file("one"), "--cluster", tmp_path)
    assert (said.status, said.err) == (66, said.err)
    said = dioscar("status")
    assert said.status == 69
    assert "no cluster runs on dioscar-data; start one with: dioscar up --detach" in said.err


def test_a_refused_service_fails_the_command_and_spares_the_others(
    dioscar: Dioscar, fdl_file: Fdl, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_oscar() as oscar:
        monkeypatch.setenv("OSCAR_USERNAME", oscar.endpoint.user)
        monkeypatch.setenv("OSCAR_PASSWORD", oscar.endpoint.password)
        files = (fdl_file("bad-one"), fdl_file("good-one"))
        oscar.refused["bad-one"] = "quota exceeded"
        said = dioscar("apply", *files, "--cluster", oscar.endpoint.url)
    assert (said.status, said.out) == (1, "good-one created\n")
    assert said.err.splitlines() == [
        f"dioscar: bad-one: {oscar.endpoint.url}: quota exceeded (400)",
        "dioscar: 1 of 2 services could not be deployed",
    ]


def test_a_misspelt_variable_is_doubted_and_deployed_all_the_same(on: Dioscar, fdl_file: Fdl) -> None:
    path = fdl_file("deploy-misspelt")
    path.write_text(path.read_text().replace("contract.copy}", "contract.copy, GREETNG: hi, TIMES: two}"))
    doubts = (
        "warning: deploy-misspelt: environment variable GREETNG: contract.copy has no such setting; "
        "did you mean GREETING?\n"
        'warning: deploy-misspelt: environment variable TIMES: "two" is no whole number; write whole number\n'
    )
    assert on("plan", path).err == doubts
    assert len(on("plan", "--json", path).json["warnings"]) == 2
    said = on("apply", path)
    assert (said.status, said.out, said.err) == (0, "deploy-misspelt created\n", doubts)
    assert on("apply", path).err == "", "what does not change has been looked at before"


def test_a_function_that_is_not_here_is_doubted(on: Dioscar, fdl_file: Fdl) -> None:
    said = on("plan", fdl_file("deploy-unknown", "coppy"))
    assert said.status == 0
    assert 'deploy-unknown: DIOSCAR_FUNCTION: there is no function "contract.coppy"' in said.err


# other clusters


def test_an_endpoint_with_credentials_in_the_environment(
    dioscar: Dioscar, cluster: Cluster, fdl_file: Fdl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSCAR_ENDPOINT", cluster.facts["api"])
    assert "set OSCAR_USERNAME" in dioscar("apply", fdl_file("deploy-endpoint")).err
    monkeypatch.setenv("OSCAR_USERNAME", cluster.facts["oscar_username"])
    monkeypatch.setenv("OSCAR_PASSWORD", "guess")
    wrong = dioscar("apply", fdl_file("deploy-endpoint"))
    assert wrong.status == 77
    assert "refuses the credentials" in wrong.err
    monkeypatch.setenv("OSCAR_PASSWORD", cluster.facts["oscar_password"])
    assert dioscar("apply", fdl_file("deploy-endpoint")).out == "deploy-endpoint created\n"


def test_a_cluster_by_its_name_in_the_configuration_of_oscar_cli(
    dioscar: Dioscar, cluster: Cluster, fdl_file: Fdl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    known = {
        "endpoint": cluster.facts["api"],
        "auth_user": cluster.facts["oscar_username"],
        "auth_password": cluster.facts["oscar_password"],
        "ssl_verify": False,
    }
    (tmp_path / ".oscar-cli").mkdir()
    (tmp_path / ".oscar-cli/config.yaml").write_text(yaml.safe_dump({"oscar": {"lab": known}, "default": "lab"}))
    assert dioscar("apply", fdl_file("deploy-lab"), "--cluster", "lab").status == 0
    assert cluster.get("/system/services/deploy-lab")["cluster_id"] == "lab"
    mistaken = dioscar("status", "--cluster", "labb")
    assert mistaken.status == 66
    assert 'write "lab"' in mistaken.err


def test_an_endpoint_where_nobody_answers_is_unreachable(
    dioscar: Dioscar, fdl_file: Fdl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSCAR_USERNAME", "oscar")
    monkeypatch.setenv("OSCAR_PASSWORD", "x")
    said = dioscar("apply", fdl_file("one"), "--cluster", "http://127.0.0.1:1")
    assert said.status == 69
    assert "nobody answers" in said.err


def test_a_node_that_is_not_there_is_doubted_before_it_is_refused(on: Dioscar, fdl_file: Fdl) -> None:
    path = fdl_file("deploy-node")
    content = path.read_text()
    path.write_text(content.replace("log_level:", "interlink_node_name: hpcc\n        log_level:"))
    said = on("plan", path)
    assert said.status == 0
    assert 'warning: deploy-node: interlink_node_name: "hpcc" is no interLink node of http' in said.err
    assert said.err.endswith('; write "hpc"\n')
    assert on("apply", path).status == 1
    path.write_text(content.replace("log_level:", "interlink_node_name: hpc\n        log_level:"))
    assert on("plan", path).err == ""


def test_a_misspelt_annotation_for_slurm_is_told(on: Dioscar, fdl_file: Fdl) -> None:
    path = fdl_file("deploy-slurm")
    annotated = 'annotations: {slurm-job.vk.io/flag: "--time=5"}\n        log_level:'
    path.write_text(path.read_text().replace("log_level:", annotated))
    assert 'write "slurm-job.vk.io/flags"' in on("plan", path).err
    assert "slurm-job.vk.io/flag is read by no" in on("plan", "--json", path).json["warnings"][0]
