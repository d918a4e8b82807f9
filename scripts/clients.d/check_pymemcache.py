"""pymemcache: classic text protocol over one socket, explicit noreply, flags through a serde."""

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

from pymemcache import serde
from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    MemcacheUnknownCommandError,
)


def client(**options):
    return Client((HOST, PORT), timeout=10, connect_timeout=10, default_noreply=False, **options)


mc = client()

# Storing and reading many.
many = {f"many:{i}": b"value %d" % i for i in range(MANY)}
same(mc.set_many(many), [])
same(mc.get_many(many), many)
same(mc.get_many([*many, "absent"]), many, "a miss among hits is left out")
same(len(mc.gets_many(many)), MANY)
same(mc.get("absent", default="nothing"), "nothing")
same(mc.delete_many(list(many)), True)
same(mc.get_many(many), {})

# add, replace, append, prepend.
same(mc.add("mode", "b"), True)
same(mc.add("mode", "x"), False)
same(mc.replace("mode", "c"), True)
same(mc.replace("absent", "c"), False)
same(mc.append("mode", "d"), True)
same(mc.prepend("mode", "a"), True)
same(mc.get("mode"), b"acd")
same(mc.append("absent", "x"), False)
same(mc.prepend("absent", "x"), False)
same(mc.set("empty", ""), True)
same(mc.get("empty"), b"")

# cas.
mc.set("cas", "one")
value, unique = mc.gets("cas")
same(value, b"one")
same(mc.cas("cas", "two", unique), True)
same(mc.cas("cas", "three", unique), False, "a unique is good for one store")
same(mc.cas("absent", "x", unique), None)
same(mc.get("cas"), b"two")
holds(mc.gets("cas")[1] != unique, "a store changes the unique")

# incr, decr.
mc.set("n", "10")
same(mc.incr("n", 5), 15)
same(mc.decr("n", 6), 9)
same(mc.get("n"), b"9 ", "decr keeps the length")
same(mc.decr("n", 100), 0)
mc.set("n", str(2**64 - 1))
same(mc.incr("n", 2), 1, "incr wraps at 2^64")
same(mc.incr("absent", 1), None)
same(mc.decr("absent", 1), None)
mc.set("word", "abc")
raises(MemcacheClientError, mc.incr, "word", 1, word="non-numeric")
raises(MemcacheClientError, mc.incr, "n", -1, word="invalid numeric delta argument")
same(mc.get("word"), b"abc")

# touch, gat, gats, expiry.
mc.set("t", "v")
same(mc.touch("t", 100), True)
same(mc.touch("absent", 100), False)
same(mc.get("t"), b"v")
same(mc.raw_command("gat 100 t", end_tokens="END\r\n"), b"VALUE t 0 1\r\nv\r\n")
same(mc.raw_command("gat 100 absent t", end_tokens="END\r\n"), b"VALUE t 0 1\r\nv\r\n")
same(mc.raw_command("gats 100 t", end_tokens="END\r\n").split()[:4], [b"VALUE", b"t", b"0", b"1"])
same(mc.touch("t", -1), True)
same(mc.get("t"), None, "touched into the past")
same(mc.set("past", "v", expire=-1), True)
same(mc.get("past"), None)
mc.set("short", "v", expire=1)
until("exptime 1", lambda: mc.get("short") is None)
same(mc.add("short", "again"), True, "an expired key can be added")

# delete.
mc.set("d", "v")
same(mc.delete("d"), True)
same(mc.delete("d"), False)

# noreply: nothing may come back, so the next answer must be the next command's.
same(mc.set("quiet", "1", noreply=True), True)
same(mc.add("quiet", "x", noreply=True), True)
mc.append("quiet", "2", noreply=True)
mc.prepend("quiet", "0", noreply=True)
same(mc.get("quiet"), b"012")
mc.replace("quiet", "7", noreply=True)
mc.incr("quiet", 3, noreply=True)
mc.decr("quiet", 1, noreply=True)
mc.touch("quiet", 100, noreply=True)
same(mc.gets("quiet")[0], b"9 ")
mc.cas("quiet", "cas", mc.gets("quiet")[1], noreply=True)
mc.cas("quiet", "late", b"1", noreply=True)
same(mc.get("quiet"), b"cas")
mc.delete("quiet", noreply=True)
mc.delete("quiet", noreply=True)
same(mc.get("quiet"), None)
mc.set_many(many, noreply=True)
same(mc.get_many(many), many)

# Large values.
same(mc.set("large", LARGE), True)
same(mc.get("large") == LARGE, True, "900 KB, byte for byte")
same(mc.append("large", b"tail"), True)
same(mc.get("large") == LARGE + b"tail", True)
raises(MemcacheServerError, mc.set, "large", TOO_LARGE, word="object too large for cache")
same(mc.get("large"), None, "a refused set leaves no old value")
same(mc.set("after", "v"), True)
same(mc.get("after"), b"v")

# Keys.
same(mc.set(LONGEST_KEY, "v"), True)
same(mc.get(LONGEST_KEY), b"v")
same(mc.get_many([LONGEST_KEY, "after"]), {LONGEST_KEY: b"v", "after": b"v"})
raises(MemcacheIllegalInputError, mc.get, TOO_LONG_KEY, word="too long")
for command in (f"get {TOO_LONG_KEY}", f"delete {TOO_LONG_KEY}", f"touch {TOO_LONG_KEY} 0"):
    raises(MemcacheClientError, client().raw_command, command, word="bad command line format")
raises(MemcacheUnknownCommandError, client().raw_command, "bogus")
utf8 = client(allow_unicode_keys=True)
same(utf8.set("schlüssel", "v"), True)
same(utf8.get("schlüssel"), b"v")

# Flags, and the types that a serializer keeps in them.
same(mc.set("flags", "v", flags=2**32 - 1), True)
same(mc.raw_command("get flags", end_tokens="END\r\n"), b"VALUE flags 4294967295 1\r\nv\r\n")
typed = client(serde=serde.compressed_serde)
for number, thing in enumerate((7, 2**70, "text", b"bytes", {"a": [1, None]}, "long " * 1000)):
    typed.set(f"typed:{number}", thing)
    same(typed.get(f"typed:{number}"), thing)

# A pool, several sockets.
pool = PooledClient((HOST, PORT), max_pool_size=4, timeout=10)
same(pool.set("pooled", "v", noreply=False), True)
same(pool.get("pooled"), b"v")

# stats, version, flush_all.
stats = mc.stats()
holds(stats[b"pid"] > 0 and stats[b"curr_items"] > 0 and stats[b"cmd_get"] > 0, "stats")
same(mc.stats("settings")[b"item_size_max"], 1024 * 1024)
holds(any(key.startswith(b"items:") for key in mc.stats("items")), "stats items")
holds(any(key.endswith(b":chunk_size") for key in mc.stats("slabs")), "stats slabs")
same(mc.version().count(b"."), 2)
same(mc.cache_memlimit(64), True)
same(mc.flush_all(), True)
same(mc.get("after"), None)
same(mc.set("after", "flush"), True)
same(mc.get("after"), b"flush", "a store in the same second as flush_all lives")
mc.flush_all(noreply=True)
same(mc.get("after"), None)
mc.quit()
same(mc.set("again", "v"), True, "connects again")

passed("pymemcache")
