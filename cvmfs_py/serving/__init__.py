"""A small static web server for repositories: for tests, demonstrations and small sites. Knows files, no catalogs."""
