#!/bin/sh
# Installs what isolates functions, on Debian and Ubuntu: bubblewrap (sandboxes), podman and runc (containers), mmdebstrap (images).
#
# Needs root, and does nothing where all of it is there. Without it the cluster works, less isolated, and tests are skipped.
set -eu

missing=
for tool in bwrap:bubblewrap podman:podman runc:runc mmdebstrap:mmdebstrap; do
    command -v "${tool%:*}" >/dev/null || missing="$missing ${tool#*:}"
done
[ -n "$missing" ] || exit 0

fail() {
    printf 'dioscar: cannot install%s: %s\n' "$missing" "$1" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail 'not root; run it with sudo'
command -v apt-get >/dev/null || fail 'there is no apt-get; use the package manager of this system'
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 update -qq >&2 || fail 'the lists of packages cannot be fetched'
# shellcheck disable=SC2086 # a list of words
apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing >&2 || fail 'what apt-get said stands above'
