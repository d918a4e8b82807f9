"""Logging in: by SASL with python-binary-memcached, and in text by hand.

That needs servers of its own, which this file starts. A reference memcached has no file of SASL
users, and is asked for the text login alone.
"""

import os
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from support import HOST, passed, raises, same, until

import bmemcached
from bmemcached.exceptions import MemcachedException

SERVER = os.environ["KETCH_SERVER"]
IS_KETCH = "ketch" in Path(SERVER).name
# "right", by the argon2 program: 19 MB and two passes.
ARGON2 = (
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$VkcMeJqniqytDsfZdc9X6vtjm2D6Hqx6XO+Zr91HMMg"
)


@contextmanager
def server(users, *options):
    """A server whose users are these lines; gives its port, the file of users and its process."""
    with tempfile.TemporaryDirectory() as folder:
        file, port_file = Path(folder, "users"), Path(folder, "port")
        file.write_text(users)
        root = ["-u", "root"] if os.geteuid() == 0 else []
        # For SASL the environment names the file.
        names = {"MEMCACHED_PORT_FILENAME": str(port_file), "MEMCACHED_SASL_PWDB": str(file)}
        login = [] if "-S" in options else ["-Y", str(file)]
        process = subprocess.Popen(
            [SERVER, "-l", HOST, "-p", "-1", "-U", "0", *root, *login, *options],
            env={**os.environ, **names},
        )
        try:
            until("a server", port_file.exists)
            yield int(port_file.read_text().split()[-1]), file, process
        finally:
            process.kill()
            process.wait()


def ask(connection, request):
    connection.sendall(request)
    return connection.recv(4096)


# By SASL.
if IS_KETCH:
    with server(f"ann:{ARGON2}\nbob:plain\n", "-S") as (port, file, process):
        for user, password in [("ann", "right"), ("bob", "plain"), ("ann", "right")]:
            client = bmemcached.Client(f"{HOST}:{port}", user, password)
            same(client.set("a", user), True)
            same(client.get("a"), user)
        for user, password in [("ann", "wrong"), ("bob", "right"), ("eve", "right")]:
            raises(
                MemcachedException,
                bmemcached.Client(f"{HOST}:{port}", user, password).get,
                "a",
                word="Auth failure.",
            )
        file.write_text("eve:new\n")
        process.send_signal(signal.SIGHUP)

        def eve():
            try:
                return bmemcached.Client(f"{HOST}:{port}", "eve", "new").get("a") == "ann"
            except MemcachedException:
                return False

        until("new users", eve)
        same(client.get("a"), "ann", "a connection from before")

# In text.
with server("ann:right\n") as (port, file, process):
    with socket.create_connection((HOST, port), timeout=10) as connection:
        same(ask(connection, b"get a\r\n"), b"CLIENT_ERROR unauthenticated\r\n")
        wrong = b"CLIENT_ERROR authentication failure\r\n"
        same(ask(connection, b"set auth 0 0 9\r\nann wrong\r\n"), wrong)
        same(ask(connection, b"set auth 0 0 9\r\nann right\r\n"), b"STORED\r\n")
        same(ask(connection, b"set a 0 0 1\r\nx\r\n"), b"STORED\r\n")
        same(ask(connection, b"get a\r\n"), b"VALUE a 0 1\r\nx\r\nEND\r\n")

passed("python-binary-memcached", " with a login")
