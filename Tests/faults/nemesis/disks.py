# SPDX-License-Identifier: Apache-2.0
"""Disks of the hosts' own: small ones, in memory, that can be filled, and calls to `fsync` that fail.

They are mounted where this process and its children alone see them, so that nothing stays mounted however it ends. That
`fsync` fails is libfiu's work (Debian's fiu-utils), which stands between the daemon and the C library.
"""

import ctypes
import errno
import glob
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2

#: Enough for a ring and two snapshots of what the fault tests store.
DISK_BYTES = 8 << 20
_FILLER = "filler"

_EIO = 5
_LIBRARIES = ("fiu_run_preload.so", "fiu_posix_preload.so")


def keep_mounts_to_ourselves():
    """Why this process can't mount anything, in words; None: it can, and nobody else sees it."""
    if os.geteuid() != 0:
        return "not root"
    if _LIBC.unshare(_CLONE_NEWNS) != 0 or _LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return os.strerror(ctypes.get_errno())
    return None


def why_syncs_do_not_fail():
    """Why `environment_without_sync` can't be had, in words; None: it can."""
    return None if all(_library(name) for name in _LIBRARIES) else "no fiu-utils"


def environment_without_sync():
    """Of a program whose `fsync` and `fdatasync` say that the disk failed."""
    failing = "\n".join(f"enable name=posix/io/sync/{call},failinfo={_EIO}" for call in ("fsync", "fdatasync"))
    return {"LD_PRELOAD": " ".join(_library(name) for name in _LIBRARIES), "FIU_ENABLE": failing}


def _library(name):
    places = glob.glob(f"/usr/lib/fiu/{name}") + glob.glob(f"/usr/lib/*/fiu/{name}") + glob.glob(f"/usr/local/lib/fiu/{name}")
    return places[0] if places else None


class Disk:
    """A file system of a few mebibytes at a directory that is there."""

    def __init__(self, directory):
        self._directory = directory
        if _LIBC.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, b"size=%d,mode=0700" % DISK_BYTES) != 0:
            raise OSError(ctypes.get_errno(), f"mounting a disk at {directory}")

    def fill(self):
        """Takes all the room that is left, down to the last byte."""
        with open(self._directory / _FILLER, "ab", buffering=0) as filler:
            size = 1 << 16
            while size:
                try:
                    filler.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def clear(self):
        """Gives that room back."""
        (self._directory / _FILLER).unlink(missing_ok=True)

    def release(self):
        _LIBC.umount2(os.fsencode(self._directory), _MNT_DETACH)
