"""Which file systems a sandbox leaves alone."""

from __future__ import annotations

from ifdefault.ipc.sandbox import remote_mounts

MOUNTS = r"""
21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 21 0:40 / /data rw,relatime shared:9 - nfs4 192.0.2.9:/data rw,hard
31 21 0:41 / /home rw,relatime - cifs //192.0.2.9/home rw
32 21 0:42 / /media\040x rw - fuse.sshfs me@192.0.2.9: rw,user_id=0
33 21 0:43 / /srv rw master:1 propagate_from:2 - zfs tank/srv rw
34 21 0:44 / /nfs rw - tmpfs nfs4 rw
35 21 0:45 / /mnt/deeper rw - ceph 192.0.2.9:/ rw
"""


def test_remote_file_systems() -> None:
    assert remote_mounts(MOUNTS) == {"/data", "/home", r"/media\040x", "/mnt/deeper"}
