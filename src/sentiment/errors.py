"""What can go wrong through no fault of the code, said to the person at the keyboard."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from sentiment.logs import configure_logging

Arguments = ParamSpec("Arguments")


class UserError(Exception):
    """Something that the user can put right: a parameter, a file, an address."""

    exit_status = 2


class TrainingDivergedError(UserError):
    """The loss or a gradient stopped being a finite number."""

    exit_status = 3


def exits_cleanly(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Turn what a user can mend into one message on standard error and an exit status, no traceback."""

    @functools.wraps(main)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        configure_logging()
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_status) from None
        except OSError as error:  # a full disk, a folder without permission: the message names the file
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(UserError.exit_status) from None
        except KeyboardInterrupt:
            print("interrupted: nothing half written was left behind", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped
