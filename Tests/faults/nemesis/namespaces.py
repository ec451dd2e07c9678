# SPDX-License-Identifier: Apache-2.0
"""Network namespaces without names: they live as long as this process, whatever ends it.

Namespaces belong to threads. Only the main thread moves between them; threads and processes that it starts are born
where it stands.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_SIOCETHTOOL = 0x8946
_ETHTOOL_SETTERS = (0x17, 0x1F, 0x24)       # transmit checksums, TCP segmentation, generic segmentation


class Namespace:
    """A network of its own: with an open file of it in hand, it stays."""

    def __init__(self, file):
        self._file = file

    @classmethod
    def present(cls):
        return cls(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def new(cls):
        """A new one, in which the caller does not stand afterwards."""
        before = cls.present()
        try:
            if _LIBC.unshare(_CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "a new network namespace")
            made = cls.present()
        finally:
            before.enter()
            before.close()
        made.run("ip", "link", "set", "lo", "up")
        return made

    @property
    def path(self):
        """By which other programs find it."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def enter(self):
        """Moves the calling thread into it; also what a child calls before its program begins."""
        if _LIBC.setns(self._file, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "entering a network namespace")

    def run(self, *arguments, text=None):
        """Runs a command in it, and returns its output."""
        ran = subprocess.run(arguments, input=text, stdin=None if text is not None else subprocess.DEVNULL, text=True,
                             capture_output=True, preexec_fn=self.enter, check=False)
        if ran.returncode != 0:
            raise OSError(f"{' '.join(arguments)}: {ran.stderr.strip() or ran.stdout.strip() or ran.returncode}")
        return ran.stdout

    def send_packets_as_they_are(self, device):
        """Makes the device send whole packets of the wire's size, checksums included, as a process that passes packets on
        needs them."""
        before = Namespace.present()
        self.enter()
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                for setter in _ETHTOOL_SETTERS:
                    value = ctypes.create_string_buffer(struct.pack("II", setter, 0))
                    request = struct.pack("16sP", device.encode(), ctypes.addressof(value))
                    fcntl.ioctl(control, _SIOCETHTOOL, request)
        finally:
            before.enter()
            before.close()

    def close(self):
        os.close(self._file)
