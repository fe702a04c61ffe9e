"""URLs: escaping, hosts of the configuration, targets of redirects."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.network.urls import Url, escape, parse_base, parse_location, url_of


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        (b"/data/ab/cdef0123C", "/data/ab/cdef0123C"),
        (b"/.cvmfspublished", "/.cvmfspublished"),
        (b"/a b?c=d&e%f#g", "/a%20b%3Fc%3Dd%26e%25f%23g"),
        (b"/\xc3\xa4\xff\n", "/%C3%A4%FF%0A"),
        (b"/[x]~_+@:,-.", "/[x]~_+@:,-."),
        (b"/line\r\nHost: evil", "/line%0D%0AHost:%20evil"),
        (b"/ends with newline\n", "/ends%20with%20newline%0A"),
    ],
)
def test_escaping(path: bytes, escaped: str) -> None:
    assert escape(path) == escaped


@given(st.binary(max_size=60))
def test_escaped_paths_are_harmless_and_reversible(path: bytes) -> None:
    from urllib.parse import unquote_to_bytes

    escaped = escape(path)
    assert unquote_to_bytes(escaped) == path
    assert escaped.isascii()
    assert not set(escaped) & set(' \r\n?#=&;\\"<>')


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://host/cvmfs/a.b.c", Url("http", "host", 80, "host", "/cvmfs/a.b.c")),
        ("http://host:8000/cvmfs/a.b.c/", Url("http", "host", 8000, "host:8000", "/cvmfs/a.b.c")),
        ("https://host", Url("https", "host", 443, "host", "")),
        ("HTTP://[::1]:81/x", Url("http", "::1", 81, "[::1]:81", "/x")),
        ("file:///srv/cvmfs/a b", Url("file", "", 0, "", "/srv/cvmfs/a%20b")),
        ("file:///srv/\udcff\xe9", Url("file", "", 0, "", "/srv/%FF%C3%A9")),
        ("file://localhost/srv", Url("file", "", 0, "", "/srv")),
        ("ftp://host/x", None),
        ("host/x", None),
        ("http://", None),
        ("http://ho st/", None),
        ("http://host:0/", None),
        ("http://host:99999/", None),
        ("http://user:pw@host/", None),
        ("http://host/x?query", None),
        ("file://host/x", None),
        ("", None),
    ],
)
def test_hosts(text: str, url: Url | None) -> None:
    assert parse_base(text) == url


def test_paths_below_hosts() -> None:
    base = parse_base("http://host:8000/cvmfs/a.b.c")
    assert base is not None
    assert str(url_of(base, b"/x y")) == str(url_of(base, b"x y")) == "http://host:8000/cvmfs/a.b.c/x%20y"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("http://other/y?token=1", "http://other/y?token=1"),
        ("https://other:444/y", "https://other:444/y"),
        ("/y%20z", "http://host:8000/y%20z"),
        ("//other/y", "http://other/y"),
        ("y", "http://host:8000/a/y"),
        ("http://other", "http://other/"),
        ("http://other/y#fragment", "http://other/y"),
        ("", "http://host:8000/a/"),
        ("ftp://other/y", None),
        ("http://other/y\r\nX: z", None),
        ("http://other/\xe9", None),
        ("http://other:x/y", None),
    ],
)
def test_redirects(location: str, target: str | None) -> None:
    base = parse_base("http://host:8000/a/b")
    assert base is not None
    parsed = parse_location(location, base)
    assert (None if parsed is None else str(parsed)) == target


@given(st.text(max_size=40) | st.binary(max_size=40).map(os.fsdecode))
def test_no_text_crashes_the_parsers(text: str) -> None:
    parse_base(text)
    base = parse_base("http://host/a")
    assert base is not None
    location = parse_location(text, base)
    assert location is None or str(location).isascii()
