"""pymemcache and pylibmc through a proxy that keeps two copies, while one of its two nodes is killed (kill -9) under load: every call is
answered, and every answer is what was stored last. The nodes' process ids stand in KETCH_NODES."""

import os
import signal
import threading
import time

import pylibmc
from pymemcache.client.base import Client

from support import HOST, PORT, holds, passed, same

KEYS = 20
THREADS = 3
# Seconds of load before a node dies, and after it.
BEFORE, AFTER = 1.0, 4.0

over = threading.Event()
faults = []
done = []


def work(own, mc, decode):
    """Writes and reads keys of its own, each of which it therefore knows."""
    held, count, at = {}, 0, "begin"
    try:
        while not over.is_set():
            key = f"killed:{own}:{count % KEYS}"
            value = f"{own} {count}"
            at = f"set {key}"
            if mc.set(key, value) is not True:
                faults.append(f"set {key}: not stored")
            held[key] = value
            for other in (key, f"killed:{own}:{count * 7 % KEYS}"):
                at = f"get {other}"
                got = decode(mc.get(other))
                if got != held.get(other):
                    faults.append(f"get {other}: {got!r}, not {held.get(other)!r}")
            if count % 5 == 0:
                at = f"get of {len(held)}"
                many = mc.get_multi(list(held)) if hasattr(mc, "get_multi") else mc.get_many(list(held))
                if {key: decode(value) for key, value in many.items()} != held:
                    faults.append(f"{len(many)} of {len(held)}")
            if count % 11 == 0:
                at = f"delete {key}"
                if mc.delete(key) is not True:
                    faults.append(f"delete {key}")
                del held[key]
            count += 1
    except Exception as error:
        faults.append(f"{at}: {error!r}")
    done.append(count)


def of_pymemcache():
    mc = Client((HOST, PORT), timeout=10, connect_timeout=10, default_noreply=False)
    return mc, lambda value: value and value.decode()


def of_pylibmc(binary):
    mc = pylibmc.Client([f"{HOST}:{PORT}"], binary=binary, behaviors={"receive_timeout": 10_000_000, "send_timeout": 10_000_000})
    return mc, lambda value: value


threads = []
for at in range(THREADS):
    for name, (mc, decode) in (("py", of_pymemcache()), ("text", of_pylibmc(False)), ("binary", of_pylibmc(True))):
        threads.append(threading.Thread(target=work, args=(f"{name}{at}", mc, decode)))
for thread in threads:
    thread.start()
time.sleep(BEFORE)
same(faults, [], "before a node is killed")
victim = int(os.environ["KETCH_NODES"].split()[0])
os.kill(victim, signal.SIGKILL)
time.sleep(AFTER)
over.set()
for thread in threads:
    thread.join()
same(faults[:3], [], f"{len(faults)} faults with a node killed")
holds(len(done) == len(threads) and min(done) > 20, f"all have gone on: {done}")
passed("pymemcache", f" and pylibmc {pylibmc.__version__}, a node killed under {3 * sum(done)} requests")
