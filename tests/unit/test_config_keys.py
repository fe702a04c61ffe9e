"""Master keys, blacklists, built-in domains and identity maps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from cvmfs_py.config import load_blacklist_texts, load_master_key_texts
from cvmfs_py.config.domains import load_knowledge, parse_knowledge
from cvmfs_py.config.files import read_small_file
from cvmfs_py.config.fqrn import is_valid_name
from cvmfs_py.config.id_map import IdMap, load_id_map, parse_id_map
from cvmfs_py.errors import ConfigError
from tests.unit.config_machine import Machine, source_of

KNOWN = "sft.cern.ch"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def origins(machine: Machine, fqrn: str = KNOWN, **options: object) -> list[str]:
    return [key.origin for key in load_master_key_texts(machine.load(fqrn, **options))]


def test_built_in_keys_are_keys() -> None:
    knowledge = load_knowledge()
    assert knowledge.config_repository.partition(".")[2] in knowledge.domains
    assert knowledge.default_domain in knowledge.domains
    assert set(knowledge.domains) == {"cern.ch", "egi.eu", "opensciencegrid.org", "eessi.io"}
    for name, domain in knowledge.domains.items():
        assert is_valid_name(f"x.{name}")
        assert domain.servers
        assert len(domain.cdn_servers) <= len(domain.servers)
        assert domain.keys
        for url in (*domain.servers, *domain.cdn_servers):
            assert url.startswith("http://")
            assert url.endswith("/cvmfs/@fqrn@")
        for key in domain.keys:
            public_key = load_pem_public_key(key.pem)
            assert isinstance(public_key, RSAPublicKey)
            assert public_key.key_size == 2048


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "config_repository = 'a'\ndefault_domain = 'b'\n[domain.'c']\nhosts = 'x'\nkeys = {}\n",
        "config_repository = 'a'\ndefault_domain = 'b'\n[domain.'c']\nhosts = ['x']\nkeys = {k = '!'}\n",
        "config_repository = 'a'\ndefault_domain = 'b'\ndomain = 3\n",
    ],
)
def test_a_damaged_list_of_domains(text: str) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        parse_knowledge(text)


def test_a_machine_without_files_knows_the_public_domains(machine: Machine) -> None:
    settings = machine.load(KNOWN, require_servers=True)
    assert settings.servers[0] == f"http://cvmfs-stratum-one.cern.ch/cvmfs/{KNOWN}"
    assert settings.use_geoapi
    assert source_of(settings, "CVMFS_SERVER_URL") == "@builtin@"
    assert origins(machine) == ["built-in key cern-it1", "built-in key cern-it4", "built-in key cern-it5"]


def test_the_delivery_network(machine: Machine) -> None:
    servers = machine.load(KNOWN, overrides={"CVMFS_USE_CDN": "yes"}).servers
    assert servers
    assert all("openhtc.io" in server for server in servers)


def test_configured_servers_win_and_leave_the_keys(machine: Machine) -> None:
    machine.etc_files({"domain.d/cern.ch.local": "CVMFS_SERVER_URL=http://mirror/cvmfs/@fqrn@\n"})
    settings = machine.load(KNOWN)
    assert settings.servers == (f"http://mirror/cvmfs/{KNOWN}",)
    assert not settings.use_geoapi
    assert load_master_key_texts(settings)[0].origin == "built-in key cern-it1"


def test_configured_geography_stays(machine: Machine) -> None:
    machine.etc_files({"default.local": "CVMFS_USE_GEOAPI=no\n"})
    assert not machine.load(KNOWN).use_geoapi


def test_configured_keys_win_and_leave_the_servers(machine: Machine) -> None:
    machine.etc_files({"default.conf": f"CVMFS_KEYS_DIR={machine.etc}/mine\n", "mine/a.pub": "A"})
    assert origins(machine) == [str(machine.etc / "mine" / "a.pub")]
    assert machine.load(KNOWN).servers


def test_the_standard_directory_counts_only_with_keys_in_it(machine: Machine) -> None:
    machine.etc_files({"default.conf": f"CVMFS_KEYS_DIR={machine.etc}/keys\n", "keys/cern.ch/a.pub": "A"})
    assert origins(machine)[0] == "built-in key cern-it1"
    with pytest.raises(ConfigError, match=r"no master key for x\.example\.org"):
        origins(machine, "x.example.org")
    machine.etc_files({"keys/b.pub": "B"})
    assert origins(machine) == [str(machine.etc / "keys" / "b.pub")]


def test_keys_of_a_directory(machine: Machine) -> None:
    files = {"keys/d/b.pub": "B", "keys/d/a.pub": "A", "keys/d/a.pub.old": "C", "keys/d/sub/c.pub": "D"}
    machine.etc_files({"default.conf": f"CVMFS_KEYS_DIR={machine.etc}/keys/d\n", **files})
    texts = load_master_key_texts(machine.load())
    assert [(Path(key.origin).name, key.pem) for key in texts] == [("a.pub", b"A"), ("b.pub", b"B")]


def test_named_keys_win_over_a_directory(machine: Machine) -> None:
    machine.etc_files({"keys/a.pub": "A", "keys/b.pub": "B", "keys/c.pub": "C"})
    keys = f"{machine.etc}/keys/c.pub:{machine.etc}/keys/b.pub"
    machine.etc_files({"default.conf": f"CVMFS_KEYS_DIR={machine.etc}/keys\nCVMFS_PUBLIC_KEY={keys}\n"})
    assert [key.pem for key in load_master_key_texts(machine.load())] == [b"C", b"B"]


def test_keys_that_cannot_be_read(machine: Machine) -> None:
    machine.etc_files({"keys/a.pub": "A", "default.conf": f"CVMFS_PUBLIC_KEY={machine.etc}/keys/a.pub:/none.pub\n"})
    with pytest.raises(ConfigError, match=r"/none\.pub does not exist"):
        origins(machine)
    with pytest.raises(ConfigError, match="does not exist"):
        origins(machine, overrides={"CVMFS_PUBLIC_KEY": "", "CVMFS_KEYS_DIR": "/none"})
    machine.etc_files({"default.conf": ""})
    (machine.etc / "keys" / "b.pub").mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        origins(machine)
    (machine.etc / "keys" / "b.pub").rmdir()
    (machine.etc / "keys" / "b.pub").symlink_to("none")
    with pytest.raises(ConfigError, match=r"b\.pub does not exist"):
        origins(machine)
    machine.etc_files({"default.conf": f"CVMFS_KEYS_DIR={machine.etc}/default.conf\n"})
    with pytest.raises(ConfigError, match="cannot read the directory"):
        origins(machine)


def test_blacklists(machine: Machine) -> None:
    settings = machine.load()
    assert load_blacklist_texts(settings) == ()
    machine.etc_files({"blacklist": "AA:BB\n"})
    assert load_blacklist_texts(settings) == ((machine.etc / "blacklist", b"AA:BB\n"),)
    (machine.etc / "blacklist").unlink()
    (machine.etc / "blacklist").mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        load_blacklist_texts(settings)


def test_small_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_small_file(path, 100) == b"x" * 100
    with pytest.raises(ConfigError, match="larger than 99 bytes"):
        read_small_file(path, 99)
    with pytest.raises(FileNotFoundError):
        read_small_file(tmp_path / "none", 1)
    with pytest.raises(FileNotFoundError):
        read_small_file(path / "below", 1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_small_file(tmp_path / "pipe", 1)
    with pytest.raises(ConfigError, match="not a regular file"):
        read_small_file(Path("/dev/null"), 1)
    with pytest.raises(ConfigError, match="embedded null byte"):
        read_small_file(Path("a\0b"), 1)


def test_maps_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("# users\n1000 2000\n\n  0   1 # root\n* 65534\n")
    id_map = load_id_map(path)
    assert id_map == IdMap({1000: 2000, 0: 1}, 65534)
    assert [id_map.map(number) for number in (0, 1000, 5)] == [1, 2000, 65534]
    assert parse_id_map("1 2\n", "x").map(3) == 3


@pytest.mark.parametrize("text", ["1", "1 2 3", "a b", "-1 2", "1 *", "1 99999999999", "** 1"])
def test_maps_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"map, line 2"):
        parse_id_map(f"1 2\n{text}\n", "map")


@pytest.mark.parametrize("text", ["1 4294967296", "4294967296 1", "* 9999999999", "1 4294967295", "4294967295 1"])
def test_maps_to_what_is_no_owner(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^map, line 2: \d+ is no owner; the largest is 4294967294$"):
        parse_id_map(f"1 2\n{text}\n", "map")
    assert parse_id_map("1 4294967294\n", "map").map(1) == 4294967294


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_id_map(tmp_path / "none")
