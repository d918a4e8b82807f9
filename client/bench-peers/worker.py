"""pylibmc in one process, which works when it is told to: see src/main.rs, whose words it speaks.

    worker.py text|binary NODES
"""

import sys
import time

import pylibmc

KEYS = ["key:%012d" % i for i in range(10000)]
VALUE = b"x" * 100


def main():
    mode, nodes = sys.argv[1:]
    # The placement of ketch-client, and the option that every client here has set.
    behaviors = {"ketama_weighted": True, "tcp_nodelay": True}
    client = pylibmc.Client(nodes.split(","), binary=mode == "binary", behaviors=behaviors)
    made = {}
    for line in sys.stdin:
        deed, batch, _tasks, ms = line.split()
        batch = int(batch)
        # What the caller has to make is not the client's work.
        if (deed, batch) not in made:
            slices = [KEYS[i : i + batch] for i in range(0, len(KEYS), batch)]
            if deed == "set":
                slices = [dict.fromkeys(keys, VALUE) for keys in slices]
            made[deed, batch] = slices
        slices = made[deed, batch]
        done = at = 0
        begun, used = time.perf_counter_ns(), time.process_time_ns()
        until = begun + int(ms) * 1000000
        while time.perf_counter_ns() < until:
            some = slices[at]
            if deed == "get":
                if batch == 1:
                    assert client.get(some[0]) is not None
                else:
                    assert len(client.get_multi(some)) == batch
            elif batch == 1:
                ((key, value),) = some.items()
                assert client.set(key, value)
            else:
                assert not client.set_multi(some)
            done += batch
            at = (at + 1) % len(slices)
        took, used = time.perf_counter_ns() - begun, time.process_time_ns() - used
        print(done, took, used, flush=True)


main()
