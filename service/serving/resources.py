"""What a server takes from its machine before it starts: standard files, open files, its port."""

import logging
import os
import resource
import socket
import sys

from service.settings import Settings, variable

logger = logging.getLogger("lossd")
OTHER_FILES = 128
"""Open files of a worker that are no connections, at most."""


def open_standard_files() -> None:
    """Open what whoever started this has closed of the three: a connection would take the place of the log."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def with_open_files(settings: Settings) -> Settings:
    """Raise the limit of open files to what the connections need; return settings that fit the limit there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.max_connections + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return settings
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        # macOS tells of a hard limit that it does not grant
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
    """Bind the host's addresses, before anything says that the server runs; return settings with the port taken.

    Exits with words where the port is in use, or the host is none of this machine.
    """
    port, bound = settings.port, list[socket.socket]()
    try:
        found = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # several names of one address are one
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        for family, address in addresses:
            bound.append(_bound(family, (address[0], port, *address[2:]), alone=len(addresses) == 1))
            # where any port may be taken, all addresses have the same
            port = bound[0].getsockname()[1]
    except (OSError, UnicodeError) as error:
        sys.exit(
            f"{variable('host')}, {variable('port')}: Expected an address of this machine with a free port; "
            f"got {settings.host!r} and {port}: {error}."
        )
    return settings.model_copy(update={"port": port}), bound


def _bound(family: socket.AddressFamily, address: tuple[object, ...], *, alone: bool) -> socket.socket:
    """Return a socket that is bound; one for all IPv6 addresses takes IPv4 too if it is ``alone``."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not alone)
    bound.bind(address)
    # workers are given it
    bound.set_inheritable(True)
    return bound
