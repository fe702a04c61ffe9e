"""The parameters while they are read: who assigned what, which names are protected, what was odd.

Holds text only; reads no file. Used by one thread, and left behind once the settings are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvmfs_py.config.parameters import Assignment, Parameter
from cvmfs_py.config.templates import expand_templates, repository_templates

if TYPE_CHECKING:
    from collections.abc import Mapping


class ParameterStore:
    """Assignments in the order in which they were made; templates are expanded as they are made."""

    def __init__(self, fqrn: str) -> None:
        self._templates = repository_templates(fqrn)
        self._traces: dict[str, list[Assignment]] = {}
        self._protected: dict[str, str] = {}
        self._warnings: dict[str, None] = {}

    def assign(self, name: str, value: str, source: str) -> None:
        value = expand_templates(value, self._templates)
        if self._protected.get(name, value) != value:
            self.warn(
                "error in cvmfs configuration: attempt to change protected "
                f"{name} from {self._protected[name]} to {value} in {source}"
            )
            return
        self._traces.setdefault(name, []).append(Assignment(value, source))

    def assign_all(self, values: Mapping[str, str], source: str) -> None:
        for name, value in values.items():
            self.assign(name, value, source)

    def protect(self, name: str) -> None:
        """Keep the value so far, or none, whatever is assigned from now on."""
        self._protected[name] = self.value(name) or ""

    def unprotect(self, name: str) -> None:
        self._protected.pop(name, None)

    def value(self, name: str) -> str | None:
        trace = self._traces.get(name)
        return trace[-1].value if trace else None

    def source(self, name: str) -> str | None:
        trace = self._traces.get(name)
        return trace[-1].source if trace else None

    def values(self) -> dict[str, str]:
        return {name: trace[-1].value for name, trace in self._traces.items()}

    def warn(self, message: str) -> None:
        """Remember it for the user, once."""
        self._warnings[message] = None

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    def parameters(self) -> dict[str, Parameter]:
        return {name: Parameter(name, tuple(trace)) for name, trace in sorted(self._traces.items())}
