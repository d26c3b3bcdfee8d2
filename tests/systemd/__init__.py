"""Tests of our units under a real systemd, in a folder of its own: part of `./dev system`."""

CACHE = "IFDEFAULT_TEST_CACHE"  # set where they can run: the folder of `folder` and `package`
