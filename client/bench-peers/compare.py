"""Has the clients take turns, many short rounds, and tells the ratios. Started by `run`."""

import argparse
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


class Worker:
    """A client in a process of its own."""

    def __init__(self, name, nodes):
        kind, _, mode = name.partition("-")
        if kind == "pylibmc":
            command = [sys.executable, os.path.join(HERE, "worker.py"), mode]
        else:
            command = [os.environ["BENCH_PEERS"], name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command + [",".join(nodes)], stdin=pipe, stdout=pipe, text=True)

    def round(self, *words):
        """Keys a second, and nanoseconds of CPU time a key."""
        print(*words, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("a client has ended")
        done, took, used = map(int, answer.split())
        return done / took * 1e9, used / max(done, 1)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def measure(workers, words, rounds):
    """By client, the median over the rounds of: keys a second, CPU ns a key, and both beside the first client's."""
    seen = [[] for _ in workers]
    for worker in workers:
        worker.round(*words)
    for round in range(rounds):
        # Nobody is always the first, or behind the same.
        for i in range(len(workers)):
            i = (i + round) % len(workers) if round % 2 else (round - i) % len(workers)
            seen[i].append(workers[i].round(*words))
    first = seen[0]
    return [
        [
            statistics.median(rate for rate, _ in mine),
            statistics.median(cpu for _, cpu in mine),
            statistics.median(a / b for (a, _), (b, _) in zip(first, mine)),
            statistics.median(b / a for (_, a), (_, b) in zip(first, mine)),
        ]
        for mine in seen
    ]


def table(title, names, cases, nodes, args):
    """`cases`: a label and the words of a round."""
    workers = [Worker(name, nodes) for name in names]
    print("\n%s\n" % title)
    print("| | %s keys/s | %s |" % (names[0], " | ".join("beside " + name for name in names[1:])))
    print("| --- | ---: | %s |" % " | ".join("---:" for _ in names[1:]))
    for label, words in cases:
        first, *others = measure(workers, words + [args.ms], args.rounds)
        cells = ["%.2f (CPU %.2f)" % (rate, cpu) for _, _, rate, cpu in others]
        print("| %s | %.0f (CPU %.2f us) | %s |" % (label, first[0], first[1] / 1000, " | ".join(cells)), flush=True)
    for worker in workers:
        worker.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["blocking", "async"], metavar="blocking|async")
    parser.add_argument("--nodes", required=True)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--ms", type=int, default=60, help="of a round")
    parser.add_argument("--batches", default="1,10,100,1000")
    parser.add_argument("--tasks", default="1,16,128")
    args = parser.parse_args()
    nodes = args.nodes.split(",")
    numbers = lambda text: [int(word) for word in text.split(",")]
    print("Key 16 bytes, value 100 bytes, all hits; medians of %d rounds of %d ms, the clients in turn." % (args.rounds, args.ms))
    print("A ratio above 1: so many times the keys a second, and the other needs so many times the CPU time a key.")
    for count in (1, len(nodes)):
        filler = Worker("ketch", nodes[:count])
        for _ in range(10):
            filler.round("set", 1000, 1, 20)
        filler.end()
        if "blocking" in args.what:
            deeds = [(deed, batch) for deed in ("get", "set") for batch in numbers(args.batches)]
            cases = [("%s, %d keys" % case, [*case, 1]) for case in deeds]
            title = "Blocking, one thread, nodes: %d" % count
            table(title, ["ketch", "pylibmc-text", "pylibmc-binary"], cases, nodes[:count], args)
    if "async" in args.what:
        # Limited: with `tokio::time::timeout` around each operation, since it keeps no time itself.
        deeds = [("get", 1), ("set", 1), ("get", 100)]
        cases = [
            ("%s, %d keys, %d tasks" % (*deed, tasks), [*deed, tasks]) for deed in deeds for tasks in numbers(args.tasks)
        ]
        table("Async, nodes: 1", ["ketch-async", "async-memcached", "async-memcached-limited", "memcache"], cases, nodes[:1], args)


main()
