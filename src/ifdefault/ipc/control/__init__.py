"""The control sockets, by which commands and monitors talk to the engine: protocol and client."""
