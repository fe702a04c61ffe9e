"""What is evicted: plans and orders, without files."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.lru import Lru
from cache.quota import Candidate, plan_eviction, room_on_full_disk, target_before_large, threshold_bytes
from tests.contract.objects import make_ref

CANDIDATES = st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=30)


@given(CANDIDATES, st.integers(-50, 2000), st.one_of(st.none(), st.integers(0, 10)))
def test_a_plan_takes_a_shortest_prefix_of_what_is_free(
    sizes: list[tuple[int, bool]], excess_bytes: int, most: int | None
) -> None:
    candidates = [Candidate(str(number), size) for number, (size, _) in enumerate(sizes)]
    pinned = {str(number) for number, (_, is_pinned) in enumerate(sizes) if is_pinned}
    plan = plan_eviction(candidates, excess_bytes, pinned.__contains__, most)
    free = [candidate for candidate in candidates if candidate.text not in pinned]
    assert list(plan.victims) == free[: len(plan.victims)]
    assert set(plan.spared) <= pinned
    enough = plan.victim_bytes >= excess_bytes
    assert enough or len(plan.victims) == (len(free) if most is None else min(most, len(free)))
    if plan.victims:
        assert plan.victim_bytes - plan.victims[-1].size_bytes < excess_bytes


def test_targets() -> None:
    mib = 2**20
    assert threshold_bytes(1000) == 500
    assert target_before_large(None, 10**12, 10**12) is None
    assert target_before_large(100 * mib, 99 * mib, 25 * mib) is None  # not large
    assert target_before_large(100 * mib, 50 * mib, 40 * mib) is None  # fits
    assert target_before_large(100 * mib, 70 * mib, 40 * mib) == 50 * mib
    assert target_before_large(100 * mib, 70 * mib, 80 * mib) == 20 * mib
    assert target_before_large(100 * mib, 70 * mib, 300 * mib) == 0
    assert room_on_full_disk(0, 0) > 0
    assert room_on_full_disk(8 * 2**30, 1) == 2**30


@given(st.lists(st.tuples(st.sampled_from("itf"), st.integers(0, 5)), max_size=60))
def test_the_order_of_use(steps: list[tuple[str, int]]) -> None:
    lru = Lru()
    model: dict[str, bool] = {}  # in order; whether inserted since
    for step, number in steps:
        text, ref = f"{number}", make_ref(b"%d" % number)
        if step == "i":
            lru.insert(text, number, ref)
            model.pop(text, None)
            model[text] = True
        elif step == "t":
            lru.touch(text, number, ref)
            model[text] = model.pop(text, False)
        else:
            assert lru.forget(text) == (model.pop(text, None) is not None)
    assert [(text, use.inserted) for text, use in lru.oldest_first()] == list(model.items())
    assert lru.inserted == sum(model.values())
    assert lru.inserted_bytes == sum(int(text) for text, inserted in model.items() if inserted)
    lru.clear()
    assert (len(lru), lru.inserted, lru.inserted_bytes) == (0, 0, 0)
