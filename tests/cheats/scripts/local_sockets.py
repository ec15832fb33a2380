"""Talks to a helper outside over Unix sockets, named and abstract."""

import json
import socket

from prepare import DATA, attempt, hand_in_shared_model

addresses = json.loads((DATA / "library" / "addresses.json").read_text())


def connect(address):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        connection.connect(address)
        return connection.recv(64)


attempt("connect to a named socket", lambda: connect(addresses["named"]))
attempt("connect to an abstract socket", lambda: connect("\0" + addresses["abstract"]))

hand_in_shared_model()
