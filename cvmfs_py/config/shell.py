"""One configuration file, evaluated by /bin/sh: the values that its parameters have when the whole file has run.

Every file gets a fresh shell in the directory of the file and in an environment that the caller makes; the environment
of this process is neither read nor changed. The values come back over a descriptor of their own, so that what the file
prints is not taken for a value; what it reads is empty; and what it leaves running is not waited for.

The value of a name is what `echo $NAME` prints, unquoted: runs of blanks collapse, patterns expand, only the first line
counts. A file that ends its shell, by a syntax error or `exit`, leaves every parameter empty; `return` ends the file.

Synchronous; several threads may evaluate files at the same time.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvmfs_py.errors import ConfigError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SHELL = "/bin/sh"
TIMEOUT_S = 10.0
_VALUES_LIMIT_BYTES = 4 << 20
_COMPLAINT_LIMIT_BYTES = 8 << 10
_SCRIPT_LIMIT_BYTES = 120 << 10  # one argument of a program has at most 128 KiB on Linux


@dataclass(frozen=True, slots=True)
class ShellValues:
    """What a file assigned, and the reason when its shell did not reach the end."""

    values: dict[str, str]
    failure: str | None


def evaluate_file(
    path: Path, names: Sequence[str], environment: Mapping[str, str], timeout_s: float = TIMEOUT_S
) -> ShellValues:
    """Run the file and tell the values of these names."""
    # nothing that the file prints can contain what was drawn after it was written
    separator = os.urandom(12).hex().encode()
    script = _format_script(path, names, separator.decode())
    if len(os.fsencode(script)) > _SCRIPT_LIMIT_BYTES:
        raise ConfigError(f"{path} assigns {len(names)} parameters and is no configuration file")
    output, complaints = _run(path, script, environment, b"\n" + separator + b"end\n", timeout_s)
    texts = output.split(b"\n" + separator + b"\n")
    failure = None
    if len(texts) != len(names) + 1 or not output.endswith(separator + b"end\n"):
        texts = [b""] * len(names)
        failure = _first_line(complaints) or "its shell ended before the end of the file"
    return ShellValues({name: _first_value(text) for name, text in zip(names, texts, strict=False)}, failure)


def _first_value(text: bytes) -> str:
    # dash's echo makes a NUL of \\0, which no environment can hold
    return os.fsdecode(text.partition(b"\n")[0].partition(b"\0")[0].rstrip(b"\r"))


def quote(text: str) -> str:
    """The text as one word of the shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _format_script(path: Path, names: Sequence[str], separator: str) -> str:
    # dash knows only descriptors of one digit, and 9 is what scripts take for locks
    lines = ["exec 7>&1 >/dev/null", f"cd {quote(str(path.parent))}", f". {quote(str(path))}"]
    # `command` goes past a function of that name; echo is used as the file left it, which is how it always was
    lines += [f"echo ${name} >&7; command printf '\\n{separator}\\n' >&7" for name in names]
    lines.append(f"command printf '\\n{separator}end\\n' >&7")
    return "\n".join(lines)


def _run(path: Path, script: str, environment: Mapping[str, str], end: bytes, timeout_s: float) -> tuple[bytes, bytes]:
    import subprocess  # takes 5 ms to import, and many machines have no file that needs it

    deadline_s = time.monotonic() + timeout_s
    try:
        # a session of its own: the shell and its children can be ended together, and the automounter, which ignores its
        # own process group, mounts the configuration repository for it
        process = subprocess.Popen(
            [SHELL, "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot run {SHELL} to read {path}: {error}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        collected = _collect(process, process.stdout.fileno(), process.stderr.fileno(), end, deadline_s)
        if collected is None:
            raise ConfigError(f"{path} did not end within {timeout_s:g} s; look for a command in it that waits")
        if len(collected[0]) > _VALUES_LIMIT_BYTES:
            raise ConfigError(f"{path} makes values of more than {_VALUES_LIMIT_BYTES} bytes")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline_s - time.monotonic()))
        return collected
    finally:
        process.stdout.close()
        process.stderr.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)  # one that hangs in the kernel cannot be waited for


def _collect(
    process: subprocess.Popen[bytes], values_fd: int, complaints_fd: int, end: bytes, deadline_s: float
) -> tuple[bytes, bytes] | None:
    """Everything up to the end mark, the death of the shell or too much; None when the time is over."""
    values, complaints = bytearray(), bytearray()
    poller = select.poll()
    poller.register(values_fd, select.POLLIN)
    poller.register(complaints_fd, select.POLLIN)
    open_fds = {values_fd, complaints_fd}
    while values_fd in open_fds and not values.endswith(end) and len(values) <= _VALUES_LIMIT_BYTES:
        remaining_s = deadline_s - time.monotonic()
        if remaining_s <= 0:
            return None
        has_exited = process.poll() is not None
        # a dead shell may leave a child that keeps the pipes open: when they are empty, nothing more will come
        events = poller.poll(0 if has_exited else min(remaining_s, 0.05) * 1000)
        if has_exited and not events:
            break
        for fd, _ in events:
            data = os.read(fd, 1 << 16)
            if not data:
                poller.unregister(fd)
                open_fds.discard(fd)
            elif fd == values_fd:
                values += data
            else:
                complaints += data[: max(0, _COMPLAINT_LIMIT_BYTES - len(complaints))]
    return bytes(values), bytes(complaints)


def _first_line(complaints: bytes) -> str:
    return os.fsdecode(complaints).strip().partition("\n")[0]
