"""Tests of our units under a real systemd, in a folder of its own: part of `./dev system`."""

ROOT = "IFDEFAULT_TEST_ROOT"  # set where they can run: the folder that is booted
