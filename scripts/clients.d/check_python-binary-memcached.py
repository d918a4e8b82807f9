"""python-binary-memcached: the binary protocol in plain Python."""

from support import (
    HOST,
    LARGE,
    LONGEST_KEY,
    MANY,
    PORT,
    TLS,
    TOO_LARGE,
    TOO_LONG_KEY,
    holds,
    passed,
    raises,
    same,
    until,
)

import bmemcached
from bmemcached.exceptions import MemcachedException

# With compression, no value would be too large.
mc = bmemcached.Client((f"{HOST}:{PORT}",), compression=None, socket_timeout=10, tls_context=TLS)

# Storing and reading many: quiet sets, and quiet gets with their keys behind one another.
many = {f"many:{i}": f"value {i}" for i in range(MANY)}
same(mc.set_multi(many), [])
same(mc.get_multi([*many, "absent"]), many)
same(mc.delete_multi(list(many)), True)
same(mc.get_multi(list(many)), {})
same(mc.get("absent"), None)
same(mc.get("absent", "default"), "default")

# add, replace.
same(mc.add("mode", "a"), True)
same(mc.add("mode", "x"), False)
same(mc.replace("mode", "b"), True)
same(mc.replace("absent", "x"), False)
same(mc.get("mode"), "b")

# cas.
mc.set("cas", "one")
value, unique = mc.gets("cas")
same(value, "one")
same(mc.cas("cas", "two", unique), True)
same(mc.cas("cas", "three", unique), False, "a unique is good for one store")
same(mc.get("cas"), "two")
same(mc.gets("absent"), (None, None))
same(mc.cas("absent", "x", 17), False)
value, unique = mc.gets("cas")
same(mc.delete("cas", cas=unique + 1), False)
same(mc.delete("cas", cas=unique), True)
done, unique = mc.set("cas", "four", get_cas=True)
same(mc.gets("cas"), ("four", unique))

# incr, decr: a missing item begins at the default.
same(mc.incr("n", 5, default=10), 10)
same(mc.incr("n", 5), 15)
same(mc.decr("n", 6), 9)
same(mc.decr("n", 100), 0)
same(mc.decr("m", 1, default=2**63), 2**63)
mc.set("word", "abc")
raises(MemcachedException, mc.incr, "word", 1, word="Non-numeric")

# expiry.
mc.set("short", "v", time=1)
mc.set_multi({"short1": "v", "short2": "v"}, time=1)
mc.incr("short3", 1, default=1, time=1)
until("exptime 1", lambda: not mc.get_multi(["short", "short1", "short2", "short3"]))

# delete.
mc.set("d", "v")
same(mc.delete("d"), True)
same(mc.get("d"), None)

# Large values.
same(mc.set("large", LARGE), True)
same(mc.get("large") == LARGE, True, "900 KB, byte for byte")
raises(MemcachedException, mc.set, "large", TOO_LARGE, word="Too large.")
same(mc.get("large"), None, "a refused set leaves no old value")
same(mc.set("after", "v"), True)
same(mc.get("after"), "v")

# Keys. With one that is too long the server ends the connection behind its answer.
same(mc.set(LONGEST_KEY, "v"), True)
same(mc.get(LONGEST_KEY), "v")
raises(MemcachedException, mc.get, TOO_LONG_KEY, word="Invalid arguments")
mc.disconnect_all()
same(mc.set("a key with\nspaces\x00", "v"), True)
same(mc.get("a key with\nspaces\x00"), "v")

# Flags, and the types that the client keeps in them.
for number, thing in enumerate((7, -7, "text", b"bytes", 1.5, {"a": [1, None]}, (1, 2))):
    mc.set(f"typed:{number}", thing)
    same(mc.get(f"typed:{number}"), thing)

# stats, flush_all.
(stats,) = mc.stats().values()
holds(int(stats["pid"]) > 0 and int(stats["curr_items"]) > 0, "stats")
(settings,) = mc.stats("settings").values()
same(int(settings["item_size_max"]), 1 << 20)
same(mc.flush_all(), True)
same(mc.get("after"), None)
same(mc.set("after", "flush"), True)
same(mc.get("after"), "flush", "a store in the same second as flush_all lives")
mc.disconnect_all()
same(mc.get("after"), "flush", "connects again")

passed("python-binary-memcached")
