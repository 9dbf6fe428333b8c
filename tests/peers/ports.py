"""A port for a server that a test starts."""

import random
import socket

# Below what the kernel gives to outgoing connections, which come and go between our look and the server's start, and
# below where `nimbus up` looks for free ones.
FIRST, LAST = 10000, 19999


def free_port():
    """One that nobody has now. At random: lanes of the suite run beside each other."""
    while True:
        port = random.SystemRandom().randint(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
