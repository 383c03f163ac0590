"""Errors that the user can fix, and their translation into one message at the end of a command."""

import errno
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec

Arguments = ParamSpec("Arguments")

DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}
"""System error numbers: no space on the device, or the disk quota is exceeded."""

INTERRUPTED_STATUS = 130
"""Exit status after Ctrl-C, as that of a shell: 128 and the number of SIGINT."""


class UserError(Exception):
    """An error that the user can fix: an invalid parameter, a missing file, an unreachable server."""

    exit_status = 2


class TrainingDivergedError(UserError):
    """The loss or a gradient is not a finite number."""

    exit_status = 3


Translator = Callable[[BaseException], UserError | None]
"""Function that returns the error to report in place of an exception, or None if it does not handle it."""

_translators: list[Translator] = []


def register_translator(translator: Translator) -> Translator:
    """Register a function that translates a library's exceptions; usable as a decorator.

    A module that uses a library registers the translator of its exceptions, so that this module imports none
    of them.
    """
    _translators.append(translator)
    return translator


def translate(error: BaseException) -> UserError | None:
    """Return the error to report in place of an exception.

    Args:
        error: exception as raised, with its traceback.

    Returns:
        The exception itself if it is a UserError; None if it is a bug, whose traceback is worth printing.
    """
    if isinstance(error, UserError):
        return error
    for translator in _translators:  # before OSError, of which some libraries' exceptions are subclasses
        if translated := translator(error):
            return translated
    if isinstance(error, OSError):
        if error.errno in DISK_FULL_ERRORS:
            return UserError(f"the disk is full: {error}; free some space and start the same command again")
        return UserError(str(error))  # names the file if the system call has one
    return None


@contextmanager
def translated_errors() -> Iterator[None]:
    """Convert every exception that `translate` handles to a UserError."""
    try:
        yield
    except Exception as error:
        if (translated := translate(error)) is error or translated is None:
            raise
        raise translated from None


def find_raising_library(error: BaseException, *libraries: str) -> str | None:
    """Return the innermost of some libraries in an exception's traceback, or None if none is in it.

    Two libraries may raise the same exceptions, such as those of SQLAlchemy below both MLflow and Optuna.
    """
    innermost = None
    traceback = error.__traceback__
    while traceback is not None:
        package = _get_top_level_package(traceback.tb_frame)
        innermost = package if package in libraries else innermost
        traceback = traceback.tb_next
    return innermost


def _get_top_level_package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def exits_cleanly(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Decorate the entry point of a command or a stage: configure logging, report errors in one message.

    An error that the user can fix goes to standard error without a traceback, and the process exits with the
    error's status; after Ctrl-C it exits with 130.
    """

    @functools.wraps(main)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        from sentiment.logs import configure_logging  # its settings import this module

        try:
            configure_logging()
            with translated_errors():
                main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_status) from None
        except KeyboardInterrupt:
            print("interrupted; output files are complete or unchanged", file=sys.stderr)
            raise SystemExit(INTERRUPTED_STATUS) from None

    return wrapped
