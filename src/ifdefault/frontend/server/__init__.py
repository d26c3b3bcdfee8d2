"""The DNS server's sockets: UDP, TCP, and NOTIFY."""
