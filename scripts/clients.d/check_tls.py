"""pymemcache over TLS: a context of Python's own ssl module, which is OpenSSL, against the server's."""

import ssl

from support import HOST, LARGE, MANY, PORT, ROOT, TLS, holds, passed, raises, same, until

from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import MemcacheUnexpectedCloseError


def client(of=Client, tls=TLS, name="localhost", **options):
    # The server's certificate is for this name; the client checks it.
    return of((name, PORT), timeout=10, connect_timeout=10, default_noreply=False, tls_context=tls, **options)


def is_up():
    try:
        return client().version() != b""
    except OSError:
        return False


until("the server answers", is_up)
mc = client()
many = {f"many:{i}": b"value %d" % i for i in range(MANY)}
same(mc.set_many(many), [])
same(mc.get_many(many), many)
same(mc.set("large", LARGE), True)
same(mc.get("large"), LARGE)
same(mc.incr("absent", 1), None)
same(mc.delete("large"), True)

# Answers that are read later than they came.
pool = client(PooledClient, max_pool_size=4)
for i in range(MANY):
    same(pool.set(f"pool:{i}", b"x" * i, noreply=True), True)
    same(pool.get(f"pool:{i}"), b"x" * i)

for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    one = ssl.create_default_context(cafile=ROOT)
    one.minimum_version = one.maximum_version = version
    same(client(tls=one).get("many:1"), b"value 1", version.name)

# Who does not trust the server does not talk to it, and who does not speak TLS is not answered.
raises(ssl.SSLError, client(tls=ssl.create_default_context()).get, "many:1")
raises((OSError, MemcacheUnexpectedCloseError), Client((HOST, PORT), timeout=10).get, "many:1")
holds(int(mc.stats()[b"ssl_handshake_errors"]) >= 0, "TLS is in stats")

passed("pymemcache")
