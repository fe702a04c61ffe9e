"""Content-addressed local storage of verified objects. Knows no network, catalog or trust."""
