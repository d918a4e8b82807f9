"""For Django's tests: its sqlite settings, and a cache with the memcached backend that SUITE_BACKEND names."""

import os

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
SECRET_KEY = "tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "memcached": {
        "BACKEND": f"django.core.cache.backends.memcached.{os.environ['SUITE_BACKEND']}",
        "LOCATION": "127.0.0.1:11211",
    },
}
