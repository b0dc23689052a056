"""Says that it was configured wrongly: exit code 2, which no restart can cure."""

import sys

print("exits_two: --epochs must be at least 1", file=sys.stderr)
sys.exit(2)
