#!/bin/sh
# Makes .venv-supervisor: OSCAR's own supervisor (faas-supervisor), as the contract tests and benchmarks run it.
#
# It stands apart because its published metadata cannot be resolved (a requirement is malformed), so it is installed
# without its dependencies and these are named here; setuptools gives it the distutils that Python 3.12 dropped.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$here/.venv-supervisor
constraints=$here/infra/constraints.txt
requirements='faas-supervisor==1.5.8 setuptools==79.0.1 webdavclient3 requests boto3 pyyaml
    botocore s3transfer jmespath urllib3 python-dateutil six lxml certifi charset-normalizer idna'
stamp="$requirements $(cksum <"$constraints")"

[ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$stamp" ] && exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf 'dioscar: installing the supervisor into .venv-supervisor; this is done once\n' >&2
{
    "${PYTHON:-$here/.venv/bin/python}" -m venv --clear "$venv" &&
        # shellcheck disable=SC2086 # a list of words
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
            --constraint "$constraints" $requirements &&
        "$venv/bin/python" -W ignore -c 'import faassupervisor.supervisor'
} >"$log" 2>&1 || {
    cat "$log" >&2
    printf 'dioscar: could not install faas-supervisor; what went wrong stands above\n' >&2
    exit 1
}
printf '%s' "$stamp" >"$venv/.stamp"
