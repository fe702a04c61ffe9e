"""What options mean as parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvmfs_py.cli import cache, ls, tags
from cvmfs_py.cli.options import Request, request_of
from cvmfs_py.errors import UsageError

NAME = "test.example.org"
NO_PIN = {"CVMFS_ROOT_HASH": "", "CVMFS_REPOSITORY_TAG": "", "CVMFS_REPOSITORY_DATE": ""}


def request(*words: str, target: str = NAME) -> Request:
    return request_of(ls.build_parser("cvmfs-py ls").parse_intermixed_args([target, *words]), target)


def overrides(*words: str, target: str = NAME) -> dict[str, str]:
    return request(*words, target=target).overrides


def test_nothing_said_is_nothing_set() -> None:
    assert request() == Request(request().target, {}, None)


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("http://h", "http://h/cvmfs/@fqrn@"),
        ("http://h/", "http://h/cvmfs/@fqrn@"),
        ("http://h:8000/cvmfs", "http://h:8000/cvmfs/@fqrn@"),
        ("http://h/cvmfs/", "http://h/cvmfs/@fqrn@"),
        (f"http://h/elsewhere/{NAME}", f"http://h/elsewhere/{NAME}"),
        ("http://h/opt/@org@", "http://h/opt/@org@"),
        ("http://h/@fqrn@/", "http://h/@fqrn@"),
        ("file:///srv/www", "file:///srv/www/cvmfs/@fqrn@"),
        ("HTTPS://h", "HTTPS://h/cvmfs/@fqrn@"),
        ("http://a;http://b/cvmfs;", "http://a/cvmfs/@fqrn@;http://b/cvmfs/@fqrn@"),
    ],
)
def test_a_server_is_completed_in_the_customary_way(server: str, url: str) -> None:
    assert overrides("--server", server) == {"CVMFS_SERVER_URL": url}


def test_several_servers_keep_their_order() -> None:
    given = overrides("--server", "http://b", "--server", "http://a")
    assert given == {"CVMFS_SERVER_URL": "http://b/cvmfs/@fqrn@;http://a/cvmfs/@fqrn@"}


def test_a_url_is_its_own_server() -> None:
    given = overrides(target=f"http://h/cvmfs/{NAME}:/x")
    assert given == {"CVMFS_SERVER_URL": f"http://h/cvmfs/{NAME}"}
    with pytest.raises(UsageError, match="leave out --server"):
        overrides("--server", "http://h", target=f"http://h/cvmfs/{NAME}")


@pytest.mark.parametrize("server", ["", "h", "ftp://h", "//h"])
def test_what_is_no_server(server: str) -> None:
    with pytest.raises(UsageError, match="is no URL of a server"):
        overrides("--server", server)


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert overrides("--key", "a.pub", "--key", "/b.pub") == {"CVMFS_PUBLIC_KEY": f"{tmp_path}/a.pub:/b.pub"}
    # A directory counts only where no key is configured.
    assert overrides("--keys-dir", "keys") == {"CVMFS_KEYS_DIR": f"{tmp_path}/keys", "CVMFS_PUBLIC_KEY": ""}
    both = overrides("--keys-dir", "keys", "--key", "a.pub")
    assert both == {"CVMFS_KEYS_DIR": f"{tmp_path}/keys", "CVMFS_PUBLIC_KEY": f"{tmp_path}/a.pub"}


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = request("--cache-dir", "here", "--config", "a.conf:/b.conf:", "--proxy", "http://p:3128;DIRECT")
    assert given.overrides == {"CVMFS_PY_CACHE_DIR": f"{tmp_path}/here", "CVMFS_HTTP_PROXY": "http://p:3128;DIRECT"}
    assert given.config_files == (tmp_path / "a.conf", Path("/b.conf"))
    assert request("--config", "").config_files == ()


def test_parameters() -> None:
    assert overrides("-o", "CVMFS_A=1", "-o", "CVMFS_B=x=y", "-o", "CVMFS_A=") == {"CVMFS_A": "", "CVMFS_B": "x=y"}
    with pytest.raises(UsageError, match="write NAME=VALUE"):
        overrides("-o", "CVMFS_A")
    # An option of its own says more clearly what is meant.
    assert overrides("-o", "CVMFS_HTTP_PROXY=a", "--proxy", "b") == {"CVMFS_HTTP_PROXY": "b"}


@pytest.mark.parametrize(
    ("words", "target", "pinned"),
    [
        (["--tag", "v1"], NAME, {"CVMFS_REPOSITORY_TAG": "v1"}),
        ([], f"{NAME}@v1", {"CVMFS_REPOSITORY_TAG": "v1"}),
        (["--root-hash", "0123"], NAME, {"CVMFS_ROOT_HASH": "0123"}),
        (["--date", "2024-01-31T12:00:00Z"], NAME, {"CVMFS_REPOSITORY_DATE": "2024-01-31T12:00:00Z"}),
        (["--date", "2024-01-31"], NAME, {"CVMFS_REPOSITORY_DATE": "2024-01-31T00:00:00Z"}),
        (["--date", "2024-1-31"], NAME, {"CVMFS_REPOSITORY_DATE": "2024-1-31"}),  # which is refused later
    ],
)
def test_a_pin_replaces_every_other_one(words: list[str], target: str, pinned: dict[str, str]) -> None:
    """Also one of another kind that is configured."""
    assert overrides(*words, target=target) == NO_PIN | pinned


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["--tag", "v1", "--date", "2024-01-31"], NAME),
        (["--tag", "v1", "--root-hash", "0123"], NAME),
        (["--root-hash", "0123", "--date", "2024-01-31"], NAME),
        (["--tag", "v1"], f"{NAME}@v1"),
        (["--root-hash", "0123"], f"{NAME}@v1"),
    ],
)
def test_pins_exclude_one_another(words: list[str], target: str) -> None:
    with pytest.raises(UsageError, match="exclude one another"):
        overrides(*words, target=target)


def test_tags_are_of_no_snapshot() -> None:
    with pytest.raises(SystemExit):
        tags.build_parser("cvmfs-py tags").parse_intermixed_args([NAME, "--tag", "v1"])


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("17", 17),
        ("1K", 1024),
        ("1k", 1024),
        ("2M", 2 << 20),
        ("2MiB", 2 << 20),
        ("2 MB", 2 << 20),
        ("1.5G", 3 << 29),
        ("0.1K", 102),
        (" 3T ", 3 << 40),
        ("5B", 5),
        ("999999999999999999T", 999999999999999999 << 40),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert cache.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1P", "1.M", ".5G", "1e9", "much", "1 2", "9" * 400, "٣M", "0x10", "1,5G"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is no size; write for example 500M or 2G"):
        cache.parse_size(text)


@pytest.mark.parametrize("option", ["--tag", "--date", "--root-hash", "--key", "--keys-dir", "--cache-dir"])
def test_what_is_given_says_something(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--tag "$TAG"` without a TAG must not mean the newest revision, nor --cache-dir the current directory."""
    with pytest.raises(SystemExit) as end:
        overrides(option, "")
    assert end.value.code == 2
    assert capsys.readouterr().err == f"cvmfs-py ls: argument {option}: it is empty; see cvmfs-py ls --help\n"


@pytest.mark.parametrize("zeros", ["0", "0" * 40])
def test_no_hash_is_no_pin(zeros: str) -> None:
    with pytest.raises(UsageError, match="zeros stand for no hash"):
        overrides("--root-hash", zeros)


@pytest.mark.parametrize("option", ["--key", "--keys-dir", "--cache-dir", "--config"])
def test_the_current_directory_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert request(option, "/whole")
    with pytest.raises(UsageError, match="part: the current directory is gone; give the whole path"):
        request(option, "part")
