"""Colours: on terminals that take them, as --color, NO_COLOR and TERM say, and never a different byte in a pipe."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mount.mounting import Mounted
from tests.simulator.command import PROGRAM, Client
from tests.simulator.terminal import Terminal

ZOO = Path(__file__).parents[1] / "data" / "zoo"
RED, YELLOW, END = "\033[1;31m", "\033[33m", "\033[0m"
PAINT = re.compile(r"\033\[[0-9;]*m")
ERROR = "there is no cache in"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path, "test.example.org", ["http://127.0.0.1:1"])


def complain(client: Client, *options: str, **variables: str) -> tuple[str, str]:
    """What an error and a warning look like on a terminal, and in a pipe."""
    words = ["cache", "status", "--cache-dir", "none", "-o", "CVMFS_TIMOUT=1", *options]
    wrapper = ["env", *(f"{name}={value}" for name, value in variables.items())]
    command = [*wrapper, *client.command(*words)]
    with Terminal(command, cwd=client.directory, environment=client.environment) as terminal:
        pass
    piped = client.run(*words, wrapper=wrapper)
    assert terminal.code == piped.code == 2
    return terminal.text.replace("\r\n", "\n"), piped.errors


@pytest.mark.parametrize(
    ("options", "variables", "on_terminal", "in_pipe"),
    [
        ([], {}, True, False),
        ([], {"NO_COLOR": ""}, True, False),
        ([], {"NO_COLOR": "1"}, False, False),
        ([], {"TERM": "dumb"}, False, False),
        (["--color", "auto"], {"NO_COLOR": "1"}, False, False),
        (["--color", "never"], {}, False, False),
        (["--color=never"], {}, False, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True, True),
        (["--color=always"], {"TERM": "dumb"}, True, True),
    ],
)
def test_who_gets_colours(
    client: Client, options: list[str], variables: dict[str, str], on_terminal: bool, in_pipe: bool
) -> None:
    shown, piped = complain(client, *options, **variables)
    plain = PAINT.sub("", shown)
    assert plain == PAINT.sub("", piped)
    assert re.fullmatch(r"cvmfs-py: -o CVMFS_TIMOUT .*\ncvmfs-py cache: there is no cache in .*\n", plain)
    coloured = plain.replace("cvmfs-py cache:", f"{RED}cvmfs-py cache:{END}").replace(
        "cvmfs-py: ", f"{YELLOW}cvmfs-py:{END} "
    )
    assert shown == (coloured if on_terminal else plain)
    assert piped == (coloured if in_pipe else plain)


def test_wrong_usage_is_told_in_the_wanted_colours(client: Client) -> None:
    def usage(*words: str) -> str:
        with Terminal([*PROGRAM, *words], environment=client.environment) as terminal:
            pass
        assert terminal.code == 2
        return terminal.text

    assert usage("ls").startswith(f"{RED}cvmfs-py ls:{END} the following")
    assert usage("ls", "--color", "never").startswith("cvmfs-py ls: the following")
    assert f"{RED}cvmfs-py ls:{END} argument --color: " in usage("ls", "--color", "blue", "x.y")
    assert usage("exec", "x.y", "--colour", "--", "--color", "never").startswith(RED)


def show(client: Client, *words: str) -> str:
    with Terminal([*PROGRAM, *words], cwd=client.directory, environment=client.environment, columns=250) as terminal:
        pass
    return terminal.text


def test_doctor(client: Client) -> None:
    doctor = show(client, "doctor", "--config", "/dev/null")
    found = re.findall(r"^(?:\033\[[0-9;]*m)?(?:ok|warning|failed|not needed)\b.*?  ", doctor, re.MULTILINE)
    colours = {"ok": "\033[32m", "warning": "\033[33m", "failed": "\033[1;31m", "not needed": ""}
    assert found
    for cell in found:
        word = PAINT.sub("", cell).strip()
        assert cell.startswith(f"{colours[word]}{word}{END}" if colours[word] else word)
    assert PAINT.search(show(client, "doctor", "--color", "never", "--config", "/dev/null")) is None


@pytest.mark.needs("mounting")
def test_list(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    parameters = {"SERVER_URL": f"file://{ZOO}/server", "PUBLIC_KEY": f"{ZOO}/zoo.test.org.pub"}
    client = Client(tmp_path, "zoo.test.org", [], **parameters)
    with Mounted(client, tmp_path / "mnt"):
        assert re.search(rf"\033\[32mmounted\033\[0m +{tmp_path}/mnt\r\n", show(client, "list"))
        assert PAINT.search(show(client, "list", "--color", "never")) is None
