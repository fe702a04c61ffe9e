"""How the kernel is answered: its protocol as bytes, and the engines that speak it. Knows no network and no catalogs."""
