"""What a new Debian takes over of this machine, so that it finds packages as this one does: sources, certificates, pip.

Names no servers: whatever is configured here is copied. Changes the root it is given, and nothing else.
"""

from __future__ import annotations

import configparser
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

APT = ("etc/apt/sources.list", "etc/apt/sources.list.d/debian.sources")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
OWN_CERTIFICATES = "/usr/local/share/ca-certificates"
# How an index, a mirror or a proxy is found.
VARIABLES = re.compile(r"PIP_\w+|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|(?:https?|no|HTTPS?|NO)_(?:proxy|PROXY)")
HOW_APT_FETCHES = re.compile(r"Acquire::(?:https?|ftp|Check-)\S*\s.*")


@dataclass(frozen=True, slots=True)
class Sources:
    """What has to be there while something runs in the root."""

    environment: dict[str, str]
    places: tuple[str, ...]  # directories and files of this machine that are to be shown at the same place


def carry_over(root: Path, suite: str) -> Sources:
    """Copies what is configuration, and tells the rest."""
    _carry_apt(root, suite)
    _copy(Path(CERTIFICATES), root)
    for path in Path(OWN_CERTIFICATES).glob("*.crt"):
        _copy(path, root)
    environment = {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}
    settings = _pip_settings()
    target = root / "etc/pip.conf"
    with target.open("w") as file:
        settings.write(file)
    values = [value for section in settings.sections() for value in settings[section].values()]
    return Sources(environment, _local_places([*values, *environment.values()], root))


def _carry_apt(root: Path, suite: str) -> None:
    release = platform.freedesktop_os_release()
    own_suite = release.get("VERSION_CODENAME")
    found = [name for name in APT if Path("/", name).is_file()]
    if release.get("ID") == "debian" and own_suite and found:
        (root / APT[0]).unlink(missing_ok=True)
        for name in found:
            text = re.sub(rf"\b{own_suite}\b", suite, Path("/", name).read_text())
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    if shutil.which("apt-config"):
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        lines = [line for line in dump.splitlines() if HOW_APT_FETCHES.fullmatch(line)]
        (root / "etc/apt/apt.conf.d/90host").write_text("".join(f"{line}\n" for line in lines))


def _pip_settings() -> configparser.RawConfigParser:
    """Of all of pip's files, in the order in which it reads them."""
    directories = os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    files = [Path(directory, "pip/pip.conf") for directory in directories]
    home = Path.home()
    files += [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    settings = configparser.RawConfigParser()
    settings.read(files)
    return settings


def _local_places(values: list[str], root: Path) -> tuple[str, ...]:
    """Directories and files that these settings name."""
    words = {word for value in values for word in value.split()}
    # An index links to files that lie beside it.
    words |= {os.path.dirname(word.removeprefix("file://").rstrip("/")) for word in words if word.startswith("file://")}
    places = {word.rstrip("/") for word in words if word.startswith("/") and os.path.exists(word)}
    return tuple(sorted(place for place in places if not (root / place.lstrip("/")).is_file()))


def _copy(path: Path, root: Path) -> None:
    if path.is_file():
        target = root / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
