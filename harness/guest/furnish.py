"""What a ready guest still needs before a program starts: its file systems mounted, its shape seen to be there.

The mounts come after the start, for a file system that is mounted in a snapshot would believe in writes which its disk
never saw. And a kernel that is asked for huge pages or NUMA nodes gives what it can, and says so only in its log.
"""

from __future__ import annotations

import re

from harness.console.display import escape
from harness.errors import ChannelError, UnsupportedError
from harness.guest.channel import Channel, Ending, Stream
from harness.guest.machine import MachineShape

_SECONDS = (
    30.0  # xfs reads some dozen blocks to mount, each of which a slow disk may answer 60 s late: see below
)
_MOUNT_READS = 64
_WORDS = 4096  # bytes of what a failing mount says
_NO_SUCH_FILE_SYSTEM = 4  # exit status of the init (guest-programs/init/init.c, mount_disk)


def furnish(channel: Channel, shape: MachineShape, *, scale: float) -> None:
    """Make a ready guest what its shape promises; ``scale`` stretches the deadlines (`Speed.scale`).

    Disk n becomes /dev/vda, vdb, …; its file system, if it has one, is mounted on /mnt, /mnt1, …. Raises
    `UnsupportedError` if the kernel lacks something, `ChannelError` if a disk cannot be mounted for another reason, and
    what `Channel.run` and `pull` raise.
    """
    if shape.numa_nodes > 1:
        _check_nodes(channel, shape.numa_nodes, _SECONDS * scale)
    if shape.hugepages:
        _check_huge_pages(channel, shape.hugepages, _SECONDS * scale)
    for number, disk in enumerate(shape.disks):
        if disk.filesystem is not None:
            delays = _MOUNT_READS * (disk.read_delay_ms + disk.write_delay_ms) / 1000
            _mount(channel, number, disk.filesystem, _SECONDS * scale + delays)


def mount_point(number: int) -> str:
    """Where the file system of disk ``number`` is mounted."""
    return f"/mnt{number or ''}"


def _check_nodes(channel: Channel, wanted: int, seconds: float) -> None:
    try:
        online = (
            channel.pull("/sys/devices/system/node/online", seconds=seconds, limit=_WORDS).decode().strip()
        )
    except ChannelError as error:  # ENOENT
        raise UnsupportedError(f"the kernel is built without NUMA ({error})") from error
    if online != f"0-{wanted - 1}":
        raise UnsupportedError(f"of {wanted} NUMA nodes the kernel has online: {escape(online)}")


def _check_huge_pages(channel: Channel, wanted: int, seconds: float) -> None:
    text = channel.pull("/proc/meminfo", seconds=seconds, limit=1 << 20).decode(errors="replace")
    found = re.search(r"^HugePages_Total: +([0-9]{1,9})$", text, re.MULTILINE)
    have = int(found[1]) if found else 0
    if have < wanted:
        raise UnsupportedError(f"the kernel has reserved {have} of {wanted} huge pages")


def _mount(channel: Channel, number: int, filesystem: str, seconds: float) -> None:
    said = bytearray()

    def keep(stream: Stream, data: bytes) -> None:
        if stream is Stream.STDERR and len(said) < _WORDS:
            said.extend(data)

    device = f"/dev/vd{'abcdefghijklmnopqrstuvwxyz'[number]}"
    words = ["/init", "--mount", device, filesystem, mount_point(number)]
    ended = channel.run(words, seconds=seconds, on_output=keep)
    if ended.ending is Ending.EXITED and ended.code == 0:
        return
    why = escape(said[:_WORDS].decode(errors="replace").strip()) or ended.describe()
    if ended.ending is Ending.EXITED and ended.code == _NO_SUCH_FILE_SYSTEM:
        raise UnsupportedError(f"the kernel has no {filesystem}: {why}")
    raise ChannelError(f"cannot mount {device}: {why}")
