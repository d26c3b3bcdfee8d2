"""The control sockets: server, client, and protocol."""
