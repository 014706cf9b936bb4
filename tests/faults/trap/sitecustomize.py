"""On the path of a test's processes: each notes whom it calls, in the file of CALLS_FILE, and calls nobody else.

An address that is not of this machine is refused, as a machine without a network refuses it.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

CALLS = os.environ.get("CALLS_FILE")
CONNECTING = {"socket.connect", "socket.sendto", "socket.sendmsg"}
RESOLVING = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


def is_here(host: Any) -> bool:
    """Loopback, this machine's own name, or no host at all; '0.0.0.0' as a place to listen."""
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in CONNECTING:
        address = arguments[1]
        if not isinstance(address, tuple):  # a socket of the file system, or one that is connected already
            return
        host = address[0]
    elif event in RESOLVING:
        host = arguments[0]
    else:
        return
    outward = not is_here(host)
    note(f"{'OUT' if outward else 'here'} {event} {host!r} {' '.join(sys.argv[:3])}")
    if outward:
        raise OSError(f"{event} {host}: a test lets nothing out")


def note(line: str) -> None:
    descriptor = os.open(str(CALLS), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode() + b"\n")
    os.close(descriptor)


if CALLS:
    note(f"trap in {' '.join(' '.join(sys.orig_argv).split())}")
    sys.addaudithook(watch)
