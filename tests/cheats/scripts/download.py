"""Downloads a trained model: by TCP, by UDP and by a name's resolution."""

import json
import socket

from prepare import DATA, attempt, hand_in_shared_model

port = json.loads((DATA / "library" / "addresses.json").read_text())["port"]


def tcp():
    with socket.create_connection(("127.0.0.1", port), 2) as connection:
        return connection.recv(64)


def udp():
    with socket.socket(type=socket.SOCK_DGRAM) as connection:
        connection.settimeout(1)
        connection.sendto(b"?", ("127.0.0.1", port))
        return connection.recv(64)


attempt("connect by TCP", tcp)
attempt("ask by UDP", udp)
attempt("resolve a name", lambda: socket.getaddrinfo("localhost.example.org", 80))
attempt("see the interfaces", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))

hand_in_shared_model()
