"""The benchmarks' own tools: what they count is exact, and what fails does not go unseen."""

from __future__ import annotations

import http.client
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import trees
from benchmarks.processes import Programs, python
from benchmarks.serving import DelayedServer
from benchmarks.table import Row, format_table, format_value, timed

if TYPE_CHECKING:
    from pathlib import Path


def test_the_server_counts_what_it_is_asked(tmp_path: Path) -> None:
    repository = trees.publish(tmp_path / "repository", trees.small_files(3))
    manifest = (repository.server_root / ".cvmfspublished").read_bytes()
    with DelayedServer(repository) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for _ in range(2):
            connection.request("GET", f"/cvmfs/{repository.fqrn}/.cvmfspublished")
            assert connection.getresponse().read() == manifest
        connection.request("GET", f"/cvmfs/{repository.fqrn}/../../../keys")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (404, b"")
        connection.close()
        served = server.served()
        assert (served.requests, served.body_bytes, served.connections, served.missing) == (3, 2 * len(manifest), 1, 1)
        assert server.served().requests == 0


@pytest.mark.parametrize("make", [trees.nested_tree, trees.flat_tree])
def test_trees_have_as_many_entries_as_they_are_asked_for(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    repository = trees.publish(tmp_path / "repository", make(2000))
    assert trees.count_entries(repository) == 2000


def test_costs_of_a_program_are_its_own(tmp_path: Path) -> None:
    ballast = bytearray(b"x") * (200 << 20)  # of this process: the child's peak must not show it
    cost = Programs(tmp_path).measure(python("pass"))
    assert 1 << 20 < cost.peak_rss_bytes < len(ballast)
    assert cost.wall_s > 0


def test_output_goes_to_the_file(tmp_path: Path) -> None:
    Programs(tmp_path).measure(python("print('Hello')"), output=tmp_path / "said")
    assert (tmp_path / "said").read_text() == "Hello\n"


def test_a_program_that_fails_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such luck"):
        Programs(tmp_path).measure([sys.executable, "-I", "-c", "raise SystemExit('no such luck')"])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.5, "s", "1.50 s"),
        (0.0123, "s", "12.3 ms"),
        (250e-6, "s", "250 us"),
        (3e-7, "s", "0.30 us"),
        (45.25 * 2**20, "B", "45.2 MiB"),
        (2048, "B", "2 KiB"),
        (123456.7, "entries/s", "123,457 entries/s"),
        (7.25, "entries/s", "7.25 entries/s"),
    ],
)
def test_values_are_readable(value: float, unit: str, text: str) -> None:
    assert format_value(value, unit) == text


def test_a_row_compares_its_median_with_the_limit() -> None:
    row = timed("a row", [4.0, 1.0, 3.0], limit_s=2.0, beside="a limit")
    assert (row.value, row.ratio) == (3.0, 1.5)
    table = format_table([("a suite", [row, Row("another", 5, "things")])])
    assert table.splitlines()[2:] == [
        "a suite",
        "  a row         3.00 s  1.00 s  1.50x  a limit",
        "  another  5.00 things",
    ]
