"""Where a daemon writes what nobody reads on a terminal: a log file of its mount, and the system's log.

The file gets everything, also what the interpreter or a library writes to standard error; it is rotated once it is
large, and one old file is kept. The system's log gets warnings and errors, where there is one. What cannot be written
is lost: a daemon neither ends nor waits because of its log.
"""

from __future__ import annotations

import hashlib
import logging
import logging.handlers
import os
import re
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cvmfs_py import logs
from cvmfs_py.fuse.mountinfo import real_path
from cvmfs_py.own_mounts import resolve_until
from cvmfs_py.places import TEMPORARY, find_stranger, state_directory

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_log = logging.getLogger(__name__)
LIMIT_BYTES = 1 << 20  # of a file; there are two
SYSLOG = "/dev/log"
_SYSTEM = Path("/var/log/cvmfs-py")
_FACILITY_DAEMON = 3 << 3
_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4))
_NAME_LIMIT = 200
_TAIL_BYTES = 8 << 10


@dataclass(frozen=True, slots=True)
class LogPlace:
    """The log of one mount."""

    path: bytes | None  # None: there is no place for a file
    debug: bool = False
    syslog: str = SYSLOG

    def last_line(self) -> str:
        """The end of the file, for somebody who asks why a daemon is gone."""
        if self.path is None:
            return ""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
                lines = stream.read(_TAIL_BYTES).split(b"\n")
        except OSError:
            return ""
        return next((line.decode("utf-8", "replace") for line in reversed(lines) if line.strip()), "")


def choose_log(mountpoint: bytes, environment: Mapping[str, str], user_id: int, *, debug: bool = False) -> LogPlace:
    """The log of a mount point; its directory is made, anywhere but below the mount."""
    place = real_path(os.fsdecode(mountpoint))
    hidden: Path | None = None
    for directory in log_directories(environment, user_id):
        if resolve_until(directory, (place,))[1] is not None:
            hidden = directory
            continue
        with suppress(OSError):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if directory.parent == TEMPORARY and find_stranger(directory, user_id) is not None:
                continue  # somebody else could have put a link there
            if os.access(directory, os.W_OK | os.X_OK):
                return LogPlace(os.path.join(os.fsencode(directory), log_name(mountpoint)), debug)
    if hidden is not None:
        _log.warning("no log file is kept: %s lies below the mountpoint %s", hidden, place)
    return LogPlace(None, debug)


def log_name(mountpoint: bytes) -> bytes:
    """A file name that people recognise, another one for each mount point: /cvmfs/a.b is cvmfs-a.b.log."""
    name = re.sub(rb"[^A-Za-z0-9._/]", lambda found: b"%%%02X" % found[0][0], mountpoint.strip(b"/")).replace(
        b"/", b"-"
    )
    if len(name) > _NAME_LIMIT:
        name = name[:_NAME_LIMIT] + b"." + hashlib.sha256(mountpoint).hexdigest()[:16].encode()
    return (name or b"root").replace(b"..", b".%2E") + b".log"


def log_directories(environment: Mapping[str, str], user_id: int) -> list[Path]:
    """In the order of preference. Root of a user namespace may not write to the system's, and goes on as a user."""
    own = state_directory(environment, user_id)
    return [_SYSTEM, own] if user_id == 0 else [own]


def start(place: LogPlace, stream_fds: Collection[int] = ()) -> None:
    """Sends the records of this process to its logs, and what is written to these descriptors into the file."""
    handlers: list[logging.Handler] = []
    if place.path is not None:
        with suppress(OSError):
            handlers.append(_File(os.fsdecode(place.path), stream_fds))
    if os.path.exists(place.syslog):
        handlers.append(_SystemLog(place.syslog))
    logs.start_with(handlers, debug=place.debug)


def finish() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    logging.shutdown()


class _File(logging.handlers.RotatingFileHandler):
    """A file that other descriptors lead to as well, also after it was rotated."""

    def __init__(self, path: str, stream_fds: Collection[int]) -> None:
        super().__init__(path, maxBytes=LIMIT_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logs.PlainFormatter("", "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"))
        self._stream_fds = tuple(stream_fds)
        self._lead_streams()

    def doRollover(self) -> None:
        super().doRollover()
        self._lead_streams()

    def handleError(self, record: logging.LogRecord) -> None:
        del record  # a full disk: nobody could be told

    def _lead_streams(self) -> None:
        if self.stream is not None:
            for fd in self._stream_fds:
                os.dup2(self.stream.fileno(), fd)


class _SystemLog(logging.Handler):
    """RFC 3164 over the local socket, without ever waiting for whoever reads it."""

    def __init__(self, path: str) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logs.PlainFormatter("", f"cvmfs-py[{os.getpid()}]: %(message)s"))
        self._path = path
        self._socket: socket.socket | None = None

    def emit(self, record: logging.LogRecord) -> None:
        severity = next((number for level, number in _SEVERITIES if record.levelno >= level), 6)
        line = f"<{_FACILITY_DAEMON | severity}>{self.format(record)}".replace("\n", " ")
        data = line.encode("utf-8", "replace")[:_TAIL_BYTES]
        for _ in range(2):  # it may have been started anew since the last record
            try:
                if self._socket is None:
                    self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                    self._socket.connect(self._path)
                self._socket.send(data)
            except BlockingIOError:
                return
            except OSError:
                self._disconnect()
            else:
                return

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
