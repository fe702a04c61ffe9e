"""For all tests: what is missing on this machine is skipped, counted and named; `--no-skips` makes a failure of it.

A test says what it needs by `@pytest.mark.needs(...)`, see `tests/rights.py`. A machine that lacks something may leave
tests out, and the end of the run says how many for which reason; where changes are judged, all must run.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.apart import keep_mounts_apart
from tests.leftovers import children, end_children
from tests.rights import require

if TYPE_CHECKING:
    from collections.abc import Generator


# How long an example takes says more about what else the machine does than about the program.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed one")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): rights of this machine or programs that the test needs")
    keep_mounts_apart()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        require(*marker.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """What a failed test has started must not fail others."""
    before = children()
    try:
        return (yield)
    except BaseException:
        end_children(spared=before)
        raise


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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was left out, by its reason; the most frequent ones first."""
    reasons = Counter(
        _reason(report.longrepr).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        terminalreporter.section(f"{reasons.total()} skipped: this machine lacks what they need")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5} {reason}")


def _reason(description: Any) -> str:
    """The sentence out of pytest's file, line and reason."""
    return str(description[-1] if isinstance(description, tuple) else description)
