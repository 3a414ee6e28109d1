"""`up`, `down`, `status`, `config`: the embedded cluster's life, and how any cluster is."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infra.cli import embedded
from infra.cli.errors import DIOSCAR, CliError, Exit
from infra.cli.output import ago, human_size, human_time, json_option, print_json, print_table
from infra.cli.target import Target, cluster_option, target

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The cluster's data folder. Default: DIOSCAR_DATA, else ./dioscar-data.",
)


@click.command()
@data_option
@click.option(
    "--api", metavar="HOST:PORT", default="127.0.0.1:8080", show_default=True, help="Where OSCAR's API answers."
)
@click.option("--s3", metavar="HOST:PORT", default="127.0.0.1:9000", show_default=True, help="Where the store answers.")
@click.option("--s3-advertise", metavar="URL", help="The store's address as services and other machines see it.")
@click.option(
    "--s3-external",
    metavar="URL",
    help="Another MinIO or S3 instead of the built-in store; its keys are MINIO_ACCESS_KEY and MINIO_SECRET_KEY.",
)
@click.option("--detach", is_flag=True, help="Leave it running in the background.")
def up(data: Path | None, api: str, s3: str, s3_advertise: str | None, s3_external: str | None, detach: bool) -> None:
    """Start the embedded cluster; port 0 is any free port."""
    folder = embedded.data_folder(data)
    running = embedded.find(folder)
    if running and not detach:
        raise CliError(f"a cluster runs on {folder} already (process {running.pid}); stop it with: {DIOSCAR} down")
    options = ["--api", api, "--s3", s3, *(["--s3-advertise", s3_advertise] if s3_advertise else [])]
    options += ["--s3-external", s3_external] if s3_external else []
    if not detach:
        arguments = embedded.command(folder, options)
        os.execv(arguments[0], arguments)  # noqa: S606 - no shell wanted: the cluster takes this process over
    if running is None:
        running = embedded.start(folder, options)
    click.echo(f"OSCAR API {running.api}, object store {running.s3}, data in {folder}")
    here = f" --cluster {folder}", f" --data {folder}"
    config_option, down_option = here if data is not None else ("", "")
    click.echo(f"Keys: {DIOSCAR} config{config_option}. Stop: {DIOSCAR} down{down_option}.")


@click.command()
@data_option
def down(data: Path | None) -> None:
    """Stop the embedded cluster; jobs get 10 s to end or save a checkpoint, and run on at the next start."""
    folder = embedded.data_folder(data)
    running = embedded.find(folder)
    if running is None:
        click.echo(f"No cluster runs on {folder}.")
        return
    embedded.stop(running)
    click.echo(f"Stopped; {folder} keeps everything for the next start.")


_REACHABLE = {True: "yes", False: "no", None: "(started when needed)"}


@click.command()
@cluster_option
@json_option
def status(cluster: str | None, as_json: bool) -> None:
    """Show how the cluster is: services, jobs, objects, interLink nodes, workers."""
    there = target(cluster)
    try:
        facts = {**there.get("/dioscar/v1/status").json(), "store": _store(there)}
    except CliError as error:
        if error.status != Exit.NOT_FOUND:
            raise
        facts = {"info": there.get("/system/info").json(), "services": len(there.get("/system/services").json() or [])}
    facts = {"cluster": there.url, **facts}
    if as_json:
        print_json(facts)
        return
    info = facts.get("info")
    if info:
        click.echo(f"{there.url}: OSCAR {info['version']}, {facts['services']} services")
        return
    click.echo(f"{there.url}: DiOSCAR {facts['version']}, up {human_time(facts['uptime_s'])}, data in {facts['data']}")
    click.echo(f"{facts['services']} services, {facts['objects']} objects, {human_size(facts['bytes'])}")
    if facts["store"]:
        click.echo(f"Objects are in {facts['store']['endpoint']}: {_told(facts['store'])}")
    counts = [f"{count} {state}" for state, count in facts["jobs"].items() if count]
    click.echo("Jobs: " + (", ".join(counts) or "none yet"))
    nodes = facts.get("nodes") or []
    if nodes:
        print_table(
            ["NODE", "URL", "REACHABLE"],
            [(one["name"], one["url"] or "(this machine)", _REACHABLE[one["reachable"]]) for one in nodes],
            empty="",
        )
    workers = facts["workers"]
    if workers:
        names = [name for name in workers[0] if isinstance(workers[0][name], str | int | float)]
        print_table(
            [name.upper() for name in names], [[worker.get(name, "") for name in names] for worker in workers], empty=""
        )


def _store(there: Target) -> dict[str, Any] | None:
    """How the store is that a cluster has in place of its own."""
    try:
        return dict(there.get("/dioscar/v1/store").json())
    except CliError as error:
        if error.status != Exit.NOT_FOUND:
            raise
        return None


def _told(store: Mapping[str, Any]) -> str:
    if store["trouble"]:
        return str(store["trouble"])
    way = "its webhook and a listing tell of them" if store["notified"] else "a listing tells of them"
    return f"{way}, the last one {ago(store['listed'])} ago"


@click.command()
@cluster_option
@json_option
def config(cluster: str | None, as_json: bool) -> None:
    """Show the cluster's addresses and keys, for other clients."""
    there = target(cluster)
    provider = there.get("/system/config").json()["minio_provider"]
    endpoint = there.endpoint
    facts = {
        "cluster_id": endpoint.cluster_id,
        "api": there.url,
        "oscar_username": endpoint.user,
        "oscar_password": endpoint.password,
        "s3": provider["endpoint"],
        "minio_access_key": provider["access_key"],
        "minio_secret_key": provider["secret_key"],
        "region": provider["region"],
    }
    if as_json:
        print_json(facts)
        return
    print_table(["WHAT", "VALUE"], facts.items(), empty="")
    click.echo(f"\noscar-cli cluster add {endpoint.cluster_id} {there.url} {endpoint.user} '{endpoint.password}'")
