"""What the checks of every client share: counting, comparing, waiting.

A client's file is plain Python. It takes the server's port from the command line, makes its
comparisons through the functions below, and ends with `passed`. The first difference raises and
ends the run with a traceback that names the line.
"""

import importlib.metadata
import os
import random
import ssl
import sys
import time

HOST = "127.0.0.1"
PORT = int(sys.argv[1])

# With the root of the server's certificate the check runs through TLS.
ROOT = sys.argv[2] if len(sys.argv) > 2 else None
TLS = ssl.create_default_context(cafile=ROOT) if ROOT else None

# Values below and above the item limit of 1 MB. Random, so that no client can compress them and
# a byte that moved is noticed; from a fixed seed, so that every run sends the same.
LARGE = random.Random(900).randbytes(900 * 1024)
TOO_LARGE = random.Random(2048).randbytes(2 * 1024 * 1024)
LONGEST_KEY = "k" * 250
TOO_LONG_KEY = "k" * 251
MANY = 100

_count = 0


def _short(value):
    text = repr(value)
    return text if len(text) < 200 else text[:197] + "..."


def same(got, want, what=""):
    """Counts one check: `got` must equal `want`, in type too where it is a bool or None."""
    global _count
    _count += 1
    if got != want or (want is None or isinstance(want, bool)) and got is not want:
        raise AssertionError(f"{what}: got {_short(got)}, want {_short(want)}".lstrip(": "))


def holds(condition, what):
    """Counts one check of a condition that is no comparison."""
    global _count
    _count += 1
    if not condition:
        raise AssertionError(what)


def raises(errors, call, *args, word="", **options):
    """Counts one check: the call must raise one of `errors`, with `word` in its text."""
    global _count
    _count += 1
    try:
        got = call(*args, **options)
    except errors as error:
        if word not in str(error):
            raise AssertionError(f"{word!r} is missing in {error!r}") from error
        return
    raise AssertionError(f"no error: got {_short(got)}")


def until(what, probe, deadline_s=10.0):
    """Waits for a change that comes with the server's clock."""
    global _count
    _count += 1
    end = time.monotonic() + deadline_s
    while not probe():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s} s")
        time.sleep(0.05)


def passed(package, how=""):
    through = ", TLS" if TLS else ""
    print(f"ok {package} {importlib.metadata.version(package)}{how}{through} ({_count} checks)")
    sys.stdout.flush()
    # Clients with threads of their own must not hold the exit up.
    os._exit(0)
