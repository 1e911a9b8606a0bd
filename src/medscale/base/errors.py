"""The error that users see: what is wrong, where, and what to do; any other exception is a bug."""

from __future__ import annotations

import atexit
import errno
import gc
import logging
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from medscale.base.text import terminal

P = ParamSpec("P")
R = TypeVar("R")

EXIT_USER = 2
EXIT_INTERRUPTED = 130  # as shells report Ctrl-C
FAULT = "a fault of medscale itself"  # precedes a traceback in the log of a job
# Set in the environment of jobs while the progress of a study is displayed. Jobs with a log file
# then print nothing.
QUIET_VARIABLE = "MEDSCALE_QUIET_JOBS"
_SPACE = "free some space on this disk (df), or name another folder by workdir or TMPDIR"
_RIGHTS = "make the folder writable, or name another one by workdir or TMPDIR"
_RESUMPTION = "finished outputs are kept"
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # NumPy's text for a full disk
_STORAGE = {
    errno.ENOSPC: ("No space left on device", _SPACE),
    errno.EDQUOT: ("Disk quota exceeded", _SPACE),
    errno.EFBIG: ("File too large", _SPACE),
    errno.EROFS: ("Read-only file system", _RIGHTS),
    errno.EACCES: ("Permission denied", _RIGHTS),
    errno.ENAMETOOLONG: ("File name too long", "shorten the path"),
    "temporary": ("No usable temporary directory found", _SPACE),
}


class MedscaleError(Exception):
    """Bad input, a missing prerequisite or a failed run; its message is all that a user sees."""


class Stopped(MedscaleError):
    """A run was asked to stop and has saved a checkpoint; the same command continues it."""


class LogFile(logging.FileHandler):
    """A log file that reports a full disk once, instead of by a traceback for each line."""

    is_incomplete = False  # whether a line could not be written

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that the file cannot be written; another error is printed with its traceback."""
        error = sys.exc_info()[1]
        fault = None if error is None else storage_fault(error)
        if fault is None:
            super().handleError(record)
        elif not self.is_incomplete:
            text = terminal(f"medscale: {self.baseFilename} cannot be written: {fault}")
            print(text, file=sys.stderr, flush=True)
        self.is_incomplete = True


def tell_user(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that a MedscaleError is printed as one message and exits with status 2."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        end_quickly()
        try:
            return command(*args, **kwargs)
        except MedscaleError as error:
            message = str(error)
        except Exception as error:
            if (fault := storage_fault(error)) is None:
                _log_file(FAULT, error)
                raise
            message = fault
        print_error(message)
        raise SystemExit(EXIT_USER)

    return wrapper


def print_error(message: object) -> None:
    """Print an error on stderr as users see it, and append it to the log file of a job.

    Control characters in it, as in file names, are escaped. While the progress of a study is
    displayed, the display shows the error from the log, and nothing is printed.
    """
    text = f"medscale: error: {terminal(str(message), lines=True)}"
    if not (_log_file(text) and QUIET_VARIABLE in os.environ):
        print(text, file=sys.stderr, flush=True)


def _log_file(text: str, error: BaseException | None = None) -> bool:
    """Append a text and an error's traceback to the log file; return whether it was written."""
    logger = logging.getLogger("medscale")
    files = [h for h in logger.handlers if isinstance(h, LogFile)]
    details = None if error is None else (type(error), error, error.__traceback__)
    record = logger.makeRecord(logger.name, logging.ERROR, "", 0, text, (), details)
    for handler in files:
        handler.handle(record)
    return any(not handler.is_incomplete for handler in files)


def storage_fault(error: BaseException) -> str | None:
    """Return one sentence on a full or read-only disk or a long name; None for another error.

    Libraries in other languages raise their own classes of errors, so their text is searched for
    that of the system. On a full disk, some (Matplotlib) raise a second error while they close the
    file; therefore the causes of an error are searched, too.
    """
    fault = _storage_fault(error)
    earlier = [error]  # the error and its causes so far; two errors can be causes of each other
    while fault is None and (cause := earlier[-1].__cause__ or earlier[-1].__context__):
        if cause in earlier:
            break
        text = _storage_fault(cause)
        fault = text if text is not None and _SPACE in text else None
        earlier.append(cause)
    return fault


def _storage_fault(error: BaseException) -> str | None:
    """Return the sentence on an error itself; its causes are not searched."""
    if isinstance(error, OSError) and _SHORT_WRITE.fullmatch(str(error)):
        return f"no space left on device; {_SPACE}, and start again: {_RESUMPTION}"
    number = getattr(error, "errno", None)
    # Of two files, as of a copy, the second is written.
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    for fault, (text, advice) in _STORAGE.items():
        if number == fault or text in str(error):
            place = f"{name}: " if name else ""
            return f"{place}{text.lower()}; {advice}, and start again: {_RESUMPTION}"
    return None


def end_quickly() -> None:
    """Skip the garbage collection at the end of this process: with torch it takes a second."""
    atexit.register(gc.freeze)
