"""The coordinator: the server that every worker's launcher keeps a poll open to."""
