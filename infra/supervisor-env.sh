#!/bin/sh
# Makes .venv-supervisor: OSCAR's own supervisor (faas-supervisor), as the contract tests and benchmarks run it.
#
# It stands apart because its published metadata cannot be resolved (a requirement is malformed), so it is installed
# without its dependencies and these are named here; setuptools gives it the distutils that Python 3.12 dropped.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$here/.venv-supervisor
requirements='faas-supervisor==1.5.8 webdavclient3==3.14.7 requests==2.34.2 boto3==1.44.5 pyyaml==6.0.3
    setuptools==79.0.1 lxml==6.1.3 python-dateutil==2.9.0.post0 botocore==1.44.5 s3transfer==0.19.3 jmespath==1.1.0
    urllib3==2.8.0 six==1.17.0 certifi charset-normalizer==3.5.2 idna==3.20'

[ -x "$venv/bin/python" ] && [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$requirements" ] && exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
printf 'dioscar: installing the supervisor into .venv-supervisor; this is done once\n' >&2
{
    "${PYTHON:-$here/.venv/bin/python}" -m venv --clear "$venv" &&
        # shellcheck disable=SC2086 # a list of words
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps $requirements &&
        "$venv/bin/python" -W ignore -c 'import faassupervisor.supervisor'
} >"$log" 2>&1 || {
    cat "$log" >&2
    printf 'dioscar: could not install faas-supervisor; what went wrong stands above\n' >&2
    exit 1
}
printf '%s' "$requirements" >"$venv/.stamp"
