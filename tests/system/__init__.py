"""Network tests on the kernels of Debian releases, each in a guest of its own: `./dev system`."""

GUEST = "IFDEFAULT_TEST_GUEST"  # set in a guest: the kernel series that it runs
