"""Tests that passed, one a line, from what a test program has written.

    results.py pytest|unittest|cargo FILE > passed
"""

import re
import sys
import xml.etree.ElementTree as xml


def of_pytest(file):
    for case in xml.parse(file).iter("testcase"):
        if not any(child.tag in ("failure", "error", "skipped") for child in case):
            yield f"{case.get('classname')}.{case.get('name')}"


def of_unittest(file):
    # A test with a doc line has its end on the next line.
    last = None
    for line in open(file, errors="replace"):
        begun = re.match(r"(\w+ \([\w.]+\))", line)
        last = begun[1] if begun else last
        if last and line.rstrip().endswith("... ok"):
            yield last


def of_cargo(file):
    program = ""
    for line in open(file, errors="replace"):
        if begun := re.match(r"\s+Running (\S+)", line):
            program = begun[1]
        elif passed := re.match(r"test (.+) \.\.\. ok", line):
            yield f"{program} {passed[1]}"


kind, file = sys.argv[1:]
print("\n".join(sorted(set({"pytest": of_pytest, "unittest": of_unittest, "cargo": of_cargo}[kind](file)))))
