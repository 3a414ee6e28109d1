"""`models`: which version of a model serves, how it came to that, and how another one does."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from infra.cli.errors import DIOSCAR, CliError, Exit
from infra.cli.manifests import print_manifest, print_shipped
from infra.cli.output import ago, human_size, json_option, print_json, print_table
from infra.cli.shipped import metadata, place, shipped_models
from infra.cli.target import Target, cluster_option, target

if TYPE_CHECKING:
    from layers.learning.registry import Promotion, Registry, Served
    from layers.objects.client import S3Client

METRICS = 3
"""How many metrics a row of a table has room for."""

registry_option = click.option(
    "--registry",
    "bucket",
    envvar="DIOSCAR_REGISTRY",
    default="models",
    show_default=True,
    metavar="BUCKET",
    help="The registry's bucket.",
)
alias_option = click.option("--alias", default="serving", show_default=True, help="What the promotion is for.")


@click.group()
def models() -> None:
    """Versions of models: what serves, what could, and what did."""


@models.command("list")
@click.argument("model", default="")
@registry_option
@cluster_option
@json_option
def list_models(model: str, bucket: str, cluster: str | None, as_json: bool) -> None:
    """All models and what serves; of one MODEL, its versions."""
    there = target(cluster)
    _check_names(model)
    with opened(there, bucket) as registry:
        if model:
            _list_versions(registry, model, as_json)
            return
        problems = _problems(there, bucket)
        found = [_model(registry, name, problems.get(name, "")) for name in registry.models()]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            entry["model"],
            entry["serving"] or "(the shipped file)",
            ago(entry["since"]),
            entry["versions"],
            _how(entry["promotion"]),
            entry["problem"],
        )
        for entry in found
    ]
    columns = ["MODEL", "SERVING", "SINCE", ">VERSIONS", "PROMOTED", "PROBLEM"]
    print_table(columns, rows, empty=f"There are no models in {bucket} yet; the shipped ones serve.")


@models.command()
@click.argument("model")
@click.argument("version", default="")
@alias_option
@registry_option
@cluster_option
@json_option
def show(model: str, version: str, alias: str, bucket: str, cluster: str | None, as_json: bool) -> None:
    """Where a version comes from, how good it is, when it served.

    Without a VERSION, the one that serves, also where that is the shipped file.
    """
    _check_names(model, alias)
    with opened(target(cluster), bucket) as registry:
        history = registry.history(model, alias)
        if not version and not history:
            _show_unpromoted(registry, model, alias, as_json)
            return
        version = registry.version(model, version) if version else history[-1].promotion.version
        manifest, *parents = registry.lineage(model, version)
        verdicts = registry.verdicts(model, version)
    serves = bool(history) and history[-1].promotion.version == version
    if as_json:
        print_json(
            {
                **asdict(manifest),
                "serves": serves,
                "lineage": [parent.version for parent in parents],
                "reports": [
                    {"sha256": one.sha256, "passed": one.passed, "time": one.time.timestamp()} for one in verdicts
                ],
                "promotions": [_promotion(served) for served in history],
            }
        )
        return
    print_manifest(manifest, verdicts, parents, alias if serves else "")
    click.echo()
    rows = [
        (entry["number"], entry["version"], ago(entry["time"]), _how(entry), entry["problem"] or entry["reason"])
        for entry in map(_promotion, history)
    ]
    print_table([">NUMBER", "VERSION", "AGO", "PROMOTED", "WHY"], rows, empty="It was never promoted.")


@models.command()
@click.argument("model")
@click.argument("version")
@click.option("--force", is_flag=True, help="Although no gate has let it through; needs --reason.")
@click.option("--reason", default="", help="Why; it is kept with the promotion.")
@alias_option
@registry_option
@cluster_option
@json_option
def promote(
    model: str,
    version: str,
    force: bool,
    reason: str,
    alias: str,
    bucket: str,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Let a VERSION (its first characters will do) serve.

    It does from the next run on.
    """
    if force and not reason.strip():
        raise CliError("--force needs a --reason, which is kept", Exit.USAGE)
    _check_names(model, alias)
    with opened(target(cluster), bucket) as registry:
        version = registry.version(model, version)
        before = _newest(registry, model, alias)
        previous = "" if before else _add_shipped(registry, model)
        promotion = registry.promote(model, version, alias=alias, reason=reason, force=force, previous=previous)
    _tell(promotion, before, as_json)


@models.command()
@click.argument("model")
@click.option("--to", "version", default="", metavar="VERSION", help="Default: the version that served before.")
@click.option("--reason", default="", help="Why; it is kept with the promotion.")
@alias_option
@registry_option
@cluster_option
@json_option
def rollback(
    model: str, version: str, reason: str, alias: str, bucket: str, cluster: str | None, as_json: bool
) -> None:
    """Let the version that served before serve again.

    That is a new promotion, and can be rolled back too.
    """
    _check_names(model, alias)
    with opened(target(cluster), bucket) as registry:
        version = registry.version(model, version) if version else ""
        before = _newest(registry, model, alias)
        shipped = _add_shipped(registry, model) if before and not before.previous and not version else ""
        promotion = registry.rollback(model, version, alias=alias, reason=reason, shipped=shipped)
    _tell(promotion, before, as_json)


@contextmanager
def opened(there: Target, bucket: str) -> "Iterator[Registry]":
    """The registry on a cluster's object store, by the keys that the cluster hands out."""
    from layers.learning.registry import BUCKET, Conflict, NotPassed, Registry, RegistryError
    from layers.objects.client import S3Client
    from layers.objects.errors import AccessRefused, NoSuchObject, ObjectError, StoreUnavailable

    provider = there.get("/system/config").json()["minio_provider"]
    try:
        with S3Client(
            provider["endpoint"],
            provider["access_key"],
            provider["secret_key"],
            provider.get("region") or "us-east-1",
            bool(provider["verify"]),
        ) as client:
            if bucket != BUCKET:  # that one comes with the first service that stores models
                _check_bucket(client, bucket)
            yield Registry(client, bucket)
    except NotPassed as error:
        raise CliError(f"{error}: --force --reason WHY") from None
    except Conflict as error:
        raise CliError(str(error)) from None
    except RegistryError as error:
        raise CliError(f"{error} ({DIOSCAR} models list shows what there is)", Exit.NOT_FOUND) from None
    except ObjectError as error:
        statuses = {AccessRefused: Exit.REFUSED, StoreUnavailable: Exit.UNREACHABLE, NoSuchObject: Exit.NOT_FOUND}
        raise CliError(str(error), statuses.get(type(error), Exit.FAILED)) from None


def _check_names(model: str, alias: str = "serving") -> None:
    """Raises CliError where one of them could be no name."""
    from layers.runtime.models import NAME

    for what, name in (("model", model), ("alias", alias)):
        if name and not NAME.fullmatch(name):
            sentence = f'"{name}" is no name of a model' if what == "model" else f'"{name}" is no alias'
            raise CliError(f"{sentence}; write small letters, digits and hyphens", Exit.USAGE)


def _check_bucket(client: "S3Client", bucket: str) -> None:
    from layers.objects.errors import NoSuchObject

    try:
        next(iter(client.list(bucket)), None)
    except NoSuchObject:
        mend = f"{DIOSCAR} ls shows the buckets, {DIOSCAR} mb {bucket} makes it"
        raise CliError(f"there is no bucket {bucket}; {mend}", Exit.NOT_FOUND) from None


def _no_such_model(registry: "Registry", model: str) -> CliError:
    from fdl.names import did_you_mean

    known = sorted({*registry.models(), *shipped_models()})
    close = did_you_mean(model, known)
    mend = f"there is {close or ', '.join(known) or 'none'}"
    return CliError(f"there is no model {model}; {mend}", Exit.NOT_FOUND)


def _show_unpromoted(registry: "Registry", model: str, alias: str, as_json: bool) -> None:
    """What serves where nothing was promoted. Raises CliError where there is nothing of that name."""
    from layers.learning.registry import SERVING

    versions = registry.versions(model)
    path = shipped_models().get(model)
    known = f"{DIOSCAR} models show {model} {versions[0]}" if versions else ""
    if path is None or alias != SERVING:
        if path is None and not versions and model not in registry.models():
            raise _no_such_model(registry, model)
        mend = f"name a version: {known}" if known else f"{DIOSCAR} models show {model}"
        raise CliError(f"{model}: nothing was promoted as {alias}; {mend}", Exit.NOT_FOUND)
    if as_json:
        print_json({"model": model, "shipped": place(path), "serves": True, "promotions": [], **metadata(path)})
        return
    print_shipped(model, path)
    if versions:
        click.echo(f"\nVersions in {registry.bucket}: {', '.join(versions)}")


def _list_versions(registry: "Registry", model: str, as_json: bool) -> None:
    serving: dict[str, list[str]] = {}
    for alias in registry.aliases(model):
        promotion = registry.serving(model, alias)
        if promotion is not None:
            serving.setdefault(promotion.version, []).append(alias)
    found: list[dict[str, Any]] = []
    path = shipped_models().get(model)
    if path is None and model not in registry.models():
        raise _no_such_model(registry, model)
    for version in registry.versions(model):
        manifest = registry.manifest(model, version)
        verdicts = registry.verdicts(model, version)
        gate = ("passed" if any(one.passed for one in verdicts) else "failed") if verdicts else ""
        aliases = serving.get(version, [])
        facts = {"version": version, "size": manifest.size, "gate": gate, "aliases": aliases}
        found.append({**facts, "parent": manifest.parent, "code": manifest.code, "metrics": dict(manifest.metrics)})
    if as_json:
        print_json(found)
        return
    rows = [
        (
            entry["version"],
            human_size(entry["size"]),
            entry["gate"] or "-",
            ", ".join(entry["aliases"]) or "-",
            entry["parent"] or "-",
            _metrics(entry["metrics"]),
        )
        for entry in found
    ]
    columns = ["VERSION", ">SIZE", "GATE", "SERVES AS", "PARENT", "METRICS"]
    serves = f"; the shipped file serves, {place(path)}" if path else ""
    print_table(columns, rows, empty=f"There are no versions of {model} in {registry.bucket}{serves}.")


def _model(registry: "Registry", name: str, problem: str) -> dict[str, Any]:
    history = registry.history(name)
    problem = problem or (history[-1].problem if history else "")
    last = _promotion(history[-1]) if history else None
    return {
        "model": name,
        "serving": last["version"] if last else "",
        "since": last["time"] if last else None,
        "versions": len(registry.versions(name)),
        "promotion": last,
        "problem": problem,
    }


def _problems(there: Target, bucket: str) -> dict[str, str]:
    """What the embedded cluster cannot follow of the registry; another cluster does not tell."""
    try:
        registries = there.get("/dioscar/v1/models").json()["registries"]
    except (CliError, LookupError, ValueError):
        return {}
    problems = [problem for one in registries if one["bucket"] == bucket for problem in one["problems"]]
    return {problem["model"]: problem["problem"] for problem in problems if problem["alias"] == "serving"}


def _add_shipped(registry: "Registry", model: str) -> str:
    """The version of the file that the twin ships: from the moment that it is replaced, the registry has it too."""
    from layers.learning.registry import Manifest

    path = shipped_models().get(model)
    if path is None:
        return ""
    return registry.add(Manifest.of(model, path.read_bytes(), request={"shipped": place(path)}), path)


def _newest(registry: "Registry", model: str, alias: str) -> "Promotion | None":
    history = registry.history(model, alias)
    return history[-1].promotion if history else None


def _promotion(served: "Served") -> dict[str, Any]:
    return {**asdict(served.promotion), "time": served.time.timestamp(), "problem": served.problem}


def _how(promotion: Mapping[str, Any] | None) -> str:
    if promotion is None:
        return "-"
    if promotion["forced"]:
        return "by force"
    return "by hand" if promotion["reason"] else "by its gate"


def _metrics(metrics: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {value:.4g}" for name, value in list(numbers.items())[:METRICS]) or "-"


def _tell(promotion: "Promotion", before: "Promotion | None", as_json: bool) -> None:
    if as_json:
        print_json(asdict(promotion))
        return
    if before == promotion:
        click.echo(f"{promotion.model}: {promotion.version} serves already")
        return
    was = before.version if before else promotion.previous or "the shipped file"
    click.echo(f"{promotion.model}: {promotion.version} serves from the next run on; before, {was} did")
