#!/bin/bash
# The unit tests on Enterprise Linux 9's Python and versions of the libraries.
# Usage: [PYTHON39=...] el9.sh; default: the python3.9 on PATH
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON39:-python3.9}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 9))' || {
    echo "cannot run $python as a Python 3.9: set PYTHON39" >&2
    exit 1
}
venv=${VMOOR_CACHE:-$HOME/.cache/vmoor}/el9-$(sha256sum <tests/el9.txt | cut -c1-12)
if [ ! -e "$venv" ]; then
    echo "making $venv"
    temp=$(mktemp -d)
    trap 'rm -rf "$temp"' EXIT
    "$python" -m venv "$temp/venv"
    "$temp/venv/bin/pip" install -q --disable-pip-version-check -r tests/el9.txt
    mkdir -p "$(dirname "$venv")"
    cp -a "$temp/venv" "$venv"
fi
# That one test is about a draft that jsonschema 3.2 does not know.
PYTHONPATH=agent exec "$venv/bin/python" -m pytest -q tests/unit \
    --deselect tests/unit/config/test_schema.py::test_the_schema_is_one
