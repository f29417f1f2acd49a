#!/bin/bash
# Build the .rpm and the source .rpm from the checkout as it is, with Debian's rpmbuild, and lint
# them. What users install is built from the source .rpm on their distribution (docs/packages.md).
# Installs what the build needs, if it is not there (root).
# Usage: build-rpm.sh [OUTPUT [OPTION...]]; default: dist. With options, which are rpmbuild's, it is
# another package than the release's, and not linted.
set -euo pipefail
umask 022 # the packages do not depend on whose checkout it is

cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-dist}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A python3 of pyenv or a venv on PATH would be taken for the distribution's.
clean() { env -i HOME="$work" PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }

version=$(sed -n 's/^Version: *//p' rpm/vmoor.spec)
packaging/source.sh "$work/vmoor-$version"
cd "$work"
if ! type rpmbuild rpmlint rpm2cpio cpio &>/dev/null ||
    ! (cd "vmoor-$version" && clean dpkg-checkbuilddeps 2>/dev/null); then
    echo "installing what the build needs"
    apt_get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
    "${apt_get[@]}" update
    "${apt_get[@]}" install -y --no-install-recommends rpm rpmlint rpm2cpio cpio >/dev/null
    (cd "vmoor-$version" && "${apt_get[@]}" build-dep -y --no-install-recommends ./ >/dev/null)
fi

mkdir -p rpmbuild/SOURCES
tar --sort=name --owner=0 --group=0 --numeric-owner -cf - "vmoor-$version" |
    gzip -9n >"rpmbuild/SOURCES/vmoor-$version.tar.gz"
log=$work/build.log
macros=$work/vmoor-$version/rpm/macros.debian
options=("${@:2}")
build() {
    clean rpmbuild --load="$macros" --nodeps "${options[@]}" "$@" "vmoor-$version/rpm/vmoor.spec" >"$log" 2>&1 ||
        { tail -n 40 "$log" >&2; exit 1; }
}
# Not -ba: a binary package that was built with its source holds that one's id. The source package
# holds the expanded spec, and so the names of these folders: relative, they are always the same.
build -bb
build -bs --define "_topdir rpmbuild"
made=(rpmbuild/RPMS/noarch/*.rpm rpmbuild/SRPMS/*.rpm)
lint=(rpmlint -c "vmoor-$version/rpm/rpmlint.toml" "${made[@]}" "vmoor-$version/rpm/vmoor.spec")
if [ ${#options[@]} = 0 ]; then
    found=$(clean "${lint[@]}") || { echo "$found" >&2; exit 1; }
    # It fails for errors only.
    [[ $found == *" 0 errors, 0 warnings"* ]] || { echo "$found" >&2; exit 1; }
fi

mkdir -p "$out"
rm -f "$out"/vmoor-*.rpm
cp "${made[@]}" "$out/"
ls -sh "$out"/vmoor-*.rpm
