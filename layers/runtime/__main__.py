"""The script's side of OSCAR's contract: `fdl/function.sh` starts `python3 -P -m layers.runtime`.

A supervisor says where outputs go; where nobody does, nothing is to be run, and the module's `app` is served.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path


def main() -> int:
    """Run the function, or serve the app, that the environment names; the exit status is the contract's."""
    if "TMP_OUTPUT_DIR" not in os.environ:
        from layers.runtime.app import serve

        return serve(os.environ)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())  # before the imports, which may take a while
    from layers.runtime.adapter import outcome_as_json, run_from_environment

    outcome = run_from_environment(os.environ, stopping)
    report = os.environ.get("DIOSCAR_OUTCOME")
    if report:
        Path(report).write_text(json.dumps(outcome_as_json(outcome)), encoding="utf-8")
    return int(outcome.code)


if __name__ == "__main__":
    sys.exit(main())
