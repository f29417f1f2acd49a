#!/bin/bash
# Build the .deb from the checkout as it is and lint it. Installs what the build needs, if it is
# not there (root).
# Usage: build-deb.sh [OUTPUT]; default: dist
set -euo pipefail
umask 022 # the packages do not depend on whose checkout it is

cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A python3 of pyenv or a venv on PATH would be taken for the distribution's.
clean() { env -i HOME="$work" PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }

packaging/source.sh "$work/vmoor"
cd "$work/vmoor"
if ! type dpkg-buildpackage lintian &>/dev/null || ! clean dpkg-checkbuilddeps 2>/dev/null; then
    echo "installing what the build needs"
    apt_get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    "${apt_get[@]}" update
    "${apt_get[@]}" install -y --no-install-recommends dpkg-dev fakeroot lintian >/dev/null
    "${apt_get[@]}" build-dep -y --no-install-recommends ./ >/dev/null
fi

log=$work/build.log
clean dpkg-buildpackage -us -uc -b >"$log" 2>&1 || { tail -n 40 "$log" >&2; exit 1; }
clean lintian --allow-root --fail-on error,warning "$work"/vmoor_*.changes

mkdir -p "$out"
rm -f "$out"/vmoor_*.deb
cp "$work"/vmoor_*.deb "$out/"
ls -sh "$out"/vmoor_*.deb
