"""Socket options that Python has no names for: asm-generic/socket.h, linux/in.h, in6.h, icmp.h."""

SO_DETACH_FILTER, SO_RCVBUFFORCE = 27, 33
SO_NETNS_COOKIE, SO_RCVMARK = 71, 75
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
IP_PMTUDISC_OMIT = IPV6_PMTUDISC_OMIT = 5
IP_BIND_ADDRESS_NO_PORT = 24  # Python 3.12 has it

SOL_RAW, ICMP_FILTER, ICMPV6_FILTER = 255, 1, 1  # linux/socket.h, linux/icmp.h, linux/icmpv6.h
ICMP_ECHOREPLY, ICMPV6_ECHO_REPLY = 0, 129
ICMP_DEST_UNREACH, ICMPV6_DEST_UNREACH, ICMPV6_PKT_TOOBIG = 3, 1, 2
ND_NEIGHBOR_ADVERT = 136
IP_PMTUDISC_PROBE = IPV6_PMTUDISC_PROBE = 3  # DF is set, and what was learned of the path ignored
SIOCGIFMTU = 0x8921  # linux/sockios.h
