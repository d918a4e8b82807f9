"""What nginx serves out of the cache. Prints the names of the checks; one that does not hold ends it."""

import gzip
import urllib.error
import urllib.request

from pymemcache.client.base import Client

cache = Client(("127.0.0.1", 11211), default_noreply=False)


def page(path, **headers):
    request = urllib.request.Request("http://127.0.0.1:8088" + path, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read(), reply.headers


def check(name, holds):
    assert holds, name
    print(name)


cache.set("/page?", b"a page")
check("a page", page("/page")[0] == b"a page")
check("a miss", page("/other")[0] == b"from the application")
cache.set("/page?a=1&b=2", b"with arguments")
check("arguments", page("/page?a=1&b=2")[0] == b"with arguments")
# nginx writes the key as it came, with what a key must not have in percent signs.
cache.set("/a%20b?", b"escaped")
check("an escaped key", page("/a%20b")[0] == b"escaped")
large = bytes(range(256)) * 3900
cache.set("/large?", large)
check("a large page", page("/large")[0] == large)
cache.set("/empty?", b"")
check("an empty page", page("/empty")[0] == b"")
cache.set("/zipped?", gzip.compress(b"zipped"), flags=2)
body, headers = page("/zipped", **{"Accept-Encoding": "gzip"})
check("a compressed page", headers["Content-Encoding"] == "gzip" and gzip.decompress(body) == b"zipped")
check("many pages on kept connections", all(page("/page")[0] == b"a page" for _ in range(500)))
cache.set("/page?", b"another page")
check("a new page", page("/page")[0] == b"another page")
check("a key that is too long", page("/" + "k" * 300)[0] == b"from the application")
