"""The parts of bench-faults whose errors could report a pass that is wrong."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from bench.bars import Bar
from bench.faults.__main__ import PLAY, bars, cases_of
from bench.faults.cases import Case
from bench.faults.disk import small_disk
from bench.faults.moments import KINDS, Moment

STAGES = ["download", "tokenize", "train", "tune", "evaluate"]


def test_kills_cover_each_stage_and_moment_in_the_order_of_a_run() -> None:
    cases = cases_of("kills", STAGES, seed=1)
    met = Counter((moment.stage, moment.kind) for case in cases for moment in case.moments)
    assert met == {(stage, kind): 5 for stage in STAGES for kind in KINDS}
    for case in cases:
        order = [(STAGES.index(moment.stage), KINDS.index(moment.kind)) for moment in case.moments]
        assert order == sorted(order)
        between = [moment.stage for moment in case.moments if moment.kind == "between"]
        assert len(between) == len(set(between))
    assert [case.moments for case in cases] == [case.moments for case in cases_of("kills", STAGES, seed=1)]


def test_all_parts_have_the_number_of_faults_of_the_bar() -> None:
    counts = {part: sum(len(case.moments) for case in cases_of(part, STAGES, 1)) for part in PLAY}
    assert counts == {"kills": 100, "disk": 20, "server": 10}


def test_a_case_with_a_problem_holds_for_none_of_its_faults() -> None:
    moments = [Moment("train", "start", "1"), Moment("tune", "start", "1")]
    good, bad = Case("kills", 0, moments[:1]), Case("kills", 1, moments, ["differs"])
    assert bars([good, bad]) == [
        Bar("kills, train", "1", "2", False),
        Bar("kills, tune", "0", "1", False),
        Bar("faults in total", "1", "3", False),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("is_mounted", [True, False])
def test_full_disk_accepts_no_byte_until_space_is_free(tmp_path: Path, is_mounted: bool) -> None:
    with small_disk(tmp_path / "disk", mount=is_mounted) as disk:
        if disk.is_mounted != is_mounted:
            pytest.skip("no tmpfs can be mounted here")
        target = disk.folder / "file"
        command = f"read -r go; printf '%70000s' x > {target}"
        process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        disk.fill(process)
        process.communicate(b"go\n")
        assert process.returncode != 0
        assert not target.exists() or target.stat().st_size < 70000
        disk.make_room()
        target.write_bytes(bytes(70000))
        assert target.stat().st_size == 70000
