"""Between the kernel and the file system core: the protocol, two engines, and how a descriptor of /dev/fuse is had."""
