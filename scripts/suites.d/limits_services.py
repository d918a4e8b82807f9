"""For the suite of limits: its tests ask for services in containers, which are servers that scripts/suites has started."""

import pytest
from pymemcache.client.base import Client


class Started:
    def start(self, *names):
        pass

    def stop(self, *names):
        pass

    def wait_for_service(self, *names, **how):
        pass


@pytest.fixture(scope="session")
def host_ip_env():
    return None


@pytest.fixture(scope="session")
def docker_services():
    return Started()


@pytest.fixture(autouse=True)
def flushes_are_answered(monkeypatch):
    """A test empties the server over one connection and stores over another: unless the first waits for its answer, the server
    may flush behind the store, memcached as well."""
    flush_all = Client.flush_all
    monkeypatch.setattr(Client, "flush_all", lambda client, delay=0, noreply=False: flush_all(client, delay, noreply))
