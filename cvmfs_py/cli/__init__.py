"""The commands: parse arguments, call the rows below, print, and choose the exit code. Nothing below does these."""
