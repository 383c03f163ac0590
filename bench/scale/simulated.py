"""What limits searches with many workers: a table of simulated ones."""

from dataclasses import replace

from bench.bars import Bar
from bench.processes import in_fresh_process
from bench.scale.driver_costs import DriverCosts, Linear, measure_driver_costs
from bench.scale.simulation import Outcome, simulate

WORKERS = (8, 64, 512)
TRIALS_PER_WORKER, MANY_TRIALS_PER_WORKER = 4, 16


def simulated_bars() -> list[Bar]:
    """Measure the driver's operations, simulate searches and print the tables; there is no bar."""
    costs = in_fresh_process(measure_driver_costs)
    _print_costs(costs)
    nothing = Linear(0.0, 0.0)
    free = DriverCosts(nothing, nothing, nothing, write=0.0, track=0.0)
    print(
        "\n| workers | max_parallel | trials | hours | utilisation | driver | journal | MLflow store", end=""
    )
    print(" | journal, requests/s | MLflow, requests/s | waiting for reports | first limit |")
    print("| --- " * 12 + "|")
    no_decisions = replace(costs, decide=free.decide)
    for workers in WORKERS:
        few, many = TRIALS_PER_WORKER * workers, MANY_TRIALS_PER_WORKER * workers
        for parallel, trials, name, used in (
            (workers, few, "", costs),
            (4 * workers, few, "", costs),
            (4 * workers, many, "", costs),
            (workers, few, ", prunings at no cost", no_decisions),
            (workers, few, ", nothing but training", free),
        ):
            outcome = simulate(workers, parallel, trials, used)
            print(_format(workers, f"{parallel}{name}", trials, outcome), flush=True)
    return []


def _print_costs(costs: DriverCosts) -> None:
    print("\n| operation of the driver | ms with 100 trials | ms with 1,000 trials |\n| --- | --- | --- |")
    for name, cost in (
        ("load trials", costs.load),
        ("draw a trial", costs.draw),
        ("decide a pruning", costs.decide),
    ):
        print(f"| {name} | {1e3 * cost(100):.1f} | {1e3 * cost(1000):.1f} |")
    for name, seconds in (
        ("a write to the journal", costs.write),
        ("a request to MLflow's sqlite", costs.track),
    ):
        print(f"| {name} | {1e3 * seconds:.1f} | {1e3 * seconds:.1f} |")


def _format(workers: int, parallel: str, trials: int, outcome: Outcome) -> str:
    cells = [
        str(workers),
        parallel,
        str(trials),
        f"{outcome.seconds / 3600:.2f}",
        f"{outcome.utilisation:.0%}",
        f"{outcome.driver:.0%}",
        f"{outcome.storage:.0%}",
        f"{outcome.tracking:.0%}",
        f"{outcome.storage_requests:.1f}",
        f"{outcome.tracking_requests:.1f}",
        f"{outcome.waiting:.0%}",
        outcome.limit,
    ]
    return f"| {' | '.join(cells)} |"
