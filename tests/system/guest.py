"""A guest: qemu runs a kernel on this machine's files, and a command in it.

        this machine                          the guest
    /  ──── 9p, read-only ──── lower ┐
                                     ├ overlay /
                 tmpfs ───── upper ──┘
    .system/RELEASE/lib/modules ───── /lib/modules
    stdout ─────── ttyS1 ──────────── the command's output
    console.log ── ttyS0 ──────────── the kernel's messages

Rules: the guest changes nothing here. It has no network. qemu ends with us, whatever ends us.
"""

from __future__ import annotations

import gzip
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.system.debian import Kernel

MEMORY_MB = 1536
CORES = 1  # for each of two guests, side by side, on two cores
# What costs an emulated processor much, and our tests need not: page tables of five levels, clearing
# memory, and waiting until all processors are idle whenever a namespace ends.
_CPU = "max,-avx,-avx2,-la57"
_KERNEL = "mitigations=off init_on_alloc=0 audit=0 rcupdate.rcu_expedited=1"
_BOOT_MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay")
_END = "exit status "

# By busybox. The kernel loads modules for whoever needs one, by what it finds from the root of
# process 1: so that has to be the files of this machine, not the archive that it began with.
_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin /proc /sys /dev /lower /upper /root
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/modules/$module" || echo "no module $module"
done </modules/order
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /lower
mount -t tmpfs tmpfs /upper
mkdir -p /upper/upper /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work overlay /root
cd /root
mkdir -p lib/modules run proc sys dev
mount -t tmpfs tmpfs run
mount -o bind /lower$MODULES lib/modules
for folder in proc sys dev; do mount -o move /$folder $folder; done
cp /bin/busybox /second /command run/
exec switch_root . /bin/sh /run/second
"""

# In the guest's root, with its programs.
_SECOND = """\
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mkdir -p /dev/pts /dev/shm /sys/fs/cgroup /sys/fs/bpf
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
/run/busybox hostname guest
stty -F /dev/ttyS1 raw
ulimit -n 65536 # as many as a login may have
sh /run/command </dev/null >/dev/ttyS1 2>&1
echo "$END$?" >/dev/ttyS1
/run/busybox poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    status: str  # the command's exit status, or what went wrong instead
    console: str  # the last of the kernel's messages

    @property
    def passed(self) -> bool:
        return self.status == "0"


def run(
    kernel: Kernel,
    command: Sequence[str],
    folder: Path,
    *,
    environment: dict[str, str],
    show: Callable[[str], None],
    patience_s: float,
) -> Outcome:
    """Boot a kernel, run a command in the current directory, hand each line of it to `show`."""
    folder.mkdir(parents=True, exist_ok=True)
    console = folder / "console.log"
    initrd = folder / "initrd.gz"
    initrd.write_bytes(_initrd(kernel, command, environment))
    qemu = _qemu(kernel, initrd, console)
    # the signal comes when the thread that started it ends, too: this one, which waits for it
    child = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *qemu],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=(folder / "qemu.log").open("w"),
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert child.stdout is not None
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(patience_s, end)
    timer.daemon = True
    timer.start()
    status = ""
    try:
        for line in map(str.rstrip, child.stdout):
            if line.startswith(_END):
                status = line.removeprefix(_END)
            else:
                show(line)
        child.wait()
    finally:
        timer.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
    said = console.read_text(errors="replace") + (folder / "qemu.log").read_text()
    if late.is_set():
        status = f"not done after {patience_s:.0f} s"
    return Outcome(status or "the guest ended before its command", said[-4000:])


def _qemu(kernel: Kernel, initrd: Path, console: Path) -> list[str]:
    share = "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"
    return [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=multi", "-cpu", _CPU),
        *("-m", str(MEMORY_MB), "-smp", str(CORES)),
        *("-display", "none", "-vga", "none", "-monitor", "none", "-net", "none", "-no-reboot"),
        *("-serial", f"file:{console}", "-serial", "stdio"),
        *("-virtfs", share),
        *("-kernel", str(kernel.image), "-initrd", str(initrd)),
        *("-append", f"console=ttyS0 quiet panic=-1 {_KERNEL}"),
    ]


def _initrd(kernel: Kernel, command: Sequence[str], environment: dict[str, str]) -> bytes:
    modules = kernel.insmod_order(_BOOT_MODULES)
    script = [
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f"cd {shlex.quote(os.getcwd())}",
        shlex.join(command),
    ]
    init = _INIT.replace("$MODULES", shlex.quote(str(kernel.modules.resolve())))
    files = {
        "bin/busybox": kernel.busybox.read_bytes(),
        "init": init.encode(),
        "second": _SECOND.replace("$END", _END).encode(),
        "command": "\n".join([*script, ""]).encode(),
        "modules/order": "".join(f"{path.name}\n" for path in modules).encode(),
        **{f"modules/{path.name}": path.read_bytes() for path in modules},
    }
    return gzip.compress(_cpio(files), 1)


def _cpio(files: dict[str, bytes]) -> bytes:
    """An archive as the kernel takes it (Documentation/driver-api/early-userspace/buffer-format):
    each file's folder must come before it, and all are root's, executable."""
    folders = sorted({path.rpartition("/")[0] for path in files} - {""})
    rows = [*((folder, 0o040755, b"") for folder in folders)]
    rows += [(path, 0o100755, data) for path, data in files.items()]
    rows.append(("TRAILER!!!", 0, b""))
    archive = b""
    for number, (path, mode, data) in enumerate(rows, 1):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        archive += _padded(head) + _padded(data)
    return archive


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
