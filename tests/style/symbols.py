#!/usr/bin/env python3
"""symbols.py BUILD: fails on a function that two of our static libraries define.

The linker would silently take the first one, and a role could run another role's code.
"""

import collections
import pathlib
import subprocess
import sys


def main():
    where = collections.defaultdict(set)
    for library in sorted(pathlib.Path(sys.argv[1]).glob("src/libnimbus_*.a")):
        listing = subprocess.run(["nm", "--defined-only", "--extern-only", "--format=posix", library], check=True,
                                 capture_output=True, text=True).stdout
        for line in listing.splitlines():
            words = line.split()
            if len(words) >= 2 and words[1] in "TDBR":
                where[words[0]].add(library.name)
    doubled = {name: libraries for name, libraries in where.items() if len(libraries) > 1}
    for name, libraries in sorted(doubled.items()):
        print(f"{name}: defined in {', '.join(sorted(libraries))}")
    print(f"symbols: {len(where)} read, {len(doubled)} defined twice")
    return 1 if doubled or not where else 0


if __name__ == "__main__":
    sys.exit(main())
