"""Whatever fails, in whichever command: one line says so and begins with the command, after warnings perhaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cvmfs_py.cli.app import COMMANDS
from tests.faults.tampering_world import FQRN, World, check_failure
from tests.simulator.fault_server import refused_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulator.command import Client

ON_REPOSITORIES = {
    "ls": (FQRN,),
    "stat": (FQRN,),
    "cat": (f"{FQRN}:/file",),
    "cp": ("-r", FQRN, "copy"),
    "tags": (FQRN,),
    "info": (FQRN,),
    "verify": (FQRN,),
    "cache": ("pin", FQRN),
}


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """Of a repository whose server refuses connections."""
    return World(tmp_path).client(f"http://127.0.0.1:{refused_port()}")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option(command: str, client: Client) -> None:
    check_failure(client.run(command, "--no-such-option"), command, 2, f"see cvmfs-py {command} --help")


@pytest.mark.parametrize("command", ON_REPOSITORIES)
def test_no_server(command: str, client: Client) -> None:
    check_failure(client.run(command, *ON_REPOSITORIES[command]), command, 5, "connection refused", FQRN)


@pytest.mark.parametrize("command", ON_REPOSITORIES)
def test_no_key(command: str, client: Client) -> None:
    keyless = client.changed(PUBLIC_KEY="/nonexistent/key.pub")
    check_failure(keyless.run(command, *ON_REPOSITORIES[command]), command, 2, "/nonexistent/key.pub")


@pytest.mark.parametrize("command", ON_REPOSITORIES)
def test_no_place_for_a_cache(command: str, client: Client) -> None:
    homeless = client.changed(PY_CACHE_DIR="/dev/null/cache")
    check_failure(homeless.run(command, *ON_REPOSITORIES[command]), command, 5, "/dev/null/cache")


@pytest.mark.parametrize("arguments", [("check",), ("check", "--json")])
def test_a_configuration_that_is_wrong(arguments: tuple[str, ...], client: Client) -> None:
    """What is wrong with it is the output; that something is wrong is the failure."""
    done = client.changed(PUBLIC_KEY="/nonexistent/key.pub").run("config", *arguments, FQRN)
    check_failure(done, "config", 2, "1 error in the configuration of")
    assert b"/nonexistent/key.pub" in done.output


def test_several_repositories_have_a_line_each(client: Client) -> None:
    done = client.run("ls", FQRN, f"{FQRN}:/nested")
    assert (done.code, len(done.error_lines)) == (5, 2)
    assert all(line.startswith("cvmfs-py ls: ") for line in done.error_lines)
