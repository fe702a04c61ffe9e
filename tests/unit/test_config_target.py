"""What REPO[:PATH] means, in all its forms; and that nothing a user types crashes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.config.target import Target, normalise, parse_target
from cvmfs_py.errors import UsageError

DATE_TAG = "generic-2024-01-31T12:00:00.123Z"


@pytest.mark.parametrize(
    ("text", "name", "url", "tag", "path"),
    [
        ("sft.cern.ch", "sft.cern.ch", None, None, b""),
        ("sft", "sft", None, None, b""),
        ("sft.cern.ch:", "sft.cern.ch", None, None, b""),
        ("sft.cern.ch:/", "sft.cern.ch", None, None, b""),
        ("sft.cern.ch:/lcg/x", "sft.cern.ch", None, None, b"/lcg/x"),
        ("sft.cern.ch:lcg", "sft.cern.ch", None, None, b"/lcg"),
        ("sft.cern.ch://lcg//./x/", "sft.cern.ch", None, None, b"/lcg/x"),
        ("sft.cern.ch:/a/../b", "sft.cern.ch", None, None, b"/a/../b"),
        ("sft.cern.ch:/a:b@c", "sft.cern.ch", None, None, b"/a:b@c"),
        ("sft.cern.ch:/a://b", "sft.cern.ch", None, None, b"/a:/b"),
        ("sft.cern.ch@v1", "sft.cern.ch", None, "v1", b""),
        ("sft.cern.ch@v1:", "sft.cern.ch", None, "v1", b""),
        ("sft.cern.ch@v1:/lcg:x", "sft.cern.ch", None, "v1", b"/lcg:x"),
        ("sft.cern.ch@a/b", "sft.cern.ch", None, "a/b", b""),
        (f"sft.cern.ch@{DATE_TAG}", "sft.cern.ch", None, DATE_TAG, b""),
        (f"sft.cern.ch@{DATE_TAG}:/x", "sft.cern.ch", None, DATE_TAG, b"/x"),
        ("/cvmfs/sft.cern.ch", "sft.cern.ch", None, None, b""),
        ("/cvmfs/sft.cern.ch/lcg/a:b", "sft.cern.ch", None, None, b"/lcg/a:b"),
        ("/cvmfs/sft.cern.ch@v1/lcg", "sft.cern.ch", None, "v1", b"/lcg"),
        ("http://h/cvmfs/a.b", "a.b", "http://h/cvmfs/a.b", None, b""),
        ("http://h:8000/cvmfs/a.b/", "a.b", "http://h:8000/cvmfs/a.b", None, b""),
        ("https://u@h:1/cvmfs/a.b:/p/q", "a.b", "https://u@h:1/cvmfs/a.b", None, b"/p/q"),
        ("http://[::1]:80/a.b:/p", "a.b", "http://[::1]:80/a.b", None, b"/p"),
        ("http://h/a.b@v1:/p", "a.b", "http://h/a.b", "v1", b"/p"),
        (f"http://h/a.b@{DATE_TAG}", "a.b", "http://h/a.b", DATE_TAG, b""),
        ("file:///srv/www/cvmfs/a.b", "a.b", "file:///srv/www/cvmfs/a.b", None, b""),
        ("file:///srv/a:b@c/cvmfs/a.b:/p", "a.b", "file:///srv/a:b@c/cvmfs/a.b", None, b"/p"),
        ("sft.cern.ch:/caf\udce9", "sft.cern.ch", None, None, b"/caf\xe9"),
    ],
)
def test_all_forms(text: str, name: str, url: str | None, tag: str | None, path: bytes) -> None:
    assert parse_target(text) == Target(name, url, tag, path)


NOTHING = ["", ":", "@", "/", "/etc", "/cvmfs", "/cvmfs/", "a b", "a.b@", "a.b@:/x", "a.b@v 1", "x" * 61, "a.b\n"]
NO_URLS = ["http://", "http://h", "http://h/", "http://h/cvmfs/a.b:p/q", "http:///a b"]


@pytest.mark.parametrize("text", [*NOTHING, *NO_URLS, "a.b:/" + chr(0xD800)])
def test_what_names_nothing(text: str) -> None:
    with pytest.raises(UsageError, match=r"names no repository|cannot be a path"):
        parse_target(text)


PIECES = st.sampled_from(
    ["sft.cern.ch", "a", ".", ":", "/", "@", "//", "http", "file", "://", "/cvmfs/", "v1", "..", "é", " "]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=8).map("".join)))
def test_anything_else_is_told_and_crashes_nothing(text: str) -> None:
    try:
        target = parse_target(text)
    except UsageError:
        return
    assert target.path == b"" or target.path.startswith(b"/")
    assert not target.path.endswith(b"/")
    assert b"//" not in target.path
    assert target.name
    assert target.url is None or target.url.endswith("/" + target.name)


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,10}(\.[A-Za-z0-9_-]{1,10}){1,3}", fullmatch=True)
TAGS = st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True), st.just(DATE_TAG))
PATHS = st.lists(
    st.binary(min_size=1, max_size=5).filter(lambda name: not set(name) & set(b"/\0") and name != b"."), max_size=4
)
SERVERS = st.sampled_from(["", "http://h/cvmfs/", "https://h:8/", "file:///a/b/"])


@given(SERVERS, NAMES, TAGS, PATHS)
def test_what_is_put_together_is_taken_apart(server: str, name: str, tag: str | None, parts: list[bytes]) -> None:
    path = b"".join(b"/" + part for part in parts)
    text = server + name + ("" if tag is None else f"@{tag}") + ":" + (path or b"/").decode("utf-8", "surrogateescape")
    assert parse_target(text) == Target(name, server + name if server else None, tag, path)


@given(st.binary())
def test_normal_paths_are_normal(path: bytes) -> None:
    normal = normalise(path)
    assert normalise(normal) == normal
    assert [part for part in path.split(b"/") if part not in (b"", b".")] == normal.split(b"/")[1:]
