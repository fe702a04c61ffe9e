"""The reader of archives alone: agrees with the standard library, and is broken by nothing."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.publish.tar_acl import AclError, parse_acl
from cvmfs_py.publish.tar_headers import TarFormatError, parse_pax, parse_time_ns
from cvmfs_py.publish.tar_reader import TarReader
from tests.unit.publish_sources import ACL
from tests.unit.tar_archives import archive_of, entry, symlink


def test_any_damage_is_noticed_or_harmless() -> None:
    """Whatever byte of the headers is wrong: the archive is refused, or unpacked without a traceback."""
    whole = bytearray(archive_of(entry("dir/file", b"content", pax_headers={"mtime": "1.5"}), symlink("a", "b")).read())
    noticed = 0
    for at in range(0, 512 * 6, 7):
        damaged = bytes(whole[:at]) + bytes([whole[at] ^ 0x15]) + bytes(whole[at + 1 :])
        try:
            for member in TarReader(io.BytesIO(damaged).read):
                assert member.name
        except TarFormatError:
            noticed += 1
    assert noticed > 150


@given(data=st.binary(max_size=3000))
def test_no_input_breaks_the_reader(data: bytes) -> None:
    with pytest.raises(TarFormatError):
        list(TarReader(io.BytesIO(data + b"x" * 512).read))


@given(
    files=st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=150),
            st.binary(max_size=1500),
            st.integers(0, 0o7777),
            st.integers(0, 1 << 31),
            st.floats(-1e9, 4e9).map(lambda value: round(value, 3)),
        ),
        max_size=5,
    ),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    piece=st.integers(1, 2000),
)
def test_the_reader_agrees_with_the_standard_library(
    files: list[tuple[str, bytes, int, int, float]], form: int, piece: int
) -> None:
    members = [entry("x" + name, content, mode=mode, uid=uid, mtime=mtime) for name, content, mode, uid, mtime in files]
    stream = archive_of(*members, form=form)
    reader = TarReader(stream.read)
    found = []
    for member in reader:
        content = b""
        while more := reader.read(piece):
            content += more
        found.append((member.name, content, member.mode, member.uid, member.size_bytes))
        expected = members[len(found) - 1][0].mtime
        assert abs(member.mtime_ns / 1e9 - (expected if form == tarfile.PAX_FORMAT else int(expected))) < 1e-5
    assert found == [(("x" + name).encode(), content, mode, uid, len(content)) for name, content, mode, uid, _ in files]


@given(seconds=st.integers(-(10**12), 10**12), digits=st.text("0123456789", max_size=12))
def test_times_are_exact(seconds: int, digits: str) -> None:
    nanoseconds = int((digits + "0" * 9)[:9])
    expected = abs(seconds) * 10**9 + nanoseconds
    assert parse_time_ns(f"{seconds}.{digits}".encode()) == (-expected if f"{seconds}"[0] == "-" else expected)
    assert parse_time_ns(b"%d" % seconds) == seconds * 10**9


@given(records=st.lists(st.tuples(st.from_regex(rb"[A-Za-z.]{1,20}", fullmatch=True), st.binary(max_size=120))))
def test_extended_headers_come_back(records: list[tuple[bytes, bytes]]) -> None:
    data = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        size = len(body)
        while len(body) + len(str(size)) != size:
            size = len(body) + len(str(size))
        data += b"%d" % size + body
    assert parse_pax(data) == records
    assert parse_pax(data + bytes(30)) == records


@pytest.mark.parametrize(
    "text", [b"x", b"10 a=b", b"99 a=b\n", b"0 a=b\n", b"5 ab\n\n", b"6 a=bc", b" a=b\n", b"-6 a=b\n"]
)
def test_malformed_headers_are_refused(text: bytes) -> None:
    with pytest.raises(TarFormatError):
        parse_pax(text)


def test_the_words_of_lists() -> None:
    words = b"user::rwx\nuser:1000:r--\ngroup::r--\nmask::r--\nother::r--\n"
    assert parse_acl(words) == ACL
    assert parse_acl(words.replace(b"user:1000:r--", b"user:whoever:r--:1000").replace(b"\n", b",")) == ACL
    assert parse_acl(b"u::rwx,u:1000:r,g::r--,m::r,o::r") == ACL
    assert parse_acl(b"user::rwx,user:root:r--,group::r--,mask::r--,other::r--") == ACL.replace(
        (1000).to_bytes(4, "little"), bytes(4)
    )
    assert parse_acl(b"user::rwx,group::r--,other::---") is None
    for bad in (b"user", b"king::rwx", b"user::rwz", b"mask:me:rwx", b"user:no such user:rwx", b"user::"):
        with pytest.raises(AclError):
            parse_acl(bad)
