#!/bin/bash
# Makes the venv $1: Debian's python3 and libraries, and tests/tools.txt from PyPI.
set -euo pipefail
venv=$1
needed="python3-venv python3-hvac python3-requests python3-jinja2 python3-click python3-psutil
python3-systemd python3-yaml python3-jsonschema python3-jeepney python3-cryptography python3-h2
python3-grpcio python3-prometheus-client shellcheck"
missing=()
for p in $needed; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "cannot install packages: run as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get install -qq -y --no-install-recommends "${missing[@]}")
    "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; }
fi
echo "making $venv"
mkdir -p "$(dirname "$venv")"
temp=$(mktemp -d "$venv.XXXXXX")
trap 'rm -rf "$temp"' EXIT
/usr/bin/python3 -m venv --system-site-packages "$temp"
"$temp/bin/python" -m pip install -q --disable-pip-version-check -r "$(dirname "$0")/tools.txt"
# The scripts in bin/ name the folder that they were installed in.
sed -i "1s|$temp|$venv|" "$temp"/bin/* 2>/dev/null || true
rm -rf "$venv"
mv "$temp" "$venv"
