"""Runs with faults: each is restarted until it ends, then compared with a run without faults."""

import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults.disk import small_disk
from bench.faults.moments import Moment
from bench.faults.project import PATIENCE_S, REPRO, Faulted, kill
from bench.faults.reference import Reference
from bench.small import copy_repository
from bench.tracking_server import tracking_server

REPAIR = ("sentiment", "repair")
CHECK = ("sentiment", "check")
HINT = "sentiment repair"

TRIES = 3
"""Starts of the pipeline after the last fault: one, and one more for each repair that it needs."""

TRACEBACK = "Traceback (most recent call last)"
STORE_ERROR = "Cannot reach the MLflow tracking store ("
NO_SPACE = ("No space left", "File too large", "disk is full", "disk I/O error", "ENOSPC", "os error 28")
"""How Python, sqlite, Arrow and tokenizers report a full disk or a file above its size limit."""


@dataclass
class Case:
    """One run of the pipeline, the faults injected into it, and the result."""

    part: str
    number: int
    moments: list[Moment]
    problems: list[str] = field(default_factory=list)
    """Empty: the case holds."""
    repairs: int = 0
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.part} {self.number} ({'; '.join(map(str, self.moments))})"


Strike = Callable[[subprocess.Popen[bytes]], object]


def play_kills(case: Case, reference: Reference, root: Path) -> None:
    """Kill the whole process group at each moment."""
    copy_repository(root)
    project = Faulted(root, log=case.log)
    for moment in case.moments:
        if _struck(case, project, moment, reference, kill):
            project.note(f"killed at {moment}", "SIGKILL")
    _finish(case, project, reference)


def play_disk(case: Case, reference: Reference, root: Path) -> None:
    """Fill the disk at each moment; once the run has failed because of it, free space."""
    with small_disk(root) as disk:
        copy_repository(root / "project")
        project = Faulted(root / "project", log=case.log)
        for moment in case.moments:
            if _struck(case, project, moment, reference, disk.fill):
                _require_failure(case, project, moment, NO_SPACE)
            disk.make_room()
        _finish(case, project, reference)


def play_server(case: Case, reference: Reference, root: Path) -> None:
    """Kill the tracking server at each moment; once the run has failed because of it, restart the server."""
    root.mkdir()
    with tracking_server(root / "server", root / "server.log") as server:
        copy_repository(root / "project")
        places = {"MLFLOW_TRACKING_URI": server.address}
        project = Faulted(root / "project", places, case.log, server.address)
        for moment in case.moments:
            if _struck(case, project, moment, reference, lambda _: server.kill()):
                _require_failure(case, project, moment, (STORE_ERROR,))
            server.kill()
            server.start()
        _finish(case, project, reference)


def _struck(case: Case, project: Faulted, moment: Moment, reference: Reference, strike: Strike) -> bool:
    """Start the pipeline and strike at a moment; if it cannot start, run the repair that check names first.

    Only the function that injects the fault touches the process, apart from the final kill.
    """
    for _ in range(2):
        process = project.start(*REPRO)
        try:
            if moment.comes(project, process, reference.timings[moment.stage]):
                strike(process)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE_S)
                project.status = process.returncode
                return True
            status = project.ended(process, f"waiting for {moment}")
        finally:
            kill(process)
        if status == 0 or not _repaired(case, project):
            break
    case.problems.append(f"{moment}: the moment did not come")
    return False


def _require_failure(case: Case, project: Faulted, moment: Moment, causes: tuple[str, ...]) -> None:
    """Require that the run stopped, with the cause in a message and no traceback."""
    project.note(f"struck at {moment}", str(project.status))
    output = project.output()
    if project.status in (0, None):
        case.problems.append(f"{moment}: it did not stop (status {project.status})")
    elif not any(cause in output for cause in causes):
        case.problems.append(f"{moment}: no message names the cause: {output[-300:]!r}")
    if TRACEBACK in output:
        case.problems.append(f"{moment}: a traceback")


def _repaired(case: Case, project: Faulted) -> bool:
    """Return whether check names the command that repairs the repository, and that command succeeds."""
    project.run(*CHECK)
    if HINT not in project.output():
        return False
    case.repairs += 1
    return project.run(*REPAIR) == 0


def _finish(case: Case, project: Faulted, reference: Reference) -> None:
    """Start the pipeline until it succeeds, then compare."""
    for _ in range(TRIES):
        if project.run(*REPRO) == 0:
            case.problems += reference.differences(project)
            return
        if not _repaired(case, project):
            break
    case.problems.append(f"it does not end: {case.log[-2][-400:]!r}")
