"""The ports of the lab's servers."""

HTTP = 80
QUIC = 443
TCP_ECHO = 7000
UDP_BOUND = 7001  # a socket for each address
UDP_PKTINFO = 7002  # one socket, answers from the packet's destination address (RFC 3542)
UDP_WILDCARD = 7003  # a socket on 0.0.0.0 and one on ::, without IP_PKTINFO
UDP_DUAL = 7004  # one such socket on :: for both families
CLOSED = 7099  # nobody listens
