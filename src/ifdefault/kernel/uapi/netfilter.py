"""linux/netfilter/nfnetlink.h, nf_tables.h and nfnetlink_conntrack.h, and nf_tables' user data."""

# --- nfnetlink.h ---------------------------------------------------------------------------

NFNETLINK_V0 = 0
NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_NFTABLES = 1, 10  # the high byte of a message's type
NFNLGRP_NFTABLES = 7
NFPROTO_INET = 1  # linux/netfilter.h

# --- nf_tables.h, libnftnl/udata.h ---------------------------------------------------------

NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_NEWGEN = (
    1,
    4,
    7,
    10,
    15,
)
NFTA_TABLE_NAME = 1  # as NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE
NFTA_TABLE_USERDATA = 6
NFTNL_UDATA_TABLE_COMMENT = 0

# --- nfnetlink_conntrack.h -----------------------------------------------------------------

IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_MARK, CTA_ID, CTA_ZONE = 1, 2, 8, 12, 18
CTA_MARK_MASK, CTA_FILTER = 21, 25
CTA_STATUS, CTA_PROTOINFO = 3, 4
CTA_PROTOINFO_TCP = CTA_PROTOINFO_TCP_STATE = 1
IPS_ASSURED, TCP_CONNTRACK_ESTABLISHED = 1 << 2, 3  # nf_conntrack_common.h, nf_conntrack_tcp.h
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
# net/netfilter/nf_conntrack_netlink.c: what a filter compares
CTA_FILTER_F_CTA_IP_SRC, CTA_FILTER_F_CTA_IP_DST, CTA_FILTER_F_CTA_PROTO_NUM = (
    1 << 0,
    1 << 1,
    1 << 3,
)
