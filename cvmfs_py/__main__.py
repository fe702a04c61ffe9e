"""The command `cvmfs-py`. First makes sure that the user's settings cannot reach into this program.

Set-up scripts of scientific stacks change PYTHONPATH, PYTHONHOME and LD_LIBRARY_PATH; the packages `cache` and
`catalog` have generic names. So a start that could see foreign modules or libraries is repeated in Python's isolated
mode before anything else is imported. That start runs this file by its path, wherever it was installed.
"""

import gc
import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAVED_LIBRARIES = "_CVMFS_PY_LD_LIBRARY_PATH"  # what the commands that this program runs get back


def main() -> None:
    _isolate()
    from cvmfs_py import installation

    fault = installation.fault_of_python()
    if fault is not None:
        sys.stderr.write(f"cvmfs-py: {fault}\n")
        sys.exit(2)
    try:
        code = _run_if_complete()
    except KeyboardInterrupt:
        code = 130
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: an interrupt would only print a traceback
    gc.freeze()  # the interpreter's last look for garbage would take 25 ms, and all of it goes away anyway
    sys.exit(code)


def _run_if_complete() -> int:
    """What is wrong with the installation is one line."""
    try:
        return _run()
    except (ImportError, OSError, SyntaxError) as error:  # those of commands end in `cli.app`
        from cvmfs_py import installation

        print(f"cvmfs-py: {installation.fault_of_import(error)}", file=sys.stderr)
        return 2


def _run() -> int:
    gc.disable()  # looking for garbage while modules are loaded would take 10 ms; `cli.app` enables it again
    from cvmfs_py.cli import streams

    streams.guard()
    try:
        from cvmfs_py.cli.app import run

        code = run(sys.argv[1:])
    except SystemExit as end:  # the parser's, after its help
        code = end.code if isinstance(end.code, int) else 2
    return streams.finish(code)


def _isolate() -> None:
    """Starts again, unless this start sees nothing but what is installed."""
    environment = dict(os.environ)
    libraries = environment.pop("LD_LIBRARY_PATH", "")
    if libraries and _loaded_interpreter_from(libraries):
        environment["LD_LIBRARY_PATH"] = libraries
        libraries = ""
    if libraries:
        environment[SAVED_LIBRARIES] = libraries
    variables = directory = False
    if not sys.flags.isolated:
        variables = any(name in environment for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP"))
        # `python -m` puts the current directory before everything else.
        directory = sys.path[0] != HOME and sys.path[0] in ("", _current_directory())
    if variables or libraries or directory:
        os.execve(sys.executable, [sys.executable, "-I", os.path.abspath(__file__), *sys.argv[1:]], environment)


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed: nothing is imported from there
        return ""


def _loaded_interpreter_from(libraries: str) -> bool:
    """Whether Python itself is a library from there, and would not start without."""
    places = [os.path.realpath(place) + "/" for place in libraries.split(":") if place]
    try:
        with open("/proc/self/maps") as maps:
            files = {line.rstrip("\n").partition("/")[2] for line in maps if "/libpython" in line}
    except OSError:
        return True
    return any(f"/{file}".startswith(place) for file in files for place in places)


if __name__ == "__main__":
    if HOME not in sys.path:
        sys.path.insert(0, HOME)
    main()
