"""One ring, three clients: what ketch-client stores on five nodes is found by pylibmc and through twemproxy, and the other way
round, with the client flags that say what a value is.

The ring's ports, the proxy's port and ketch-client's program come by the environment: RING_PORTS, RING_PROXY, RING_PEER.
"""

import os
import subprocess

from support import HOST, passed, same

import pylibmc

PEER, PROXY = os.environ["RING_PEER"], f"{HOST}:{os.environ['RING_PROXY']}"
SERVERS = [f"{HOST}:{port}" for port in os.environ["RING_PORTS"].split(",")]
KEYS = [f"user:{i}:profile" for i in range(300)]

# The flags by which pylibmc knows its types.
BYTES, INTEGER, TEXT = 0, 1 << 2, 1 << 4
VALUES = [
    ("bytes", BYTES, b"\x00\xff\r\n", b"\x00\xff\r\n"),
    ("text", TEXT, "grün".encode(), "grün"),
    ("integer", INTEGER, b"-42", -42),
]


class Peer:
    """ketch-client, as a process."""

    def __init__(self, distribution):
        command = [PEER, distribution, ",".join(SERVERS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *fields):
        self.process.stdin.write("\t".join(fields) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().removesuffix("\n")

    def set(self, key, flags, value):
        same(self.ask("set", key, str(flags), value.hex()), "ok")

    def get(self, key):
        answer = self.ask("get", key)
        if not answer:
            return None
        flags, value = answer.split("\t")
        return int(flags), bytes.fromhex(value)

    def end(self):
        self.process.stdin.close()
        same(self.process.wait(), 0)


def both_ways(name, peer, other):
    other.delete_multi(KEYS)
    for key in KEYS:
        peer.set(key, TEXT, f"{name} {key}".encode())
    same(other.get_multi(KEYS), {key: f"{name} {key}" for key in KEYS}, f"{name}: stored by ketch-client")
    same(other.set_multi({key: f"{key} back" for key in KEYS}), [])
    for key in KEYS:
        same(peer.get(key), (TEXT, f"{key} back".encode()), f"{name}: stored by the other")
    for kind, flags, raw, value in VALUES:
        peer.set(f"peer:{kind}", flags, raw)
        same(other.get(f"peer:{kind}"), value, f"{name}: {kind}")
        same(other.set(f"other:{kind}", value), True)
        same(peer.get(f"other:{kind}"), (flags, raw), f"{name}: {kind}")


for distribution, behaviors, key_hash in [
    ("ketama-weighted", {"ketama_weighted": True}, None),
    ("ketama-weighted-default", {"ketama_weighted": True}, "default"),
    ("ketama", {"ketama": True}, None),
    ("ketama-md5", {"hash": "md5", "ketama": True}, None),
    ("modula", {}, None),
]:
    other = pylibmc.Client(SERVERS, behaviors=behaviors)
    if key_hash:
        # Afterwards: the weighted ring brings a hash of its own.
        other.behaviors["hash"] = key_hash
    peer = Peer(distribution)
    both_ways(distribution, peer, other)
    peer.end()

# Through twemproxy any client does: it is the proxy that places the keys.
peer = Peer("ketama-weighted")
both_ways("twemproxy", peer, pylibmc.Client([PROXY]))
peer.end()

passed("pylibmc", " and twemproxy on one ring with ketch-client")
