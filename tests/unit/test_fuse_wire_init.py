"""The negotiation with the kernel: what it offers, what is agreed on, and who is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.fuse.wire import InitFlag, Opcode
from cvmfs_py.fuse.wire_init import (
    WANTED_FLAGS,
    Negotiation,
    Offer,
    Wishes,
    negotiate,
    pack_init_reply,
    pack_version_reply,
    parse_init,
)
from cvmfs_py.fuse.wire_requests import MalformedRequestError, Request

UNIQUE = 0x1122334455667788
PAGE_BYTES = 4096
LINUX_5_4_FLAGS = InitFlag(0x3FFFFFB)  # everything up to EXPLICIT_INVAL_DATA but FILE_OPS


def init(body: bytes) -> Request:
    return Request(Opcode.INIT, UNIQUE, 0, 0, 0, 0, body)


def offer(minor: int = 45, flags: int = (1 << 43) - 1, major: int = 7) -> Offer:
    return Offer(major, minor, 1 << 17, InitFlag(flags))


class TestOffer:
    def test_of_linux_5_4(self) -> None:
        body = bytes.fromhex("0700 0000 1f00 0000 0000 0200 fbff ff03")
        assert parse_init(init(body)) == Offer(7, 31, 1 << 17, LINUX_5_4_FLAGS)

    def test_of_a_kernel_with_more_flags(self) -> None:
        body = bytes.fromhex("0700 0000 2d00 0000 0000 0200 fbff ff73 ff07 0000") + bytes(44)
        assert parse_init(init(body)) == Offer(7, 45, 1 << 17, InitFlag(0x7FF_73FFFFFB))

    def test_flags_that_have_no_name_are_kept(self) -> None:
        body = struct.pack("<IIIII", 7, 99, 0, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(44)
        assert parse_init(init(body)).flags == (1 << 64) - 1

    def test_further_flags_count_only_where_they_are_announced(self) -> None:
        body = struct.pack("<IIIII", 7, 36, 0, 1, 0xFFFFFFFF) + bytes(44)
        assert parse_init(init(body)).flags == InitFlag.ASYNC_READ

    @pytest.mark.parametrize("body", [b"", bytes(15), struct.pack("<IIII", 7, 36, 0, 1 << 30), bytes(8)])
    def test_that_is_too_short(self, body: bytes) -> None:
        with pytest.raises(MalformedRequestError, match="too short") as caught:
            parse_init(init(body))
        assert caught.value.unique == UNIQUE

    @pytest.mark.parametrize("minor", [31, 38, 45, 46, 1000])
    def test_that_can_be_served(self, minor: int) -> None:
        assert offer(minor).refusal is None

    @pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 23), (7, 22), (7, 8), (7, 4), (6, 99)])
    def test_of_a_kernel_that_is_too_old(self, major: int, minor: int) -> None:
        """Before 7.23 even the size of the reply is another one, and before 7.5 again another."""
        old = offer(minor, major=major)
        version = f"{major}.{minor}"
        expected = f"the kernel speaks version {version} of the FUSE protocol, and 7.31 (Linux 5.4) or newer is needed"
        assert old.refusal == expected
        with pytest.raises(ValueError, match="or newer is needed"):
            negotiate(old, Wishes(), PAGE_BYTES)

    def test_of_a_kernel_that_speaks_another_protocol(self) -> None:
        assert (
            offer(1, major=8).refusal == "the kernel speaks version 8.1 of the FUSE protocol, and version 7 is needed"
        )
        expected = "1800 0000 0000 0000 8877 6655 4433 2211 0700 0000 2d00 0000"
        assert pack_version_reply(UNIQUE) == bytes.fromhex(expected)


class TestNegotiation:
    def test_with_a_new_kernel(self) -> None:
        agreed = negotiate(offer(), Wishes(), PAGE_BYTES)
        assert agreed.flags == WANTED_FLAGS
        assert (agreed.minor, agreed.max_pages, agreed.has_inc_epoch, agreed.may_have_prune) == (45, 256, True, True)
        expected = bytes.fromhex(
            "5000 0000 0000 0000 8877 6655 4433 2211"
            "0700 0000 2d00 0000 0000 0200 01a0 e643 4000 3000 0010 0000 0100 0000 0001 0000 0800 0000"
        ) + bytes(28)
        assert pack_init_reply(UNIQUE, agreed) == expected

    def test_with_linux_5_4(self) -> None:
        agreed = negotiate(offer(31, LINUX_5_4_FLAGS), Wishes(), PAGE_BYTES)
        assert agreed.flags == WANTED_FLAGS & ~(InitFlag.INIT_EXT | InitFlag.HAS_EXPIRE_ONLY)
        assert (agreed.minor, agreed.has_inc_epoch, agreed.may_have_prune) == (31, False, False)
        expected = bytes.fromhex(
            "5000 0000 0000 0000 8877 6655 4433 2211"
            "0700 0000 1f00 0000 0000 0200 01a0 e603 4000 3000 0010 0000 0100 0000 0001 0000 0000 0000"
        ) + bytes(28)
        assert pack_init_reply(UNIQUE, agreed) == expected

    def test_is_the_same_with_an_old_kernel_and_with_a_new_one_of_which_no_more_is_wanted(self) -> None:
        with_old = negotiate(offer(31, LINUX_5_4_FLAGS), Wishes(), PAGE_BYTES)
        modest = Wishes(flags=WANTED_FLAGS & LINUX_5_4_FLAGS, minor=31)
        assert pack_init_reply(UNIQUE, negotiate(offer(), modest, PAGE_BYTES)) == pack_init_reply(UNIQUE, with_old)

    def test_further_flags_are_agreed_on_only_where_both_have_the_field_for_them(self) -> None:
        modest = Wishes(flags=WANTED_FLAGS & ~InitFlag.INIT_EXT)
        for agreed in (negotiate(offer(), modest, PAGE_BYTES), negotiate(offer(36, 1 << 35), Wishes(), PAGE_BYTES)):
            assert int(agreed.flags) >> 32 == 0
            assert pack_init_reply(UNIQUE, agreed)[48:52] == bytes(4)

    def test_without_max_pages_reads_are_small(self) -> None:
        agreed = negotiate(offer(flags=1), Wishes(), PAGE_BYTES)
        assert agreed.max_pages == 32
        assert pack_init_reply(UNIQUE, agreed)[44:46] == b"\0\0"

    @pytest.mark.parametrize(
        ("max_read_bytes", "page_bytes", "max_pages"),
        [(1 << 20, 65536, 16), (4097, 4096, 2), (1, 4096, 1), (1 << 40, 4096, 65535)],
    )
    def test_pages_of_a_read(self, max_read_bytes: int, page_bytes: int, max_pages: int) -> None:
        assert negotiate(offer(), Wishes(max_read_bytes=max_read_bytes), page_bytes).max_pages == max_pages

    @pytest.mark.parametrize(("max_write_bytes", "room_bytes"), [(4096, 8192), (8112, 8192), (1 << 20, (1 << 20) + 80)])
    def test_room_for_reads_of_the_device(self, max_write_bytes: int, room_bytes: int) -> None:
        assert negotiate(offer(), Wishes(max_write_bytes=max_write_bytes), PAGE_BYTES).read_buffer_bytes == room_bytes

    @given(
        st.integers(31, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, 1 << 40),
    )
    def test_never_exceeds_the_offer(
        self, minor: int, readahead: int, flags: int, wanted: int, background: int
    ) -> None:
        given_offer = Offer(7, minor, readahead, InitFlag(flags))
        wishes = Wishes(flags=InitFlag(wanted), max_background=background, congestion_threshold=background + 1)
        agreed: Negotiation = negotiate(given_offer, wishes, PAGE_BYTES)
        reply = pack_init_reply(UNIQUE, agreed)
        assert len(reply) == 80
        assert int(agreed.flags) & ~flags == 0
        assert int(agreed.flags) & ~wanted == 0
        assert (agreed.minor <= minor, agreed.max_readahead_bytes <= readahead) == (True, True)
        assert agreed.congestion_threshold <= agreed.max_background
