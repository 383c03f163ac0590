import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from sentiment import child_processes
from sentiment.child_processes import end_processes

pytestmark = pytest.mark.slow


@pytest.fixture
def ignored() -> Iterator[None]:
    """SIGINT is ignored, as in the background."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, handler)


def _start(script: str) -> tuple["subprocess.Popen[bytes]", list[psutil.Process]]:
    """Start a shell, and wait until the process that it starts runs; return both, and that process."""
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    return process, psutil.Process(process.pid).children(recursive=True)


def test_child_processes_end_at_ctrl_c_and_their_output_is_returned() -> None:
    process, children = _start("trap 'echo interrupted' INT; sleep 300 & echo started; wait; kill $!; exit 3")
    assert len(children) == 1
    assert end_processes(process, are_told=False) == b"interrupted\n"
    assert process.returncode == 3
    assert not psutil.wait_procs(children, timeout=10)[1]


@pytest.mark.usefixtures("ignored")
def test_child_processes_that_ignore_ctrl_c_are_terminated() -> None:
    process, children = _start("sleep 300 & echo started; wait")
    end_processes(process, are_told=False)
    assert process.returncode == -signal.SIGTERM
    assert not psutil.wait_procs(children, timeout=10)[1]


def test_child_processes_that_ignore_all_signals_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_processes, "END_S", 0.2)
    process, children = _start("trap '' INT TERM; sleep 300 & echo started; wait")
    end_processes(process, are_told=True)
    assert process.returncode == -signal.SIGKILL
    assert not psutil.wait_procs(children, timeout=10)[1]
