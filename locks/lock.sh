#!/usr/bin/env bash
# Write locks/cpu.txt and locks/cuda.txt: a plain == pin for every package of every extra. Needs uv.
#   locks/lock.sh             keeps the pins that still fit
#   locks/lock.sh --upgrade   takes the newest that fit together
set -euo pipefail
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "make lock needs uv: python3.11 -m pip install uv" >&2; exit 1; }
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
[ -n "$UV_FIND_LINKS" ] || unset UV_FIND_LINKS

lock() { # lock cpu|cuda [VARIABLE=value …]
    local kind="$1" draft
    shift
    draft="$(mktemp)"
    # Without its own pin, torch is free to be the +cpu build, which needs none of CUDA's packages.
    [ "$upgrade" ] || grep -v '^torch==' "locks/$kind.txt" >"$draft"
    env "$@" uv pip compile pyproject.toml --all-extras --python-version 3.11 \
        --no-header --no-annotate --quiet --output-file "$draft" >/dev/null
    # A local version such as 2.13.0+cpu is not on every index; install.sh chooses the build.
    sed 's/+cpu$//' "$draft" >"locks/$kind.txt"
    rm -f "$draft"
    echo "locks/$kind.txt: $(wc -l <"locks/$kind.txt") packages"
}

upgrade=""
[ "${1:-}" != "--upgrade" ] || upgrade=1
if [ -n "${UV_FIND_LINKS:-}" ]; then lock cpu; else lock cpu UV_TORCH_BACKEND=cpu; fi
# The package index's own Linux build of torch is the CUDA one.
lock cuda -u UV_FIND_LINKS
