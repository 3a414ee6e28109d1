#!/bin/sh
# Makes .venv-clients: S3 clients (aws CLI, s3fs, obstore) for the tests, and a server (moto) for the benchmark.
#
# They stand apart because s3fs takes only one version of botocore, and not the one that .venv has.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$here/.venv-clients
requirements=$here/infra/clients.txt
stamp=$(cksum <"$requirements")

[ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf 'dioscar: installing S3 clients into .venv-clients; this is done once\n' >&2
{
    "${PYTHON:-$here/.venv/bin/python}" -m venv --clear "$venv" &&
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
            --requirement "$requirements"
} >"$log" 2>&1 || {
    cat "$log" >&2
    printf 'dioscar: could not install the S3 clients; what went wrong stands above\n' >&2
    exit 1
}
printf '%s' "$stamp" >"$venv/.stamp"
