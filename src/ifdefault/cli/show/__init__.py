"""Tables and lines that subcommands print."""
