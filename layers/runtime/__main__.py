"""The script's side of OSCAR's contract: `fdl/function.sh` starts `python3 -P -m layers.runtime`."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from layers.runtime.adapter import outcome_as_json, run_from_environment


def main() -> int:
    """Run the function that the environment names; the exit status is the contract's."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    outcome = run_from_environment(os.environ, stopping)
    report = os.environ.get("DIOSCAR_OUTCOME")
    if report:
        Path(report).write_text(json.dumps(outcome_as_json(outcome)), encoding="utf-8")
    return int(outcome.code)


if __name__ == "__main__":
    sys.exit(main())
