"""The kernel's numbers under the kernel's names: a module for each family of headers (uapi)."""
