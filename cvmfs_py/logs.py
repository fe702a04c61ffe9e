"""Where log records go: warnings to standard error, everything to standard error with --debug, tracebacks to a file."""

from __future__ import annotations

import logging
import os
import re
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py.places import TEMPORARY, can_be_used, find_stranger, state_directory

if TYPE_CHECKING:
    from typing import TextIO

_SYSTEM = Path("/var/log")
LIMIT_BYTES = 1 << 20
KNOWN = {"is_known": True}  # `extra` of a record: the user has been told today, the log gets it all the same
_MENDERS = frozenset({"cvmfs_py.driver", "cache.directory", "cache.memory", "cache.tiers"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainFormatter(logging.Formatter):
    """Text for people: what servers sent and files are called must not move the cursor of a terminal."""

    def __init__(self, prefix: str, layout: str) -> None:
        super().__init__(layout)
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        return self._prefix + _CONTROL.sub("?", super().format(record))


def start(*, debug: bool) -> None:
    """Sets the logging up for one command."""
    handler = logging.StreamHandler(sys.stderr)
    erase = "\r\033[K" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else ""  # a line of progress
    layout = "%(asctime)s %(levelname)s %(name)s: %(message)s" if debug else "cvmfs-py: %(message)s"
    handler.setFormatter(PlainFormatter(erase, layout))
    if not debug:
        handler.addFilter(_is_news)
    # A server that was left for another one is no news while the other answers; if none does, the error names all.
    start_with([handler], debug=debug, network_level=logging.ERROR)


def start_with(handlers: list[logging.Handler], *, debug: bool, network_level: int = logging.WARNING) -> None:
    """Sends records to these handlers instead, warnings and worse, or everything of this program."""
    root = logging.getLogger()
    root.handlers[:] = handlers or [logging.NullHandler()]
    root.setLevel(logging.WARNING)
    logging.getLogger("cvmfs_py.network").setLevel(logging.DEBUG if debug else network_level)
    for package in ("cvmfs_py", "cache", "catalog"):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.WARNING)


def never_wait() -> None:
    """For a daemon that stays in the foreground: what standard error does not take at once is lost."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            handler.setStream(_Unread(sys.stderr))


class _Unread:
    """A stream that perhaps nobody reads."""

    def __init__(self, stream: TextIO) -> None:
        self._fd = stream.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        self._lost = 0

    def write(self, text: str) -> None:
        if self._lost and self._pass(_lost_lines(self._lost)):
            self._lost = 0
        if not self._pass(text):
            self._lost += 1

    def flush(self) -> None:
        """Nothing is kept back."""

    def _pass(self, text: str) -> bool:
        """Writes no more at a time than fits into what calls itself ready. False: not all was taken."""
        data = text.encode(errors="backslashreplace")
        try:
            for start in range(0, len(data), select.PIPE_BUF):
                if not self._poll.poll(0):
                    return False
                os.write(self._fd, data[start : start + select.PIPE_BUF])
        except OSError:  # nobody will ever read it
            return False
        return True


def _lost_lines(count: int) -> str:
    lines, verb, them = ("line", "is", "it") if count == 1 else ("lines", "are", "them")
    return f"cvmfs-py: {count} {lines} {verb} missing here: nobody has read {them} in time\n"


def _is_news(record: logging.LogRecord) -> bool:
    """A damaged copy in the cache is fetched again; only if that fails has somebody to know, and the error says so."""
    if is_known(record):
        return False
    return record.levelno >= logging.ERROR or record.name not in _MENDERS


def is_known(record: logging.LogRecord) -> bool:
    """Whether it is for logs only."""
    return bool(getattr(record, "is_known", False))


def log_path() -> Path:
    """The file for tracebacks: /var/log/cvmfs-py.log for root, else among this user's logs."""
    user_id = os.geteuid()
    if user_id == 0 and can_be_used(_SYSTEM):
        return _SYSTEM / "cvmfs-py.log"
    return state_directory(os.environ, user_id) / "cvmfs-py.log"


def write_traceback(error: BaseException) -> None:
    """Appends a traceback to the log file; what cannot be written is lost, because nobody could be told."""
    import contextlib
    import datetime
    import traceback

    path = log_path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.parent == TEMPORARY and find_stranger(path.parent, os.geteuid()) is not None:
            return  # somebody else could have put a link there
        if path.exists() and path.stat().st_size > LIMIT_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{datetime.datetime.now(datetime.UTC).isoformat()} {' '.join(sys.argv)}\n")
            stream.writelines(traceback.format_exception(error))
