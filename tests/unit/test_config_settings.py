"""From text to typed settings, and the table that says which parameters there are."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
from pathlib import Path

import pytest

from cache.address import Algorithm, ContentHash
from cvmfs_py import config
from cvmfs_py.config import Settings
from cvmfs_py.config.cache_place import choose_cache_place, default_cache_directory
from cvmfs_py.config.combined import parse_tracing_headers
from cvmfs_py.config.parameter_table import IGNORED_NAMES, UNUSED_NAMES, specs
from cvmfs_py.config.parameters import Assignment, Kind, Parameter, XattrVisibility
from cvmfs_py.config.typed import find_fault
from cvmfs_py.errors import ConfigError
from tests.unit.config_machine import FQRN, SERVER, Machine

# fields that are not read from a parameter
_OWN_FIELDS = {
    "fqrn",
    "is_keys_dir_configured",
    "builtin_keys",
    "parameters",
    "symlink_environment",
    "warnings",
}
_TYPES = {
    Kind.TEXT: "str",
    Kind.OPTIONAL_TEXT: "str | None",
    Kind.SWITCH: "bool",
    Kind.NONEMPTY: "bool",
    Kind.INTEGER: "int",
    Kind.SECONDS: "float",
    Kind.QUOTA: "int | None",
    Kind.PATH: "Path | None",
    Kind.PATHS: "tuple[Path, ...]",
    Kind.URLS: "tuple[str, ...]",
    Kind.HASH: "ContentHash | None",
    Kind.TIMESTAMP: "int | None",
    Kind.NAMES: "tuple[str, ...]",
    Kind.IDS: "tuple[int, ...]",
}

USER = os.geteuid()
NOWHERE = Path("/proc/1/nowhere")  # so that root has no place of the system


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_table_and_the_settings_name_the_same() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert {spec.field for spec in specs().values() if spec.field is not None} == fields - _OWN_FIELDS


def test_every_field_has_the_type_of_its_parameter() -> None:
    types = {field.name: field.type for field in dataclasses.fields(Settings)}
    for spec in specs().values():
        if spec.field is not None and not spec.combined and spec.field != "keys_dir":  # which always has a default
            assert types[spec.field] == _TYPES[spec.kind], spec.name


def test_every_parameter_changes_its_field(machine: Machine) -> None:
    """No parameter is in the table without effect, those that only configuration files look at aside."""
    machine.etc.mkdir(parents=True)
    texts = {
        Kind.SWITCH: ("yes", "no"),
        Kind.HASH: ("1" * 40, "2" * 40),
        Kind.TIMESTAMP: ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
        Kind.VISIBILITY: ("always", "never"),
    }
    for spec in specs().values():
        if spec.field is None:
            continue
        first, second = texts.get(spec.kind, ("", "6") if spec.kind is Kind.NONEMPTY else ("7", "6"))
        if spec.field == "http_tracing_headers":
            first, second = "a:1", "b:2"
        elif spec.field in ("cache_dir", "lower_caches"):
            first, second = f"{machine.home}/x", f"{machine.home}/y"
        values = [
            getattr(machine.load(overrides={spec.name: text}, environment={}), spec.field) for text in (first, second)
        ]
        assert values[0] != values[1], spec.name


def test_no_name_is_read_that_is_not_in_the_table() -> None:
    known = {*specs(), *IGNORED_NAMES, *UNUSED_NAMES, "CVMFS_FQRN", "CVMFS_ARCH"}
    for path in Path(config.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and re.fullmatch(r"CVMFS_[A-Z0-9_]+[A-Z0-9]", str(node.value)):
                assert node.value in known, path


def test_every_default_is_a_good_value() -> None:
    for spec in specs().values():
        assert spec.name not in IGNORED_NAMES | UNUSED_NAMES
        assert spec.meaning
        assert spec.like is None or spec.like in specs()
        if spec.default:
            assert find_fault(spec.kind, spec.default) is None, spec.name


def test_defaults(machine: Machine) -> None:
    machine.etc.mkdir(parents=True)
    settings = machine.load()
    assert settings.http_proxy == "DIRECT"
    assert settings.fallback_proxy == ""
    assert (settings.timeout_s, settings.timeout_direct_s) == (5, 10)
    assert (settings.external_timeout_s, settings.external_timeout_direct_s) == (5, 10)
    assert settings.external_http_proxy == "DIRECT"
    assert (settings.backoff_init_s, settings.backoff_max_s) == (2, 10)
    assert (settings.proxy_reset_after_s, settings.host_reset_after_s) == (300, 1800)
    assert settings.max_retries == 1
    assert settings.low_speed_limit_bytes_per_s == 1024
    assert settings.quota_limit_bytes == 4000 << 20
    assert settings.use_ssl_system_ca
    assert settings.claim_ownership
    assert settings.keys_dir == machine.etc / "keys"
    assert settings.blacklists == (machine.etc / "blacklist",)
    assert settings.servers == ()


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("CVMFS_SERVER_URL='http://a/cvmfs/@fqrn@;http://b/@org@/; ;'", "servers", (f"http://a/cvmfs/{FQRN}", "http://b/grid")),
        ("CVMFS_TIMEOUT=7", "timeout_s", 7.0),
        ("CVMFS_TIMEOUT=7.5", "timeout_s", 7.5),
        ("CVMFS_TIMEOUT=7s", "timeout_s", 7.0),
        ("CVMFS_TIMEOUT=-7", "timeout_s", 0.0),
        ("CVMFS_TIMEOUT=x", "timeout_s", 0.0),
        ("CVMFS_TIMEOUT=", "timeout_s", 5.0),
        ("CVMFS_TIMEOUT=7", "external_timeout_s", 7.0),
        ("CVMFS_TIMEOUT=7\nCVMFS_EXTERNAL_TIMEOUT=8", "external_timeout_s", 8.0),
        ("CVMFS_QUOTA_LIMIT=100", "quota_limit_bytes", 100 << 20),
        ("CVMFS_QUOTA_LIMIT=-1", "quota_limit_bytes", None),
        ("CVMFS_QUOTA_LIMIT=0", "quota_limit_bytes", None),
        ("CVMFS_QUOTA_LIMIT=none", "quota_limit_bytes", None),
        ("CVMFS_PROXY_SHARD=on", "proxy_shard", True),
        ("CVMFS_PROXY_SHARD=maybe", "proxy_shard", False),
        ("CVMFS_USE_SSL_SYSTEM_CA=no", "use_ssl_system_ca", False),
        ("CVMFS_USE_SSL_SYSTEM_CA=perhaps", "use_ssl_system_ca", False),
        ("CVMFS_CLAIM_OWNERSHIP=", "claim_ownership", False),
        ("CVMFS_IPV4_ONLY=no", "ipv4_only", True),
        ("CVMFS_IPV4_ONLY=", "ipv4_only", False),
        ("CVMFS_IPFAMILY_PREFER=6", "ipfamily_prefer", 6),
        ("CVMFS_IPFAMILY_PREFER=7", "ipfamily_prefer", 4),
        ("CVMFS_HTTP_PROXY='http://p:3128|q:80;DIRECT'", "http_proxy", "http://p:3128|q:80;DIRECT"),
        ("CVMFS_HTTP_PROXY=", "http_proxy", "DIRECT"),
        ("CVMFS_PAC_URLS='http://wpad/wpad.dat;auto'", "pac_urls", ("http://wpad/wpad.dat", "auto")),
        ("CVMFS_PUBLIC_KEY=/a.pub:/b.pub:", "public_keys", (Path("/a.pub"), Path("/b.pub"))),
        ("CVMFS_BLACKLIST=/b", "blacklists", (Path("/b"),)),
        ("CVMFS_ALIEN_CACHE=/a\nCVMFS_PY_LOWER_CACHES=/b:/c", "lower_caches", (Path("/b"), Path("/c"), Path("/a"))),
        ("CVMFS_REPOSITORY_DATE=2020-01-01T00:00:00Z", "repository_date_s", 1577836800),
        ("CVMFS_ROOT_HASH=" + "Ab" * 20, "root_hash", ContentHash(Algorithm.SHA1, b"\xab" * 20)),
        (
            f"CVMFS_ROOT_HASH={'ab' * 20}-shake128",
            "root_hash",
            ContentHash(Algorithm.SHAKE128, b"\xab" * 20),
        ),
        ("CVMFS_ROOT_HASH=" + "0" * 40, "root_hash", None),
        ("", "magic_xattrs_visibility", XattrVisibility.ROOT_ONLY),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY=always", "magic_xattrs_visibility", XattrVisibility.ALWAYS),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY=sometimes", "magic_xattrs_visibility", XattrVisibility.ROOT_ONLY),
        ("CVMFS_HIDE_MAGIC_XATTRS=yes", "magic_xattrs_visibility", XattrVisibility.NEVER),
        ("CVMFS_HIDE_MAGIC_XATTRS=no", "magic_xattrs_visibility", XattrVisibility.ALWAYS),
        ("CVMFS_HIDE_MAGIC_XATTRS=perhaps", "magic_xattrs_visibility", XattrVisibility.ROOT_ONLY),
        (
            "CVMFS_HIDE_MAGIC_XATTRS=yes\nCVMFS_MAGIC_XATTRS_VISIBILITY=rootonly",
            "magic_xattrs_visibility",
            XattrVisibility.ROOT_ONLY,
        ),
        ("CVMFS_XATTR_PROTECTED_XATTRS='user.fqrn, user.pid,'", "protected_xattrs", ("user.fqrn", "user.pid")),
        ("CVMFS_XATTR_PRIVILEGED_GIDS='7, x,-1,8'", "xattr_privileged_gids", (7, 8)),
        ("X509_CERT_DIR=/certificates", "x509_cert_dir", Path("/certificates")),
        ("CVMFS_HTTP_TRACING_HEADERS='a : b | c:d'", "http_tracing_headers", (("a", "b"), ("c", "d"))),
    ],
)  # fmt: skip
def test_typed_values(machine: Machine, text: str, field: str, value: object) -> None:
    machine.etc_files({"default.conf": text + "\n"})
    assert getattr(machine.load(), field) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CVMFS_TIMEOUT", "5s"),
        ("CVMFS_TIMEOUT", ""),
        ("CVMFS_TIMEOUT", "-1"),
        ("CVMFS_MAX_RETRIES", "1.5"),
        ("CVMFS_MAX_RETRIES", "-1"),
        ("CVMFS_QUOTA_LIMIT", "4GB"),
        ("CVMFS_FOLLOW_REDIRECTS", "maybe"),
        ("CVMFS_USE_CDN", "maybe"),
        ("CVMFS_ROOT_HASH", "abc"),
        ("CVMFS_ROOT_HASH", "a" * 32),
        ("CVMFS_REPOSITORY_DATE", "2020-13-01T00:00:00Z"),
        ("CVMFS_REPOSITORY_DATE", "yesterday"),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY", "sometimes"),
        ("CVMFS_HIDE_MAGIC_XATTRS", "maybe"),
        ("CVMFS_XATTR_PRIVILEGED_GIDS", "7,staff"),
    ],
)
def test_the_command_line_is_held_to_more(machine: Machine, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        machine.load(overrides={name: value})


def test_the_command_line_accepts_what_is_right(machine: Machine) -> None:
    overrides = {
        "CVMFS_TIMEOUT": "0.25",
        "CVMFS_QUOTA_LIMIT": "-1",
        "CVMFS_SITE_VERSION": "@org@-x86",
        "CVMFS_USE_SSL_SYSTEM_CA": "OFF",
    }
    settings = machine.load(overrides=overrides)
    assert settings.timeout_s == 0.25
    assert settings.quota_limit_bytes is None
    assert not settings.use_ssl_system_ca
    assert settings.symlink_environment["CVMFS_SITE_VERSION"] == "grid-x86"


def test_a_misspelt_name_on_the_command_line_is_told(machine: Machine) -> None:
    (warning,) = machine.load(overrides={"CVMFS_TIMOUT": "1", "CVMFS_SITE_VERSION": "2", "CVMFS_NFILES": "3"}).warnings
    assert warning == "-o CVMFS_TIMOUT is unknown; is CVMFS_TIMEOUT meant?"


def test_a_name_that_is_none_is_refused(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="'cvmfs_timeout' is no name"):
        machine.load(overrides={"cvmfs_timeout": "1"})


def test_a_pin_must_be_one_wherever_it_is_set(machine: Machine) -> None:
    machine.etc_files({"default.conf": "CVMFS_REPOSITORY_DATE=2020-01-01\n"})
    with pytest.raises(ConfigError, match="Use YYYY-MM-DDTHH:MM:SSZ"):
        machine.load()


def test_several_pins_are_told(machine: Machine) -> None:
    pins = {
        "CVMFS_ROOT_HASH": "a" * 40,
        "CVMFS_REPOSITORY_TAG": "t",
        "CVMFS_REPOSITORY_DATE": "2020-01-01T00:00:00Z",
    }
    assert len([warning for warning in machine.load(overrides=pins).warnings if "does not count" in warning]) == 2


def test_files_win_over_variables_that_are_not_only_ours(machine: Machine) -> None:
    machine.environment["X509_CERT_DIR"] = "/of/the/user"
    assert machine.load().x509_cert_dir == Path("/of/the/user")
    machine.etc_files({"default.conf": "X509_CERT_DIR=$X509_CERT_DIR/more\n"})
    assert machine.load().x509_cert_dir == Path("/of/the/user/more")


def test_what_variant_links_see(machine: Machine) -> None:
    machine.environment["SITE"] = "environment"
    machine.etc_files({"default.conf": "SITE_VERSION=7\nCVMFS_ARCH=files\nPLAIN=$SITE\n"})
    environment = machine.load().symlink_environment
    assert environment["SITE"] == "environment"
    assert environment["SITE_VERSION"] == "7"
    assert environment["PLAIN"] == "environment"
    assert environment["CVMFS_FQRN"] == FQRN
    assert environment["CVMFS_ARCH"] == os.uname().machine


def test_a_missing_proxy_is_told_where_there_is_a_configuration(machine: Machine) -> None:
    assert machine.load().warnings == ()
    machine.etc_files({"default.conf": "CVMFS_HTTP_PROXY=\n"})
    assert "CVMFS_HTTP_PROXY is not set" in machine.load().warnings[0]
    assert machine.load("").warnings == ()
    machine.etc_files({"default.conf": "CVMFS_HTTP_PROXY=DIRECT\n"})
    assert machine.load().warnings == ()


def test_a_repository_that_nobody_knows(machine: Machine) -> None:
    with pytest.raises(ConfigError) as caught:
        machine.load(require_servers=True)
    for hint in ("CVMFS_SERVER_URL", "--server", str(machine.etc / "domain.d" / "example.org.local"), "config add"):
        assert hint in str(caught.value)
    machine.user_files({"domain.d/example.org.conf": SERVER})
    assert machine.load(require_servers=True).servers == (f"http://s1.example.org/cvmfs/{FQRN}",)


def test_the_settings_cannot_be_changed(machine: Machine) -> None:
    settings = machine.load()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.timeout_s = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.parameters["X"] = Parameter("X", ())  # type: ignore[index]


def test_tracing_headers_that_are_none() -> None:
    headers, complaints = parse_tracing_headers("a:1|b|c:d:e|x-y:1|:|ä:1|z:\x01|ok:")
    assert headers == (("a", "1"), ("ok", ""))
    assert len(complaints) == 6
    headers, complaints = parse_tracing_headers("a:" + "x" * 1000)
    assert headers == ()
    assert "1000" in complaints[0]


def parameters_of(**values: str) -> dict[str, Parameter]:
    return {f"CVMFS_{name}": Parameter(f"CVMFS_{name}", (Assignment(value, "x"),)) for name, value in values.items()}


def test_where_the_cache_is(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home")}
    base = tmp_path / "base"
    own = tmp_path / "home" / ".cache" / "cvmfs-py"

    def place(**values: str) -> Path:
        return choose_cache_place(parameters_of(**values), home, USER, NOWHERE).directory

    assert place() == own
    assert place(CACHE_BASE=str(base)) == base / "cvmfs-py"
    assert place(CACHE_DIR=str(base / "d")) == base / "d" / "cvmfs-py"
    assert place(CACHE_BASE=str(base), CACHE_DIR=str(base / "d")) == base / "d" / "cvmfs-py"
    assert place(CACHE_BASE="") == own
    assert place(CACHE_BASE=str(own / "big")) == own / "big"
    assert place(CACHE_BASE=str(base), PY_CACHE_DIR=str(base / "exact")) == base / "exact"
    assert place(PY_CACHE_DIR="/proc/nothing/can/be/here") == Path("/proc/nothing/can/be/here")


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    own = tmp_path / ".cache" / "cvmfs-py"
    place = choose_cache_place(parameters_of(CACHE_BASE="/proc/1/cache"), home, USER, NOWHERE)
    assert place.directory == own
    assert place.warnings == (f"cannot write to /proc/1/cache/cvmfs-py (CVMFS_CACHE_BASE); the cache is in {own}",)
    (tmp_path / "file").touch()
    assert choose_cache_place(parameters_of(CACHE_DIR=str(tmp_path / "file")), home, USER, NOWHERE).directory == own


def test_the_default_cache(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home")}
    system = tmp_path / "system"
    own = tmp_path / "home" / ".cache" / "cvmfs-py"
    assert default_cache_directory(home, 0, system) == system
    assert default_cache_directory(home, USER, NOWHERE) == own
    assert default_cache_directory({**home, "XDG_CACHE_HOME": f"{tmp_path}/xdg"}, USER, NOWHERE) == Path(
        tmp_path, "xdg", "cvmfs-py"
    )
    for unusable in ("xdg", "/proc/1"):
        assert default_cache_directory({**home, "XDG_CACHE_HOME": unusable}, USER, NOWHERE) == own
    assert default_cache_directory({"HOME": f"{tmp_path}/x/../home/"}, USER, NOWHERE) == own


@pytest.mark.parametrize("name", ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"])
def test_a_cache_is_in_a_directory_of_its_own(name: str, tmp_path: Path) -> None:
    """Some have one directory for everything; there are notes, logs or settings then, which are no objects."""
    environment = {"HOME": "/proc/1", "XDG_CACHE_HOME": str(tmp_path), name: f"{tmp_path}/"}
    assert default_cache_directory(environment, USER, NOWHERE) == tmp_path / "cvmfs-py" / "cache"


def test_a_cache_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": "/proc/1"}
    own = tmp_path / ".cache" / "cvmfs-py"
    place = choose_cache_place({}, environment, USER, NOWHERE)
    assert place.directory == own
    assert place.warnings == (f"cannot write to /proc/1/cvmfs-py (XDG_CACHE_HOME); the cache is in {own}",)
    assert choose_cache_place({}, {**environment, "XDG_CACHE_HOME": str(tmp_path)}, USER, NOWHERE).warnings == ()
