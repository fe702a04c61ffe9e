"""`cvmfs-py config`: shows which parameters are in force and which file set them, checks them, and has them changed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cvmfs_py.cli import options as common
from cvmfs_py.cli.output import counted, write_json
from cvmfs_py.errors import ConfigError, UsageError

if TYPE_CHECKING:
    import argparse

    from cvmfs_py.config.settings import Settings

ACTIONS = {
    "show": "the parameters that are in force, and the file that set each",
    "check": "what is wrong or doubtful in them, or OK",
    "parameters": "every parameter with its form, default and meaning",
    "get": "the value of NAME that is in force",
    "set": "write NAME=VALUE into your file, for REPO or for all",
    "unset": "take NAME out of it again",
    "add": "make REPO known: its --server and --key are checked and written",
}


def build_parser(prog: str) -> argparse.ArgumentParser:
    parser = common.new_parser(
        prog,
        "Show, check or change the configuration of a repository, or of the machine when none is named.\n\n"
        + "\n".join(f"  {name:<11}{text}" for name, text in ACTIONS.items()),
        "cvmfs-py config show --trace sft.cern.ch",
        more=(
            "cvmfs-py config check sft.cern.ch",
            "cvmfs-py config set CVMFS_QUOTA_LIMIT=8000",
            "cvmfs-py config get CVMFS_SERVER_URL sft.cern.ch",
            "cvmfs-py config add my.example.org --server http://localhost:8000 --key my.pub",
        ),
    )
    parser.add_argument(
        "action",
        metavar="ACTION",
        choices=tuple(ACTIONS),
        help="one of the above",
    )
    parser.add_argument(
        "operands", metavar="NAME|REPO", nargs="*", help="FQRN or URL; with get, set, unset a parameter before it"
    )
    parser.add_argument("--trace", action="store_true", help="with show: also the values that were overridden")
    parser.add_argument("--defaults", action="store_true", help="with show: also the parameters that nobody set")
    parser.add_argument("--json", action="store_true", help="with get, show, check, parameters: as JSON")
    parser.add_argument(
        "--system", action="store_true", help="with set, unset, add: for all users, below /etc/cvmfs, not ~/.config"
    )
    parser.add_argument("--no-check", action="store_true", help="with add: do not ask the servers")
    parser.add_argument("--force", action="store_true", help="with add: replace what is configured already")
    common.add_repository_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    from cvmfs_py.cli.session import warn
    from cvmfs_py.config.spelling import tell_misspelt

    if options.action in ("get", "set", "unset"):
        return _run_on_parameters(options)
    if options.action == "add":
        from cvmfs_py.cli.config_add import add_repository

        return add_repository(options, _only_operand(options) or "")
    repository = _only_operand(options)
    if options.action == "parameters":
        if repository is not None:
            raise UsageError(f"parameters are the same for all repositories; leave out {repository}")
        warn(tell_misspelt(common.local_overrides(options)))
        return _list_parameters(options)
    settings, warnings = _load(options, repository)
    if options.action == "check":
        return _check(settings, warnings, options)
    warn(warnings)
    return _show(settings, options)


def _run_on_parameters(options: argparse.Namespace) -> int:
    from cvmfs_py.cli import config_edit
    from cvmfs_py.cli.session import warn

    said, repository = config_edit.split_operands(options.action, options.operands)
    if options.action == "set":
        return config_edit.set_values(said, options, repository)
    if options.action == "unset":
        return config_edit.unset_values(said, options, repository)
    settings, warnings = _load(options, repository)
    warn(warnings)
    return config_edit.show_value(said[0], settings, options)


def _only_operand(options: argparse.Namespace) -> str | None:
    operands = options.operands
    if len(operands) > 1:
        raise UsageError(f"{options.action} is about one repository; leave out {' '.join(operands[1:])}")
    if not operands and options.action == "add":
        raise UsageError("add what? Write add FQRN --server URL --key FILE")
    return operands[0] if operands else None


def _load(options: argparse.Namespace, repository: str | None) -> tuple[Settings, list[str]]:
    from cvmfs_py.cli.session import run_async
    from cvmfs_py.mount.assemble import Wanted, load_wanted_settings

    if repository is None:
        wanted = Wanted("", common.local_overrides(options), common.config_files_of(options))
    else:
        request = common.request_of(options, repository)
        if request.target.path:
            raise UsageError(f"{repository}: a configuration is of a whole repository; leave out the path")
        wanted = Wanted(request.target.name, request.overrides, request.config_files)

    async def load() -> tuple[Settings, list[str]]:
        return await load_wanted_settings(wanted, require_servers=False, tell_all=options.action == "check")

    return run_async(load)


def _show(settings: Settings, options: argparse.Namespace) -> int:
    from cvmfs_py.config.show import format_parameters, format_trace

    if options.json:
        write_json(
            {
                name: {
                    "value": parameter.value,
                    "source": parameter.source,
                    "trace": [{"value": each.value, "source": each.source} for each in parameter.trace],
                }
                for name, parameter in sorted(settings.parameters.items())
            }
        )
    elif options.trace:
        sys.stdout.write(format_trace(settings))
    else:
        sys.stdout.write(format_parameters(settings, with_defaults=options.defaults))
    return 0


def _check(settings: Settings, warnings: list[str], options: argparse.Namespace) -> int:
    from cvmfs_py.config.check import Finding, check_settings
    from cvmfs_py.mount import wiring

    findings = check_settings(settings, warnings)
    if settings.fqrn and not any(finding.is_error for finding in findings):
        try:
            wiring.load_keys(settings)
        except ConfigError as error:
            findings.append(Finding(True, str(error)))
    if options.json:
        write_json(
            [{"error": finding.is_error, "note": finding.is_note, "message": finding.message} for finding in findings]
        )
    else:
        for finding in findings:
            print(finding)
        if all(finding.is_note for finding in findings):
            print("OK")
    errors = sum(finding.is_error for finding in findings)
    if errors:
        whose = settings.fqrn or "this machine"
        raise ConfigError(f"{counted(errors, 'error')} in the configuration of {whose}, as listed")
    return 0


def _list_parameters(options: argparse.Namespace) -> int:
    from cvmfs_py.config.parameter_table import specs
    from cvmfs_py.config.show import format_reference

    if options.json:
        write_json(
            [
                {
                    "name": spec.name,
                    "form": spec.kind.value,
                    "default": spec.default,
                    "meaning": spec.meaning,
                    "group": spec.group,
                }
                for spec in specs().values()
            ]
        )
    else:
        sys.stdout.write(format_reference())
    return 0
