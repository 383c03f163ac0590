"""The stages of dvc.yaml, one module each: read the inputs, call the package, write the outputs."""

import sys
from pathlib import Path

# `dvc exp run --temp` and `--queue` run a stage in a copy of the repository. The stage must import the
# package from that copy, not from the working tree that the environment was installed from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

# The package sets how torch's threads wait, which has no effect once a stage or benchmark has imported torch.
import sentiment  # noqa: F401
