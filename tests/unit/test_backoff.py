"""Backoff: random at first, doubled, capped."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.network.backoff import Backoff


@given(st.floats(0, 100), st.floats(0, 100), st.integers())
def test_doubles_up_to_the_cap(init_s: float, max_s: float, seed: int) -> None:
    backoff = Backoff(init_s, max_s, random.Random(seed))
    waits = [backoff.next_s() for _ in range(8)]
    assert 0 <= waits[0] <= min(init_s, max_s)
    for before, after in itertools.pairwise(waits):
        assert after <= max_s
        if before:
            assert after == min(2 * before, max_s)


def test_clients_do_not_come_back_together() -> None:
    assert len({Backoff(2, 10, random.Random(seed)).next_s() for seed in range(20)}) == 20
