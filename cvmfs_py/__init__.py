"""cvmfs-py: a CernVM-FS client."""

__version__ = "0.1.0"
