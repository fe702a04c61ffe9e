"""The first message of a connection: what the kernel offers, what is wanted of it, and what both agree on. Pure.

Decides nothing about the file system: what is agreed on is for the engine to make use of. Exchanged once, before
anything else, and never changed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cvmfs_py.fuse.wire import (
    IN_HEADER_BYTES,
    INC_EPOCH_MINOR,
    MAJOR,
    MIN_READ_BUFFER_BYTES,
    NEWEST_MINOR,
    OLDEST_MINOR,
    OUT_HEADER_BYTES,
    PRUNE_MINOR,
    InitFlag,
)
from cvmfs_py.fuse.wire_requests import MalformedRequestError, Request

_OFFER = struct.Struct("<IIII")
_OFFER_FLAGS2 = struct.Struct("<I")
_REPLY = struct.Struct("<IiQIIIIHHIIHHI28x")  # the last two fields, for stacking and request timeouts, stay 0

_WRITE_HEADER_BYTES = 40
_PAGES_WITHOUT_MAX_PAGES = 32
_U16_MAX = (1 << 16) - 1
_LOW_FLAGS_MASK = (1 << 32) - 1

# What makes an immutable file system cheap: the kernel keeps what it was told and asks for much at once. Some flags
# only say that the kernel can do something; agreeing to them changes nothing there and documents it here.
WANTED_FLAGS = (
    InitFlag.ASYNC_READ
    | InitFlag.DO_READDIRPLUS
    | InitFlag.ASYNC_DIO
    | InitFlag.NO_OPEN_SUPPORT
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.ABORT_ERROR
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.NO_OPENDIR_SUPPORT
    | InitFlag.EXPLICIT_INVAL_DATA
    | InitFlag.INIT_EXT
    | InitFlag.HAS_EXPIRE_ONLY
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the kernel can do."""

    major: int
    minor: int
    max_readahead_bytes: int
    flags: InitFlag  # also those that have no name here

    @property
    def refusal(self) -> str | None:
        """Why this kernel cannot be served; None when it can. One with a newer major version may ask again."""
        version = f"{self.major}.{self.minor}"
        if self.major > MAJOR:
            return f"the kernel speaks version {version} of the FUSE protocol, and version {MAJOR} is needed"
        if self.major < MAJOR or self.minor < OLDEST_MINOR:
            needed = f"{MAJOR}.{OLDEST_MINOR} (Linux 5.4)"
            return f"the kernel speaks version {version} of the FUSE protocol, and {needed} or newer is needed"
        return None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted of the kernel."""

    flags: InitFlag = WANTED_FLAGS
    minor: int = NEWEST_MINOR
    max_read_bytes: int = 1 << 20
    max_readahead_bytes: int = 1 << 20
    # Nothing is ever written; a small limit allows reads of the device with a small buffer.
    max_write_bytes: int = 4096
    time_gran_ns: int = 1
    max_background: int = 64
    congestion_threshold: int = 48


@dataclass(frozen=True, slots=True)
class Negotiation:
    """What a connection goes by."""

    offer: Offer
    wishes: Wishes
    minor: int
    flags: InitFlag
    max_pages: int  # of one read
    max_readahead_bytes: int
    max_write_bytes: int
    time_gran_ns: int
    max_background: int
    congestion_threshold: int

    @property
    def read_buffer_bytes(self) -> int:
        """The least room that a read of the device must have."""
        return max(MIN_READ_BUFFER_BYTES, IN_HEADER_BYTES + _WRITE_HEADER_BYTES + self.max_write_bytes)

    @property
    def has_inc_epoch(self) -> bool:
        """All names can be made stale with one notice."""
        return self.minor >= INC_EPOCH_MINOR

    @property
    def may_have_prune(self) -> bool:
        """The notice came within this version: the kernel refuses it with EINVAL where it came before."""
        return self.minor >= PRUNE_MINOR


def parse_init(request: Request) -> Offer:
    """The arguments of INIT; what newer kernels may append to them is ignored."""
    body = request.body
    try:
        major, minor, max_readahead_bytes, flags = _OFFER.unpack_from(body)
        if flags & InitFlag.INIT_EXT:
            (flags2,) = _OFFER_FLAGS2.unpack_from(body, _OFFER.size)
            flags |= flags2 << 32
    except struct.error:
        reason = f"an offer of {len(body)} bytes is too short"
        raise MalformedRequestError(request.unique, request.opcode, reason) from None
    return Offer(major, minor, max_readahead_bytes, InitFlag(flags))


def negotiate(offer: Offer, wishes: Wishes, page_bytes: int) -> Negotiation:
    """What both sides can do of what is wanted. The offer must be one that is not refused."""
    if offer.refusal is not None:
        raise ValueError(offer.refusal)
    flags = offer.flags & wishes.flags
    if InitFlag.INIT_EXT not in flags:
        flags &= _LOW_FLAGS_MASK  # the kernel does not look at the others
    max_pages = min(-(-wishes.max_read_bytes // page_bytes), _U16_MAX)
    max_background = min(wishes.max_background, _U16_MAX)
    return Negotiation(
        offer=offer,
        wishes=wishes,
        minor=min(offer.minor, wishes.minor),
        flags=flags,
        max_pages=max_pages if InitFlag.MAX_PAGES in flags else min(max_pages, _PAGES_WITHOUT_MAX_PAGES),
        max_readahead_bytes=min(offer.max_readahead_bytes, wishes.max_readahead_bytes),
        max_write_bytes=wishes.max_write_bytes,
        time_gran_ns=wishes.time_gran_ns,
        max_background=max_background,
        congestion_threshold=min(wishes.congestion_threshold, max_background),
    )


def pack_init_reply(unique: int, agreed: Negotiation) -> bytes:
    flags = int(agreed.flags)
    return _REPLY.pack(
        _REPLY.size,
        0,
        unique,
        MAJOR,
        agreed.minor,
        agreed.max_readahead_bytes,
        flags & _LOW_FLAGS_MASK,
        agreed.max_background,
        agreed.congestion_threshold,
        agreed.max_write_bytes,
        agreed.time_gran_ns,
        agreed.max_pages if InitFlag.MAX_PAGES in agreed.flags else 0,
        0,
        flags >> 32,
    )


def pack_version_reply(unique: int) -> bytes:
    """The answer to a kernel with a newer major version: it sends another INIT if it can speak this one, too."""
    return struct.pack("<IiQII", OUT_HEADER_BYTES + 8, 0, unique, MAJOR, NEWEST_MINOR)
