"""Put on PYTHONPATH by a test: no Python process may look up or reach anything but loopback; tries are written down."""

import os
import pathlib
import socket

LOOPBACK = ("127.", "::1", "localhost")
_connect, _connect_ex, _lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def refuse(what, host):
    with pathlib.Path(os.environ["DENIED_SOCKETS"]).open("a") as stream:
        stream.write(f"{what} {host}\n")
    raise ConnectionRefusedError(f"{what} {host}: only loopback is allowed here")


def check(what, address):
    host = str(address[0]) if isinstance(address, tuple) else ""  # a Unix socket has no host
    if host and not host.startswith(LOOPBACK):
        refuse(what, host)


def connect(self, address):
    check("connect", address)
    return _connect(self, address)


def connect_ex(self, address):
    check("connect", address)
    return _connect_ex(self, address)


def getaddrinfo(host, *rest, **named):
    name = host.decode() if isinstance(host, bytes) else host
    if name and not name.startswith(LOOPBACK):
        refuse("look-up", name)
    return _lookup(host, *rest, **named)


socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo
