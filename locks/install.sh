#!/usr/bin/env bash
# Build .venv from locks/$TORCH.txt (TORCH=cpu, the default, or cuda), with uv where it is there, else with pip.
# A whole environment of this lock is left alone, one of an older lock is brought up to it, a half-built one is built anew.
set -euo pipefail
cd "$(dirname "$0")/.."

torch="${TORCH:-cpu}"
lock="locks/$torch.txt"
venv="${VENV:-.venv}"
[[ "$venv" = /* ]] || venv="$PWD/$venv"
stamp="$venv/basketweave-lock.sha256"
python="${PYTHON:-python3.11}"

stop() {
    echo "$1" >&2
    exit 1
}

[ -f "$lock" ] || stop "TORCH=$torch is not known. Use TORCH=cpu or TORCH=cuda."
# What is in C is compiled with the package, and here where its source has changed since. It can be done without.
compile() {
    [ ! -x "$venv/bin/python" ] || "$venv/bin/python" components/model/compiled.py --compiler "${CC:-cc}" >/dev/null || true
}

wanted="$torch $(sha256sum "$lock" | cut -d' ' -f1)"
have="$(cat "$stamp" 2>/dev/null || true)"
if [ "$have" = "$wanted" ]; then
    compile
    exit 0
fi

uv=""
if [ -z "${NO_UV:-}" ]; then uv="$(command -v uv || true)"; fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && [ -z "$uv" ]; then
    stop "Basketweave needs Python 3.11, and '$python' is not it. Install it (Debian: apt-get install python3.11 python3.11-venv), or run: make PYTHON=/path/to/python3.11"
fi

started=$SECONDS
echo "Building $venv from $lock with $([ -n "$uv" ] && echo uv || echo pip): about 2 GB, a few minutes." >&2
rm -f "$stamp"
[ "${have%% *}" = "$torch" ] || rm -rf "$venv"
find_links="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
requirements="$(mktemp)"
trap 'rm -f "$requirements"' EXIT
if [ "$torch" = cuda ]; then
    # === takes the index's own build and never a 2.13.0+cpu that lies nearer.
    sed 's/^torch==/torch===/' "$lock" >"$requirements"
else
    cp "$lock" "$requirements"
fi

if [ -n "$uv" ]; then
    [ -d "$venv" ] || "$uv" venv --quiet --python "$([ -x "$(command -v "$python")" ] && echo "$python" || echo 3.11)" "$venv"
    if [ -n "$find_links" ]; then export UV_FIND_LINKS="$find_links"; elif [ "$torch" = cpu ]; then export UV_TORCH_BACKEND=cpu; fi
    # The lock is whole, so nothing is resolved; a test holds it to that.
    VIRTUAL_ENV="$venv" "$uv" pip install --quiet --no-deps --requirements "$requirements"
    VIRTUAL_ENV="$venv" "$uv" pip install --quiet --no-deps --no-build-isolation --editable .
else
    [ -d "$venv" ] || "$python" -m venv "$venv"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check install -qq --no-deps --no-compile)
    if [ "$torch" = cpu ] && [ -z "$find_links" ]; then
        # pip would take the CUDA build, 5 GB with its libraries; uv knows where the CPU one is, and goes again.
        "${pip[@]}" uv
        VIRTUAL_ENV="$venv" UV_TORCH_BACKEND=cpu "$venv/bin/uv" pip install --quiet --no-deps "$(grep '^torch==' "$lock")"
        "$venv/bin/python" -m pip uninstall -qq --yes uv
    fi
    "${pip[@]}" --requirement "$requirements"
    "${pip[@]}" --no-build-isolation --editable .
fi

# Compile what every run imports, ten CPU-seconds saved at each start where Python is told to write no bytecode.
# (All 24,000 files would take a minute, and a few are for other versions of Python.)
env -u PYTHONDONTWRITEBYTECODE DGLBACKEND=pytorch MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true \
    BENTOML_DO_NOT_TRACK=True GX_ANALYTICS_ENABLED=false AIRFLOW_HOME="$venv/airflow-unused" \
    "$venv/bin/python" -W ignore -c 'import airflow.sdk, bentoml, dgl, feast, great_expectations, ibis, mlflow' >/dev/null 2>&1 ||
    stop "The new environment cannot import its libraries. See why with: $venv/bin/python -c 'import airflow.sdk, bentoml, dgl, feast, great_expectations, ibis, mlflow'"
rm -rf "$venv/airflow-unused"
build="$("$venv/bin/python" -c 'import torch; print("cuda" if torch.version.cuda else "cpu")')"
[ "$build" = "$torch" ] || stop "This environment's torch is a $build build, TORCH=$torch was asked for. Give the folder of its wheel in PIP_FIND_LINKS, or run: make TORCH=$build"
compile
echo "$wanted" >"$stamp"
echo "Built $venv in $((SECONDS - started)) s." >&2
