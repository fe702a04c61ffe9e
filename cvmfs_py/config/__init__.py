"""Configuration: from /etc/cvmfs, the user's files, the environment and the command line to one immutable Settings.

Below the network: a configuration repository that is not mounted is fetched by others and handed in as a `ConfigTree`.
"""

from cvmfs_py.config.config_repository import ConfigRepository, ConfigTree
from cvmfs_py.config.domains import KeyText
from cvmfs_py.config.keys import load_blacklist_texts, load_master_key_texts
from cvmfs_py.config.load import find_config_repository, load_settings, resolve_fqrn
from cvmfs_py.config.parameters import Assignment, Parameter
from cvmfs_py.config.parse import parse_overrides
from cvmfs_py.config.settings import Settings

__all__ = [
    "Assignment",
    "ConfigRepository",
    "ConfigTree",
    "KeyText",
    "Parameter",
    "Settings",
    "find_config_repository",
    "load_blacklist_texts",
    "load_master_key_texts",
    "load_settings",
    "parse_overrides",
    "resolve_fqrn",
]
