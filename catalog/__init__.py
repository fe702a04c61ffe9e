"""Catalogs and tag databases of CernVM-FS, read from local SQLite files. Knows no network, cache directory or clock."""
