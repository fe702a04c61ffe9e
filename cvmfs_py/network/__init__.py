"""Fetching from servers and proxies: routes, transports, verification of what arrives, single flight.

`open_fetcher` in `cvmfs_py.network.fetcher` is the entrance; `NetworkConfig` in `cvmfs_py.network.options` says how.
"""
