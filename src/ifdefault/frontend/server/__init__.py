"""The DNS server's sockets: UDP, TCP, NOTIFY."""
