"""Making and changing repositories: storage, catalogs, signatures. Synchronous; knows no network and no mount."""
