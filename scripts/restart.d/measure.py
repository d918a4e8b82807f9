"""Measures restarts of a server with -e, and memcached's -e beside it where there is one. `scripts/restart memory` calls it."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

program, items, kills = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
path = f"/dev/shm/ketch-restart-{os.getpid()}"
megabytes = max(64, items * 200 >> 20)
failures = []


class Server:
    """A server that has answered."""

    def __init__(self, *options, program=program):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        begun = time.monotonic()
        args = [program, "-p", str(self.port), "-l", "127.0.0.1", "-u", "root", "-e", path, *options]
        self.process = subprocess.Popen(args, stderr=subprocess.DEVNULL)
        while True:
            try:
                self.connect()
                self.stream.sendall(b"get k1\r\n")
                self.until(b"END\r\n")
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    sys.exit(f"{args} has ended")
                time.sleep(0.0005)
        self.took = time.monotonic() - begun

    def connect(self):
        self.stream = socket.create_connection(("127.0.0.1", self.port))
        self.file = self.stream.makefile("rb")

    def until(self, end):
        lines = []
        while True:
            line = self.file.readline()
            if line == end or not line:
                return lines
            lines.append(line)

    def stats(self, group=""):
        self.stream.sendall(f"stats {group}\r\n".encode())
        words = (line.decode().rstrip().split(" ", 2) for line in self.until(b"END\r\n"))
        return {name: value for _, name, value in words}

    def end(self, sent=signal.SIGTERM):
        begun = time.monotonic()
        self.process.send_signal(sent)
        self.process.wait()
        return time.monotonic() - begun


def fill(server, count):
    for first in range(0, count, 20000):
        keys = range(first, min(count, first + 20000))
        server.stream.sendall(b"".join(b"set k%d 0 0 20 noreply\r\n%020d\r\n" % (n, n) for n in keys))
    server.stream.sendall(b"mn\r\n")
    server.until(b"MN\r\n")


def row(what, figure):
    print(f"| {what} | {figure} |", flush=True)


def expect(holds, what):
    if not holds:
        failures.append(what)
        print(f"FAIL {what}", flush=True)


def clean():
    server = Server("-m", str(megabytes))
    fill(server, items)
    stored = int(server.stats()["curr_items"])
    row("items stored", f"{stored:,}")
    for options in [[], [], ["-t", "2"], ["-m", str(megabytes * 2)], ["-o", "eviction=lru"], ["-f", "1.5"]]:
        ended = server.end()
        options = options if "-m" in options else ["-m", str(megabytes), *options]
        server = Server(*options)
        told = server.stats("restart")
        expect(int(told["memory_file_items"]) == stored, f"{options}: {told}")
        what = " ".join(options)
        row(f"clean end, then `{what}`", f"{told['memory_file']}, ended in {ended * 1e3:.0f} ms, first answer after {server.took * 1e3:.1f} ms")
    server.end(signal.SIGKILL)
    server = Server("-m", str(megabytes), "-f", "1.5")
    told = server.stats("restart")
    expect(int(told["memory_file_items"]) >= stored * 0.99, f"after kill -9: {told}")
    steps = {name[12:-5]: float(value) for name, value in told.items() if name.startswith("memory_file_") and name.endswith("_time")}
    steps.pop("down")
    rate = stored / sum(steps.values()) / 1e6
    steps = ", ".join(f"{name} {took:.3f}" for name, took in steps.items())
    row("`kill -9`, idle", f"{told['memory_file']}, {rate:.1f} million items a second ({steps} s)")
    server.end()
    os.unlink(path)


def kill_under_load():
    """Stores under load, kills, and looks whether each value is the last acknowledged one or the one that was on its way."""
    keys, least, wrong = 20000, 1.0, 0
    acked, sent = [0] * keys, [0] * keys
    server = Server("-m", "64")

    def value(n, version):
        return (b"%d:%d:" % (n, version)) * (1 + n % 30)

    def load(first, port, version):
        stream = socket.create_connection(("127.0.0.1", port))
        file = stream.makefile("rb")
        try:
            while True:
                batch = [random.randrange(first, keys, 3) for _ in range(20)]
                batch = list(dict.fromkeys(batch))
                version += 1
                for n in batch:
                    sent[n] = version
                stream.sendall(b"".join(b"set k%d 0 0 %d\r\n%s\r\n" % (n, len(value(n, version)), value(n, version)) for n in batch))
                for n in batch:
                    if file.readline() != b"STORED\r\n":
                        return
                    acked[n] = version
        except OSError:
            return

    for kill in range(kills):
        writers = [threading.Thread(target=load, args=(first, server.port, (kill + 1) * 1_000_000)) for first in range(3)]
        for writer in writers:
            writer.start()
        time.sleep(0.5 + random.random())
        server.end(signal.SIGKILL)
        for writer in writers:
            writer.join()
        server = Server("-m", "64")
        there = 0
        for n in range(keys):
            server.stream.sendall(b"get k%d\r\n" % n)
            lines = server.until(b"END\r\n")
            if lines:
                there += 1
                got = lines[1][:-2]
                wrong += got not in (value(n, acked[n]), value(n, sent[n]))
        stored = sum(1 for version in acked if version)
        least = min(least, there / stored)
    server.end()
    os.unlink(path)
    row(f"`kill -9` under load, {kills} times", f"{least * 100:.2f} % of the items back at least, {wrong} wrong values")
    expect(wrong == 0 and least >= 0.99, "kill -9 under load")


def full():
    """A file system that others fill: nothing is lost but room, and what does not fit is refused at the start. Needs root."""
    global path
    small, before = path + ".mount", path
    os.mkdir(small)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", small], stderr=subprocess.DEVNULL)
    if mounted.returncode != 0:
        os.rmdir(small)
        row("a full file system", "not tried: no right to mount one")
        return
    path = small + "/cache"
    try:
        server = Server("-m", "64")
        fill(server, 20000)
        with open(small + "/other", "wb", buffering=0) as other:
            try:
                while True:
                    other.write(bytes(65536))
            except OSError:
                pass
        fill(server, 800000)
        held = server.stats()
        server.stream.sendall(b"get k799999\r\n")
        expect(server.until(b"END\r\n")[1:] == [b"%020d\r\n" % 799999], "the last value in a full file system")
        os.unlink(small + "/other")
        server.end()
        server = Server("-m", "64")
        kept = server.stats("restart")["memory_file_items"]
        server.end()
        refused = subprocess.run([program, "-u", "root", "-p", "-1", "-m", "256", "-e", small + "/more"], stderr=subprocess.PIPE)
        expect(refused.returncode == 71 and b"MB left" in refused.stderr, f"a start without room: {refused}")
        row("a file system that others fill", f"{held['curr_items']} items held, {held['evictions']} evicted, {kept} there after a restart; `-m 256` refused")
    finally:
        subprocess.run(["umount", "-l", small], check=False)
        os.rmdir(small)
        path = before


def memcached():
    program = os.environ.get("MEMCACHED", shutil.which("memcached"))
    if not program:
        return
    server = Server("-m", str(megabytes), program=program)
    fill(server, items)
    stored = int(server.stats()["curr_items"])
    # Its clock must have gone on by a second.
    time.sleep(1.5)
    ended = server.end(signal.SIGUSR1)
    time.sleep(1.5)
    server = Server("-m", str(megabytes), program=program)
    kept = int(server.stats()["curr_items"])
    row("memcached: SIGUSR1, the same options", f"{kept:,} of {stored:,}, ended in {ended * 1e3:.0f} ms, first answer after {server.took * 1e3:.0f} ms")
    server.end(signal.SIGKILL)
    for name in (path, path + ".meta"):
        if os.path.exists(name):
            os.unlink(name)


print("| | |\n| --- | --- |")
clean()
kill_under_load()
full()
memcached()
sys.exit(f"{len(failures)} of the above" if failures else 0)
