"""Ports for the processes that tests start."""

import contextlib
import random
import socket


def free_port() -> int:
    """A port of this machine that nobody has, below those that the kernel gives to clients: they cannot take it."""
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
