"""The command line: one file per group of commands, and nothing that only the command line can do."""
