"""The contract's second form: `app(settings) -> ASGI application`, served for as long as its process lives.

`python3 -P -m layers.runtime.app` serves the module that DIOSCAR_FUNCTION names, its settings read as for `run`. It
listens on the socket that its engine has handed down (DIOSCAR_APP_FD), else on `expose.api_port` of the service's
document, as in a pod, else on PORT of the loopback address. SIGTERM ends it once it has answered what it was asked
before.

The application sees the path that its clients see, with the part before its own in `root_path`, whether the cluster has
taken that off or not.
"""

import base64
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from layers.runtime import function as functions
from layers.runtime.contract import Exit, InputError
from layers.runtime.parameters import read_settings

CONFIG = Path("/oscar/config/function_config.yaml")
DRAIN_S = 8
"""How long requests under way may take after SIGTERM; a stream of events has no end of its own."""
KEEP_ALIVE_S = 75
BACKLOG = 1024

Scope = MutableMapping[str, Any]
ASGIApp = Callable[[Scope, Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]]


def main() -> int:
    """Serve what the environment names."""
    return serve(os.environ)


def serve(environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM; 65 with a sentence where the settings are wrong, which another start would not mend."""
    try:
        module = functions.load_app(environ.get("DIOSCAR_FUNCTION", ""))
        application = module.app(read_settings(module.settings, environ))
        listener = _listener(environ)
    except InputError as error:
        print(f"dioscar: InputError: {error}", flush=True)  # noqa: T201 - the service's log
        report = environ.get("DIOSCAR_OUTCOME")
        if report:
            outcome = {"code": int(Exit.BAD_INPUT), "error": "InputError", "message": str(error)}
            Path(report).write_text(json.dumps(outcome), encoding="utf-8")
        return int(Exit.BAD_INPUT)
    import uvicorn

    by_engine = listener.family == socket.AF_UNIX  # nobody else can connect to it, so what it says of clients is so
    config = uvicorn.Config(
        mounted(application, environ.get("OSCAR_SERVICE_BASE_PATH", "")),
        access_log=False,
        forwarded_allow_ips="*" if by_engine else None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return int(Exit.DONE if server.started else Exit.FAILED)


def mounted(application: ASGIApp, base: str) -> ASGIApp:
    """`application` as it stands at the path `base` of its cluster; a request may name that or leave it out."""
    if not base:
        return application

    async def at_base(
        scope: Scope, receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[Any]]
    ) -> None:
        if scope["type"] in ("http", "websocket"):
            path, raw = scope["path"], scope.get("raw_path")
            if path != base and not path.startswith(f"{base}/"):
                path, raw = base + path, raw and base.encode() + raw
            scope = {**scope, "root_path": base, "path": path, "raw_path": raw}
        await application(scope, receive, send)

    return at_base


def _listener(environ: Mapping[str, str]) -> socket.socket:
    """Where requests arrive. Raises InputError where nobody says where, or that cannot be used."""
    if "DIOSCAR_APP_FD" in environ:
        return socket.socket(fileno=int(environ["DIOSCAR_APP_FD"]))
    port, host = _api_port(environ), "0.0.0.0"  # noqa: S104 - a pod is reached from outside
    if not port:
        port, host = environ.get("PORT", ""), "127.0.0.1"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f'there is no port to listen on (PORT is "{port}"); set expose.api_port in the FDL')
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise InputError(f"port {port}: cannot be listened on ({error.strerror}); choose another api_port") from None
    listener.listen(BACKLOG)
    return listener


def _api_port(environ: Mapping[str, str]) -> str:
    """The first `expose.api_port` of the service's document, which OSCAR mounts or passes; empty without one."""
    if CONFIG.is_file():
        text = CONFIG.read_text(encoding="utf-8")
    elif "FUNCTION_CONFIG" in environ:
        text = base64.b64decode(environ["FUNCTION_CONFIG"]).decode()
    else:
        return ""
    import yaml

    ports = ((yaml.safe_load(text) or {}).get("expose") or {}).get("api_port") or ""
    return str(ports[0] if isinstance(ports, list) else ports)


if __name__ == "__main__":
    sys.exit(main())
