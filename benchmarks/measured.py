"""Runs one command and tells what it cost: a program of its own, started by its path.

    python -I -S measured.py RESULT-FD COMMAND [ARGUMENTS]

A child begins its life with the memory of the process that started it, and the peak that the kernel reports includes
that moment. So the process in between has to be small: this one imports next to nothing.
"""

import json
import os
import sys
import time

if __name__ == "__main__":
    result_fd = int(sys.argv[1])
    os.set_inheritable(result_fd, False)
    start = time.perf_counter()
    child = os.fork()
    if not child:
        os.execv(sys.argv[2], sys.argv[2:])
    _, status, usage = os.wait4(child, 0)
    wall_s = time.perf_counter() - start
    result = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "wall_s": wall_s,
        "user_s": usage.ru_utime,
        "system_s": usage.ru_stime,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }
    os.write(result_fd, json.dumps(result).encode())
