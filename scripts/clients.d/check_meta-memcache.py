"""meta-memcache: meta commands only, pipelined multi-get, leases and stale values."""

import logging
import threading

from support import (
    HOST,
    LARGE,
    MANY,
    PORT,
    TOO_LARGE,
    TOO_LONG_KEY,
    LONGEST_KEY,
    holds,
    passed,
    raises,
    same,
    until,
)

from meta_memcache import (
    CacheClient,
    Conflict,
    Key,
    LeasePolicy,
    MemcacheError,
    Miss,
    NotStored,
    RecachePolicy,
    RequestFlags,
    ServerAddress,
    SetMode,
    StalePolicy,
    Success,
    Value,
    connection_pool_factory_builder,
)


def client(timeout_s=10):
    return CacheClient.cache_client_from_servers(
        servers=[ServerAddress(HOST, PORT)],
        # With the default buffer of 4 KB a value of 900 KB comes in single small windows.
        connection_pool_factory_fn=connection_pool_factory_builder(
            recv_timeout=timeout_s, read_buffer_size=65536
        ),
    )


mc = client()
# The client knows no error lines: it reads on until its timeout, logs, and gives up the connection.
expects_errors = client(timeout_s=1)
logging.disable()

# Storing and reading many.
many = {f"many:{i}": f"value {i}" for i in range(MANY)}
same([mc.set(key, value, ttl=100) for key, value in many.items()], [True] * MANY)
got = mc.multi_get([*many, "absent"])
same({key.key: value for key, value in got.items()}, {**many, "absent": None})
uniques = {unique for _, unique in mc.multi_get_cas(list(many)).values()}
same(len(uniques), MANY, "each store has a unique of its own")
same(mc.get("absent"), None)
same([mc.delete(key) for key in many], [True] * MANY)
same(set(mc.multi_get(list(many)).values()), {None})

# The modes of ms.
same(mc.set("mode", "b", ttl=0, set_mode=SetMode.ADD), True)
same(mc.set("mode", "x", ttl=0, set_mode=SetMode.ADD), False)
same(mc.refill("mode", "x", ttl=0), False)
same(mc.set("mode", "c", ttl=0, set_mode=SetMode.REPLACE), True)
same(mc.set("absent", "c", ttl=0, set_mode=SetMode.REPLACE), False)
same(mc.set("mode", "d", ttl=0, set_mode=SetMode.APPEND), True)
same(mc.set("mode", "a", ttl=0, set_mode=SetMode.PREPEND), True)
same(mc.get("mode"), "acd")
same(mc.set("absent", "x", ttl=0, set_mode=SetMode.APPEND), False)
same(mc.get("absent"), None)

# cas.
unique = mc.set_cas("cas", "one", ttl=100)
same(mc.get_cas("cas"), ("one", unique))
same(mc.set("cas", "two", ttl=100, cas_token=unique), True)
same(mc.set("cas", "three", ttl=100, cas_token=unique), False, "a unique is good for one store")
same(mc.delete("cas", cas_token=unique), False)
same(mc.get("cas"), "two")
late = RequestFlags(cas_token=unique)
holds(isinstance(mc.meta_set(Key("cas"), "x", late), Conflict), "EX")
holds(isinstance(mc.meta_set(Key("absent"), "x", late), Miss), "NF")
holds(isinstance(mc.meta_delete(Key("cas"), late), Conflict), "EX of md")
same(mc.delete("cas", cas_token=mc.get_cas("cas")[1]), True)

# ma.
same(mc.delta_and_get("n", 1), None)
same(mc.delta_initialize_and_get("n", 1, initial_value=10, initial_ttl=100), 10)
same(mc.delta_initialize_and_get("n", 5, initial_value=10, initial_ttl=100), 15)
same(mc.delta("n", -6), True)
same(mc.delta_and_get("n", -100), 0)
mc.set("n", 2**64 - 1, ttl=0)
same(mc.delta_and_get("n", 2), 1, "wraps at 2^64")
same(mc.get("n"), 1)
mc.set("word", "abc", ttl=0)
raises(MemcacheError, expects_errors.delta_and_get, "word", 1)
same(mc.get("word"), "abc")
unique = mc.get_cas("n")[1]
same(mc.delta_and_get("n", 1, cas_token=unique), 2)
same(mc.delta_and_get("n", 1, cas_token=unique), None)

# Touch, time to live, and what mg tells of an item.
mc.set("t", "value", ttl=0)
told = RequestFlags(return_ttl=True, return_size=True, return_fetched=True, return_last_access=True)
first = mc.meta_get(Key("t"), told).flags
same((first.ttl, first.size, first.fetched), (-1, 5, False))
second = mc.meta_get(Key("t"), told).flags
same((second.fetched, second.last_access < 5), (True, True))
same(mc.touch("t", ttl=100), True)
holds(95 <= mc.meta_get(Key("t"), told).flags.ttl <= 100, "the new time to live")
same(mc.get("t", touch_ttl=1000), "value")
holds(mc.meta_get(Key("t"), told).flags.ttl > 900, "a get that touches")
same(mc.touch("absent", ttl=100), False)
mc.set("short", "v", ttl=1)
until("a time to live of 1 s", lambda: mc.get("short") is None)
# At once, or where a proxy keeps two copies, whose seconds begin at different moments, when the other one is over too.
until("its end on all nodes", lambda: mc.set("short", "again", ttl=0, set_mode=SetMode.ADD))

# The opaque and the key come back.
echo = RequestFlags(return_value=True, return_key=True, opaque=b"opaque")
holds(isinstance(mc.meta_get(Key("t"), echo), Value), "a value with its key")
same(bytes(mc.meta_get(Key("t"), echo).flags.opaque), b"opaque")

# Delete.
same(mc.set("d", "v", ttl=0), True)
same(mc.delete("d"), True)
same(mc.delete("d"), False)
same(mc.invalidate("d"), True, "nothing there is as good as deleted")

# Quiet mode: success says nothing, and the next answer is the next command's.
for key, value in many.items():
    mc.set(key, value, ttl=100, no_reply=True)
same(mc.get("many:99"), "value 99")
mc.delete("many:0", no_reply=True)
mc.delete("absent", no_reply=True)
mc.delta("n", 5, no_reply=True)
mc.touch("many:1", 50, no_reply=True)
mc.refill("many:1", "x", ttl=0, no_reply=True)
same(mc.get("n"), 7)
same(mc.multi_get(["many:0", "many:1"]), {Key("many:0"): None, Key("many:1"): "value 1"})

# A lease: of all who miss, one wins and loads; the others wait for it.
waits = []
lease = LeasePolicy(ttl=30, miss_retries=3, miss_retry_wait=0)
value, unique = mc.get_or_lease_cas("lease", lease)
holds(value is None and unique is not None, "the winner sees a miss")
other = client()
same(other.get_or_lease("lease", lease, lease_wait_fn=waits.append), None, "nothing to wait for")
same(len(waits), 2, "the others are told that someone has won")
same(mc.set("lease", "loaded", ttl=100, cas_token=unique), True)
same(other.get_or_lease("lease", lease, lease_wait_fn=waits.append), "loaded")
same(len(waits), 2)

patient = LeasePolicy(ttl=30, miss_retries=1000, miss_retry_wait=0.01, wait_backoff_factor=1)
winners = []
loaded = []


def load():
    mine = client()
    value = mine.get_or_lease("herd", patient)
    if value is None:
        winners.append(1)
        mine.set("herd", "loaded", ttl=100)
    loaded.append(mine.get("herd"))


herd = [threading.Thread(target=load) for _ in range(8)]
for thread in herd:
    thread.start()
for thread in herd:
    thread.join(20)
same((len(winners), loaded), (1, ["loaded"] * 8), "one of a herd loads")

# Recache: near the end of its life one reader is sent to load, the others get the old value.
mc.set("recache", "old", ttl=20)
soon = RecachePolicy(ttl=30)
same(mc.get("recache", recache_policy=soon), None, "the winner")
same(other.get("recache", recache_policy=soon), "old")
same(other.get("recache"), "old")
mc.set("recache", "new", ttl=100)
same(mc.get("recache", recache_policy=soon), "new")
same(other.get("recache", recache_policy=soon), "new")

# Stale: a delete that leaves the old value for a while.
stale = StalePolicy(mark_stale_on_deletion_ttl=30, mark_stale_on_cas_mismatch=True)
full = RequestFlags(return_value=True, return_ttl=True, return_cas_token=True)
mc.set("stale", "old", ttl=100)
before = mc.get_cas("stale")[1]
same(mc.delete("stale", stale_policy=stale), True)
won = mc.meta_get(Key("stale"), full)
same((won.value, won.flags.stale, won.flags.win), ("old", True, True))
holds(won.flags.ttl <= 30, "the time to live that the delete set")
lost = other.meta_get(Key("stale"), full)
same((lost.value, lost.flags.stale, lost.flags.win), ("old", True, False))
same(mc.set("stale", "new", ttl=100, cas_token=won.flags.cas_token), True)
fresh = mc.meta_get(Key("stale"), full)
same((fresh.value, fresh.flags.stale, fresh.flags.win), ("new", False, None))

# A store with an older unique, where the item was marked stale meanwhile, is kept but stale too.
mc.delete("stale", stale_policy=stale)
same(mc.set("stale", "older", ttl=100, cas_token=before, stale_policy=stale), True)
kept = mc.meta_get(Key("stale"), full)
same((kept.value, kept.flags.stale, kept.flags.win), ("older", True, True))

# Large values.
same(mc.set("large", LARGE, ttl=0), True)
same(mc.get("large") == LARGE, True, "900 KB, byte for byte")
raises(MemcacheError, expects_errors.set, "large", TOO_LARGE, ttl=0)
same(mc.get("large"), None, "a refused set leaves no old value")
same(mc.set("after", "v", ttl=0), True)
same(mc.get("after"), "v")

# Keys: what is not plain text goes as base64, and names the item with the bytes behind it.
same(mc.set(LONGEST_KEY, "v", ttl=0), True)
same(mc.get(LONGEST_KEY), "v")
same(mc.set(TOO_LONG_KEY, "hashed by the client", ttl=0), True)
same(mc.get(TOO_LONG_KEY), "hashed by the client")
same(mc.set(Key("schlüssel"), "binary", ttl=0), True)
same(mc.get(Key("schlüssel")), "binary")
same(mc.get(Key("with a space")), None)
same(mc.multi_get([Key("schlüssel"), Key("after")]), {Key("schlüssel"): "binary", Key("after"): "v"})

# Flags, and the types that the client keeps in them.
for number, thing in enumerate((7, -7, "text", b"bytes", 1.5, {"a": [1, None]}, "long " * 1000)):
    mc.set(f"typed:{number}", thing, ttl=0)
    same(mc.get(f"typed:{number}"), thing)
flags = RequestFlags(return_value=False, return_client_flag=True)
holds(isinstance(mc.meta_get(Key("typed:3"), flags), Success), "HD")
same(mc.meta_get(Key("typed:3"), flags).flags.client_flag, 16)
holds(isinstance(mc.meta_set(Key("typed:3"), 1, RequestFlags(mode=SetMode.ADD.value)), NotStored), "NS")

passed("meta-memcache")
