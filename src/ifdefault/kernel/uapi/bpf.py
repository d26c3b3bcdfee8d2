"""linux/bpf_common.h and linux/bpf.h."""

# --- instructions: class | size or operation | mode or source ------------------------------

BPF_LD, BPF_LDX, BPF_STX = 0x00, 0x01, 0x03
BPF_ALU, BPF_JMP, BPF_JMP32, BPF_ALU64 = 0x04, 0x05, 0x06, 0x07
BPF_W, BPF_DW = 0x00, 0x18
BPF_IMM, BPF_MEM = 0x00, 0x60
BPF_K, BPF_X = 0x00, 0x08
BPF_ADD, BPF_MUL, BPF_AND, BPF_LSH, BPF_RSH = 0x00, 0x20, 0x50, 0x60, 0x70
BPF_MOD, BPF_XOR = 0x90, 0xA0
BPF_MOV, BPF_END, BPF_TO_BE = 0xB0, 0xD0, 0x08
BPF_JA, BPF_JEQ, BPF_JGT, BPF_JNE, BPF_JLT = 0x00, 0x10, 0x20, 0x50, 0xA0
BPF_CALL, BPF_EXIT = 0x80, 0x90
BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE = 1, 2

# --- helpers -------------------------------------------------------------------------------

BPF_FUNC_map_lookup_elem, BPF_FUNC_get_current_uid_gid, BPF_FUNC_setsockopt = 1, 15, 49
BPF_FUNC_get_netns_cookie, BPF_FUNC_get_current_ancestor_cgroup_id = 122, 123

# --- bpf(2) --------------------------------------------------------------------------------

BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM = 0, 1, 2, 3
BPF_MAP_GET_NEXT_KEY, BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_DETACH = 4, 5, 8, 9
BPF_PROG_GET_FD_BY_ID, BPF_MAP_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_QUERY = 13, 14, 15, 16
BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY = 1, 2
BPF_PROG_TYPE_CGROUP_SOCK, BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 9, 18
BPF_CGROUP_INET_SOCK_CREATE, BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT = 2, 10, 11
BPF_F_ALLOW_MULTI = 2
