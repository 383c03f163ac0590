"""Selection of the executor by the environment."""

from collections.abc import Iterator
from contextlib import contextmanager

from sentiment.errors import UserError
from sentiment.params import Params
from sentiment.settings import load_settings
from sentiment.tuning.executors.executor import Executor
from sentiment.tuning.executors.in_process import InProcess
from sentiment.tuning.executors.processes import Processes, count_workers


@contextmanager
def open_executor(params: Params) -> Iterator[Executor]:
    """Open what the environment selects: the cluster in `RAY_ADDRESS`, or `TUNE_WORKERS` processes.

    All checks are made here, before any work starts.

    Args:
        params: all parameters of params.yaml.

    Raises:
        UserError: both variables are set, or the cluster cannot be used.
    """
    settings = load_settings()
    if settings.ray_address is None:
        workers = count_workers(params)
        yield InProcess() if workers == 1 else Processes(workers)
        return
    if settings.tune_workers is not None:
        raise UserError(
            "TUNE_WORKERS and RAY_ADDRESS are both set, but trials run either in processes on this machine "
            "or on a Ray cluster: unset one of them, in the environment or in .env"
        )
    from sentiment.tuning.executors.on_ray import open_ray_executor  # Ray is an optional extra

    with open_ray_executor(params, settings) as executor:
        yield executor
