"""The engines: how the kernel's requests reach the file system, over pyfuse3 or over the descriptor itself."""
