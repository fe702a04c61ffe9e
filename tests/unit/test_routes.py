"""Routes: every reaction to every class of outcome, the ends of requests, resets; all without I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.network.outcomes import Outcome
from cvmfs_py.network.proxy_list import ProxyPlan, plan_proxies
from cvmfs_py.network.routes import Exhausted, Route, RouteOptions, RouteRequest, Routes

OPTIONS = RouteOptions(
    timeout_s=5,
    timeout_direct_s=10,
    max_retries=1,
    backoff_init_s=2,
    backoff_max_s=10,
    proxy_reset_after_s=300,
    host_reset_after_s=1800,
)


def options(**changes: object) -> RouteOptions:
    return replace(OPTIONS, **changes)  # type: ignore[arg-type]


def routes_of(hosts: str, proxies: str = "DIRECT", fallback: str = "", **changes: object) -> Routes:
    plan = plan_proxies(proxies, fallback)
    # addresses do not matter here: the names are used as if they had been resolved to themselves
    groups = tuple(
        tuple(proxy if proxy.is_direct else proxy.at(proxy.host) for proxy in group) for group in plan.groups
    )
    return Routes(tuple(hosts.split()), ProxyPlan(groups, plan.fallback_start), options(**changes), random.Random(1))


def short(route: Route | Exhausted) -> str:
    """A route as `host/proxy`, with `!` for no-cache and `~` for a sleep before it."""
    if isinstance(route, Exhausted):
        return "gone" if route.gone else "end"
    proxy = "D" if route.proxy.is_direct else route.proxy.host
    return f"{'~' if route.sleep_s_before else ''}{route.host}/{proxy}{'!' if route.no_cache else ''}"


def walk(request: RouteRequest, outcomes: list[Outcome], now: float = 0.0) -> str:
    steps = []
    for outcome in outcomes:
        steps.append(short(request.next_route(now)))
        request.report(outcome, now)
    steps.append(short(request.next_route(now)))
    return " ".join(steps)


@dataclass
class Case:
    name: str
    hosts: str
    proxies: str
    outcomes: str
    steps: str
    retries: int = 1


CASES = [
    # one class after the other, direct, two hosts, no retries left
    Case("host HTTP error", "a b", "DIRECT", "HOST_HTTP", "a/D b/D", 0),
    Case("host gone", "a b", "DIRECT", "HOST_GONE", "a/D b/D", 0),
    Case("host unresolved", "a b", "DIRECT", "HOST_UNRESOLVED", "a/D b/D", 0),
    Case("host connection", "a b", "DIRECT", "HOST_CONNECTION", "a/D b/D", 0),
    Case("host slow", "a b", "DIRECT", "HOST_SLOW", "a/D b/D", 0),
    Case("host short", "a b", "DIRECT", "HOST_SHORT", "a/D b/D", 0),
    # with a retry: only transfer problems are repeated on the same path
    Case("host HTTP error is not repeated", "a b", "DIRECT", "HOST_HTTP", "a/D b/D"),
    Case("host unresolved is not repeated", "a b", "DIRECT", "HOST_UNRESOLVED", "a/D b/D"),
    Case("host connection is repeated", "a b", "DIRECT", "HOST_CONNECTION", "a/D ~a/D"),
    Case("host slow is repeated", "a b", "DIRECT", "HOST_SLOW", "a/D ~a/D"),
    Case("host short is repeated", "a b", "DIRECT", "HOST_SHORT", "a/D ~a/D"),
    Case("proxy connection is repeated", "a", "p|p", "PROXY_CONNECTION", "a/p ~a/p"),
    Case("proxy slow is repeated", "a", "p;q", "PROXY_SLOW", "a/p ~a/p"),
    Case("proxy short is repeated", "a", "p;q", "PROXY_SHORT", "a/p ~a/p"),
    Case("proxy HTTP error is not repeated", "a", "p;q", "PROXY_HTTP", "a/p a/q"),
    Case("proxy unresolved is not repeated", "a", "p;q", "PROXY_UNRESOLVED", "a/p a/q"),
    # the counter of retries is the request's, and fail-over does not reset it
    Case("one retry in all", "a b", "DIRECT", "HOST_CONNECTION HOST_CONNECTION HOST_CONNECTION", "a/D ~a/D b/D end"),
    Case(
        "three retries in all",
        "a b",
        "DIRECT",
        "HOST_SLOW HOST_HTTP HOST_SLOW HOST_SLOW HOST_SLOW",
        "a/D ~a/D b/D ~b/D ~b/D end",
        3,
    ),
    Case("retry at the second host", "a b", "DIRECT", "HOST_HTTP HOST_SHORT HOST_SHORT", "a/D b/D ~b/D end"),
    Case("retry over the second proxy", "a", "p;q", "PROXY_HTTP PROXY_SLOW PROXY_SLOW", "a/p a/q ~a/q end"),
    # corruption: once more without caches, then another host, with caches
    Case("corrupted", "a b", "DIRECT", "CORRUPTED", "a/D a/D!"),
    Case("corrupted twice", "a b", "DIRECT", "CORRUPTED CORRUPTED", "a/D a/D! b/D"),
    Case("corrupted everywhere", "a b", "DIRECT", "CORRUPTED CORRUPTED CORRUPTED CORRUPTED", "a/D a/D! b/D b/D! end"),
    Case("corrupted over a proxy", "a b", "p;q", "CORRUPTED CORRUPTED", "a/p a/p! b/p"),
    Case(
        "corrupted by a proxy, it seems",
        "a b",
        "p;q;DIRECT",
        "CORRUPTED CORRUPTED CORRUPTED CORRUPTED CORRUPTED CORRUPTED",
        "a/p a/p! b/p b/p! b/q! b/D! end",
    ),
    Case(
        "corrupted by one proxy, the other is dead", "a", "p;q", "CORRUPTED CORRUPTED PROXY_SLOW", "a/p a/p! a/q! end"
    ),
    Case("no retry without caches", "a b", "DIRECT", "CORRUPTED HOST_CONNECTION", "a/D a/D! b/D"),
    Case("no caches survive a proxy's failure", "a", "p;q", "CORRUPTED PROXY_SLOW", "a/p a/p! a/q!"),
    Case("one corrupted host", "a", "DIRECT", "CORRUPTED CORRUPTED", "a/D a/D! end"),
    # proxies: members, groups, then hosts from the first group again
    Case("next group", "a", "p;q;r", "PROXY_HTTP PROXY_HTTP PROXY_HTTP", "a/p a/q a/r end"),
    Case(
        "hosts after proxies",
        "a b",
        "p;q",
        "PROXY_HTTP PROXY_HTTP PROXY_HTTP PROXY_HTTP",
        "a/p a/q b/p b/q end",
    ),
    Case("a host's failure does not change the proxy", "a b", "p;q", "HOST_HTTP HOST_HTTP", "a/p b/p end"),
    Case("one proxy", "a b", "p", "PROXY_HTTP PROXY_HTTP", "a/p b/p end"),
    Case("DIRECT as the last group", "a", "p;DIRECT", "PROXY_CONNECTION PROXY_CONNECTION", "a/p ~a/p a/D"),
    Case("proxies, then direct failures", "a b", "p;DIRECT", "PROXY_HTTP HOST_HTTP HOST_HTTP", "a/p a/D b/D end"),
    Case("twice DIRECT, as some write", "a b", "DIRECT;DIRECT", "HOST_HTTP", "a/D b/D"),
    # ends
    Case("single host", "a", "DIRECT", "HOST_HTTP", "a/D end"),
    Case("gone from all", "a b", "DIRECT", "HOST_GONE HOST_GONE", "a/D b/D gone"),
    Case("gone from one, error at the other", "a b", "DIRECT", "HOST_GONE HOST_HTTP", "a/D b/D end"),
    Case("gone after a retry", "a", "DIRECT", "HOST_SLOW HOST_GONE", "a/D ~a/D gone"),
    Case("gone after the proxy's fault", "a", "p;q", "PROXY_HTTP HOST_GONE", "a/p a/q gone"),
    Case("everything else fails at once", "a b", "p;q", "LOCAL_IO", "a/p end"),
    Case("malformed", "a b", "DIRECT", "MALFORMED_URL", "a/D end"),
    Case("canceled", "a b", "DIRECT", "CANCELED", "a/D end"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reactions(case: Case) -> None:
    routes = routes_of(case.hosts, case.proxies, max_retries=case.retries)
    outcomes = [Outcome[name] for name in case.outcomes.split()]
    assert walk(routes.begin(0), outcomes) == case.steps


def test_success_changes_nothing() -> None:
    routes = routes_of("a b", "p;q")
    assert walk(routes.begin(0), [Outcome.OK]) == "a/p a/p"


def test_others_use_what_one_request_found() -> None:
    routes = routes_of("a b c", max_retries=0)
    first, second = routes.begin(0), routes.begin(0)
    assert short(first.next_route(0)) == short(second.next_route(0)) == "a/D"
    first.report(Outcome.HOST_CONNECTION, 0)
    assert short(first.next_route(0)) == "b/D"
    assert short(routes.begin(0).next_route(0)) == "b/D"
    second.report(Outcome.HOST_CONNECTION, 0)  # too late: the host was left already, and b is not to blame
    assert short(second.next_route(0)) == "b/D"
    assert routes.hosts.failovers == 1


def test_a_sleeper_follows_the_switch() -> None:
    routes = routes_of("a b")
    sleeper, other = routes.begin(0), routes.begin(0)
    sleeper.next_route(0)
    sleeper.report(Outcome.HOST_CONNECTION, 0)
    assert short(sleeper.next_route(0)) == "~a/D"
    other.next_route(0)
    other.report(Outcome.HOST_HTTP, 0)
    assert short(sleeper.next_route(1)) == "b/D"


def test_two_requests_blame_one_proxy_once() -> None:
    routes = routes_of("a", "p;q;r")
    first, second = routes.begin(0), routes.begin(0)
    for request in (first, second):
        request.next_route(0)
    for request in (first, second):
        request.report(Outcome.PROXY_HTTP, 0)
    assert short(first.next_route(0)) == short(second.next_route(0)) == "a/q"
    assert routes.proxies.failovers == 1


def test_members_of_a_group_are_used_up_before_the_next_group() -> None:
    routes = routes_of("a", "p1|p2|p3;q")
    request = routes.begin(0)
    seen = []
    for _ in range(4):
        route = request.next_route(0)
        assert isinstance(route, Route)
        seen.append(route.proxy.host)
        request.report(Outcome.PROXY_HTTP, 0)
    assert sorted(seen[:3]) == ["p1", "p2", "p3"]
    assert seen[3] == "q"
    assert short(request.next_route(0)) == "end"


def test_load_is_balanced_between_clients() -> None:
    plan = routes_of("a", "p1|p2|p3").proxies
    chosen = set()
    for seed in range(30):
        routes = routes_of("a", "p1|p2|p3")
        routes.proxies._rng.seed(seed)
        routes.proxies.rebalance()
        chosen.add(routes.proxies.choose(0).host)
    assert chosen == {"p1", "p2", "p3"}
    assert {plan.choose(key).host for key in range(0, 1 << 32, 1 << 28)} == {plan.choose(0).host}  # not sharded


def test_a_proxy_that_may_have_corrupted_something_stays_for_others() -> None:
    routes = routes_of("a", "p;q")
    request = routes.begin(0)
    assert walk(request, [Outcome.CORRUPTED, Outcome.CORRUPTED, Outcome.OK]) == "a/p a/p! a/q! a/q!"
    assert short(routes.begin(0).next_route(0)) == "a/p"
    assert walk(routes.begin(0, host="a"), [Outcome.CORRUPTED, Outcome.CORRUPTED]) == "a/p a/p! a/q!"


def test_attempts_are_told_in_words() -> None:
    routes = routes_of("a b", "p;DIRECT", max_retries=0)
    request = routes.begin(0)
    for outcome, reason in [
        (Outcome.PROXY_CONNECTION, "connection refused"),
        (Outcome.HOST_GONE, "HTTP 404"),
        (Outcome.HOST_HTTP, ""),
    ]:
        request.next_route(0)
        request.report(outcome, 0, reason)
    end = request.next_route(0)
    assert isinstance(end, Exhausted)
    assert [str(attempt) for attempt in end.attempts] == [
        "a via http://p:1080: connection refused",
        "a: HTTP 404",
        "b: host returned HTTP error",
    ]
    assert end.last is Outcome.HOST_HTTP


def test_timeouts_by_proxy_or_direct() -> None:
    routes = routes_of("a", "p;DIRECT")
    request = routes.begin(0)
    route = request.next_route(0)
    assert isinstance(route, Route)
    assert route.timeout_s == 5
    request.report(Outcome.PROXY_HTTP, 0)
    route = request.next_route(0)
    assert isinstance(route, Route)
    assert route.timeout_s == 10


def test_a_fixed_host_is_not_left() -> None:
    routes = routes_of("a b c", max_retries=0)
    assert walk(routes.begin(0, host="b"), [Outcome.HOST_HTTP]) == "b/D end"
    assert walk(routes.begin(0, host="b"), [Outcome.HOST_GONE]) == "b/D gone"
    assert routes.hosts.current == "a"


def test_no_cache_on_request() -> None:
    routes = routes_of("a b")
    assert walk(routes.begin(0, no_cache=True), [Outcome.HOST_SLOW, Outcome.HOST_HTTP]) == "a/D! ~a/D! b/D!"


def test_hosts_come_back() -> None:
    routes = routes_of("a b c", host_reset_after_s=1800)
    walk(routes.begin(0), [Outcome.HOST_HTTP], now=100)
    assert short(routes.begin(1900).next_route(1900)) == "b/D"
    walk(routes.begin(1900), [Outcome.HOST_HTTP], now=1900)
    assert short(routes.begin(1900).next_route(1900)) == "c/D"  # time counts from leaving the first one
    assert short(routes.begin(1900.1).next_route(1900.1)) == "a/D"


def test_hosts_never_come_back_without_a_reset() -> None:
    routes = routes_of("a b", host_reset_after_s=0)
    walk(routes.begin(0), [Outcome.HOST_HTTP])
    assert short(routes.begin(1e9).next_route(1e9)) == "b/D"


def test_the_first_group_comes_back() -> None:
    routes = routes_of("a", "p;q", proxy_reset_after_s=300)
    walk(routes.begin(0), [Outcome.PROXY_HTTP], now=10)
    assert short(routes.begin(310).next_route(310)) == "a/q"
    assert short(routes.begin(310.5).next_route(310.5)) == "a/p"


def test_burned_members_come_back() -> None:
    routes = routes_of("a", "p1|p2", proxy_reset_after_s=300)
    walk(routes.begin(0), [Outcome.PROXY_HTTP], now=10)
    assert len(routes.proxies.burned) == 1
    routes.begin(310)
    assert len(routes.proxies.burned) == 1
    routes.begin(310.5)
    assert not routes.proxies.burned


def test_no_proxy_comes_back_without_a_reset() -> None:
    routes = routes_of("a", "p;q", proxy_reset_after_s=0)
    walk(routes.begin(0), [Outcome.PROXY_HTTP])
    assert short(routes.begin(1e9).next_route(1e9)) == "a/q"


def test_host_fail_over_after_proxies_starts_at_the_first_group() -> None:
    routes = routes_of("a b", "p1|p2;q", max_retries=0)
    request = routes.begin(0)
    for _ in range(3):
        request.next_route(0)
        request.report(Outcome.PROXY_CONNECTION, 0)
    route = request.next_route(0)
    assert isinstance(route, Route)
    assert route.host == "b"
    assert route.proxy.host in ("p1", "p2")
    assert not routes.proxies.burned


def test_indefinite_fail_over_goes_round() -> None:
    routes = routes_of("a", "p;q", max_retries=0, failover_indefinitely=True)
    request = routes.begin(0)
    seen = []
    for _ in range(300):
        route = request.next_route(0)
        assert isinstance(route, Route)
        seen.append(short(route))
        request.report(Outcome.PROXY_CONNECTION, 0)
    assert set(seen) == {"a/p", "a/q", "~a/p"}
    assert sum(step.startswith("~") for step in seen) >= 140  # never a busy loop
    assert len(request._attempts) <= 100


def test_notices() -> None:
    notices: list[str] = []
    routes = Routes(("a", "b"), plan_proxies("p;q", ""), OPTIONS, random.Random(1), notices.append)
    walk(routes.begin(0), [Outcome.PROXY_HTTP, Outcome.HOST_HTTP])
    routes.begin(1e6)
    assert notices == [
        "switching proxy from http://p:1080 to http://q:1080. Reason: proxy returned HTTP error [Current host: a]",
        "switching host from a to b (host returned HTTP error)",
        "switching back to the first proxies",
        "switching back to the first host a",
    ]


def test_nothing_can_be_reported_before_a_try() -> None:
    with pytest.raises(ValueError, match="nothing was tried"):
        routes_of("a").begin(0).report(Outcome.OK, 0)


BAD = [outcome for outcome in Outcome if outcome is not Outcome.OK]


@given(
    hosts=st.integers(1, 4),
    groups=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    retries=st.integers(0, 3),
    shard=st.booleans(),
    key=st.integers(0, (1 << 32) - 1),
    script=st.lists(st.sampled_from(BAD), min_size=1, max_size=12),
)
def test_every_request_ends(
    hosts: int, groups: list[int], retries: int, shard: bool, key: int, script: list[Outcome]
) -> None:
    proxies = ";".join("|".join(f"p{group}{member}" for member in range(size)) for group, size in enumerate(groups))
    routes = routes_of(" ".join(f"h{n}" for n in range(hosts)), proxies, max_retries=retries, proxy_shard=shard)
    request = routes.begin(0, key=key)
    bound = retries + hosts * (sum(groups) + 1)
    attempts = 0
    while True:
        route = request.next_route(attempts)
        if isinstance(route, Exhausted):
            break
        assert route == request.next_route(attempts) or route.sleep_s_before  # asking again changes nothing
        assert route.proxy.url not in routes.proxies.burned
        assert 0 <= route.sleep_s_before <= 10
        attempts += 1
        assert attempts <= bound
        request.report(script[attempts % len(script)], attempts)
    assert isinstance(request.next_route(attempts), Exhausted)
    assert len(route.attempts) == attempts


@given(
    data=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(list(Outcome)), st.floats(0, 500)), max_size=80),
    shard=st.booleans(),
)
def test_concurrent_requests_never_get_a_burned_proxy(data: list[tuple[int, Outcome, float]], shard: bool) -> None:
    routes = routes_of("h0 h1 h2", "a1|a2;b1|b2|b3", proxy_shard=shard)
    now = 0.0
    requests: dict[int, RouteRequest] = {}
    for slot, outcome, elapsed_s in data:
        now += elapsed_s
        request = requests.setdefault(slot, routes.begin(now, key=slot << 29))
        route = request.next_route(now)
        if isinstance(route, Exhausted):
            del requests[slot]
            continue
        assert route.host in routes.hosts.hosts
        fresh = routes.begin(now, key=slot << 29).next_route(now)
        assert isinstance(fresh, Route)
        assert fresh.proxy.url not in routes.proxies.burned
        assert fresh.host == routes.hosts.current
        request.report(outcome, now)
        if outcome is Outcome.OK:
            del requests[slot]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=150), st.booleans())
def test_nobody_gives_up_before_every_host_was_asked(steps: list[tuple[int, int]], resets: bool) -> None:
    """Requests for objects that some hosts lack switch the shared host to and fro; none must starve because of that."""
    hosts = ("h0", "h1", "h2")
    routes = routes_of(" ".join(hosts), max_retries=0, host_reset_after_s=3 if resets else 0)
    requests: dict[int, tuple[RouteRequest, list[str]]] = {}
    for now, (slot, lacking) in enumerate(steps):
        request, asked = requests.setdefault(slot, (routes.begin(now), []))
        route = request.next_route(now)
        if isinstance(route, Exhausted):
            assert sorted(asked) == sorted(hosts)
            assert route.gone
            del requests[slot]
            continue
        asked.append(route.host)
        found = lacking and route.host != hosts[lacking - 1]
        request.report(Outcome.OK if found else Outcome.HOST_GONE, now)
        if found:
            del requests[slot]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=150))
def test_nobody_gives_up_before_every_proxy_was_asked(steps: list[int]) -> None:
    routes = routes_of("h0 h1", "a1|a2;b1", max_retries=0)
    requests: dict[int, tuple[RouteRequest, list[tuple[str, str]]]] = {}
    for now, slot in enumerate(steps):
        request, asked = requests.setdefault(slot, (routes.begin(now), []))
        route = request.next_route(now)
        if isinstance(route, Exhausted):
            assert {host for host, _ in asked} == {"h0", "h1"}
            assert {proxy for _, proxy in asked} >= {"b1"}
            assert {proxy for _, proxy in asked} & {"a1", "a2"}
            del requests[slot]
            continue
        asked.append((route.host, route.proxy.host))
        request.report(Outcome.PROXY_HTTP, now)


def test_an_impatient_request_tries_every_path_once_and_waits_for_nothing() -> None:
    routes = routes_of("a b", "p;q", max_retries=3, failover_indefinitely=True)
    request = routes.begin(0, patient=False)
    outcomes = [Outcome.PROXY_CONNECTION, Outcome.PROXY_SLOW, Outcome.PROXY_CONNECTION, Outcome.PROXY_SLOW]
    assert walk(request, outcomes) == "a/p a/q b/p b/q end"


def test_giving_up_tells_what_was_under_way() -> None:
    request = routes_of("a b", max_retries=0).begin(0)
    assert request.give_up("no answer yet") == ()
    request.next_route(0)
    request.report(Outcome.HOST_HTTP, 0, "HTTP 500")
    request.next_route(0)
    attempts = [(attempt.host, attempt.reason) for attempt in request.give_up("no answer yet")]
    assert attempts == [("a", "HTTP 500"), ("b", "no answer yet")]
