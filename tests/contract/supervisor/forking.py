"""Runs OSCAR's supervisor many times without importing it each time: one child process for each line of orders.

Started with the Python of .venv-supervisor, so it needs nothing but the standard library and faassupervisor. A line on
standard input is `{"environ": {...}, "body": BASE64, "folder": PATH, "log": PATH}`; each is answered with the status.
"""

import base64
import io
import json
import os
import runpy
import sys
import tempfile
import traceback


def main() -> None:
    """Serve orders until there are no more."""
    import boto3  # noqa: F401 - with what it imports, most of a start
    import faassupervisor.supervisor  # type: ignore[import-not-found]  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_supervise(order))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _supervise(order: "dict[str, dict[str, str] | str]") -> int:
    """What `python -m faassupervisor.supervisor` does in a process of its own."""
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(str(order["folder"]))
    os.environ.clear()
    os.environ.update(order["environ"])  # type: ignore[arg-type]
    tempfile.tempdir = None
    sys.stdin = io.StringIO(base64.b64decode(str(order["body"])).decode())
    sys.modules.pop("faassupervisor.supervisor")
    code = 0
    try:
        runpy.run_module("faassupervisor.supervisor", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main()
