"""Stores against a model: a dictionary, and the order in which its members were used."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache.directory import DirectoryStore
from cache.memory import MemoryStore
from cache.reports import Verdict
from tests.contract.objects import commit, make_ref, object_file

if TYPE_CHECKING:
    from cache.pins import Pin
    from cache.ref import ObjectRef
    from cache.store import Store

LIMIT_BYTES = 1200
NUMBERS = st.integers(0, 24)


def data_of(number: int) -> bytes:
    return b"%d." % number * (number * 7 % 60 + 1)


def ref_of(number: int) -> ObjectRef:
    return make_ref(data_of(number), volatile=number % 5 == 0)


class MemoryMachine(RuleBasedStateMachine):
    """Random uses of a store; the model knows what may have been evicted, and what not."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store = self.open_store()
        self.clock = 0
        self.resident: dict[int, tuple[int, int]] = {}  # earliest and latest possible time of the last use
        self.pins: list[tuple[int, Pin]] = []
        self.named: set[int] = set()

    def open_store(self) -> Store:
        return MemoryStore(LIMIT_BYTES)

    def now(self) -> int:
        self.clock += 1
        return self.clock

    def pinned(self) -> set[int]:
        return {number for number, _ in self.pins} | self.named

    def observe(self, may_evict: bool) -> None:
        """Compare what is there with the model, and take evictions over into it."""
        there = {number for number in range(25) if self.store.has(ref_of(number))}
        assert there <= self.resident.keys()
        evicted = self.resident.keys() - there
        assert may_evict or not evicted
        assert not evicted & self.pinned()
        for victim in evicted:
            for survivor in there - self.pinned():
                if (victim % 5 == 0) == (survivor % 5 == 0):
                    assert self.resident[victim][0] <= self.resident[survivor][1], (victim, survivor)
                else:
                    assert victim % 5 == 0, "an ordinary object was evicted before a volatile one"
            del self.resident[victim]

    def use(self, number: int) -> None:
        self.resident[number] = (self.now(), self.clock)

    @rule(number=NUMBERS, keep=st.booleans())
    def store_object(self, number: int, keep: bool) -> None:
        keep = keep and len(self.pins) < 5  # more would leave nothing to evict
        pin = commit(self.store, ref_of(number), data_of(number))
        self.use(number)
        self.pins.append((number, pin))
        self.observe(may_evict=True)
        if not keep:
            self.release(len(self.pins) - 1)

    @rule(numbers=st.lists(NUMBERS, min_size=5, max_size=15))
    def store_many(self, numbers: list[int]) -> None:
        for number in numbers:
            self.store_object(number, keep=False)

    @rule(numbers=st.lists(NUMBERS, min_size=5, max_size=15))
    def use_many(self, numbers: list[int]) -> None:
        for number in numbers:
            self.open_object(number, keep=False)

    @rule(number=NUMBERS)
    def abort_object(self, number: int) -> None:
        with self.store.begin(ref_of(number)) as transaction:
            transaction.write(data_of(number)[:3])
        self.observe(may_evict=False)

    @rule(number=NUMBERS, keep=st.booleans())
    def open_object(self, number: int, keep: bool) -> None:
        keep = keep and len(self.pins) < 5
        if number not in self.resident:
            assert not self.store.has(ref_of(number))
            return
        pin = self.store.open(ref_of(number))
        self.use(number)
        assert pin.read() == data_of(number)
        self.pins.append((number, pin))
        if not keep:
            self.release(len(self.pins) - 1)
        self.observe(may_evict=False)

    @precondition(lambda self: self.pins)
    @rule(place=st.integers(0, 1000))
    def release(self, place: int) -> None:
        number, pin = self.pins.pop(place % len(self.pins))
        assert pin.read() == data_of(number)
        pin.close()
        if number in self.resident:  # what is open while the order is written down counts as used
            self.resident[number] = (self.resident[number][0], self.now())

    @rule(number=NUMBERS)
    def discard(self, number: int) -> None:
        assert self.store.discard(ref_of(number).content_hash) == (number in self.resident)
        self.resident.pop(number, None)
        self.observe(may_evict=False)

    @rule(target_bytes=st.integers(0, LIMIT_BYTES))
    def clean_up(self, target_bytes: int) -> None:
        report = self.store.cleanup(target_bytes)
        self.observe(may_evict=True)
        assert report.remaining_bytes == sum(len(data_of(number)) for number in self.resident)
        assert report.remaining_bytes <= target_bytes or self.resident.keys() <= self.pinned()
        self.pins_count_as_used()

    @rule(numbers=st.sets(NUMBERS, max_size=4))
    def pin_by_name(self, numbers: set[int]) -> None:
        self.store.pin("name", "", [ref_of(number).content_hash for number in numbers])
        self.pins_count_as_used()
        self.named = set(numbers)

    @rule()
    def flush(self) -> None:
        self.store.flush()
        self.observe(may_evict=True)
        self.pins_count_as_used()

    @rule()
    def check(self) -> None:
        assert all(result.verdict is Verdict.OK for result in self.store.check())

    def pins_count_as_used(self) -> None:
        for number in self.pinned() & self.resident.keys():
            self.resident[number] = (self.resident[number][0], self.now())

    @invariant()
    def status_is_exact(self) -> None:
        status = self.store.status()
        assert status.objects == len(self.resident)
        assert status.used_bytes == sum(len(data_of(number)) for number in self.resident)
        pinned_bytes = sum(len(data_of(number)) for number in self.resident.keys() & self.pinned())
        assert status.pinned_bytes >= pinned_bytes
        assert {entry.content_hash for entry in self.store.entries()} == {
            ref_of(number).content_hash for number in self.resident
        }
        for number in self.pinned() & self.resident.keys():
            self.resident[number] = (self.resident[number][0], self.now())

    def teardown(self) -> None:
        for _, pin in self.pins:
            pin.close()
        self.store.close()


class DirectoryMachine(MemoryMachine):
    """The same for a directory, with losses that it must survive."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="cache-model-")
        super().__init__()

    def open_store(self) -> Store:
        return DirectoryStore(self.directory, LIMIT_BYTES)

    @rule()
    def reopen(self) -> None:
        while self.pins:
            self.release(0)
        self.store.close()
        self.store = self.open_store()
        self.observe(may_evict=True)

    @rule(damaged=st.booleans())
    def lose_index(self, damaged: bool) -> None:
        path = Path(self.directory, "index.sqlite")
        if damaged and path.exists():
            path.write_bytes(b"damaged" * 1000)
        else:
            path.unlink(missing_ok=True)
        # Times of last access take the place of uses, and they are coarse.
        for number in self.resident:
            self.resident[number] = (0, self.now())
        self.forget_order()

    @precondition(lambda self: self.resident)
    @rule(place=st.integers(0, 1000), how=st.sampled_from(["truncate", "grow", "vanish", "touch"]))
    def damage_object(self, place: int, how: str) -> None:
        number = sorted(self.resident)[place % len(self.resident)]
        if number in self.pinned():
            return
        path = Path(object_file(self.directory, ref_of(number)))
        if how == "truncate":
            os.truncate(path, path.stat().st_size - 1)
        elif how == "grow":
            os.truncate(path, path.stat().st_size + 1)
        elif how == "vanish":
            path.unlink()
        else:
            path.touch()
        assert not self.store.has(ref_of(number))
        self.store.discard(ref_of(number).content_hash)
        del self.resident[number]
        self.observe(may_evict=False)

    def forget_order(self) -> None:
        """Volatility is lost with the index too: use every object once, so that it is known again."""
        for number in sorted(self.resident):
            self.store.open(ref_of(number)).close()
            self.use(number)
        self.store.status()
        for number in sorted(self.resident):
            self.store.open(ref_of(number)).close()
            self.use(number)

    def teardown(self) -> None:
        super().teardown()
        leftovers = [*Path(self.directory, "txn").iterdir(), *Path(self.directory, "running").iterdir()]
        shutil.rmtree(self.directory)
        assert leftovers == []


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestDirectory = DirectoryMachine.TestCase
TestDirectory.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
