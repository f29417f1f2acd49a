#!/bin/bash
# Make an apt and a yum repository of packages, to be served by any web server or read as file:.
# With SIGN_KEY (what `gpg --local-user` takes) both are signed by that key, which is put beside
# them. Installs what it needs, if it is not there (root).
# Usage: [SIGN_KEY=...] build-repo.sh [OUTPUT [PACKAGE...]]; default: dist/repo, of dist's packages
set -euo pipefail
umask 022 # the web server is another user

top=$(dirname "$0")/..
out=$(realpath -m "${1:-$top/dist/repo}")
packages=("${@:2}")
[ $# -gt 1 ] || packages=("$top"/dist/vmoor_*.deb "$top"/dist/vmoor-*.noarch.rpm)
if ! type apt-ftparchive createrepo_c gpg gpg-agent rpmsign &>/dev/null; then
    echo "installing what the repositories need"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends apt-utils createrepo-c gpg gpg-agent rpm >/dev/null
fi
sign() { gpg --batch --yes --local-user "$SIGN_KEY" --armor "$@"; }

rm -rf "$out"
mkdir -p "$out/apt" "$out/yum"
for package in "${packages[@]}"; do
    case $package in
        *.deb) cp "$package" "$out/apt/" ;;
        *.rpm) cp "$package" "$out/yum/" ;;
    esac
done
if [ -n "${SIGN_KEY:-}" ]; then
    rpmsign --define "__gpg $(command -v gpg)" --define "_gpg_name $SIGN_KEY" \
        --addsign "$out"/yum/*.rpm >/dev/null
fi

createrepo_c --quiet --no-database "$out/yum"
cd "$out/apt"
apt-ftparchive packages . >Packages
gzip -9nk Packages
# unattended-upgrades goes by the origin. Not written in place: Release would list itself.
release=$(apt-ftparchive -o APT::FTPArchive::Release::Origin=vmoor \
    -o APT::FTPArchive::Release::Label=vmoor release .)
echo "$release" >Release
if [ -n "${SIGN_KEY:-}" ]; then
    sign --clearsign --output InRelease Release
    sign --detach-sign --output "$out/yum/repodata/repomd.xml.asc" "$out/yum/repodata/repomd.xml"
    sign --export "$SIGN_KEY" >"$out/vmoor.asc"
fi
echo "$out"
