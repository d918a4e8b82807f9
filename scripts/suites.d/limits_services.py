"""For the suite of limits: its tests ask for services in containers, which are servers that scripts/suites has started."""

import pytest


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
