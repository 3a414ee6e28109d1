"""Call a service as a schedule says: POST its payload to `/job/<service>`, now or at its time.

`python3 -P -m events.call FILE` is what a CronJob or a Job of a cluster runs (docs/schedules.md). The token comes from
a file, never from the command line. A call whose answer is lost is made again: at least once.
"""

import http.client
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from events.schedules import Schedule, read_alone

PAUSES_S = (1.0, 5.0, 15.0, 30.0, 60.0)
LATE_S = 60.0
"""A run that starts no later than this after its time was not missed."""
NAP_S = 30.0
ANSWER_S = 60.0


class CallFailed(Exception):  # noqa: N818 - what happened
    """The service was not called; the message says why."""


def call(endpoint: str, token: str, schedule: Schedule, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Make the call, again and again where the cluster does not answer or is in trouble. Raises CallFailed."""
    url = f"{endpoint.rstrip('/')}/job/{schedule.service}"
    if not url.startswith(("http://", "https://")):
        raise CallFailed(f'OSCAR_ENDPOINT: "{endpoint}" is no URL; write e.g. http://oscar.oscar:8080')
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    reason = ""
    for wait in (*PAUSES_S, None):
        try:
            with urlopen(Request(url, schedule.call, headers), timeout=ANSWER_S):  # noqa: S310 - checked above
                return
        except HTTPError as error:
            with error:
                said = " ".join(error.read(1000).decode(errors="replace").split())
            reason = f"{url} answers {error.code} {said}".rstrip()
            if error.code < 500:
                mend = "; check the token in the Secret" if error.code in (401, 403) else ""
                raise CallFailed(f"{reason}{mend}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = f"{url}: no answer ({getattr(error, 'reason', None) or error})"
        if wait is not None:
            pause(wait)
    raise CallFailed(reason)


def wait_for(
    at: float, *, clock: Callable[[], float] = time.time, pause: Callable[[float], None] = time.sleep
) -> float:
    """Return when it is `at` (Unix seconds), also where the clock is set meanwhile; by how much it is later."""
    while (left := at - clock()) > 0:
        pause(min(left, NAP_S))
    return -left


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Carry out the schedule in a JSON file, `{"name": NAME, ...fields}`."""
    names = sys.argv[1:] if arguments is None else arguments
    if len(names) != 1:
        return _end("usage: python3 -P -m events.call FILE", 2)
    if not environ.get("OSCAR_TOKEN_FILE"):
        return _end("dioscar: OSCAR_TOKEN_FILE: is not set; name the file that holds the service's token", 65)
    try:
        schedule = read_alone(Path(names[0]).read_text(encoding="utf-8"), timed=False)
        token = Path(environ["OSCAR_TOKEN_FILE"]).read_text(encoding="utf-8").strip()
    except (ValueError, OSError) as error:
        return _end(f"dioscar: {names[0]}: {error}", 65)
    if schedule.at is not None:
        late_s = wait_for(schedule.at)
        if late_s > LATE_S and schedule.missed == "skip":
            return _end(f"dioscar: {schedule.name}: its time was {late_s:.0f} s ago; skipped, as it says", 0)
    try:
        call(environ.get("OSCAR_ENDPOINT", ""), token, schedule)
    except CallFailed as error:
        return _end(f"dioscar: {schedule.name}: {error}", 1)
    return 0


def _end(message: str, status: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201 - a command's answer
    return status


if __name__ == "__main__":
    sys.exit(main())
