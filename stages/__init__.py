"""One module per stage of dvc.yaml: read, call, write."""

import os
import sys
from pathlib import Path

# `dvc exp run --temp` and `--queue` run a stage in a copy of the repository. The stage must take the package
# from that copy, not from the working tree that the environment was installed from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

# Threads of torch wait for each other some thousand times a second, by default in a busy loop. On a core that
# somebody else uses too, that makes training ten times slower; sleeping sooner costs next to nothing where
# nobody does. The OpenMP library reads this when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
