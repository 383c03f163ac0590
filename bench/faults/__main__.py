"""`dvc repro` of a small cut, hit by faults and restarted until it ends like a run without faults.

- kills: 20 runs with 5 SIGKILLs each to DVC and stage, in each stage at its start, in its middle and while it
  writes outputs, and while DVC works between stages.
- disk: 20 runs that find the disk full at such a moment, on a tmpfs; where none can be mounted, every file is
  too large.
- server: 10 runs whose MLflow server is killed and started again.

A run holds where it ends with the same dvc.lock, outputs, metrics and study, and each run once in MLflow.
`--parts kills --only 17` plays case 17 of the kills alone; the output of its commands is in the folder
that is named at the end.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from bench.bars import Bar, report_bars
from bench.faults.cases import Case, play_disk, play_kills, play_server
from bench.faults.moments import Moment, dealt, strata
from bench.faults.project import Faulted
from bench.faults.reference import Reference
from bench.small import ROOT
from sentiment.errors import exits_cleanly

logger = logging.getLogger(__name__)


SEED = 1
LANES = 2
"""Cases side by side: each is one process with one thread for most of its time."""

PLAY: dict[str, Callable[[Case, Reference, Path], None]] = {
    "kills": play_kills,
    "disk": play_disk,
    "server": play_server,
}
TRACKED = ("train", "tune", "evaluate")
"""Stages that talk to the tracking server."""


def cases_of(part: str, stages: list[str], seed: int) -> list[Case]:
    """Return a part's cases, the same for the same seed."""
    match part:
        case "kills":
            hands = dealt(strata(stages, 5, seed), 4 * len(stages), seed)
        case "disk":
            hands = [[replace(moment, at_once=True)] for moment in strata(stages, 1, seed)]
        case _:
            talking = [moment for moment in strata(stages, 1, seed) if moment.stage in TRACKED]
            within = [moment for moment in talking if moment.kind != "between"]
            again = Moment("tune", "middle", f"{seed}/again")
            hands = [[moment] for moment in (*within, again)]
    return [Case(part, number, hand) for number, hand in enumerate(hands)]


def play(case: Case, reference: Reference, folder: Path) -> None:
    """Run a case in its own folder, which is retained if it fails; the log is always retained."""
    root = folder / f"{case.part}-{case.number}"
    start = time.monotonic()
    try:
        PLAY[case.part](case, reference, root)
    except Exception:  # the other cases continue
        case.problems.append(traceback.format_exc())
    case.seconds = time.monotonic() - start
    root.with_suffix(".log").write_text("\n".join([str(case), *case.log, "# problems", *case.problems]))
    if not case.problems:
        shutil.rmtree(root)
    ending = "holds" if not case.problems else "\n    ".join(["FAILS", *case.problems])
    logger.info(f"{case}: {case.seconds:.0f} s, {case.repairs} repairs, {ending}")


def bars(cases: Sequence[Case]) -> list[Bar]:
    """Return a row for each kind of fault and stage: the number of faults in runs that hold."""
    met, held = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for case in cases:
        for moment in case.moments:
            met[case.part, moment.stage] += 1
            held[case.part, moment.stage] += not case.problems
    rows = [
        Bar(f"{part}, {stage}", str(held[part, stage]), str(count), held[part, stage] == count)
        for (part, stage), count in met.items()
    ]
    value, bar = held.total(), met.total()
    return [*rows, Bar("faults in total", str(value), str(bar), value == bar)]


@exits_cleanly
def main(parts: Sequence[str], only: Sequence[int], sample: int | None, seed: int) -> None:
    """Run the cases, print a table; exit with 1 if a case fails."""
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="bench-faults-"))
    stages = Faulted(ROOT).stages()
    cases = [case for part in parts for case in cases_of(part, stages, seed)[:sample]]
    chosen = [case for case in cases if not only or case.number in only]
    logger.info(
        f"{len(chosen)} runs, {sum(len(case.moments) for case in chosen)} faults, seed {seed}, in {folder}"
    )
    reference = Reference.measured(folder / "reference")
    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(lambda case: play(case, reference, folder), chosen))
    status = report_bars(bars(chosen))
    repairs = sum(case.repairs for case in chosen)
    print(
        f"\n{(time.monotonic() - start) / 60:.1f} minutes, {repairs} times `sentiment repair`; logs: {folder}"
    )
    sys.exit(status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m bench.faults",
    )
    parser.add_argument("--parts", nargs="+", choices=PLAY, default=list(PLAY))
    parser.add_argument("--only", nargs="+", type=int, default=(), help="numbers of the cases to play")
    parser.add_argument("--sample", type=int, help="largest number of cases per part")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    main(arguments.parts, arguments.only, arguments.sample, arguments.seed)
