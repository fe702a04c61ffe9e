"""Small parsers of the network: proxy auto-configuration, hosts files, geo answers, header fields, status classes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.network import geo, pac
from cvmfs_py.network.discovery import split_location
from cvmfs_py.network.dns import parse_hosts, prefer
from cvmfs_py.network.headers import info_field, parse_tracing, proxy_error, recoding, standing_fields
from cvmfs_py.network.options import NetworkConfig
from cvmfs_py.network.outcomes import Failure, Outcome, outcome_of_failure, outcome_of_status


@pytest.mark.parametrize(
    ("answer", "proxies"),
    [
        ("PROXY a:1; PROXY b:2", "a:1;b:2"),
        ("PROXY a:1; DIRECT", "a:1;DIRECT"),
        ("DIRECT", "DIRECT"),
        ("", "DIRECT"),
        ("SOCKS s:1; PROXY a:1", "a:1"),
        ("HTTPS s:1", "https://s:1"),
        ("SOCKS s:1", ""),
    ],
)
def test_pac_answers(answer: str, proxies: str) -> None:
    assert pac.proxies_of_answer(answer) == proxies


@pytest.mark.parametrize(
    "text",
    [
        'function FindProxyForURL(url, host) { return "PROXY a:1; PROXY b:2"; }',
        "function FindProxyForURLEx(url, host)\n{\n  return 'PROXY a:1; PROXY b:2'\n}\n",
        'function FindProxyForURL(url,host){ // a comment\n /* and another */ return ("PROXY a:1; PROXY b:2"); }',
        'function FindProxyForURL(u, h) { return "DIRECT"; }\n'
        'function FindProxyForURLEx(u, h) { return "PROXY a:1; PROXY b:2"; }',
    ],
)
def test_constant_pac_files(text: str) -> None:
    assert pac.proxies_of_pac(text.encode()) == "a:1;b:2"


@pytest.mark.parametrize(
    "text",
    [
        'function FindProxyForURL(u, h) { if (isPlainHostName(h)) return "DIRECT"; return "PROXY a:1"; }',
        'function FindProxyForURL(u, h) { var p = "PROXY a:1"; return p; }',
        'function FindProxyForURL(u, h) { return "PROXY " + "a:1"; }',
        'function other() { return "PROXY a:1"; }',
        "<html>no such file</html>",
        "",
    ],
)
def test_other_pac_files_are_refused_honestly(text: str) -> None:
    with pytest.raises(pac.PacError):
        pac.proxies_of_pac(text.encode())


def test_auto_groups() -> None:
    assert pac.is_auto("auto;DIRECT")
    assert not pac.is_auto("http://auto:3128;DIRECT")
    assert pac.expand_auto("auto;DIRECT", "a:1;b:2") == "a:1;b:2;DIRECT"
    assert pac.expand_auto("auto;DIRECT", "") == "DIRECT"
    assert pac.expand_auto("auto", "") == ""


def test_places_of_pac_files() -> None:
    assert split_location("http://wpad/wpad.dat") == ("http://wpad", b"/wpad.dat")
    assert split_location("file:///etc/x.pac") == ("file://", b"/etc/x.pac")


def test_hosts_files() -> None:
    text = "127.0.0.1 localhost\n::1 localhost # comment\n\n10.0.0.1\tp P.example  \n10.0.0.2 p\nnonsense p\n10.0.0.3\n"
    assert parse_hosts(text) == {
        "localhost": ("127.0.0.1", "::1"),
        "p": ("10.0.0.1", "10.0.0.2"),
        "p.example": ("10.0.0.1",),
    }


@given(st.text(max_size=100))
def test_no_hosts_file_crashes(text: str) -> None:
    parse_hosts(text)


def test_families() -> None:
    mixed = ["::1", "10.0.0.1", "::2", "10.0.0.1"]
    assert prefer(mixed, 4, ipv4_only=False) == ("10.0.0.1",)
    assert prefer(mixed, 6, ipv4_only=False) == ("::1", "::2")
    assert prefer(["::1"], 4, ipv4_only=False) == ("::1",)
    assert prefer(["10.0.0.1"], 6, ipv4_only=False) == ("10.0.0.1",)
    assert prefer(["::1"], 4, ipv4_only=True) == ()


@pytest.mark.parametrize("reply", [b"2,1,3\n", b"2,1,3", b"2, 1 ,3 \n"])
def test_geo_replies(reply: bytes) -> None:
    assert geo.parse_reply(reply, 3) == (2, 1, 3)


@pytest.mark.parametrize(
    "reply",
    [b"", b"2,1", b"2,1,3,4", b"1,1,2", b"0,1,2", b"a,b,c", b"1,2,3\n4", b"<html>", b"1,,2", b"\xff", b"-1,2,3"],
)
def test_what_is_no_permutation_is_discarded(reply: bytes) -> None:
    assert geo.parse_reply(reply, 3) is None


@given(st.binary(max_size=50), st.integers(0, 5))
def test_replies_are_permutations_or_nothing(reply: bytes, count: int) -> None:
    parsed = geo.parse_reply(reply, count)
    assert parsed is None or sorted(parsed) == list(range(1, count + 1))


@given(
    st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=5),
    st.lists(st.sampled_from("vwxyz"), unique=True, max_size=3),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_geo_order(hosts: list[str], fallbacks: list[str], regular: bool, rng: object) -> None:
    question = geo.plan_question(hosts, fallbacks, has_regular_proxies=regular)
    if question is None:
        assert len(hosts) < 2
        assert len(fallbacks) < 2
        return
    reply = list(range(1, len(question.names) + 1))
    rng.shuffle(reply)  # type: ignore[attr-defined]
    order = geo.order_by(question, reply)
    answered = [question.names[number - 1] for number in reply]
    assert [hosts[position] for position in order.hosts] == [name for name in answered if name in hosts]
    assert [fallbacks[position] for position in order.fallbacks] == [name for name in answered if name in fallbacks]


def test_the_question() -> None:
    question = geo.plan_question(["c", "a", "b"], ["f", "e"], has_regular_proxies=False)
    assert question is not None
    assert question.path("key") == b"/api/v1.0/geo/key/a,b,c,+PXYSEP+,f,e"
    assert geo.plan_question(["a"], ["e"], has_regular_proxies=True) is None


def test_standing_fields() -> None:
    fields = dict(standing_fields(NetworkConfig(cernvm_uuid="12-ab\r\nX: y")))
    assert fields["User-Agent"].startswith("cvmfs-py/")
    assert fields["User-Agent"].endswith("(cvmfs) 12-abXy")
    assert fields["Accept-Encoding"] == "identity"
    tracing = NetworkConfig(http_tracing=True, http_tracing_headers="job:7| a : b ")
    assert dict(standing_fields(tracing)).items() >= {("X-CVMFS-job", "7"), ("X-CVMFS-a", "b")}


@pytest.mark.parametrize("text", ["x" * 1001, "no-colon", "a:b:c", "a-b:c", ":c", "a:b\r\nc", "\xe9:x"])
def test_malformed_tracing_is_left_out(text: str) -> None:
    assert parse_tracing(text) == []


def test_info_field() -> None:
    assert info_field("/a b\r\n") == ("cvmfs-info", "/a%20b%0D%0A")


def test_who_says_so() -> None:
    assert proxy_error({}) is None
    assert proxy_error({"x-squid-error": "ERR_CONNECT_FAIL 111"}) == "ERR_CONNECT_FAIL 111"
    assert proxy_error({"proxy-status": "p; error=connection_refused"})
    assert proxy_error({"proxy-status": "p; received-status=200"}) is None
    assert recoding({}) is None
    assert recoding({"content-encoding": "Identity"}) is None
    assert recoding({"content-encoding": "gzip"}) == "gzip"


@pytest.mark.parametrize(
    ("status", "direct", "made_up", "outcome"),
    [
        (200, True, False, Outcome.OK),
        (206, False, False, Outcome.OK),
        (301, True, False, Outcome.HOST_HTTP),
        (302, False, False, Outcome.HOST_HTTP),
        (307, True, False, Outcome.HOST_HTTP),
        (308, True, False, Outcome.HOST_HTTP),
        (308, False, False, Outcome.PROXY_HTTP),
        (400, False, False, Outcome.HOST_HTTP),
        (403, True, False, Outcome.HOST_HTTP),
        (403, False, False, Outcome.PROXY_HTTP),
        (404, True, False, Outcome.HOST_GONE),
        (404, False, False, Outcome.HOST_GONE),
        (404, False, True, Outcome.PROXY_HTTP),
        (407, False, False, Outcome.PROXY_HTTP),
        (429, True, False, Outcome.HOST_CONNECTION),
        (429, False, False, Outcome.HOST_CONNECTION),
        (500, False, False, Outcome.HOST_HTTP),
        (503, False, True, Outcome.PROXY_HTTP),
        (503, True, True, Outcome.HOST_HTTP),
    ],
)
def test_status_classes(status: int, direct: bool, made_up: bool, outcome: Outcome) -> None:
    assert outcome_of_status(status, direct=direct, proxy_error=made_up) is outcome


def test_failures_blame_who_was_asked() -> None:
    for failure, direct in itertools.product(Failure, (True, False)):
        outcome = outcome_of_failure(failure, direct=direct)
        assert outcome.blames_host != outcome.blames_proxy
        if direct:
            assert outcome.blames_host


def test_codes_are_those_of_the_field() -> None:
    assert Outcome.HOST_HTTP.code == Outcome.HOST_GONE.code == 9
    assert (Outcome.OK.code, Outcome.CORRUPTED.code, Outcome.CANCELED.code) == (0, 10, 18)
    assert Outcome.PROXY_CONNECTION.text == "proxy connection problem"
