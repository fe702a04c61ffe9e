"""Lines, values, templates and names: text in, text out."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cvmfs_py.config.fqrn import complete_fqrn, domain_of, is_valid_name, organisation_of
from cvmfs_py.config.parse import (
    assigned_names,
    parse_decimal,
    parse_integer,
    parse_overrides,
    parse_simple,
    parse_switch,
)
from cvmfs_py.config.templates import expand_templates, repository_templates
from cvmfs_py.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("A=1", ("A",)),
        ("  A=1  ", ("A",)),
        ("\tA=1", ("A",)),
        ("A = 1", ("A",)),
        ("readonly A=1", ("A",)),
        ("export A=1", ("A",)),
        ("eval A=1", ("A",)),
        ("readonly   A=1", ("A",)),
        ("readonlyA=1", ("readonlyA",)),
        ("export readonly A=1", ()),
        ("# A=1", ()),
        ("A#=1", ()),
        ('A="x # y"', ("A",)),
        ("B#A=1", ()),
        ("A", ()),
        ("", ()),
        ("=1", ()),
        ("A=", ("A",)),
        ("A=1; B=2", ("A",)),
        ('if [ "$A" = "x" ]; then', ()),
        ('if [ "$A" = "x" ]; then B=1; fi', ()),
        ("local A=1", ()),
        ("A=1\nB=2\nA=3", ("A", "B")),
        ("A=1\r\nB=2\r\n", ("A", "B")),
        ("$A=1", ()),
        ("A[1]=1", ()),
        ("A+=1", ()),
        (": ${A:=1}", ()),
        ("1A=1", ()),
        ("A=\0", ()),
    ],
)
def test_which_lines_assign(line: str, names: tuple[str, ...]) -> None:
    assert assigned_names(line) == names
    assert tuple(parse_simple(line)) == names


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("A=  1  ", "1"),
        ("A=x=y", "x=y"),
        ('A="x y"', "x y"),
        ("A='x y'", "x y"),
        ("A='x\"", "'x\""),
        ("A=\"'x'\"", "'x'"),
        ('A="x # y"', '"x'),
        ('A=""', ""),
        ("A='", "'"),
        ("A=", ""),
        ("A=$B", "$B"),
        ("A=1; B=2", "1; B=2"),
        ("A=1 # one", "1"),
        ("A=1\r", "1"),
        ("A=1\nA=2", "2"),
    ],
)
def test_value_of_the_simple_syntax(line: str, value: str) -> None:
    assert parse_simple(line) == {"A": value}


@given(st.text())
@example("=")
@example("#=\n export =")
def test_any_text_is_simple(text: str) -> None:
    for name, value in parse_simple(text).items():
        assert name.isidentifier()
        assert "\n" not in value
        assert "\0" not in value


@given(st.binary())
def test_any_bytes_are_simple(content: bytes) -> None:
    text = content.decode("utf-8", "surrogateescape")
    assert set(assigned_names(text)) == set(parse_simple(text))


@given(st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True), st.from_regex(r"[!$-&(-~]{3,40}", fullmatch=True))
def test_what_is_written_is_read(name: str, value: str) -> None:
    assert parse_simple(f"x=1\n{name}='{value}'\n#\n")[name] == value


@pytest.mark.parametrize("word", ["yes", "YES", "on", "On", "1", "true", "TRUE", " yes "])
def test_words_for_on(word: str) -> None:
    assert parse_switch(word) is True


@pytest.mark.parametrize("word", ["no", "NO", "off", "0", "false", "False"])
def test_words_for_off(word: str) -> None:
    assert parse_switch(word) is False


@pytest.mark.parametrize("word", ["", "y", "ja", "2", "yess"])
def test_words_for_nothing(word: str) -> None:
    assert parse_switch(word) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        (" 5", 5),
        ("5s", 5),
        ("5 6", 5),
        ("-1", -1),
        ("+7", 7),
        ("", 0),
        ("x5", 0),
        ("2.9", 2),
        ("9" * 400, 2**53),
        ("-" + "9" * 400, -(2**53)),
    ],
)
def test_integers_are_the_digits_at_the_beginning(text: str, number: int) -> None:
    assert parse_integer(text) == number


@pytest.mark.parametrize(("text", "number"), [("2.5", 2.5), ("2.", 2.0), ("2", 2.0), (".5", 0.0), ("9" * 400, 2.0**53)])
def test_decimals(text: str, number: float) -> None:
    assert parse_decimal(text) == number


@given(st.text())
def test_every_text_is_some_number(text: str) -> None:
    assert abs(parse_integer(text)) <= 2**53
    assert abs(parse_decimal(text)) <= 2**53


def test_overrides() -> None:
    assert parse_overrides(["CVMFS_A=x=y", "SITE_NAME=", "CVMFS_A=z"]) == {"CVMFS_A": "z", "SITE_NAME": ""}


@pytest.mark.parametrize("option", ["CVMFS_A", "cvmfs_a=1", "A B=1", "=1", "A-B=1", "Ä=1"])
def test_bad_overrides_are_refused(option: str) -> None:
    with pytest.raises(ConfigError):
        parse_overrides([option])


@pytest.mark.parametrize(
    ("value", "expanded"),
    [
        ("http://s/cvmfs/@fqrn@", "http://s/cvmfs/grid.example.org"),
        ("@org@.@fqrn@", "grid.grid.example.org"),
        ("@fqrn@@fqrn@", "grid.example.orggrid.example.org"),
        ("@other@", "@other@"),
        ("user@host", "user@host"),
        ("@", "@"),
        ("@@", "@@"),
        ("a@b@fqrn@c", "a@b@fqrn@c"),  # the first pair is @b@, and the third at-sign is alone
        ("a@b@x@fqrn@c", "a@b@xgrid.example.orgc"),
        ("@FQRN@", "@FQRN@"),
        ("", ""),
    ],
)
def test_templates(value: str, expanded: str) -> None:
    assert expand_templates(value, repository_templates("grid.example.org")) == expanded


def test_templates_wait_for_a_repository() -> None:
    assert expand_templates("@fqrn@ @org@", repository_templates("")) == "@fqrn@ @org@"


@given(st.text(alphabet="@fqrnog.x "))
def test_templates_change_only_pairs(value: str) -> None:
    expanded = expand_templates(value, {"fqrn": "<1>", "org": "<2>"})
    if "@fqrn@" not in value and "@org@" not in value:
        assert expanded == value
    assert expanded.replace("<1>", "@fqrn@").replace("<2>", "@org@") == value
    assert expand_templates(value, {}) == value


@pytest.mark.parametrize(
    ("name", "fqrn"), [("atlas", "atlas.cern.ch"), ("sft.cern.ch", "sft.cern.ch"), ("a-b_c", "a-b_c.cern.ch")]
)
def test_completion(name: str, fqrn: str) -> None:
    assert complete_fqrn(name, "cern.ch") == fqrn


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", ".a", "a.", "a b", "ä.ch", "x" * 61, "a\n", "../x.y"])
def test_names_that_are_none(name: str) -> None:
    assert not is_valid_name(name)
    with pytest.raises(ConfigError, match="invalid repository name"):
        complete_fqrn(name, "cern.ch")


def test_a_short_name_needs_a_domain() -> None:
    with pytest.raises(ConfigError, match="CVMFS_DEFAULT_DOMAIN"):
        complete_fqrn("atlas", None)
    with pytest.raises(ConfigError, match="invalid"):
        complete_fqrn("x" * 59, "cern.ch")


def test_parts_of_a_name() -> None:
    assert domain_of("data.galaxy.example.org") == "galaxy.example.org"
    assert organisation_of("data.galaxy.example.org") == "data"
