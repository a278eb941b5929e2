#!/usr/bin/env python3
"""The life of the package, for real: python3 tests/deb.py [--quick | --chroots SUITE...]

The quick half takes one Debian 12 chroot, without a network. The whole takes Debian 12 and 13, fake PVE and PBS
hosts, a repository, and boots each release with systemd to see its timers and services at work (tests/deb_boot.py).
Where systemd cannot be booted, units are verified offline only, and the last line says so.
"""

import argparse
import os
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(__file__))
from deb_build import BUILD_TESTS, CLEAN_BUILD_TESTS
from deb_chroot import base
from deb_life import HOST_TESTS, LIFE_TESTS
from deb_boot import BOOT_TESTS, boots
from deb_armed import ARMED_TESTS

QUICK = ["bookworm"]
ALL = ["bookworm", "trixie"]


def run(tests, *args):
    """Each test is a function whose name is a sentence; how many failed."""
    failed = 0
    for test in tests:
        began, said, verdict = time.monotonic(), None, "ok"
        try:
            said = test(*args)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            failed += 1
            verdict = "FAILED"
        name = test.__name__.replace("_", " ")
        print(f"{verdict:6} {' '.join(map(str, args))} {name} ({time.monotonic() - began:.1f} s){': ' + said if said else ''}",
              flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--boot", nargs="+", metavar="SUITE", help="only boot these")
    parser.add_argument("--chroots", nargs="+", metavar="SUITE", help="only make these base systems")
    args = parser.parse_args()
    if "PBX_DEB_TEST" not in os.environ:
        # In a mount namespace of its own: whatever happens, no mount is left behind.
        os.environ["PBX_DEB_TEST"] = "yes"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    if args.chroots:
        for suite in args.chroots:
            base(suite)
        return 0
    if args.boot:
        return sum(boot(suite) for suite in args.boot)
    failed = run(BUILD_TESTS)
    for suite in QUICK if args.quick else ALL:
        failed += run(LIFE_TESTS, suite)
    if args.quick:
        print("the quick half: units were verified offline; `make test-deb` boots them")
        return failed
    for suite in ALL:
        failed += run(HOST_TESTS, suite)
    failed += run(CLEAN_BUILD_TESTS)
    return failed + sum(boot(suite) for suite in ALL)


def boot(suite):
    if not boots(suite):
        print(f"{suite}: systemd could NOT be booted here: units were verified offline only")
        return 0
    failed = run(BOOT_TESTS + ARMED_TESTS, suite)
    print(f"{suite}: systemd was booted; what is said above of timers and services really happened")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
