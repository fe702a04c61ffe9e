"""The proxy grammar, and what fallback proxies do to DIRECT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.network.proxy_list import DIRECT, parse_member, plan_proxies, split_groups


def names(regular: str, fallback: str = "") -> tuple[list[list[str]], int]:
    plan = plan_proxies(regular, fallback)
    return [[proxy.name for proxy in group] for group in plan.groups], plan.fallback_start


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("DIRECT", [["DIRECT"]]),
        ("http://p:3128", [["http://p:3128"]]),
        ("p:3128", [["http://p:3128"]]),
        ("http://a:1|http://b:2;http://c:3;DIRECT", [["http://a:1", "http://b:2"], ["http://c:3"], ["DIRECT"]]),
        (" a:1 | b:2 ; DIRECT ", [["http://a:1", "http://b:2"], ["DIRECT"]]),
        ("DIRECT;DIRECT", [["DIRECT"], ["DIRECT"]]),
        ("", [["DIRECT"]]),
        (";;|;", [["DIRECT"]]),
        ("http://a:1||http://b:2;;", [["http://a:1", "http://b:2"]]),
        ("http://p:3128/with/a/path|good:1", [["http://p:3128", "http://good:1"]]),
        ("http://10.0.0.1:3128", [["http://10.0.0.1:3128"]]),
        ("http://[2001:db8::1]:3128", [["http://[2001:db8::1]:3128"]]),
        ("https://p:3129", [["https://p:3129"]]),
        ("HTTP://p:3128", [["http://p:3128"]]),
        ("p", [["http://p:1080"]]),
        ("http://user:secret@p:3128", [["http://p:3128"]]),
    ],
)
def test_grammar(text: str, groups: list[list[str]]) -> None:
    assert names(text) == (groups, len(groups))


@pytest.mark.parametrize(
    "text", ["invalid proxy", "http://", "http://a:99999", "http://a:b", "socks5://a:1", "://", "direct x"]
)
def test_nonsense_becomes_a_member_that_cannot_be_resolved(text: str) -> None:
    member = parse_member(text)
    assert member.name == text
    assert member.address is None
    assert not member.host
    assert not member.is_direct


def test_passwords_are_sent_but_not_shown() -> None:
    member = parse_member("http://user:secret@p:3128")
    assert member.authorization == "Basic dXNlcjpzZWNyZXQ="
    assert "secret" not in member.name + member.at("10.0.0.1").url


@pytest.mark.parametrize(
    ("regular", "fallback", "groups", "start", "warned"),
    [
        ("a:1", "f:1", [["http://a:1"], ["http://f:1"]], 1, 0),
        ("a:1;DIRECT", "f:1", [["http://a:1"], ["http://f:1"]], 1, 1),
        ("a:1|DIRECT", "f:1", [["http://a:1"], ["http://f:1"]], 1, 1),
        ("DIRECT", "f:1", [["http://f:1"]], 0, 1),
        ("DIRECT", "DIRECT", [["DIRECT"]], 1, 1),
        ("a:1;DIRECT", "DIRECT", [["http://a:1"], ["DIRECT"]], 2, 1),
        ("DIRECT", "f:1;g:1|h:1;DIRECT", [["http://f:1"], ["http://g:1", "http://h:1"]], 0, 2),
        ("", "f:1", [["http://f:1"]], 0, 0),
    ],
)
def test_fallback(regular: str, fallback: str, groups: list[list[str]], start: int, warned: int) -> None:
    assert names(regular, fallback) == (groups, start)
    assert len(plan_proxies(regular, fallback).warnings) == warned


def test_addresses() -> None:
    member = parse_member("http://p:3128")
    assert member.url == "http://p:3128"
    assert member.at("10.0.0.1").url == "http://10.0.0.1:3128"
    assert member.at("2001:db8::1").url == "http://[2001:db8::1]:3128"
    assert DIRECT.url == "DIRECT"


@given(st.text(alphabet="ab:;|/ 1D@[]IRECT", max_size=60), st.text(alphabet="ab:;|DIRECT1", max_size=30))
def test_any_text_gives_a_usable_plan(regular: str, fallback: str) -> None:
    plan = plan_proxies(regular, fallback)
    assert plan.groups
    assert all(plan.groups)
    assert 0 <= plan.fallback_start <= len(plan.groups)
    assert not any(proxy.is_direct for group in plan.groups[plan.fallback_start :] for proxy in group)
    assert all(member == member.strip() and member for group in split_groups(regular) for member in group)
