"""Command lines of the reference client: of `mount -t cvmfs` (/sbin/mount.cvmfs) and of `cvmfs2`. Pure.

Both become one `MountRequest`. Nothing is looked up: whether the mount point exists, what a bare name's domain is and
which settings are in force is found out by those who act on the request.

What `-o` may hold, in both forms: words of the reference client, words for the kernel, words that only mean something
in /etc/fstab (passed over), `tag=`, `date=` and `root_hash=` to pin a snapshot, and any CVMFS_* parameter as
`NAME=VALUE`. A comma inside a value is written `\\,`.
"""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from cvmfs_py.config.target import parse_target
from cvmfs_py.errors import UsageError
from cvmfs_py.mount.option_words import OptionWords, parse_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DESCRIPTOR = re.compile(rb"/dev/fd/([0-9]{1,9})\Z")
_PINS = {"tag": "CVMFS_REPOSITORY_TAG", "date": "CVMFS_REPOSITORY_DATE", "root_hash": "CVMFS_ROOT_HASH"}
_SHORT_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_INTERNAL = ("__RELOAD__", "__MK_ALIEN_CACHE__", "__cachemgr__", "__wpad__")


class Answer(enum.Enum):
    """What a command line asks for instead of a mount."""

    HELP = enum.auto()
    VERSION = enum.auto()


@dataclass(frozen=True, slots=True)
class MountRequest:
    """One mount, as a command line of the reference client asks for it."""

    name: str  # as typed: a bare name is completed with the default domain
    mountpoint: bytes  # absolute; or /dev/fd/N, see `descriptor`
    overrides: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # parameters, as if by -o
    config_files: tuple[Path, ...] | None = None  # absolute; read instead of all others
    kernel_options: tuple[str, ...] = ()  # for mount(2) and fusermount, in the order in which they were given
    user_id: int | None = None
    group_id: int | None = None
    foreground: bool = False
    debug: bool = False
    allow_other: bool = False
    is_system_mount: bool = False  # by mount(8): for everybody
    takes_mountpoint: bool = False  # the mount point is given to user_id and group_id
    simple_parsing: bool = False  # configuration files are not run by a shell
    only_parameters: bool = False  # show the parameters, mount nothing
    is_remount: bool = False
    is_dry_run: bool = False  # say what would be done

    @property
    def descriptor(self) -> int | None:
        """The number of the /dev/fuse that was mounted by somebody else and handed over; None: an ordinary path."""
        found = _DESCRIPTOR.match(self.mountpoint)
        return None if found is None else int(found[1])


def parse_mount_helper(arguments: Sequence[str], directory: Path) -> MountRequest | Answer:
    """What mount(8) wants: SOURCE MOUNTPOINT [-sfnvh] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]; `-f` is a dry run.

    `directory` is the current one. As with the reference client, such a mount is for everybody, and in the background.
    """
    positionals: list[str] = []
    texts: list[str] = []
    is_dry_run = is_sloppy = False
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            positionals += rest
            break
        if not argument.startswith("-") or argument == "-":
            positionals.append(argument)
            continue
        if argument == "--help":
            return Answer.HELP
        letters = argument[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in "oNt":
                value = letters or (rest.pop(0) if rest else None)
                if value is None:
                    raise UsageError(f"-{letter} lacks its value")
                if letter == "N":
                    raise UsageError(f"-N {value}: enter the mount namespace with nsenter(1) instead")
                texts += [value] if letter == "o" else []
                break
            if letter == "h":
                return Answer.HELP
            if letter not in "sfnv":
                raise UsageError(f"unknown option -{letter}; mount.cvmfs knows -s, -f, -n, -v, -h and -o")
            is_dry_run |= letter == "f"
            is_sloppy |= letter == "s"
    if len(positionals) != 2:
        raise UsageError("two arguments are needed: mount.cvmfs [-fnsv] [-o OPTIONS] REPOSITORY MOUNTPOINT")
    source, mountpoint = positionals
    if source.startswith("/"):
        source = source.rstrip("/").rpartition("/")[2]  # mount(8) makes a path of what exists in its directory
    words = parse_words(texts, is_sloppy=is_sloppy)
    flags = words.flags | {"system_mount", "grab_mountpoint", "allow_other"}
    return _request(source, mountpoint, words, flags, directory, is_remount="remount" in flags, is_dry_run=is_dry_run)


def parse_cvmfs2(arguments: Sequence[str], directory: Path) -> MountRequest | Answer:
    """What `cvmfs2 [-h|-V|-s|-f|-d|-k] [-o OPTIONS] REPOSITORY MOUNTPOINT` asks for; options may come last, too.

    Container runtimes put `/dev/fd/N` in the place of the mount point and `-f` behind it.
    """
    if arguments and arguments[0] in _INTERNAL:
        raise UsageError(f"{arguments[0]} is for processes of the C++ client; this program has no such part")
    positionals: list[str] = []
    texts: list[str] = []
    flags: set[str] = set()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            positionals += rest
            break
        if argument in ("-h", "--help"):
            return Answer.HELP
        if argument in ("-V", "--version"):
            return Answer.VERSION
        if argument in _CVMFS2_SWITCHES:
            flags |= _CVMFS2_SWITCHES[argument]
        elif argument.startswith("-o"):
            value = argument[2:] or (rest.pop(0) if rest else None)
            if value is None:
                raise UsageError("-o lacks its value")
            texts.append(value)
        elif argument.startswith("-") and argument != "-":
            raise UsageError(f"unknown option {argument}; cvmfs2 knows -h, -V, -s, -f, -d, -k and -o")
        else:
            positionals.append(argument)
    if len(positionals) != 2:
        raise UsageError("two arguments are needed: cvmfs2 [-fdk] [-o OPTIONS] REPOSITORY MOUNTPOINT")
    source, mountpoint = positionals
    words = parse_words(texts)
    if "remount" in words.flags:
        raise UsageError("-o remount is for mount(8); cvmfs2 cannot change a mount")
    return _request(source, mountpoint, words, words.flags | flags, directory)


_CVMFS2_SWITCHES: dict[str, set[str]] = {
    "-f": {"foreground"},
    "--foreground": {"foreground"},
    "-d": {"debug"},
    "--debug": {"debug"},
    "-k": {"parse"},
    "-s": set(),  # one thread: there is only one
}


def _request(
    source: str,
    mountpoint: str,
    words: OptionWords,
    flags: frozenset[str] | set[str],
    directory: Path,
    *,
    is_remount: bool = False,
    is_dry_run: bool = False,
) -> MountRequest:
    try:
        target = parse_target(source)
    except UsageError as error:
        raise UsageError(f"Invalid repository: {source}; write a name such as sft.cern.ch, or NAME@TAG") from error
    if target.path:
        raise UsageError(f"Invalid repository: {source}; only whole repositories are mounted")
    overrides = dict(words.parameters)
    if target.url is not None:
        overrides["CVMFS_SERVER_URL"] = target.url
    pins = {f"{name}={value}": (_PINS[name], value) for name, value in words.values.items() if name in _PINS}
    if target.tag is not None:
        pins[f"@{target.tag}"] = (_PINS["tag"], target.tag)
    if len(pins) > 1:
        raise UsageError(f"{' and '.join(pins)} exclude one another: a snapshot is pinned in one way")
    for name, value in pins.values():
        overrides.update(dict.fromkeys(_PINS.values(), ""))
        overrides[name] = f"{value}T00:00:00Z" if name == _PINS["date"] and _SHORT_DATE.match(value) else value
    if "cvmfs_suid" in flags:
        overrides["CVMFS_SUID"] = "yes"
    files = words.values.get("config")
    return MountRequest(
        name=target.name,
        mountpoint=_absolute(os.fsencode(mountpoint), directory),
        overrides=MappingProxyType(overrides),
        config_files=None if files is None else tuple(directory / part for part in files.split(":") if part),
        kernel_options=words.kernel,
        user_id=_number("uid", words),
        group_id=_number("gid", words),
        foreground="foreground" in flags,
        debug=bool(flags & {"debug", "fuse_debug"}),
        allow_other="allow_other" in flags,
        is_system_mount="system_mount" in flags,
        takes_mountpoint="grab_mountpoint" in flags,
        simple_parsing="simple_options_parsing" in flags,
        only_parameters="parse" in flags,
        is_remount=is_remount,
        is_dry_run=is_dry_run,
    )


def _absolute(path: bytes, directory: Path) -> bytes:
    """An absolute path; symbolic links and `..` are for the kernel to follow."""
    if not path or b"\0" in path:
        raise UsageError("the mount point must be a path")
    return os.path.join(os.fsencode(directory), path)


def _number(name: str, words: OptionWords) -> int | None:
    text = words.values.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise UsageError(f"-o {name}={text}: a number is needed")
    return int(text)
