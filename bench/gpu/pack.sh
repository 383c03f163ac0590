#!/bin/sh
# Writes bench/gpu/pack, which travels to the GPU machine. ARCHIVE=path of the review archive; without it the
# sources of params.yaml are taken, which have no unlabelled reviews.
set -eu
archive=${ARCHIVE:+$(realpath "$ARCHIVE")}
cd "$(dirname "$0")/../.."
if [ -x .venv/bin/python ]; then PYTHON=${PYTHON:-.venv/bin/python}; fi
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m bench.gpu.pack ${archive:+--archive "$archive"} "$@"
