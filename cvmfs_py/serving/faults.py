"""Faults on purpose, for tests of clients: some answers are wrong, late or cut short. Never on unasked. Pure."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, field

from cvmfs_py.errors import UsageError


class Fault(enum.Enum):
    """What is wrong with an answer."""

    NOT_FOUND = "404"
    SERVER_ERROR = "500"
    TRUNCATED = "truncate"  # the connection ends in the middle of the body
    GARBAGE = "garbage"  # some bytes of the body are others
    SILENT = "silent"  # no answer, until the client gives up


@dataclass(slots=True)
class Faults:
    """How often which fault strikes, and how late every answer is."""

    delay_s: float = 0.0
    rates: dict[Fault, float] = field(default_factory=dict)
    rng: random.Random = field(default_factory=random.Random)

    def strike(self) -> Fault | None:
        """The fault of the next answer."""
        if not self.rates:
            return None
        point = self.rng.random()
        for fault, rate in self.rates.items():
            point -= rate
            if point < 0:
                return fault
        return None


def parse_fault(text: str) -> tuple[Fault, float]:
    """`KIND=RATE` of the command line, for example `404=0.1`."""
    kind, _, rate_text = text.partition("=")
    try:
        fault, rate = Fault(kind), float(rate_text)
    except ValueError as error:
        kinds = ", ".join(each.value for each in Fault)
        raise UsageError(f"--fault {text}: write KIND=RATE, a rate up to 1 and one of the kinds {kinds}") from error
    if not 0 <= rate <= 1:
        raise UsageError(f"--fault {text}: the rate must be between 0 and 1")
    return fault, rate
