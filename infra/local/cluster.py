"""The embedded cluster: one process, one data folder, one database, two addresses."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from infra.local.api.app import make_app
from infra.local.blobs import Blobs
from infra.local.connections import Connection
from infra.local.database import Database
from infra.local.engine import Engine
from infra.local.expiry import Expiry, ages_of
from infra.local.exposed.exposures import Exposures
from infra.local.exposed.upgrade import websocket_protocol
from infra.local.external.link import Link, WrongStore, claim
from infra.local.holdings import Holdings
from infra.local.interlink.executor import Interlink
from infra.local.interlink.nodes import interlink_nodes
from infra.local.logs import Format, configure
from infra.local.memory import keep_freed
from infra.local.objects import ObjectStore
from infra.local.s3.app import S3App
from infra.local.schedules.scheduler import Scheduler
from infra.local.services import Services
from infra.local.settings import (
    REGION,
    Address,
    Credentials,
    ExternalSettings,
    StoreAddress,
    credentials,
    domains,
    external_store,
    write_private,
)
from infra.local.tracing import from_environment
from infra.local.users.admission import admission_of
from infra.local.users.users import Users
from infra.local.webhooks import Webhooks, targets_of
from layers.objects.errors import AccessRefused

STATE_FILE = "cluster.json"
BACKLOG = 1024
SWITCH_S = 0.0005
"""How long one thread keeps the interpreter while another wants it: the writer must not hold up the event loop."""


@dataclass(frozen=True)
class ClusterSettings:
    """How a cluster starts; `s3_advertise` is the object store's URL as services and other nodes see it.

    `s3_external` is the URL of another store, which is then used in place of the built-in one.
    """

    data: Path
    api: Address
    s3: Address
    s3_advertise: str = ""
    log_format: Format = "text"
    s3_external: str = ""


class ClusterError(Exception):
    """The cluster cannot start; the message says what to do."""


def serve(settings: ClusterSettings, environ: Mapping[str, str] = os.environ) -> None:
    """Run a cluster until SIGTERM or SIGINT, then drain and stop.

    Raises ClusterError, DatabaseError, or ValueError for a setting of the environment that is wrong.
    """
    configure(settings.log_format)
    external = external_store(settings.s3_external, environ)
    sys.setswitchinterval(SWITCH_S)
    keep_freed()
    try:
        settings.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"{settings.data}: cannot be the data folder ({error.strerror}); name another") from None
    with ExitStack() as opened:
        api = opened.enter_context(_listen(settings.api))
        s3 = opened.enter_context(_listen(settings.s3)) if external is None else None
        runner = opened.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        runner.run(_serve(settings, environ, external, api, s3))


async def _serve(
    settings: ClusterSettings,
    environ: Mapping[str, str],
    external: ExternalSettings | None,
    api_socket: socket.socket,
    s3_socket: socket.socket | None,
) -> None:
    data = settings.data.resolve()
    api = _bound(settings.api, api_socket)
    if external is not None:
        address = external.address
    else:
        assert s3_socket is not None
        address = StoreAddress(settings.s3_advertise or _bound(settings.s3, s3_socket).url)
    targets = targets_of(environ) if external is None else []
    ages = ages_of(environ)
    database = Database(data / "dioscar.db")
    try:
        keys = credentials(data, environ)  # only now: the folder is ours alone
        blobs = Blobs(database, data / "blobs")
        link = Link(external, keys, database, blobs) if external else None
        store = link.store if link else ObjectStore(database, blobs)
        claim(database, external=link is not None)
        services = Services(database, store, REGION)
        tracing = from_environment(environ, str(data))
        engine = Engine(data, database, store, services, REGION, tracing)
        webhooks = Webhooks(database, store, targets, REGION)
        holdings = Holdings.of(data, database, store, services)
        expiry = Expiry(data, database, store, ages)
        exposures = Exposures(data, services)
        scheduler = Scheduler(database, engine, link)
        engine.metrics.watch_webhooks(webhooks.queued)
        nodes = interlink_nodes(data, environ)
        admission = admission_of(environ, database, store, services, keys, elsewhere=link is not None)
        if link is not None:
            link.attach(engine, services)
            await link.check()
        engine.interlink = Interlink(data, database, nodes, address, partial(_keys, keys, admission.users), environ)
        sockets = [api_socket]
        front = make_app(
            engine,
            webhooks,
            holdings,
            keys,
            address=address,
            data=data,
            link=link,
            users=admission.users,
            exposures=exposures,
            scheduler=scheduler,
        )
        servers = [_server(front)]
        s3_app = S3App(store, admission.secrets, REGION, guard=admission.guard, domains=domains(environ))
        if s3_socket is not None:
            sockets.append(s3_socket)
            servers.append(_server(s3_app, websockets=False))
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await store.start()
        await engine.start()
        if admission.users is not None and not engine.bounds()[1].sandboxed:
            logging.getLogger("dioscar").warning(
                "users can deploy functions, and these are not sandboxed: each can read the whole data folder; "
                "install bubblewrap and set DIOSCAR_SANDBOX=require"
            )
        await webhooks.start()
        expiry.start()
        holdings.calls.start()
        exposures.start(*engine.bounds())
        serving = [
            asyncio.create_task(server.serve(sockets=[sock])) for server, sock in zip(servers, sockets, strict=True)
        ]
        state = data / STATE_FILE
        facts = {
            "pid": os.getpid(),
            "api": api.url,
            "s3": address.endpoint,
            **asdict(keys),
            "version": version("dioscar"),
            "started": time.time(),
        }
        while not all(server.started for server in servers):
            await asyncio.sleep(0.005)
        if link is not None:
            link.start()
        scheduler.start()
        write_private(state, json.dumps(facts, indent=2) + "\n")
        logging.getLogger("dioscar").info("OSCAR API on %s, S3 on %s, data in %s", api.url, address.endpoint, data)
        await stopping.wait()
        state.unlink(missing_ok=True)
        s3_app.close()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(exposures.stop(), *serving)
        await scheduler.stop()
        await expiry.stop()
        await holdings.calls.stop()
        await engine.stop()
        if link is not None:
            await link.stop()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
        await webhooks.stop()
        await store.stop()
        blobs.close()
    except AccessRefused as error:
        raise ClusterError(f"{error}; set MINIO_ACCESS_KEY and MINIO_SECRET_KEY to keys that it knows") from None
    except WrongStore as error:
        raise ClusterError(str(error)) from None
    finally:
        database.close()


def _keys(root: Credentials, users: Users | None, owner: str) -> tuple[str, str] | None:
    """The keys of the object store that the pods of an owner get; the administrator's name is empty."""
    if not owner:
        return root.minio_access_key, root.minio_secret_key
    account = users.accounts.get(owner) if users is not None else None
    return None if account is None else (account.uid, account.secret_key)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: two servers share the process, and draining is the cluster's."""

    def capture_signals(self) -> Any:
        """Leave the process's signals alone."""
        return nullcontext()


def _server(app: Any, *, websockets: bool = True) -> _Server:
    config = uvicorn.Config(
        app,
        http=Connection,
        ws=websocket_protocol if websockets else "none",  # type: ignore[arg-type] # uvicorn only calls it
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_config=None,
        log_level="warning",
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        server_header=False,
    )
    return _Server(config)


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise ClusterError(
            f"{address.host}:{address.port} cannot be used ({error.strerror}); choose another address, port 0 is any"
        ) from None
    return listener


def _bound(address: Address, listener: socket.socket) -> Address:
    return Address(address.host, int(listener.getsockname()[1]))
