"""The stored form of objects: what any client can read back, with and without the fast library."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_py.errors import ConfigError
from cvmfs_py.publish.compression import check_compression, compress, new_compressor
from cvmfs_py.publish.stored_form import inflate_pieces

KINDS = ["zlib", "none", "zstd"]
TEXT = b"".join(b"%d bottles of beer on the wall\n" % number for number in range(20_000))
# Makes its own stored form of the text on its standard input, without libdeflate.
WITHOUT_DEFLATE = """
import sys
sys.modules["deflate"] = None
from cvmfs_py.publish.compression import compress
sys.stdout.buffer.write(compress(sys.stdin.buffer.read(), "zlib"))
"""


def content_of(stored: bytes, compression: str) -> bytes:
    return b"".join(inflate_pieces(io.BytesIO(stored), len, "the object", compression == "none"))


@pytest.mark.parametrize("compression", KINDS)
@given(content=st.binary(max_size=5000) | st.binary(max_size=20).map(lambda some: some * 500))
def test_content_comes_back(compression: str, content: bytes) -> None:
    assert content_of(bytes(compress(content, compression)), compression) == content


@pytest.mark.parametrize("compression", KINDS)
@given(pieces=st.lists(st.binary(max_size=3000), max_size=6))
def test_content_in_pieces_comes_back(compression: str, pieces: list[bytes]) -> None:
    compressor = new_compressor(compression)
    stored = b"".join([*map(compressor.compress, pieces), compressor.flush()])
    assert content_of(stored, compression) == b"".join(pieces)


@pytest.mark.parametrize("content", [b"", b"x", TEXT, bytes(1 << 20)])
def test_zlib_is_one_plain_stream(content: bytes) -> None:
    """What the reference client reads: RFC 1950, nothing before and nothing after."""
    stored = bytes(compress(content, "zlib"))
    inflater = zlib.decompressobj()
    assert inflater.decompress(stored) == content
    assert inflater.eof
    assert inflater.unused_data == b""
    assert stored[0] == 0x78  # by which clients tell it from zstd


def test_zlib_is_as_small_as_that_of_other_publishers() -> None:
    assert len(compress(TEXT, "zlib")) <= len(zlib.compress(TEXT, 6)) * 1.02


def test_empty_files_are_the_object_that_everybody_has() -> None:
    assert bytes(compress(b"", "zlib")) == bytes.fromhex("789c030000000001")


def test_zstd_is_a_frame_that_tells_its_size() -> None:
    stored = bytes(compress(TEXT, "zstd"))
    assert zstandard.get_frame_parameters(stored).content_size == len(TEXT)
    assert zstandard.ZstdDecompressor().decompress(stored) == TEXT


@pytest.mark.parametrize("compression", KINDS)
def test_the_same_content_gives_the_same_bytes(compression: str) -> None:
    assert bytes(compress(TEXT, compression)) == bytes(compress(memoryview(TEXT), compression))


def test_without_the_fast_library_it_is_the_same_format() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_DEFLATE], input=TEXT, capture_output=True, check=True)
    assert done.stdout == zlib.compress(TEXT, 6)


def test_unknown_compressions_are_refused() -> None:
    assert check_compression("zlib") == "zlib"
    with pytest.raises(ConfigError, match="lzma"):
        check_compression("lzma")
