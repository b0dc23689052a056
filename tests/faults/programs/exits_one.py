"""Fails as programs do: an exception that nobody catches, a traceback, exit code 1."""

raise RuntimeError("exits_one: the program's own error")
