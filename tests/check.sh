#!/bin/bash
# Style, types, layers, shell, spelling. Prints what failed; silent steps passed.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff format --check -q agent tests packaging || { echo "run: make fmt"; exit 1; }
ruff check -q agent tests packaging
mypy agent/vmoor
PYTHONPATH=agent lint-imports --config pyproject.toml
git ls-files -co --exclude-standard -z -- '*.sh' .ci/run debian/vmoor.postinst debian/vmoor.prerm debian/vmoor.postrm debian/tests/service |
    while IFS= read -r -d '' f; do [ -f "$f" ] && printf '%s\0' "$f"; done | xargs -0r shellcheck -x
git ls-files -co --exclude-standard -z | xargs -0 codespell
