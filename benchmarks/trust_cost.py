"""What it costs to check the chain from the master key to a manifest."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from benchmarks import trees
from benchmarks.processes import python
from benchmarks.table import Row, timed
from cvmfs_py.trust.blacklist import Blacklist
from cvmfs_py.trust.keys import parse_master_key
from cvmfs_py.trust.trusted_state import TrustedState

if TYPE_CHECKING:
    from benchmarks.workbench import Workbench

TITLE = "trust"
ACCEPTS = 100


def run(bench: Workbench) -> list[Row]:
    repository = bench.repository("trust", lambda: trees.small_files(10))
    root = repository.server_root
    manifest, whitelist = (root / ".cvmfspublished").read_bytes(), (root / ".cvmfswhitelist").read_bytes()
    pem = repository.master_public_key.read_bytes()
    keys = (parse_master_key(pem, "the benchmark's"),)
    state = TrustedState(repository.fqrn, keys, Blacklist.parse(()))
    certificate = repository.repository_key.certificate_pem
    samples, key_samples = [], []
    for _ in range(bench.repeat):
        start = time.perf_counter()
        for _ in range(ACCEPTS):
            state.accept(manifest, certificate, whitelist, time.time())
        samples.append((time.perf_counter() - start) / ACCEPTS)
        start = time.perf_counter()
        for _ in range(ACCEPTS):
            parse_master_key(pem, "the benchmark's")
        key_samples.append((time.perf_counter() - start) / ACCEPTS)
    imports = [
        bench.programs.measure(python("import cvmfs_py.trust.trusted_state, cryptography.x509")).cpu_s
        - bench.programs.measure(python("import cvmfs_py.trust.trusted_state")).cpu_s
        for _ in range(max(bench.repeat, 5))
    ]
    return [
        timed("accept: whitelist, certificate, manifest", samples, note="two RSA signatures, one X.509 certificate"),
        timed("read one master key", key_samples),
        timed("import of the X.509 library, once a process", imports, note=f"Python {sys.version.split()[0]}"),
    ]
