#!/bin/bash
# Build what a release consists of: sources, both packages, the source package for other
# distributions, bill of materials and checksums. Only of a checkout whose changes are committed.
# Usage: build-release.sh [OUTPUT]; default: dist/release
set -euo pipefail
umask 022

cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-dist/release}")
if [ -n "$(git status --porcelain)" ]; then
    echo "cannot release what is not committed: git status" >&2
    exit 1
fi
rm -rf "$out"
packaging/build-deb.sh "$out"
packaging/build-rpm.sh "$out"
cd "$out"
rpm2cpio vmoor-*.src.rpm | cpio --extract --quiet 'vmoor-*.tar.gz'
"$OLDPWD/packaging/sbom.py" >vmoor.cdx.json
sha256sum -- * >SHA256SUMS
