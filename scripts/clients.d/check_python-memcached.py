"""python-memcached: classic text protocol, pipelined multi-set, uniques kept by the client."""

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

import memcache

SERVER = f"{HOST}:{PORT}"


def client(**options):
    return memcache.Client([SERVER], socket_timeout=10, **options)


mc = client(cache_cas=True)

# Storing and reading many.
many = {f"many:{i}": f"value {i}" for i in range(MANY)}
same(mc.set_multi(many), [])
same(mc.get_multi([*many, "absent"]), many)
same(mc.set_multi({"a": 1, "b": 2}, key_prefix="prefix:"), [])
same(mc.get_multi(["a", "b"], key_prefix="prefix:"), {"a": 1, "b": 2})
same(mc.get("prefix:a"), 1)
same(mc.set_multi(many, noreply=True), [])
same(mc.get_multi(list(many)), many)
same(mc.delete_multi(list(many)), 1)
same(mc.get_multi(list(many)), {})
mc.set_multi(many)
same(mc.delete_multi(list(many), time=0), 1, "delete with the old time argument of 0")
same(mc.get_multi(list(many)), {})
same(mc.get("absent"), None)
same(mc.get("absent", "default"), "default")

# add, replace, append, prepend.
same(mc.add("mode", "b"), True)
same(mc.add("mode", "x"), False)
same(mc.replace("mode", "c"), True)
same(mc.replace("absent", "c"), False)
same(mc.append("mode", "d"), True)
same(mc.prepend("mode", "a"), True)
same(mc.get("mode"), "acd")
same(mc.append("absent", "x"), False)
same(mc.prepend("absent", "x"), False)

# cas.
mc.set("cas", "one")
same(mc.gets("cas"), "one")
same(mc.cas("cas", "two"), True)
same(mc.cas("cas", "three"), False, "the unique is the one of the first gets")
same(mc.gets("cas"), "two")
client().set("cas", "another client")
same(mc.cas("cas", "four"), False, "someone stored between")
same(mc.get("cas"), "another client")

# incr, decr.
mc.set("n", 10)
same(mc.incr("n", 5), 15)
same(mc.decr("n"), 14)
same(mc.get("n"), 14)
same(mc.decr("n", 100), 0)
mc.set("n", 2**64 - 1)
same(mc.incr("n", 2), 1, "incr wraps at 2^64")
same(mc.incr("absent"), None)
same(mc.decr("absent"), None)
mc.set("word", "abc")
raises(ValueError, mc.incr, "word", word="non-numeric value")
same(mc.get("word"), "abc")

# touch, expiry.
mc.set("t", "v")
same(mc.touch("t", 100), 1)
same(mc.touch("absent", 100), 0)
same(mc.get("t"), "v")
same(mc.touch("t", -1), 1)
same(mc.get("t"), None, "touched into the past")
mc.set("past", "v", time=-1)
same(mc.get("past"), None)
mc.set("short", "v", time=1)
until("exptime 1", lambda: mc.get("short") is None)

# delete.
mc.set("d", "v")
same(mc.delete("d"), 1)
same(mc.delete("d"), 0)

# noreply.
mc.set("quiet", "b", noreply=True)
mc.add("quiet", "x", noreply=True)
mc.append("quiet", "c", noreply=True)
mc.prepend("quiet", "a", noreply=True)
same(mc.get("quiet"), "abc")
mc.replace("quiet", 7, noreply=True)
mc.incr("quiet", 3, noreply=True)
mc.decr("quiet", 1, noreply=True)
mc.touch("quiet", 100, noreply=True)
same(mc.gets("quiet"), 9)
mc.cas("quiet", "new", noreply=True)
mc.cas("quiet", "late", noreply=True)
same(mc.get("quiet"), "new")
mc.delete("quiet", noreply=True)
mc.delete("quiet", noreply=True)
same(mc.get("quiet"), None)

# Large values. The client has a limit of its own, which is turned off here.
big = client(server_max_value_length=0)
same(big.set("large", LARGE), True)
same(big.get("large") == LARGE, True, "900 KB, byte for byte")
same(big.set("large", TOO_LARGE), False)
same(big.get("large"), None, "a refused set leaves no old value")
same(big.servers[0].socket is not None, True, "the connection is kept")
same(big.set_multi({"a": "1", "large": TOO_LARGE, "b": "2"}), ["large"], "in a pipeline")
same(big.get_multi(["a", "large", "b"]), {"a": "1", "b": "2"})

# Keys.
same(mc.set(LONGEST_KEY, "v"), True)
same(mc.get(LONGEST_KEY), "v")
raises(memcache.Client.MemcachedKeyLengthError, mc.get, TOO_LONG_KEY)
unchecked = client(check_keys=False)
same(unchecked.set(TOO_LONG_KEY, "v"), False, "the server refuses it too")
same(client().set("schlüssel", "v"), True)
same(client().get("schlüssel"), "v")

# Flags, and the types that the client keeps in them.
for number, thing in enumerate((7, -7, "text", b"bytes", 1.5, {"a": [1, None]}, (1, 2), True)):
    mc.set(f"typed:{number}", thing)
    same(mc.get(f"typed:{number}"), thing)
mc.set("squeezed", "long " * 10000, min_compress_len=100)
same(mc.get("squeezed"), "long " * 10000)

# stats, flush_all.
((name, stats),) = mc.get_stats()
holds(name.startswith(SERVER), "the server's name")
holds(int(stats["pid"]) > 0 and int(stats["curr_items"]) > 0, "stats")
same(stats["version"].count("."), 2)
((_, settings),) = mc.get_stats("settings")
same(settings["item_size_max"], str(1024 * 1024))
((_, slabs),) = mc.get_slab_stats()
holds(int(slabs["active_slabs"]) > 0 and int(slabs["total_malloced"]) > 0, "stats slabs")
((_, items),) = mc.get_stats("items")
holds(any(key.startswith("items:") and key.endswith(":number") for key in items), "stats items")
mc.flush_all()
same(mc.get("mode"), None)
same(mc.set("mode", "v"), True)
same(mc.get("mode"), "v", "a store in the same second as flush_all lives")
mc.disconnect_all()
same(mc.get("mode"), "v", "connects again")

passed("python-memcached")
