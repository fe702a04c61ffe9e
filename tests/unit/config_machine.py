"""A machine to configure: a directory with /etc/cvmfs, /cvmfs and a home, and the settings that come of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cvmfs_py.config import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FQRN = "grid.example.org"
SERVER = "CVMFS_SERVER_URL=http://s1.example.org/cvmfs/@fqrn@\n"


class Machine:
    def __init__(self, root: Path) -> None:
        self.etc = root / "etc" / "cvmfs"
        self.mount = root / "cvmfs"
        self.home = root / "home"
        self.user = self.home / ".config" / "cvmfs-py"
        self.tree = root / "tree"
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        self.home.mkdir()

    def etc_files(self, files: Mapping[str, str]) -> None:
        write_files(self.etc, files)

    def user_files(self, files: Mapping[str, str]) -> None:
        write_files(self.user, files)

    def config_repository(self, fqrn: str, files: Mapping[str, str], *, in_tree: bool = False) -> Path:
        directory = (self.tree if in_tree else self.mount) / fqrn / "etc" / "cvmfs"
        write_files(directory, files)
        return directory

    def load(self, fqrn: str = FQRN, **options: Any) -> Settings:
        environment = options.pop("environment", self.environment)
        if not self.etc.is_dir():  # then the mount directory would be that of the machine that runs the tests
            environment = {"CVMFS_MOUNT_DIR": str(self.mount), **environment}
        options["environment"] = environment
        options.setdefault("require_servers", False)
        return load_settings(fqrn, etc_dir=self.etc, **options)


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def value_of(settings: Settings, name: str) -> str | None:
    parameter = settings.parameters.get(name)
    return parameter.value if parameter is not None else None


def source_of(settings: Settings, name: str) -> str:
    return settings.parameters[name].source
