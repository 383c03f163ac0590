"""One module per stage of dvc.yaml: read, call, write."""

import sys
from pathlib import Path

# `dvc exp run --temp` and `--queue` run a stage in a copy of the repository. The stage must take the package
# from that copy, not from the working tree that the environment was installed from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

# Sets how torch's threads wait, before a stage or a benchmark imports torch.
import sentiment  # noqa: F401
