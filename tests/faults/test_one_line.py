"""Whatever fails, in whichever command: one line says so and begins with the command, after warnings perhaps."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("parameter", ["ALIEN_CACHE", "PY_LOWER_CACHES"])
@pytest.mark.parametrize("place", ["/nonexistent", "/etc"])
def test_a_lower_cache_that_is_none(parameter: str, place: str, client: Client) -> None:
    wrong = client.changed(**{parameter: place})
    check_failure(wrong.run("ls", FQRN), "ls", 2, place, "lower cache tier", f"CVMFS_{parameter}")


@pytest.mark.parametrize("arguments", [("check",), ("check", "--json")])
def test_a_configuration_that_is_wrong(arguments: tuple[str, ...], client: Client) -> None:
    """What is wrong with it is the output; that something is wrong is the failure."""
    done = client.changed(PUBLIC_KEY="/nonexistent/key.pub").run("config", *arguments, FQRN)
    check_failure(done, "config", 2, "1 error in the configuration of")
    assert b"/nonexistent/key.pub" in done.output


@pytest.mark.parametrize("parameter", ["ALIEN_CACHE", "PY_LOWER_CACHES", "UID_MAP", "GID_MAP"])
def test_a_check_finds_what_every_command_would_stumble_over(parameter: str, client: Client) -> None:
    wrong = client.changed(**{parameter: "/nonexistent"})
    assert wrong.run("ls", FQRN).code == 2
    done = wrong.run("config", "check", FQRN)
    check_failure(done, "config", 2, "1 error in the configuration of")
    assert b"Error: " in done.output
    assert b"/nonexistent" in done.output


def test_a_map_of_owners_that_no_kernel_has(client: Client, tmp_path: Path) -> None:
    (tmp_path / "map").write_text("0 4294967295\n")
    done = client.changed(UID_MAP=str(tmp_path / "map")).run("ls", "-l", FQRN)
    check_failure(done, "ls", 2, "line 1: 4294967295 is no owner")


def test_several_repositories_have_a_line_each(client: Client) -> None:
    done = client.run("ls", FQRN, f"{FQRN}:/nested")
    assert (done.code, len(done.error_lines)) == (5, 2)
    assert all(line.startswith("cvmfs-py ls: ") for line in done.error_lines)


NO_TEXT = os.fsdecode(b"\xff\xe9")


@pytest.mark.parametrize(
    "options",
    [
        ["-oCVMFS_SERVER_URL=http://127.0.0.1:9/{}"],
        ["-oCVMFS_SERVER_URL=http://{}:9/"],
        ["-oCVMFS_SERVER_URL=file:///nowhere/{}"],
        ["--proxy", "http://{}:password@127.0.0.1:9"],
        ["--proxy", "{}|http://127.0.0.1:9", "-oCVMFS_PROXY_SHARD=yes"],
        ["--proxy", "auto", "-oCVMFS_PAC_URLS=file:///nowhere/{}"],
        ["-oCVMFS_USE_GEOAPI=yes", "-oCVMFS_SERVER_URL=http://127.0.0.1:9;http://{}"],
        [
            "-oCVMFS_USE_GEOAPI=yes",
            "-oCVMFS_PROXY_TEMPLATE={}",
            "-oCVMFS_SERVER_URL=http://127.0.0.1:9;http://0.0.0.0:9",
        ],
        ["--key", "/nowhere/{}"],
        ["--keys-dir", "/nowhere/{}"],
        ["--tag", "{}"],
        ["--date", "{}"],
        ["--root-hash", "{}"],
    ],
    ids=" ".join,
)
def test_arguments_that_are_no_text(options: list[str], client: Client) -> None:
    """Names of files and servers are bytes, too."""
    done = client.run("ls", FQRN, *(option.format(NO_TEXT) for option in options))
    assert done.code in (2, 5), done
    assert len(done.error_lines) >= 1
    assert done.error_lines[-1].startswith("cvmfs-py ls: ")
    assert "internal error" not in done.errors


def test_a_server_directory_whose_name_is_no_text(tmp_path: Path) -> None:
    world = World(tmp_path)
    place = tmp_path / os.fsdecode(b"\xff\xe9")
    place.symlink_to(world.repository.document_root)
    done = world.client(f"file://{place}").run("ls", FQRN)
    assert (done.code, done.errors) == (0, "")
