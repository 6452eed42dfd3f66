"""Resources that a server claims before it starts: standard files, the limit on open files, its port."""

import logging
import os
import resource
import socket
import sys

from service.settings import Settings, variable

logger = logging.getLogger("lossd")
OTHER_FILES = 128
"""Most files that a worker has open besides its connections."""


def open_standard_files() -> None:
    """Reopen standard files that the parent closed: otherwise a connection could take the descriptor of the log."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def with_open_files(settings: Settings) -> Settings:
    """Raise the limit on open files to what the connections need; if it stays lower, return settings that fit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return settings
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        # macOS reports a hard limit that it does not grant
        allowed = soft
    if allowed >= needed:
        return settings
    most = max(1, allowed - min(OTHER_FILES, allowed // 2))
    logger.warning(
        "%s is lowered from %s to %s: a process may have %s files open (ulimit -n)",
        variable("max_connections"),
        settings.max_connections,
        most,
        allowed,
    )
    return settings.model_copy(update={"max_connections": most})


def listen(settings: Settings) -> tuple[Settings, list[socket.socket]]:
    """Bind the host's addresses before the server reports that it runs; return settings with the actual port.

    Exits with a message if the port is in use, or the host is not an address of this machine.
    """
    port, bound = settings.port, list[socket.socket]()
    try:
        found = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # several names may resolve to one address
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        for family, address in addresses:
            bound.append(_bound(family, (address[0], port, *address[2:]), alone=len(addresses) == 1))
            # port 0: all addresses get the port that the first was given
            port = bound[0].getsockname()[1]
    except (OSError, UnicodeError) as error:
        sys.exit(
            f"{variable('host')}, {variable('port')}: Expected an address of this machine with a free port; "
            f"got {settings.host!r} and {port}: {error}."
        )
    return settings.model_copy(update={"port": port}), bound


def _bound(family: socket.AddressFamily, address: tuple[object, ...], *, alone: bool) -> socket.socket:
    """Return a bound socket; one for all IPv6 addresses also takes IPv4 if it is ``alone``."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not alone)
    bound.bind(address)
    # workers inherit it
    bound.set_inheritable(True)
    return bound
