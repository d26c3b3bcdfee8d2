"""The control socket: its server and client, what is asked, and the status."""
