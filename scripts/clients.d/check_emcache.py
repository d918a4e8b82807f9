"""emcache with auto discovery: asks one node for its cluster, as clients of hosted memcached do."""

import asyncio
import os
import socket

from support import HOST, MANY, PORT, holds, passed, same

import emcache


def tell_nodes(version, places):
    """Gives the server the list of its cluster; returns its answer."""
    value = f"{version}\n{' '.join(places)}\n".encode()
    with socket.create_connection((HOST, PORT), timeout=10) as conn:
        conn.sendall(b"config set cluster 0 %d\r\n%s\r\n" % (len(value), value))
        return conn.recv(100)


async def checks():
    # The client knows the node by its address; the cluster knows it by a name.
    same(tell_nodes(1, [f"localhost|{HOST}|{PORT}"]), b"STORED\r\n")
    seed = emcache.MemcachedHostAddress(HOST, PORT)
    mc = await emcache.create_client([seed], autodiscovery=True)
    nodes = mc.cluster_managment().nodes()
    same([(node.address, node.port) for node in nodes], [("localhost", PORT)])
    for i in range(MANY):
        await mc.set(b"many:%d" % i, b"%d" % i)
    items = await mc.get_many([b"many:%d" % i for i in range(MANY)])
    same(len(items), MANY)
    holds(all(item.value == key.removeprefix(b"many:") for key, item in items.items()), "values")
    same(await mc.get(b"absent"), None)
    await mc.delete(b"many:0")
    same(await mc.get(b"many:0"), None)
    await mc.close()


if "ketch" in os.path.basename(os.environ["KETCH_SERVER"]):
    asyncio.run(checks())
passed("emcache")
