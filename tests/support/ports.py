"""Ports for what listens, ends, and listens again, or must know its port before it does."""

import contextlib
import random
import socket


def free_ports(count: int) -> list[int]:
    """
    Return ports of this machine that nobody listens on, all different.

    They are below those that Linux gives to connections, one of which could take a port meanwhile.
    """
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError(f"fewer than {count} ports are free")
