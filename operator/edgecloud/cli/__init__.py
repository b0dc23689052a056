"""The command line, `edgecloud`. Each command loads what it needs when it is called."""
