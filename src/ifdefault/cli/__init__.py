"""The command line: a table of subcommands, one small module each."""
