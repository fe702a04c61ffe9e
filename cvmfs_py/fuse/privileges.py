"""What the kernel lets this process do: capabilities, and what keeps it from gaining any. Reads /proc; changes nothing.

Concurrency: pure functions of the moment; privileges may be dropped later.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass


class Capability(enum.IntEnum):
    """The rights that mounts and namespaces need, by the kernel's numbers."""

    SETGID = 6
    SETUID = 7
    SYS_ADMIN = 21
    SETFCAP = 31


@dataclass(frozen=True, slots=True)
class Privileges:
    """Effective capabilities, as bits, and the two walls around them."""

    bits: int
    has_no_new_privileges: bool  # setuid programs do not work
    is_filtered: bool  # by seccomp: system calls may be refused whatever the capabilities
    bounding_bits: int = -1  # what a setuid program may have

    def include(self, *wanted: Capability) -> bool:
        return all(self.bits >> capability & 1 for capability in wanted)

    def may_gain(self, wanted: Capability) -> bool:
        """Whether a setuid program could have it."""
        return not self.has_no_new_privileges and bool(self.bounding_bits >> wanted & 1)


def load_privileges(path: str = "/proc/self/status") -> Privileges:
    """Those of this process. Without /proc, root is taken to have all and others none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return parse_privileges(file.read())
    except OSError:
        return Privileges(-1 if os.geteuid() == 0 else 0, has_no_new_privileges=False, is_filtered=False)


def parse_privileges(status: str) -> Privileges:
    """From the text of /proc/PID/status."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return Privileges(
        bits=int(fields.get("CapEff", "0"), 16),
        has_no_new_privileges=fields.get("NoNewPrivs", "0").strip() == "1",
        is_filtered=fields.get("Seccomp", "0").strip() == "2",
        bounding_bits=int(fields.get("CapBnd", "-1"), 16),
    )
