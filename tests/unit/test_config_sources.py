"""Which file says what, and who has the last word: real files, the real /bin/sh."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cvmfs_py.config import ConfigRepository, ConfigTree, find_config_repository, resolve_fqrn
from cvmfs_py.errors import ConfigError
from tests.unit.config_machine import FQRN, SERVER, Machine, source_of, value_of, write_files

CONFIG = "config.example.org"
# without the configuration repository and with it; `{}` is its etc/cvmfs
READING_ORDER = (
    "{etc}/default.conf",
    "{etc}/default.d/10-a.conf",
    "{etc}/default.d/20-b.conf",
    "{repository}/default.conf",
    "{etc}/default.local",
    "{repository}/domain.d/example.org.conf",
    "{etc}/domain.d/example.org.conf",
    "{etc}/domain.d/example.org.local",
    "{repository}/config.d/grid.example.org.conf",
    "{etc}/config.d/grid.example.org.conf",
    "{etc}/config.d/grid.example.org.local",
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def configure_repository(machine: Machine, name: str = CONFIG, extra: str = "") -> None:
    text = f"CVMFS_MOUNT_DIR={machine.mount}\nCVMFS_CONFIG_REPOSITORY={name}\n{extra}"
    machine.etc_files({"default.conf": text})


def find(machine: Machine, fqrn: str = FQRN) -> ConfigRepository | None:
    return find_config_repository(fqrn, environment=machine.environment, etc_dir=machine.etc)


@pytest.mark.parametrize("in_tree", [False, True], ids=["mounted", "tree"])
def test_the_order_of_all_files(machine: Machine, in_tree: bool) -> None:
    configure_repository(machine)
    repository = machine.config_repository(CONFIG, {}, in_tree=in_tree)
    paths = [Path(text.format(etc=machine.etc, repository=repository)) for text in READING_ORDER]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f'CVMFS_WAY="$CVMFS_WAY {path.name}"\nCVMFS_LAST=x\n')
    tree = ConfigTree(machine.tree) if in_tree else None
    settings = machine.load(config_tree=tree)
    assert [assignment.source for assignment in settings.parameters["CVMFS_LAST"].trace] == list(map(str, paths))
    # each file saw what the ones before it had set
    assert value_of(settings, "CVMFS_WAY") == " ".join(path.name for path in paths)
    assert settings.blacklists[-1] == repository / "blacklist"
    assert settings.warnings == (
        "CVMFS_HTTP_PROXY is not set; servers are asked directly (set it to DIRECT if that is meant)",
    )


def test_the_machine_as_a_whole_has_three_places(machine: Machine) -> None:
    configure_repository(machine)
    files = dict.fromkeys(("default.conf", "domain.d/.conf", "config.d/.conf", "default.local"), "CVMFS_B=1\n")
    machine.etc_files({"default.d/1.conf": "CVMFS_A=1\n", "default.local": "CVMFS_A=$CVMFS_A:2:$CVMFS_FQRN\n"})
    machine.config_repository(CONFIG, files)
    settings = machine.load("")
    assert value_of(settings, "CVMFS_A") == "1:2:"
    assert value_of(settings, "CVMFS_B") is None
    assert settings.blacklists == (machine.etc / "blacklist",)


def test_default_d_is_sorted_by_name(machine: Machine) -> None:
    names = ("b.conf", "10.conf", "9.conf", "B.conf", ".h.conf", "a.confx", "a.local", "sub.conf.d", "é.conf")
    machine.etc_files({f"default.d/{name}": f'CVMFS_A="$CVMFS_A {name}"\n' for name in names})
    assert value_of(machine.load(), "CVMFS_A") == ".h.conf 10.conf 9.conf B.conf b.conf é.conf"


def test_numbered_defaults_and_the_local_file(machine: Machine) -> None:
    machine.etc_files(
        {
            "default.conf": "CVMFS_DNS_TIMEOUT=1\n",
            "default.d/50-testA.conf": "CVMFS_DNS_TIMEOUT=2\n",
            "default.d/50-testB.conf": "CVMFS_DNS_TIMEOUT=3\n",
        }
    )
    settings = machine.load()
    assert settings.dns_timeout_s == 3
    assert source_of(settings, "CVMFS_DNS_TIMEOUT") == str(machine.etc / "default.d" / "50-testB.conf")
    (machine.etc / "default.d" / "50-testB.conf").rename(machine.etc / "default.d" / "50-testB.off")
    assert machine.load().dns_timeout_s == 2
    machine.etc_files({"default.local": "CVMFS_DNS_TIMEOUT=4\n"})
    settings = machine.load()
    assert settings.dns_timeout_s == 4
    assert source_of(settings, "CVMFS_DNS_TIMEOUT") == str(machine.etc / "default.local")


def test_files_know_the_repository_and_their_directory(machine: Machine, tmp_path: Path) -> None:
    machine.etc_files(
        {"default.d/50-x.conf": f'echo "fqrn-$CVMFS_FQRN" >{tmp_path}/fqrn\necho "$PWD" >{tmp_path}/pwd\n'}
    )
    machine.load()
    assert (tmp_path / "fqrn").read_text() == f"fqrn-{FQRN}\n"
    assert (tmp_path / "pwd").read_text() == f"{machine.etc}/default.d\n"
    assert "CVMFS_FQRN" not in os.environ


def test_a_variable_of_the_environment_cannot_pretend_another_repository(machine: Machine) -> None:
    machine.etc_files({"default.conf": "CVMFS_A=$CVMFS_FQRN\n"})
    machine.environment["CVMFS_FQRN"] = "other.example.org"
    settings = machine.load()
    assert value_of(settings, "CVMFS_A") == FQRN
    assert settings.symlink_environment["CVMFS_FQRN"] == FQRN


def test_the_guard_of_the_basic_block(machine: Machine) -> None:
    block = 'if [ "x$CVMFS_BASE_ENV" = "x" ]; then\n  readonly CVMFS_USER=cvmfs\n  readonly CVMFS_BASE_ENV=1\nfi\n'
    machine.etc_files({"default.conf": block, "default.d/1.conf": block, "default.local": "CVMFS_USER=me\n"})
    settings = machine.load()
    assert value_of(settings, "CVMFS_USER") == "me"
    assert [assignment.value for assignment in settings.parameters["CVMFS_USER"].trace] == ["cvmfs", "cvmfs", "me"]


def test_templates_are_expanded_as_values_are_assigned(machine: Machine) -> None:
    machine.etc_files(
        {"default.conf": "CVMFS_A=@fqrn@\nCVMFS_B=@org@\n", "default.local": "CVMFS_C=$CVMFS_A/$CVMFS_B\n"}
    )
    assert value_of(machine.load(), "CVMFS_C") == "grid.example.org/grid"
    assert value_of(machine.load(""), "CVMFS_C") == "@fqrn@/@org@"


def test_the_configuration_repository_may_not_change_late(machine: Machine) -> None:
    configure_repository(machine)
    machine.config_repository(CONFIG, {"default.conf": "CVMFS_A=right\nCVMFS_CONFIG_REPOSITORY=third.example.org\n"})
    machine.config_repository("other.example.org", {"domain.d/example.org.conf": "CVMFS_A=wrong\n"})
    machine.etc_files({"default.local": "CVMFS_CONFIG_REPOSITORY=other.example.org\n"})
    settings = machine.load()
    assert value_of(settings, "CVMFS_A") == "right"
    assert value_of(settings, "CVMFS_CONFIG_REPOSITORY") == CONFIG
    text = "attempt to change protected CVMFS_CONFIG_REPOSITORY from config.example.org to other.example.org"
    assert any(text in warning for warning in settings.warnings)


def test_a_configuration_repository_that_comes_late_does_not_count(machine: Machine) -> None:
    machine.etc_files({"default.conf": f"CVMFS_MOUNT_DIR={machine.mount}\n"})
    machine.etc_files({"default.local": f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n"})
    machine.config_repository(CONFIG, {"domain.d/example.org.conf": "CVMFS_A=wrong\n"})
    assert value_of(machine.load(), "CVMFS_A") is None
    assert find(machine) is None


def test_the_configuration_repository_needs_no_other(machine: Machine) -> None:
    configure_repository(machine)
    machine.config_repository(CONFIG, {"default.conf": "CVMFS_A=1\n"})
    assert value_of(machine.load(CONFIG), "CVMFS_A") is None
    assert find(machine, CONFIG) is None


def test_without_the_configuration_repository_there_is_a_warning(machine: Machine) -> None:
    configure_repository(machine)
    machine.etc_files({"default.local": "CVMFS_A=1\n"})
    settings = machine.load()
    assert value_of(settings, "CVMFS_A") == "1"
    directory = machine.mount / CONFIG / "etc" / "cvmfs"
    assert f"configuration repository directory does not exist: {directory}" in settings.warnings
    assert len([warning for warning in settings.warnings if "directory does not exist" in warning]) == 1


@pytest.mark.parametrize("place", ["default.d/1.conf", "default.local"])
@pytest.mark.parametrize("tree", [False, True])
def test_a_required_configuration_repository(machine: Machine, place: str, tree: bool) -> None:
    configure_repository(machine)
    machine.etc_files({place: "CVMFS_CONFIG_REPO_REQUIRED=yes\n"})
    machine.tree.mkdir()
    config_tree = ConfigTree(machine.tree) if tree else None
    with pytest.raises(ConfigError, match="required configuration repository directory does not exist"):
        machine.load(config_tree=config_tree)
    machine.config_repository(CONFIG, {"default.conf": "CVMFS_A=1\n"}, in_tree=tree)
    assert value_of(machine.load(config_tree=config_tree), "CVMFS_A") == "1"


@pytest.mark.parametrize("name", ["../../etc", "a b", "a/b", "x" * 61])
def test_a_configuration_repository_with_an_impossible_name(machine: Machine, name: str) -> None:
    configure_repository(machine, f"'{name}'")
    assert f"invalid CVMFS_CONFIG_REPOSITORY: {name}" in machine.load().warnings


def test_files_of_the_configuration_repository_find_each_other_in_the_tree(machine: Machine) -> None:
    configure_repository(machine)
    directory = machine.config_repository(
        CONFIG,
        {
            "common.conf": 'if [ "$CVMFS_HTTP_PROXY" = DIRECT ]; then CVMFS_USE_CDN=yes; fi\n',
            "extra.conf": "CVMFS_EXTRA=yes\n",
            "domain.d/example.org.conf": (
                'CVMFS_USE_CDN="$CVMFS_USE_CDN"\n. ../common.conf\n'
                'CVMFS_EXTRA=\n. "$CVMFS_MOUNT_DIR/$CVMFS_CONFIG_REPOSITORY/etc/cvmfs/extra.conf"\n'
                "CVMFS_KEYS_DIR=$CVMFS_MOUNT_DIR/$CVMFS_CONFIG_REPOSITORY/etc/cvmfs/keys/example.org\n"
                "CVMFS_MOUNT_DIR=$CVMFS_MOUNT_DIR\n"
            ),
            "keys/example.org/a.pub": "key a",
            "blacklist": "",
        },
        in_tree=True,
    )
    literal = f"{machine.mount}/{CONFIG}/etc/cvmfs/keys/example.org/a.pub"
    machine.etc_files({"default.local": f"CVMFS_HTTP_PROXY=DIRECT\nCVMFS_PUBLIC_KEY={literal}\n"})
    settings = machine.load(config_tree=ConfigTree(machine.tree))
    assert value_of(settings, "CVMFS_USE_CDN") == "yes"
    assert value_of(settings, "CVMFS_EXTRA") == "yes"
    assert settings.keys_dir == directory / "keys" / "example.org"
    assert settings.public_keys == (directory / "keys" / "example.org" / "a.pub",)
    assert settings.blacklists == (machine.etc / "blacklist", directory / "blacklist")
    # the tree stands in for the mount, it does not move it
    assert value_of(settings, "CVMFS_MOUNT_DIR") == str(machine.mount)
    assert settings.symlink_environment["CVMFS_MOUNT_DIR"] == str(machine.mount)


def test_a_tree_is_used_in_spite_of_a_mount(machine: Machine) -> None:
    configure_repository(machine)
    machine.config_repository(CONFIG, {"default.conf": "CVMFS_A=mount\n"})
    machine.config_repository(CONFIG, {"default.conf": "CVMFS_A=tree\n"}, in_tree=True)
    assert value_of(machine.load(), "CVMFS_A") == "mount"
    assert value_of(machine.load(config_tree=ConfigTree(machine.tree)), "CVMFS_A") == "tree"


def test_the_user_the_environment_and_the_command_line_come_last(machine: Machine) -> None:
    sources = [machine.etc / "config.d" / f"{FQRN}.local"]
    machine.etc_files({f"config.d/{FQRN}.local": "CVMFS_A=0\n"})
    assert source_of(machine.load(), "CVMFS_A") == str(sources[0])
    for number, name in enumerate(("default.conf", "domain.d/example.org.conf", f"config.d/{FQRN}.conf"), start=1):
        machine.user_files({name: f"CVMFS_A={number}\n"})
        sources.append(machine.user / name)
        settings = machine.load()
        assert value_of(settings, "CVMFS_A") == str(number)
        assert [assignment.source for assignment in settings.parameters["CVMFS_A"].trace] == list(map(str, sources))
    machine.environment["CVMFS_A"] = "4"
    assert source_of(machine.load(), "CVMFS_A") == "@environment@"
    settings = machine.load(overrides={"CVMFS_A": "5"})
    assert source_of(settings, "CVMFS_A") == "@command-line@"
    assert [assignment.value for assignment in settings.parameters["CVMFS_A"].trace] == list("012345")


@pytest.mark.parametrize("source", ["user", "environment", "command line"])
def test_files_decide_by_what_will_be_in_force(machine: Machine, source: str) -> None:
    branch = 'CVMFS_A="$CVMFS_A$CVMFS_HTTP_PROXY;"\n'
    machine.etc_files({"default.conf": "CVMFS_HTTP_PROXY=site\n" + branch, "default.local": branch})
    overrides = {}
    if source == "user":
        machine.user_files({"default.conf": "CVMFS_HTTP_PROXY='@org@'\n"})
    elif source == "environment":
        machine.environment["CVMFS_HTTP_PROXY"] = "@org@"
    else:
        overrides["CVMFS_HTTP_PROXY"] = "@org@"
    settings = machine.load(overrides=overrides)
    assert settings.http_proxy == "grid"
    # within the file that sets it, its own value counts, as in every shell
    assert value_of(settings, "CVMFS_A") == "site;grid;"


def test_the_user_may_choose_the_configuration_repository(machine: Machine) -> None:
    configure_repository(machine)
    machine.config_repository("mine.example.org", {"default.conf": "CVMFS_A=mine\n"})
    machine.user_files({"default.conf": "CVMFS_CONFIG_REPOSITORY=mine.example.org\n"})
    assert value_of(machine.load(), "CVMFS_A") == "mine"
    found = find(machine)
    assert found is not None
    assert found.name == "mine.example.org"


def test_the_directory_of_the_user_follows_the_environment(machine: Machine, tmp_path: Path) -> None:
    write_files(tmp_path / "xdg" / "cvmfs-py", {"default.conf": "CVMFS_A=xdg\n"})
    machine.user_files({"default.conf": "CVMFS_A=home\n"})
    assert value_of(machine.load(), "CVMFS_A") == "home"
    machine.environment["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert value_of(machine.load(), "CVMFS_A") == "xdg"
    machine.environment["XDG_CONFIG_HOME"] = "relative/does/not/count"
    assert value_of(machine.load(), "CVMFS_A") == "home"
    assert value_of(machine.load(user_dir=tmp_path / "none"), "CVMFS_A") is None


def test_files_of_the_user_run_no_shell(machine: Machine, tmp_path: Path) -> None:
    machine.user_files({"default.conf": f"CVMFS_A=$(touch {tmp_path}/ran)\n"})
    assert value_of(machine.load(), "CVMFS_A") == f"$(touch {tmp_path}/ran)"
    assert not (tmp_path / "ran").exists()


def test_explicit_files_replace_all_others(machine: Machine, tmp_path: Path) -> None:
    configure_repository(machine, extra="CVMFS_A=etc\n")
    machine.config_repository(CONFIG, {"default.conf": "CVMFS_A=repository\n"})
    machine.user_files({"default.conf": "CVMFS_B=user\n"})
    write_files(
        tmp_path, {"1.conf": "CVMFS_C=$((1 + 1))\n", "2.conf": "CVMFS_D=$CVMFS_C\nCVMFS_CONFIG_REPOSITORY=x.y\n"}
    )
    machine.environment["CVMFS_E"] = "environment"
    settings = machine.load(config_files=[tmp_path / "1.conf", tmp_path / "2.conf"])
    assert {name: value_of(settings, f"CVMFS_{name}") for name in "ABCDE"} == {
        "A": None,
        "B": None,
        "C": "2",
        "D": "2",
        "E": "environment",
    }
    assert settings.blacklists == (machine.etc / "blacklist",)


def test_explicit_files_must_be_there(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.conf does not exist"):
        machine.load(config_files=[tmp_path / "none.conf"])
    with pytest.raises(ConfigError, match="not a regular file"):
        machine.load(config_files=[tmp_path])


def test_no_shell_where_none_is_wanted(machine: Machine, tmp_path: Path) -> None:
    machine.etc_files({"default.conf": f"CVMFS_A='$(touch {tmp_path}/ran)'\nCVMFS_B=\"x\"\n"})
    settings = machine.load(simple_parsing=True)
    assert value_of(settings, "CVMFS_A") == f"$(touch {tmp_path}/ran)"
    assert value_of(settings, "CVMFS_B") == "x"
    assert not (tmp_path / "ran").exists()


def test_what_is_no_readable_file_is_skipped_with_a_warning(machine: Machine) -> None:
    (machine.etc / "default.conf").mkdir(parents=True)
    machine.etc_files({"default.d/9.conf": "CVMFS_A=1\n"})
    os.mkfifo(machine.etc / "default.d" / "1.conf")
    (machine.etc / "default.d" / "2.conf").symlink_to("2.conf")
    (machine.etc / "default.d" / "3.conf").symlink_to("none")
    (machine.etc / "default.local").write_bytes(b"CVMFS_B=1\n" + b"#" * (1 << 20))
    settings = machine.load()
    assert value_of(settings, "CVMFS_A") == "1"
    skipped = [warning.split(":")[0].rpartition("/")[2] for warning in settings.warnings if "skipped" in warning]
    assert skipped == ["default.conf", "1.conf", "2.conf", "default.local"]


@pytest.mark.needs("other users")
def test_a_file_of_somebody_else() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        root = Path(name, "machine")
        root.mkdir(mode=0o755)
        machine = Machine(root)
        machine.etc_files({"default.conf": "CVMFS_A=1\n", "default.d/1.conf": "CVMFS_B=1\n"})
        machine.user_files({"default.conf": "CVMFS_A=2\n"})
        (machine.etc / "default.conf").chmod(0o600)
        machine.user.chmod(0o700)
        os.seteuid(65534)
        try:
            settings = machine.load()
            with pytest.raises(ConfigError, match="Permission denied"):
                machine.load(config_files=[machine.etc / "default.conf"])
        finally:
            os.seteuid(0)
        assert value_of(settings, "CVMFS_A") is None
        assert value_of(settings, "CVMFS_B") == "1"
        for path in (machine.etc / "default.conf", machine.user / "default.conf"):
            assert f"cannot read {path}: Permission denied; skipped" in settings.warnings


def test_a_file_with_an_error_is_told(machine: Machine) -> None:
    machine.etc_files({"default.conf": "CVMFS_A=1\n", "default.local": "CVMFS_A=2\nif [ x\n"})
    settings = machine.load()
    assert value_of(settings, "CVMFS_A") == ""
    assert any("default.local ends its shell" in warning for warning in settings.warnings)


def test_nothing_is_run_on_a_machine_without_files(machine: Machine) -> None:
    # an environment that no program can be started with
    machine.environment["TOO_LARGE"] = "x" * (1 << 20)
    settings = machine.load("sft.cern.ch", require_servers=True)
    assert value_of(settings, "CVMFS_CONFIG_REPOSITORY") == "cvmfs-config.cern.ch"
    assert settings.warnings == ()


def test_comments_run_no_shell(machine: Machine) -> None:
    machine.etc_files({"default.conf": "# CVMFS_A=1\n\n  # more\n"})
    # an environment that no program can be started with
    machine.environment["TOO_LARGE"] = "x" * (1 << 20)
    assert value_of(machine.load(), "CVMFS_A") is None


def test_which_configuration_repository_applies(machine: Machine) -> None:
    configure_repository(machine)
    options: dict[str, Any] = {"environment": machine.environment, "etc_dir": machine.etc}
    found = find_config_repository(FQRN, **options)
    assert found is not None
    assert (found.name, found.is_mounted, found.is_builtin, found.is_needed) == (CONFIG, False, False, True)
    directory = machine.config_repository(CONFIG, {"default.conf": ""})
    found = find_config_repository(FQRN, **options)
    assert found is not None
    assert found.is_mounted
    assert found.directory == directory
    assert find_config_repository(CONFIG, **options) is None
    assert find_config_repository(FQRN, config_files=[], **options) is None


@pytest.mark.parametrize(
    ("fqrn", "overrides", "is_needed"),
    [
        ("sft.cern.ch", {}, False),
        (FQRN, {}, True),
        (FQRN, {"CVMFS_SERVER_URL": "http://s1.example.org/cvmfs/@fqrn@"}, False),
        ("sft.cern.ch", {"CVMFS_CONFIG_REPOSITORY": CONFIG}, True),
    ],
)
def test_the_built_in_configuration_repository(
    machine: Machine, fqrn: str, overrides: dict[str, str], is_needed: bool
) -> None:
    environment = {**machine.environment, "CVMFS_MOUNT_DIR": str(machine.mount)}
    found = find_config_repository(fqrn, environment=environment, etc_dir=machine.etc, overrides=overrides)
    assert found is not None
    assert found.is_builtin is not ("CVMFS_CONFIG_REPOSITORY" in overrides)
    assert found.is_needed is is_needed


def test_a_machine_without_files_reads_the_tree(machine: Machine) -> None:
    files = {
        "default.conf": 'CVMFS_HTTP_PROXY="auto;DIRECT"\n',
        "domain.d/example.org.conf": (
            SERVER
            + "CVMFS_CACHE_BASE=$CVMFS_CACHE_BASE/big\n"
            + "CVMFS_KEYS_DIR=$CVMFS_MOUNT_DIR/$CVMFS_CONFIG_REPOSITORY/etc/cvmfs/keys/example.org\n"
        ),
    }
    directory = machine.config_repository("cvmfs-config.cern.ch", files, in_tree=True)
    settings = machine.load(config_tree=ConfigTree(machine.tree), require_servers=True)
    assert settings.servers == (f"http://s1.example.org/cvmfs/{FQRN}",)
    assert settings.http_proxy == "auto;DIRECT"
    assert settings.keys_dir == directory / "keys" / "example.org"
    assert settings.cache_dir == machine.load().cache_dir / "big"


def test_names_are_completed_from_the_configuration(machine: Machine) -> None:
    options: dict[str, Any] = {"environment": machine.environment, "etc_dir": machine.etc}
    assert resolve_fqrn("atlas", **options) == "atlas.cern.ch"  # a machine without files
    machine.etc_files({"default.d/1.conf": "CVMFS_DEFAULT_DOMAIN=example.net\n"})
    assert resolve_fqrn("atlas", **options) == "atlas.example.net"
    machine.etc_files({"default.local": "CVMFS_DEFAULT_DOMAIN=example.com\n"})
    assert resolve_fqrn("atlas", **options) == "atlas.example.com"
    assert resolve_fqrn("atlas", overrides={"CVMFS_DEFAULT_DOMAIN": "x.y"}, **options) == "atlas.x.y"
    assert resolve_fqrn("atlas.cern.ch", **options) == "atlas.cern.ch"
    machine.etc_files({"default.d/1.conf": "", "default.local": ""})
    with pytest.raises(ConfigError, match="CVMFS_DEFAULT_DOMAIN"):
        resolve_fqrn("atlas", **options)


@pytest.mark.parametrize("fqrn", ["nodot", "a/b.c", "../x.y"])
def test_settings_are_for_full_names(machine: Machine, fqrn: str) -> None:
    with pytest.raises(ConfigError):
        machine.load(fqrn)


def test_a_file_that_hangs_is_named(machine: Machine) -> None:
    machine.etc_files({"default.local": "CVMFS_A=1\nsleep 1000\n"})
    with pytest.raises(ConfigError, match=r"default\.local did not end"):
        machine.load(shell_timeout_s=0.3)
