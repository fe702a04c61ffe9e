"""For all tests: `--no-skips` makes a failure of every test that would be skipped.

A machine that lacks something may leave tests out, and the summary says which; where changes are judged, all must run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.apart import keep_mounts_apart

if TYPE_CHECKING:
    from collections.abc import Generator


# How long an example takes says more about what else the machine does than about the program.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed one")


def pytest_configure() -> None:
    keep_mounts_apart()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped here: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped here: {_reason(report.longrepr)}"  # type: ignore[assignment]
    return report


def _reason(description: Any) -> str:
    """The sentence out of pytest's file, line and reason."""
    return str(description[-1] if isinstance(description, tuple) else description)
