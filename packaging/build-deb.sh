#!/bin/bash
# Build dist/vmoor_*.deb from the checkout as it is (committed or not, nothing that git ignores),
# in a clean copy, and lint it. Installs what the build needs, if it is not there (root).
set -euo pipefail

cd "$(dirname "$0")/.."
top=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A python3 of pyenv or a venv on PATH would be taken for the distribution's.
clean() { env -i HOME="$work" PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }

# Only what git would have: of a file that was removed, ls-files still knows the name.
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
        if [ -e "$file" ] || [ -L "$file" ]; then printf '%s\0' "$file"; fi
    done | tar --null --files-from=- -cf - | { mkdir "$work/vmoor" && tar -C "$work/vmoor" -xf -; }

cd "$work/vmoor"
if ! command -v dpkg-buildpackage lintian >/dev/null || ! clean dpkg-checkbuilddeps 2>/dev/null; then
    echo "installing what the build needs"
    apt_get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    "${apt_get[@]}" update
    "${apt_get[@]}" install -y --no-install-recommends dpkg-dev fakeroot lintian >/dev/null
    "${apt_get[@]}" build-dep -y --no-install-recommends ./ >/dev/null
fi

log=$work/build.log
clean dpkg-buildpackage -us -uc -b >"$log" 2>&1 || { tail -n 40 "$log" >&2; exit 1; }
clean lintian --allow-root --fail-on error,warning "$work"/vmoor_*.changes

mkdir -p "$top/dist"
rm -f "$top"/dist/vmoor_*.deb
cp "$work"/vmoor_*.deb "$top/dist/"
ls -sh "$top"/dist/vmoor_*.deb
