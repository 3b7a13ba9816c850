"""The exit codes of every command, documented in docs/cli.md."""

OK = 0
SOME_FAILED = 1
USAGE = 2
NOTHING_DONE = 3
GATE_NOT_MET = 4
BUG = 70
INTERRUPTED = 130
