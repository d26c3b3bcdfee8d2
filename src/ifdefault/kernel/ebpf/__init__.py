"""The cgroup programs: the bpf(2) call, their instructions, where they are attached."""
