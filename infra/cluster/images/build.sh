#!/bin/sh
# Builds the images that the FDL files name, by podman: a base of Debian's packages, the runtime on it, a twin on that.
#
#   build.sh [--train] [pulsar ...]      the twins to build; all that have an image here, without
#
# --train builds dioscar-TWIN-train, too: the twin with what training and validation need (the extra `train`, torch in it; gigabytes).
# REGISTRY (ghcr.io/dioscar), TAG (the version in pyproject.toml), BASE (an image with Python 3.11 in place of the one that is made
# here). Packages come from where PIP_INDEX_URL says, else from pip's own default; the CA bundle of this machine is lent for that.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
house=$(CDPATH='' cd -- "$here/../../.." && pwd -P)
registry=${REGISTRY:-ghcr.io/dioscar}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$house/pyproject.toml")
tag=${TAG:-$version}
made=localhost/dioscar-base:bookworm
base=${BASE:-$made}
train=
if [ "${1-}" = --train ]; then
    train=yes
    shift
fi
[ $# -gt 0 ] || set -- pulsar calorimeter

fail() {
    printf 'dioscar: %s\n' "$1" >&2
    exit 1
}
command -v podman >/dev/null || fail 'there is no podman; infra/sandbox-env.sh installs it'
for twin in "$@"; do
    [ -d "$house/functions/$twin" ] || fail "functions/$twin: there is no such twin"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

make_base() {
    command -v mmdebstrap >/dev/null || fail 'there is no mmdebstrap; infra/sandbox-env.sh installs it, or name an image in BASE'
    printf 'dioscar: making %s from packages of Debian\n' "$made" >&2
    # shellcheck disable=SC2016 # $1 is mmdebstrap's
    mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,ca-certificates \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='rm -f "$1"/usr/lib/python3.*/EXTERNALLY-MANAGED' \
        --customize-hook='ln -s /usr/bin/python3 "$1"/usr/local/bin/python' \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/etc/apt/sources.list "$1"/etc/apt/apt.conf.d/99mmdebstrap' \
        --customize-hook=': >"$1"/etc/resolv.conf; echo dioscar >"$1"/etc/hostname' \
        bookworm "$work/base.tar"
    podman import --quiet --change 'CMD ["python3"]' \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/base.tar" "$made" >&2
    rm "$work/base.tar"
}

copy() { # a folder of the house, without what Python and tests leave in it
    mkdir -p "$2"
    tar -C "$house" --exclude=__pycache__ --exclude='*.pyc' -cf - "$1" | tar -C "$2" -xf -
}

build() { # image, Containerfile, base
    printf 'dioscar: building %s\n' "$1" >&2
    cp "$house/infra/constraints.txt" "$work/context/"
    podman build --quiet --network=host --pull=never --build-arg "BASE=$3" --file "$here/$2" --tag "$1" \
        --secret "id=pip,src=$work/pip.conf" --secret "id=ca,src=$work/ca.crt" "$work/context" >&2
}

for file in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    if [ -n "$file" ] && [ -r "$file" ]; then break; fi
done
cp "$file" "$work/ca.crt"
{
    printf '[global]\ncert = /run/build-ca.crt\n'
    [ -z "${PIP_INDEX_URL:-}" ] || printf 'index-url = %s\n' "$PIP_INDEX_URL"
} >"$work/pip.conf"

[ "$base" != "$made" ] || podman image exists "$made" || make_base

runtime=$registry/dioscar-runtime:$tag
mkdir "$work/context"
for room in layers events; do copy "$room" "$work/context/packages"; done
mkdir "$work/context/packages/dioscar-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: dioscar\nVersion: %s\n' "$version" \
    >"$work/context/packages/dioscar-$version.dist-info/METADATA"
cp "$here/runtime.txt" "$work/context/requirements.txt"
build "$runtime" Containerfile.runtime "$base"

requirements() { # of an extra in pyproject.toml, one a line
    sed -n "s/^$1 = \[\(.*\)\]\$/\1/p" "$house/pyproject.toml" | tr -d '" ' | tr ',' '\n'
}

for twin in "$@"; do
    rm -rf "$work/context"
    copy "functions/$twin" "$work/context/packages"
    requirements "$twin" >"$work/context/requirements.txt"
    build "$registry/dioscar-$twin:$tag" Containerfile.twin "$runtime"
    printf '%s\n' "$registry/dioscar-$twin:$tag"
    if [ -n "$train" ]; then
        requirements train >"$work/context/requirements.txt"
        build "$registry/dioscar-$twin-train:$tag" Containerfile.twin "$registry/dioscar-$twin:$tag"
        printf '%s\n' "$registry/dioscar-$twin-train:$tag"
    fi
done
