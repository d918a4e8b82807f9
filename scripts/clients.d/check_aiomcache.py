"""aiomcache: asyncio, a pool of sockets, every command as one coroutine."""

import asyncio

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
    same,
)

import aiomcache
from aiomcache.exceptions import ClientException, ValidationException


CONN_ARGS = {"ssl": TLS} if TLS else None


async def refused(error, call, word):
    """Counts one check: the coroutine must raise `error` with `word` in its text."""
    try:
        await call
    except error as raised:
        same(word in str(raised), True, f"{word!r} in {raised!r}")
    else:
        same("no error", error.__name__)


async def to_flags(value):
    return str(value).encode(), 42


async def from_flags(value, flags):
    same(flags, 42)
    return int(value)


async def checks():
    mc = aiomcache.Client(HOST, PORT, pool_size=4, conn_args=CONN_ARGS)

    # Storing and reading many, over several sockets at a time.
    keys = [b"many:%d" % i for i in range(MANY)]
    same(await asyncio.gather(*(mc.set(key, b"of " + key) for key in keys)), [True] * MANY)
    same(await mc.multi_get(*keys), tuple(b"of " + key for key in keys))
    same(await mc.multi_get(keys[0], b"absent", keys[1]), (b"of many:0", None, b"of many:1"))
    same(await asyncio.gather(*(mc.get(key) for key in keys)), [b"of " + key for key in keys])
    same(await mc.get(b"absent"), None)
    same(await mc.get(b"absent", b"default"), b"default")

    # add, replace, append, prepend.
    same(await mc.add(b"mode", b"b"), True)
    same(await mc.add(b"mode", b"x"), False)
    same(await mc.replace(b"mode", b"c"), True)
    same(await mc.replace(b"absent", b"c"), False)
    same(await mc.append(b"mode", b"d"), True)
    same(await mc.prepend(b"mode", b"a"), True)
    same(await mc.get(b"mode"), b"acd")
    same(await mc.append(b"absent", b"x"), False)
    same(await mc.prepend(b"absent", b"x"), False)

    # cas.
    await mc.set(b"cas", b"one")
    value, unique = await mc.gets(b"cas")
    same(value, b"one")
    same(await mc.cas(b"cas", b"two", unique), True)
    same(await mc.cas(b"cas", b"three", unique), False, "a unique is good for one store")
    same(await mc.cas(b"absent", b"x", unique), False)
    same(await mc.get(b"cas"), b"two")
    same(await mc.gets(b"absent"), (None, None))

    # incr, decr. A hundred at a time lose no step.
    await mc.set(b"n", b"10")
    same(await mc.incr(b"n", 5), 15)
    same(await mc.decr(b"n", 6), 9)
    same(await mc.decr(b"n", 100), 0)
    await asyncio.gather(*(mc.incr(b"n") for _ in range(100)))
    same(await mc.incr(b"n", 0), 100)
    await mc.set(b"n", b"%d" % (2**64 - 1))
    same(await mc.incr(b"n", 2), 1, "incr wraps at 2^64")
    await refused(ClientException, mc.incr(b"absent"), "NOT_FOUND")
    await refused(ClientException, mc.decr(b"absent"), "NOT_FOUND")
    await mc.set(b"word", b"abc")
    await refused(ClientException, mc.incr(b"word"), "non-numeric value")
    same(await mc.get(b"word"), b"abc")

    # touch, expiry.
    await mc.set(b"t", b"v")
    same(await mc.touch(b"t", 100), True)
    same(await mc.touch(b"absent", 100), False)
    same(await mc.get(b"t"), b"v")
    same(await mc.touch(b"t", -1), True)
    same(await mc.get(b"t"), None, "touched into the past")
    await mc.set(b"short", b"v", exptime=1)
    async with asyncio.timeout(10):
        while await mc.get(b"short") is not None:
            await asyncio.sleep(0.05)
    same(await mc.add(b"short", b"again"), True, "an expired key can be added")

    # delete.
    await mc.set(b"d", b"v")
    same(await mc.delete(b"d"), True)
    same(await mc.delete(b"d"), False)

    # Large values.
    same(await mc.set(b"large", LARGE), True)
    same(await mc.get(b"large") == LARGE, True, "900 KB, byte for byte")
    await refused(ClientException, mc.set(b"large", TOO_LARGE), "object too large for cache")
    same(await mc.get(b"large"), None, "a refused set leaves no old value")
    same(await mc.set(b"after", b"v"), True)
    same(await mc.get(b"after"), b"v")

    # Keys.
    longest = LONGEST_KEY.encode()
    same(await mc.set(longest, b"v"), True)
    same(await mc.get(longest), b"v")
    await refused(ValidationException, mc.get(TOO_LONG_KEY.encode()), "invalid key")
    same(await mc.set("schlüssel".encode(), b"v"), True)
    same(await mc.get("schlüssel".encode()), b"v")

    # Flags.
    typed = aiomcache.FlagClient(
        HOST, PORT, set_flag_handler=to_flags, get_flag_handler=from_flags, conn_args=CONN_ARGS
    )
    same(await typed.set(b"flags", 7), True)
    same(await typed.get(b"flags"), 7)
    await typed.close()

    # stats, version, flush_all.
    stats = await mc.stats()
    holds(int(stats[b"pid"]) > 0 and int(stats[b"curr_items"]) > 0, "stats")
    same((await mc.stats(b"settings"))[b"item_size_max"], b"1048576")
    same((await mc.version()).count(b"."), 2)
    await mc.flush_all()
    same(await mc.get(b"after"), None)
    same(await mc.set(b"after", b"flush"), True)
    same(await mc.get(b"after"), b"flush", "a store in the same second as flush_all lives")
    await mc.close()


asyncio.run(checks())
passed("aiomcache")
