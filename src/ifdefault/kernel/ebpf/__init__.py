"""The cgroup eBPF programs: the bpf(2) call, their instructions, and their attachment."""
