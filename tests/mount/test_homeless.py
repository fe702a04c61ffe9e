"""Users without a usable home, as containers, `su` and cron make them: cache, notes and logs are apart, and work."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.compat.zoo_goldens import FQRN, KEY, make_document_root
from tests.simulator.command import Client, as_nobody

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("mounting", "other users")
NUMBER = 54323
NOTES = Path(f"/tmp/cvmfs-py-{NUMBER}")
CACHE = Path(f"/tmp/cvmfs-py-cache-{NUMBER}")
SEES = ("exec", FQRN, "--", "cat", f"/cvmfs/{FQRN}/hello.txt")


class Homeless:
    """A user with a number and nothing else, and nothing configured about places."""

    def __init__(self, client: Client, wrapper: list[str]) -> None:
        self.client = client
        self._wrapper = wrapper

    def see(self, *words: str, **environment: str) -> tuple[int, bytes, str]:
        self.client.environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment}
        done = self.client.run(*words, wrapper=self._wrapper)
        return done.code, done.output, done.errors


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can reach."""
    place = Path(tempfile.mkdtemp(prefix="cvmfs-py-test-", dir="/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def user(place: Path) -> Iterator[Homeless]:
    client = Client(place / "client", FQRN, [f"file://{make_document_root(place / 'www')}"], KEY)
    del client.parameters["PY_CACHE_DIR"]
    state = place / "state"
    state.mkdir()
    try:
        yield Homeless(client, as_nobody(state, number=NUMBER))
    finally:
        for each in (NOTES, CACHE):
            shutil.rmtree(each, ignore_errors=True)


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"HOME": "/"}, id="container"),
        pytest.param({"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0", "XDG_CACHE_HOME": "/root/.cache"}, id="su"),
        pytest.param({}, id="cron"),
    ],
)
def test_one_command_after_the_other(user: Homeless, environment: dict[str, str]) -> None:
    warning = "cvmfs-py: cannot write to /root/.cache/cvmfs-py (XDG_CACHE_HOME); the cache is in " + str(CACHE) + "\n"
    errors = warning if "XDG_CACHE_HOME" in environment else ""
    for _ in range(2):
        assert user.see(*SEES, **environment) == (0, b"hello, world\n", errors)
        assert user.see("cat", f"{FQRN}:/hello.txt", **environment) == (0, b"hello, world\n", errors)
    assert (CACHE / "objects").is_dir()
    assert not (NOTES / "objects").exists()
    assert {(place.stat().st_mode & 0o777, place.stat().st_uid) for place in (NOTES, CACHE)} == {(0o700, NUMBER)}


@pytest.mark.parametrize("name", ["note.json", "objects"])
def test_what_earlier_versions_have_left_is_no_hindrance(user: Homeless, name: str) -> None:
    """They had cache and notes in one directory: whichever came first."""
    NOTES.mkdir(mode=0o700)
    (NOTES / name).mkdir()
    for place in (NOTES, NOTES / name):
        os.chown(place, NUMBER, NUMBER)
    assert user.see(*SEES, HOME="/") == (0, b"hello, world\n", "")
    assert (CACHE / "objects").is_dir()


def test_a_cache_that_cannot_be_is_one_line(user: Homeless, place: Path) -> None:
    """Also from the daemon behind a command."""
    occupied = place / "occupied"
    occupied.mkdir(mode=0o755)
    (occupied / "file").touch()
    text = f"cvmfs-py exec: {occupied} contains files but is no cache directory; choose an empty or a new directory\n"
    assert user.see("exec", "--cache-dir", str(occupied), *SEES[1:], HOME="/") == (5, b"", text)


def test_a_cache_that_somebody_else_has_made_is_refused(user: Homeless) -> None:
    CACHE.mkdir(mode=0o700)
    os.chown(CACHE, NUMBER + 1, NUMBER + 1)
    for words in (SEES, ("ls", FQRN)):
        code, output, errors = user.see(*words, HOME="/")
        assert (code, output) == (2, b"")
        assert f"the cache directory {CACHE}, used because there is no home directory" in errors
        assert errors.count("\n") == 1
