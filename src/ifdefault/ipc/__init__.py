"""Between processes: the channel and its messages, their encoding, dropping privileges, the log."""
