#!/bin/sh
# Installs Slurm and munge on Debian and Ubuntu, for infra/hpc/slurm-lab and the tests with it. No daemon of theirs is started.
#
# Needs root, and does nothing where both are there. Without them, these tests are skipped.
set -eu

missing=
for tool in slurmctld:slurm-wlm munged:munge; do
    PATH="$PATH:/usr/sbin" command -v "${tool%:*}" >/dev/null || missing="$missing ${tool#*:}"
done
[ -n "$missing" ] || exit 0

fail() {
    printf 'dioscar: cannot install%s: %s\n' "$missing" "$1" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail 'not root; run it with sudo'
command -v apt-get >/dev/null || fail 'there is no apt-get; use the package manager of this system'
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then # a lab starts its own daemons, and no others are wanted
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
apt-get -o DPkg::Lock::Timeout=300 update -qq >&2 || fail 'the lists of packages cannot be fetched'
# shellcheck disable=SC2086 # a list of words
apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing >&2 || fail 'what apt-get said stands above'
