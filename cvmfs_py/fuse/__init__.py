"""How the kernel is answered: its protocol as bytes, and the engines that speak it. Fetches nothing by itself."""
