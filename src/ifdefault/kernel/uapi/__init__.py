"""Constants of the kernel's uapi headers under their own names."""
