"""The standard streams of the process: they are there, and output that cannot be written is an error, told once.

Messages that cannot be written are lost: nobody could be told, and the exit code stays what it is.

Python by itself tells a full disk behind standard output twice, once with a traceback, and gives the first file that is
opened the number of a stream that was closed.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from cvmfs_py.cli.colours import paint_messages, takes_colours
from cvmfs_py.cli.waiting_line import WAITING_LINE, is_terminal
from cvmfs_py.errors import CvmfsError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_SPELLING = "cvmfs-py-spelling"


def _spell(error: UnicodeError) -> tuple[bytes, int]:
    """What the stream's encoding lacks: bytes that were no text as they are, other characters by their number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = [
        bytes((ord(each) - 0xDC00,)) if "\udc80" <= each <= "\udcff" else each.encode("ascii", "backslashreplace")
        for each in error.object[error.start : error.end]
    ]
    return b"".join(parts), error.end


class _Output(io.FileIO):
    """Standard output whose first failure is raised; what comes after it goes nowhere."""

    def __init__(self) -> None:
        super().__init__(1, "wb", closefd=False)
        self._has_failed = False
        self._is_terminal = is_terminal(1)

    def write(self, data: ReadableBuffer, /) -> int:
        if self._has_failed:
            return memoryview(data).nbytes
        if self._is_terminal:
            WAITING_LINE.make_room(bytes(data))
        try:
            return super().write(data)
        except BrokenPipeError:
            self._has_failed = True
            raise
        except OSError as error:
            self._has_failed = True
            raise CvmfsError(f"cannot write to standard output: {error.strerror}") from error


class _Messages(io.FileIO):
    """Standard error, of which nothing depends on being read."""

    def __init__(self) -> None:
        super().__init__(2, "wb", closefd=False)

    def write(self, data: ReadableBuffer, /) -> int:
        text = bytes(data)
        WAITING_LINE.make_room(text)
        if takes_colours(2):
            text = paint_messages(text)
        with suppress(OSError):
            while text and (written := super().write(text)):
                text = text[written:]
        return memoryview(data).nbytes


def guard() -> None:
    """Takes over standard output and standard error; call it before anything is printed or opened."""
    _open_missing()
    line_buffering = sys.stdout is not None and bool(sys.stdout.line_buffering)
    codecs.register_error(_SPELLING, _spell)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output()),
        encoding="utf-8" if sys.stdout is None else sys.stdout.encoding,
        errors=_SPELLING,
        line_buffering=line_buffering,
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Messages()),
        encoding="utf-8" if sys.stderr is None else sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def finish(code: int) -> int:
    """Writes what is left; gives the exit code, which is no longer a success if that fails."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # nobody wants the rest
        return code
    except CvmfsError as error:
        print(f"cvmfs-py: {error}", file=sys.stderr)
        return code or error.exit_code
    return code


def _open_missing() -> None:
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one. Nobody may believe that output which goes nowhere was written.
            os.open(os.devnull, os.O_WRONLY if fd == 2 else os.O_RDONLY)
