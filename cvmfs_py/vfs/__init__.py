"""The file system as pure functions over one immutable snapshot: lookup, listing, attributes, links, read plans."""
