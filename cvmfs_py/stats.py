"""What one mount has done, in numbers: counted by the engines, shown by extended attributes, commands and metrics.

Holds numbers only. Concurrency: counted in the event loop's thread.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counts since the mount."""

    requests: Counter[str] = field(default_factory=Counter)  # of the kernel, by operation
    opens: int = 0
    open_files: int = 0
    opendirs: int = 0
    open_directories: int = 0
    io_errors: int = 0
    last_io_error_s: int = 0  # since the epoch; 0: never
    local_operations: int = 0  # that had all they needed in the cache
    waiting_operations: int = 0  # for which something was fetched
    waited_s: float = 0.0  # by all of them together
