"""What keeps a request from being sent for want of something on this side: never the server's failure."""

from __future__ import annotations

import errno

IN_FLIGHT_LIMIT = "in-flight limit"
BY_ERRNO = {
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
    errno.EADDRNOTAVAIL: "no free local port",
    errno.ENOBUFS: "no memory for sockets",
    errno.ENOMEM: "no memory for sockets",
}
NOT_SENT = frozenset([IN_FLIGHT_LIMIT, *BY_ERRNO.values()])
