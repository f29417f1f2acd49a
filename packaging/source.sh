#!/bin/bash
# Copy the checkout as it is (committed or not, nothing that git ignores) into the new folder DEST.
# Times, modes and order depend on nothing but the content, and so do the packages made from it.
# Usage: source.sh DEST
set -euo pipefail

dest=$(realpath -m "$1")
cd "$(dirname "$0")/.."
# Not dpkg-parsechangelog: a fresh machine has no dpkg-dev yet.
released=$(date -d "$(sed -n '/^ -- /{s/^ -- .*>  //p;q}' debian/changelog)" +%s)
mkdir -p "$dest"
# Of a file that was removed, ls-files still knows the name.
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
        if [ -e "$file" ] || [ -L "$file" ]; then printf '%s\0' "$file"; fi
    done |
    tar --null --files-from=- --mode=u+rw,go+rX,go-w --owner=0 --group=0 -cf - |
    tar -C "$dest" --no-same-owner --same-permissions -xf -
# Of folders too, which tar makes as it needs them.
find "$dest" -exec touch --no-dereference --date="@$released" {} +
