"""The breadcrumb's text, and the choice between a server's root and the local one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.address import Algorithm, ContentHash
from cvmfs_py.trust.breadcrumb import LIMIT_BYTES, Breadcrumb
from cvmfs_py.trust.root_choice import RootChoice, choose_candidate, choose_root

DIGITS = "6ed3d4" + "0123456789abcdef01234567890123456a"
ROOT = ContentHash(Algorithm.SHA1, bytes.fromhex(DIGITS))
OTHER = ContentHash(Algorithm.SHA1, b"x" * 20)
LARGEST = 2**64 - 1

content_hashes = st.builds(
    ContentHash,
    st.sampled_from([Algorithm.SHA1, Algorithm.RMD160, Algorithm.SHAKE128]),
    st.binary(min_size=20, max_size=20).filter(any),
)
breadcrumbs = st.builds(Breadcrumb, content_hashes, st.integers(1, LARGEST), st.integers(0, LARGEST - 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{DIGITS}T1445428515R2", Breadcrumb(ROOT, 1445428515, 2)),
        (f"{DIGITS}T1445428515", Breadcrumb(ROOT, 1445428515, 0)),  # the form without a revision
        (f"{DIGITS}T1445428515R", Breadcrumb(ROOT, 1445428515, 0)),
        (f"{DIGITS}T1445428515R2\n", Breadcrumb(ROOT, 1445428515, 2)),
        (
            f"{DIGITS}-shake128T1R18446744073709551614",
            Breadcrumb(ContentHash(Algorithm.SHAKE128, ROOT.digest), 1, LARGEST - 1),
        ),
        (f"{DIGITS}-rmd160T1R1", Breadcrumb(ContentHash(Algorithm.RMD160, ROOT.digest), 1, 1)),
    ],
)
def test_forms_that_can_be_read(text: str, expected: Breadcrumb) -> None:
    assert Breadcrumb.parse(text.encode()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        DIGITS,
        f"{DIGITS}T",
        f"{DIGITS}TR2",
        f"{DIGITS}T0R2",
        f"{DIGITS}R2",
        f"{DIGITS}T-5R2",
        f"{'0' * 40}T1445428515R2",
        f"{DIGITS[:-1]}T1445428515R2",
        f"{DIGITS[:32]}T1445428515R2",  # MD5 is never the hash of a catalog
        f"{DIGITS.upper()}T1445428515R2",
        f"{DIGITS}T1445428515R{LARGEST}",
        f"{DIGITS}T1445428515R{10**30}",
        f"{DIGITS}-sha256T1445428515R2",
        " " * LIMIT_BYTES + f"{DIGITS}T1445428515R2",
    ],
)
def test_forms_that_are_invalid(text: str) -> None:
    assert Breadcrumb.parse(text.encode()) is None


def test_at_most_164_bytes_are_read() -> None:
    start = f"{DIGITS}T1R"
    text = start + "0" * (LIMIT_BYTES - len(start) - 1) + "12"
    assert len(text) == LIMIT_BYTES + 1
    assert Breadcrumb.parse(text.encode()) == Breadcrumb(ROOT, 1, 1)


@given(breadcrumb=breadcrumbs)
def test_what_is_written_is_read_again(breadcrumb: Breadcrumb) -> None:
    data = breadcrumb.format()
    assert len(data) <= LIMIT_BYTES
    assert Breadcrumb.parse(data) == breadcrumb


@given(
    noise=st.one_of(st.binary(max_size=300), st.text(alphabet="0123456789abcdefTR-shake", max_size=170).map(str.encode))
)
def test_noise_is_invalid_or_a_usable_breadcrumb(noise: bytes) -> None:
    breadcrumb = Breadcrumb.parse(noise)
    if breadcrumb is not None:
        assert breadcrumb.timestamp_s > 0
        assert any(breadcrumb.root_hash.digest)
        assert Breadcrumb.parse(breadcrumb.format()) == breadcrumb


def test_a_written_breadcrumb_has_the_form_of_the_reference() -> None:
    assert Breadcrumb(ROOT, 1445428515, 2).format() == f"{DIGITS}T1445428515R2".encode()


@pytest.mark.parametrize(
    ("server_revision", "local_revision", "expected"),
    [
        (5, None, RootChoice.SERVER),
        (0, None, RootChoice.SERVER),
        (6, 5, RootChoice.SERVER),
        (5, 5, RootChoice.LOCAL),
        (4, 5, RootChoice.LOCAL_OFFLINE),
        (0, 5, RootChoice.LOCAL_OFFLINE),
        (1, 0, RootChoice.SERVER),
        (0, 0, RootChoice.SERVER),
        (LARGEST, LARGEST - 1, RootChoice.SERVER),
    ],
)
def test_choice_of_the_root(server_revision: int, local_revision: int | None, expected: RootChoice) -> None:
    local = None if local_revision is None else Breadcrumb(ROOT, 100, local_revision)
    assert choose_root(server_revision, local) is expected


@pytest.mark.parametrize(
    ("breadcrumb", "mounted", "expected"),
    [
        (None, Breadcrumb(ROOT, 100, 5), Breadcrumb(ROOT, 100, 5)),
        (Breadcrumb(OTHER, 200, 4), Breadcrumb(ROOT, 100, 5), Breadcrumb(ROOT, 200, 5)),
        (Breadcrumb(OTHER, 50, 5), Breadcrumb(ROOT, 100, 5), Breadcrumb(ROOT, 100, 5)),
        (Breadcrumb(OTHER, 50, 6), Breadcrumb(ROOT, 100, 5), Breadcrumb(OTHER, 50, 6)),
        (Breadcrumb(OTHER, 900, 0), Breadcrumb(ROOT, 100, 5), Breadcrumb(ROOT, 900, 5)),
        (Breadcrumb(OTHER, 900, 0), Breadcrumb(ROOT, 100, 0), Breadcrumb(ROOT, 900, 0)),
    ],
    ids=["no breadcrumb", "older revision", "same revision", "newer revision", "without revision", "both without"],
)
def test_choice_of_the_local_candidate(
    breadcrumb: Breadcrumb | None, mounted: Breadcrumb, expected: Breadcrumb
) -> None:
    assert choose_candidate(breadcrumb, mounted) == expected
