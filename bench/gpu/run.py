"""Measure the CUDA path: equality, speed, predict, quality; print one table, write one JSON file.

Each part runs in its own process and gets what time is left, so that one that fails, crashes or hangs
costs the others nothing: what it measured until then stands in the table.
"""

import argparse
import json
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.bars import Bar, report_bars
from bench.gpu import packed
from bench.gpu.context import read_rows
from sentiment.errors import UserError, exits_cleanly
from sentiment.files import write_json

logger = logging.getLogger(__name__)


SECONDS, SMOKE_SECONDS = 460.0, 165.0
"""With the start and the end, eight minutes and three."""
LEAST = {"equality": 0.0, "speed": 0.15, "predict": 0.08, "quality": 0.3}
"""Share of the remaining time for each part; the last one gets all of it."""
RESULT = Path(__file__).parent / "results" / "gpu.json"


@dataclass(frozen=True)
class Measured:
    """What one part reported, and how long it took."""

    bars: list[Bar]
    notes: dict[str, Any]
    seconds: float


@exits_cleanly
def main(parts: list[str], folder: Path, out: Path, seconds: float, smoke: bool, check: bool) -> None:
    """Run the parts; exit with 1 if a bar is missed or a part failed, with 2 if nothing can run.

    check: only find out whether there is a CUDA device.
    """
    facts = machine()
    if not smoke and "device" not in facts:
        raise UserError("torch finds no CUDA device here; bench/gpu/run.sh --smoke does the same on the CPU")
    if check:
        return
    packed.Pack.open(folder, smoke=smoke)  # raises where it is not complete
    logger.info(json.dumps(facts))
    deadline = time.monotonic() + seconds
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as scratch:
        for number, part in enumerate(parts):
            kept = seconds * sum(LEAST[later] for later in parts[number + 1 :])
            limit = deadline - time.monotonic() - kept
            measured[part] = measure_part(part, folder, Path(scratch), limit, smoke)
            _write(out, facts, smoke, measured)  # after each part, in case this process is killed
    raise SystemExit(report_bars([bar for result in measured.values() for bar in result.bars]))


def machine() -> dict[str, Any]:
    """Describe the machine that is measured, in a separate process: a broken driver may crash it."""
    asked = (
        "import json, torch\n"
        "facts = {'torch': torch.__version__, 'cuda': torch.version.cuda}\n"
        "if torch.cuda.is_available():\n"
        "    found = torch.cuda.get_device_properties(0)\n"
        "    facts |= {'device': found.name, 'memory_gb': round(found.total_memory / 1e9, 1),\n"
        "              'capability': f'{found.major}.{found.minor}',\n"
        "              'cudnn': torch.backends.cudnn.version()}\n"
        "print(json.dumps(facts))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"cannot import or use torch: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "processor": platform.machine(),
        **json.loads(done.stdout),
    }


def measure_part(part: str, folder: Path, scratch: Path, limit: float, smoke: bool) -> Measured:
    """Run a part to its end or to its limit, in its own process group."""
    rows = scratch / f"{part}.jsonl"
    started = time.monotonic()
    if limit < 1:
        return Measured([_failed(part, "no time left")], {}, 0.0)
    command = [sys.executable, "-m", "bench.gpu.part", part, "--pack", str(folder), "--folder", str(scratch)]
    command += ["--rows", str(rows), "--seconds", f"{limit - 1:.1f}", *(["--smoke"] if smoke else [])]
    logger.info(f"part {part}: at most {limit:.0f} s")
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(timeout=limit)
        ended = [] if status == 0 else [_failed(part, f"exit status {status}")]
    except subprocess.TimeoutExpired:
        ended = [_failed(part, f"stopped after {limit:.0f} s")]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    bars, notes = read_rows(rows)
    return Measured([*bars, *ended], notes, time.monotonic() - started)


def _failed(part: str, why: str) -> Bar:
    return Bar(f"part {part}", why, "ends by itself", holds=False)


def _write(out: Path, facts: dict[str, Any], smoke: bool, measured: dict[str, Measured]) -> None:
    content = {
        "machine": facts,
        "smoke": smoke,
        "parts": {
            part: {
                "seconds": round(result.seconds, 1),
                "rows": [asdict(bar) for bar in result.bars],
                "notes": result.notes,
            }
            for part, result in measured.items()
        },
    }
    write_json(out, content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="the same on the CPU, small, in three minutes")
    parser.add_argument("--check", action="store_true", help="only whether there is a CUDA device")
    parser.add_argument("--parts", nargs="+", choices=LEAST, default=list(LEAST))
    parser.add_argument("--pack", type=Path, default=packed.FOLDER)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--seconds", type=float, help="for all parts together")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # also ends the current part
    default = SMOKE_SECONDS if given.smoke else SECONDS
    main(given.parts, given.pack, given.out, given.seconds or default, given.smoke, given.check)
