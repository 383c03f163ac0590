"""A missed bar shows in the table and in the exit status."""

import pytest

from bench.bars import Bar, at_least, report_bars
from bench.train import sooner_bar, speed_bars
from bench.training.phases import Phases
from bench.training.reaching import Reached
from bench.training.speed import KERAS, OWN, PACKED, PADDED, PRODUCTS, Turn

HOLDS, MISSED = Bar("one", "2", "≥ 1", holds=True), Bar("other", "0", "≥ 1", holds=False)


@pytest.mark.parametrize(("bars", "status"), [([HOLDS], 0), ([HOLDS, MISSED], 1), ([], 0)], ids=str)
def test_exit_status_is_1_if_a_bar_is_missed(
    bars: list[Bar], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_bars(bars) == status
    assert capsys.readouterr().out.count("| no |") == status


def test_median_is_compared_with_the_bar() -> None:
    assert at_least("speed", [1.0, 5.0, 3.0], 3).holds
    missed = at_least("speed", [1.0, 9.0, 2.9], 3)
    assert not missed.holds
    assert missed.value == "2.90 (1.00 to 9.00)"


def _turn(own: float, other: float, busy: float) -> Turn:
    rates = {OWN: own, PACKED: other, PADDED: other, KERAS: other, PRODUCTS: other}
    return Turn(rates, Phases(forward=busy), seconds=1.0)


def test_speeds_are_compared_within_each_turn() -> None:
    """A machine that slows down in a turn slows all of it; a ratio of medians would mix turns."""
    bars = speed_bars([_turn(40, 10, 0.95), _turn(4, 1, 0.93), _turn(400, 100, 0.5)])
    assert [bar.value for bar in bars[:-1]] == ["4.00 (4.00 to 4.00)"] * 4
    assert [bar.holds for bar in bars] == [False, True, True, True, True]


def _reached(seconds: float, reached: bool = True) -> Reached:
    return Reached(seconds, 0.96 if reached else 0.94, steps=10, reached=reached)


def test_time_to_the_target_is_compared_with_the_fastest_peer() -> None:
    others = {PADDED: _reached(290.0), KERAS: _reached(500.0)}
    assert not sooner_bar(0.95, _reached(100.0), others).holds
    assert sooner_bar(0.95, _reached(90.0), others).holds


def test_stopped_peer_counts_as_slower() -> None:
    bar = sooner_bar(0.95, _reached(100.0), {KERAS: _reached(310.0, reached=False)})
    assert bar.holds
    assert bar.value.startswith("> 3.10")


def test_a_target_not_reached_misses_the_bar() -> None:
    assert not sooner_bar(0.95, _reached(10.0, reached=False), {}).holds
