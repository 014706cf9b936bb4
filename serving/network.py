"""Addresses: which mean this machine alone."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from components.core.errors import SettingsError


@lru_cache(maxsize=256)  # asked twice a request
def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The `Host` header without its port: 'localhost:8000' -> 'localhost', '[::1]:8000' -> '::1'."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def address_of(host: str) -> str:
    """An IP address to listen on; BentoML takes no names."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError as error:
        raise SettingsError(f"--host {host!r} is no IP address. Use 127.0.0.1, ::1 or 0.0.0.0, say.") from error
