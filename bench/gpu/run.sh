#!/bin/sh
# Measures the CUDA path with what bench/gpu/pack holds; --smoke does the same on the CPU. Needs no network.
# Packages that this machine lacks come from the pack's wheels, unpacked into a folder of their own.
set -eu
cd "$(dirname "$0")/../.."
if [ -x .venv/bin/python ]; then PYTHON=${PYTHON:-.venv/bin/python}; fi
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
trap 'exit 130' INT TERM
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"
if ! "$python" -c 'import pydantic_settings, ruamel.yaml' 2>/dev/null; then
    for wheel in bench/gpu/pack/wheels/*.whl; do
        "$python" -m zipfile -e "$wheel" "$site"
    done
    export PYTHONPATH="$site:$PYTHONPATH"
fi
out=${OUT:+--out $OUT/gpu.json}
status=0
# shellcheck disable=SC2086  # two words, or none
"$python" -m bench.gpu.run $out "$@" || status=$?
exit "$status"
