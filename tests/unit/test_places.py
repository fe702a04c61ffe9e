"""Where a user's own files may be, when HOME and the other variables are not as a login makes them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from cvmfs_py import places
from cvmfs_py.config.cache_place import default_cache_directory
from cvmfs_py.config.sources import default_user_dir
from cvmfs_py.mount.daemon_log import log_directories
from cvmfs_py.mount.runtime_directory import record_directories
from cvmfs_py.places import can_be_used, find_home, find_stranger, state_directory

USER = os.geteuid()
STRANGER = 54321  # on no list of users
NOWHERE = Path("/proc/1/nowhere")
HOMELESS = [{}, {"HOME": ""}, {"HOME": "/"}, {"HOME": "relative"}, {"HOME": "/proc/1"}, {"HOME": "/tmp"}]


@pytest.mark.parametrize("environment", HOMELESS, ids=str)
def test_cache_notes_and_settings_of_the_homeless_are_apart(environment: dict[str, str]) -> None:
    assert find_home(environment, STRANGER) is None
    cache = default_cache_directory(environment, STRANGER, NOWHERE)
    assert cache == Path("/tmp/cvmfs-py-cache-54321")
    assert os.fsencode(cache) not in record_directories(environment, STRANGER)
    assert log_directories(environment, STRANGER) == [Path("/tmp/cvmfs-py-54321")]
    assert default_user_dir(environment).is_absolute()


def test_temporary_files_are_where_they_should_be(tmp_path: Path) -> None:
    cache = default_cache_directory({"TMPDIR": str(tmp_path)}, STRANGER, NOWHERE)
    assert cache == tmp_path / "cvmfs-py-cache-54321"
    for unusable in ("here", "/proc/1"):
        cache = default_cache_directory({"TMPDIR": unusable}, STRANGER, NOWHERE)
        assert cache == Path("/tmp/cvmfs-py-cache-54321")


def test_a_home_is_ones_own(tmp_path: Path) -> None:
    """After `su` HOME may be somebody else's; the list of users knows one's own."""
    environment = {"HOME": str(tmp_path)}
    assert find_home(environment, USER) == tmp_path
    assert find_home({"HOME": str(tmp_path / "not" / "yet")}, USER) == tmp_path / "not" / "yet"
    assert find_home(environment, STRANGER) is None
    listed = Path(pwd.getpwuid(USER).pw_dir)
    if can_be_used(listed) and listed.stat().st_uid == USER:
        assert find_home({"HOME": "/proc/1"}, USER) == listed


def test_where_logs_are(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    assert state_directory(environment, USER) == tmp_path / ".local" / "state" / "cvmfs-py"
    given = {**environment, "XDG_STATE_HOME": str(tmp_path / "state")}
    assert state_directory(given, USER) == tmp_path / "state" / "cvmfs-py"
    (tmp_path / "file").touch()
    for unusable in ("state", str(tmp_path / "file")):
        given = {**environment, "XDG_STATE_HOME": unusable}
        assert state_directory(given, USER) == tmp_path / ".local" / "state" / "cvmfs-py"


def test_notes_of_a_session_are_found_without_its_variables() -> None:
    assert b"/run/user/54321/cvmfs-py" in record_directories({}, STRANGER)


def test_who_can_put_something_into_a_directory(tmp_path: Path) -> None:
    own, user_id = tmp_path / "own", os.geteuid()
    assert find_stranger(own, user_id) is None  # nobody: it is not there
    own.mkdir(0o755)
    assert find_stranger(own, user_id) is None
    (tmp_path / "link").symlink_to(own)
    assert find_stranger(tmp_path / "link", user_id) == "is a link or a file"
    assert user_id == 0 or find_stranger(Path("/"), user_id) is None
    for mode in (0o770, 0o707):
        own.chmod(mode)
        assert find_stranger(own, user_id) == "can be written to by others"


def test_directories_that_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("none")
    assert can_be_used(tmp_path)
    assert can_be_used(tmp_path / "a" / "b")
    assert not can_be_used(tmp_path / "file")
    assert not can_be_used(tmp_path / "file" / "a")
    assert not can_be_used(tmp_path / "link")
    assert not can_be_used(Path("/proc/1/a"))


def test_the_places_of_one_user_do_not_depend_on_the_directory_for_temporary_files() -> None:
    """Notes and logs have to be found by those with another TMPDIR."""
    assert places.temporary_directory(STRANGER) == Path("/tmp/cvmfs-py-54321")
