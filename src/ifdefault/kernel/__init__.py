"""All access to the kernel: reads facts and performs operations, without any decisions."""
