"""The engine's end of the control sockets."""
