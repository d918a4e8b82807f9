"""pylibmc: libmemcached in C, with its noreply and its consistent hashing, in text and in binary."""

from support import (
    HOST,
    LARGE,
    LONGEST_KEY,
    MANY,
    PORT,
    TOO_LARGE,
    TOO_LONG_KEY,
    holds,
    passed,
    raises,
    same,
    until,
)

import pylibmc

SERVER = f"{HOST}:{PORT}"


def client(binary, **behaviors):
    behaviors = {"cas": True, "receive_timeout": 10_000_000, "send_timeout": 10_000_000, **behaviors}
    return pylibmc.Client([SERVER], binary=binary, behaviors=behaviors)


def check(binary):
    mc = client(binary, tcp_nodelay=True)

    # Storing and reading many.
    many = {f"many:{i}": f"value {i}" for i in range(MANY)}
    same(mc.set_multi(many), [])
    same(mc.get_multi([*many, "absent"]), many)
    same(mc.set_multi({"a": 1, "b": 2}, key_prefix="prefix:"), [])
    same(mc.get_multi(["a", "b"], key_prefix="prefix:"), {"a": 1, "b": 2})
    same(sorted(mc.add_multi({"many:0": "x", "fresh": "y"})), ["many:0"])
    same(mc.delete_multi(list(many)), True)
    same(mc.get_multi(list(many)), {})
    same(mc.get("absent"), None)
    same(mc.get("absent", "default"), "default")
    same("fresh" in mc, True)

    # add, replace, append, prepend.
    same(mc.add("mode", "b"), True)
    same(mc.add("mode", "x"), False)
    same(mc.replace("mode", "c"), True)
    if binary:
        # The status tells more than the line: there is no such item.
        raises(pylibmc.NotFound, mc.replace, "absent", "c")
    else:
        same(mc.replace("absent", "c"), False)
    same(mc.append("mode", "d"), True)
    same(mc.prepend("mode", "a"), True)
    same(mc.get("mode"), "acd")
    same(mc.append("absent", "x"), False)
    same(mc.prepend("absent", "x"), False)

    # cas.
    mc.set("cas", "one")
    value, unique = mc.gets("cas")
    same(value, "one")
    same(mc.cas("cas", "two", unique), True)
    same(mc.cas("cas", "three", unique), False, "a unique is good for one store")
    same(mc.get("cas"), "two")
    same(mc.gets("absent"), (None, None))

    # incr, decr.
    mc.set("n", 10)
    same(mc.incr("n", 5), 15)
    same(mc.decr("n", 6), 9)
    same(mc.decr("n", 100), 0)
    mc.set("n", 2**64 - 1)
    same(mc.incr("n", 2), 1, "incr wraps at 2^64")
    raises(pylibmc.NotFound, mc.incr, "absent")
    raises(pylibmc.NotFound, mc.decr, "absent")
    mc.set("word", "abc")
    # libmemcached gives up a connection on which binary errors came, so each has one of its own.
    raises(pylibmc.Error, client(binary).incr, "word")
    same(mc.get("word"), "abc")
    mc.set_multi({"n1": 1, "n2": 2})
    mc.incr_multi(["n1", "n2"], delta=5)
    same(mc.get_multi(["n1", "n2"]), {"n1": 6, "n2": 7})

    # touch, expiry.
    mc.set("t", "v")
    same(mc.touch("t", 100), True)
    same(mc.touch("absent", 100), False)
    same(mc.get("t"), "v")
    mc.set("short", "v", time=1)
    mc.set_multi({"short1": "v", "short2": "v"}, time=1)
    mc.touch("t", 1)
    until("exptime 1", lambda: not mc.get_multi(["short", "short1", "short2", "t"]))

    # delete.
    mc.set("d", "v")
    same(mc.delete("d"), True)
    same(mc.delete("d"), False)

    # noreply, without waiting for the socket.
    quiet = client(binary, no_block=True, _noreply=True)
    quiet.set_multi(many)
    quiet.append("many:0", "!")
    quiet.prepend("many:0", "?")
    quiet.delete("many:1")
    want = {key: value for key, value in many.items() if key not in ("many:0", "many:1")}
    want["many:0"] = "?value 0!"
    same(quiet.get_multi(list(many)), want)

    # Large values.
    same(mc.set("large", LARGE), True)
    same(mc.get("large") == LARGE, True, "900 KB, byte for byte")
    raises(pylibmc.Error, client(binary).set, "large", TOO_LARGE)
    same(mc.get("large"), None, "a refused set leaves no old value")
    same(mc.set("after", "v"), True)
    same(mc.get("after"), "v")

    # Keys.
    same(mc.set(LONGEST_KEY, "v"), True)
    same(mc.get(LONGEST_KEY), "v")
    raises((ValueError, pylibmc.Error), client(binary).set, TOO_LONG_KEY, "v")
    same(mc.get("after"), "v")

    # Flags, and the types that the client keeps in them.
    for number, thing in enumerate((7, -7, "text", b"bytes", 1.5, {"a": [1, None]}, (1, 2))):
        mc.set(f"typed:{number}", thing)
        same(mc.get(f"typed:{number}"), thing)
    mc.set("squeezed", "long " * 10000, min_compress_len=100)
    same(mc.get("squeezed"), "long " * 10000)

    # Consistent hashing over one server finds everything too.
    ring = pylibmc.Client([SERVER], binary=binary, behaviors={"ketama": True})
    same(ring.get("after"), "v")

    # stats, flush_all.
    ((_, stats),) = mc.get_stats()
    holds(int(stats["pid"]) > 0 and int(stats["curr_items"]) > 0, "stats")
    same(stats["version"].count(b"."), 2)
    same(mc.flush_all(), True)
    same(mc.get("after"), None)
    same(mc.set("after", "flush"), True)
    same(mc.get("after"), "flush", "a store in the same second as flush_all lives")
    mc.disconnect_all()
    same(mc.get("after"), "flush", "connects again")


check(binary=False)
check(binary=True)
passed("pylibmc")
