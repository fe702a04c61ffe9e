"""Who may speak for a repository: bytes in, trusted values out. Pure: no files, no network, time is a parameter.

Start at `trusted_state`. Modules: letter (the signed form), pem, keys, certificate, manifest, whitelist, blacklist,
breadcrumb, root_choice (never back), stored (what an offline start needs), number, refusal. Nothing here is imported
eagerly, because the cryptographic library takes longer to import than a verification takes to run.
"""
