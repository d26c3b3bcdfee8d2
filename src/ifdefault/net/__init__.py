"""The network beyond the host, asked over sockets that others made. Decides nothing."""
