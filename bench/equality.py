"""Compare what two commits train: every tensor of the baseline and tuned model, and every draw of the search.

Each commit runs `dvc repro` on its own small cut of the reviews (`bench.small`), one after the other.
For a refactoring that must not change a result:

    python -m bench.equality main my-branch
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file

from bench.small import inherited
from sentiment.errors import UserError, exits_cleanly

ROOT = Path(__file__).parents[1]
CANDIDATES = ("baseline", "tuned")
COPY = "import pathlib, sys, bench.small; bench.small.copy_repository(pathlib.Path(sys.argv[1]))"

Weights = dict[str, NDArray[np.generic]]


@exits_cleanly
def main(commits: list[str]) -> None:
    """Print the comparison; exit with 1 if anything differs."""
    with tempfile.TemporaryDirectory(prefix="bench-equality-") as temporary:
        runs = [_run(commit, Path(temporary) / str(number)) for number, commit in enumerate(commits)]
    (old_weights, old_draws), (new_weights, new_draws) = runs
    print("| compared | equal |\n| --- | --- |")
    differs = False
    for candidate in CANDIDATES:
        old, new = old_weights[candidate], new_weights[candidate]
        equal = [name for name in old if name in new and _is_equal(old[name], new[name])]
        print(f"| tensors of {candidate} | {len(equal)} of {len(old.keys() | new.keys())} |")
        differs |= len(equal) != len(old.keys() | new.keys())
    equal_draws = int((old_draws == new_draws).to_numpy().sum()) if old_draws.shape == new_draws.shape else 0
    print(f"| draws of {len(old_draws)} trials | {equal_draws} of {old_draws.size} |")
    raise SystemExit(differs or equal_draws != old_draws.size)


def _run(commit: str, folder: Path) -> tuple[dict[str, Weights], pd.DataFrame]:
    """Run the pipeline of a commit; return each candidate's weights, and what each trial drew."""
    checkout, project = folder / "checkout", folder / "project"
    _call("git", "clone", "--quiet", "--no-checkout", str(ROOT), str(checkout))
    _call("git", "checkout", "--quiet", _call("git", "rev-parse", commit, cwd=ROOT).strip(), cwd=checkout)
    project.mkdir()
    _call(sys.executable, "-c", COPY, str(project), cwd=checkout, PYTHONPATH=f"{checkout}:{checkout / 'src'}")
    _call("dvc", "init", "--quiet", "--force", cwd=project)
    _call("dvc", "repro", cwd=project, PYTHONPATH=str(project / "src"))
    weights = {
        candidate: load_file(project / "models" / candidate / "model.safetensors") for candidate in CANDIDATES
    }
    trials = pd.read_csv(project / "reports" / "tune.csv", index_col="trial")
    return weights, trials[[name for name in trials.columns if "." in name]]


def _call(*command: str, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**inherited(), **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(
            f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def _is_equal(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    main(parser.parse_args().commits)
