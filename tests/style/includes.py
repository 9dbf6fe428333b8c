#!/usr/bin/env python3
"""Reads every #include of the tree and fails on one that the house does not allow.

The table is docs/architecture.md's: who may include whom, and which module alone includes which library.
"""

import pathlib
import re
import sys

ROLES = {"control", "agent", "shim", "logs", "cli", "up", "admin"}
LOW = {"base", "net", "store", "auth", "trust", "model", "proto"}
MAY_INCLUDE = {
    "base": {"base"},
    "model": {"base", "model"},
    "net": {"base", "net"},
    "trust": {"base", "trust"},
    "proto": {"base", "model", "proto"},
    "store": {"base", "model", "net", "store"},
    "auth": {"base", "model", "net", "auth"},
    "role": {"base", "model", "net", "role"},
    "vm": LOW | {"vm"},
    "guest": {"base", "proto", "guest"},
    "rootfs": {"base", "model", "net", "vm", "rootfs"},
}
for role in ROLES:
    MAY_INCLUDE[role] = LOW | {"role", "vm", role}
MAY_INCLUDE["cli"].add("rootfs")

# A library's header has one wrapper, and only a .c file.
WRAPPERS = {
    r"openssl/": {"base/crypto.c"},
    r"jansson\.h": {"base/js.c"},
    # The server hands its library what net/tls.c has, in GnuTLS's types.
    r"gnutls/": {"net/tls.c", "net/http_server.c", "net/http_upgrade.c"},
    r"microhttpd\.h": {"net/http_server.c", "net/http_upgrade.c"},
    r"curl/": {"net/http_client.c"},
    r"systemd/": {"net/loop.c"},
    r"sqlite3\.h": {"store/sqlite_client.c"},
    r"libpq": {"store/pg_client.c"},
    r"cjose/": {"auth/jwt.c"},
    r"lz4": {"vm/kernel.c"},
    r"zstd(_errors)?\.h": {"base/zstd.c"},
    r"zlib\.h": {"base/gzip.c"},
    r"yaml\.h": {"base/yaml.c"},
    r"archive(_entry)?\.h": {"rootfs/archive.c"},
}
# Its library's header must come before base/banned.h.
OWN_LATER = {"store/pg_client.c"}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)


def breaches(root):
    for path in sorted((root / "src").rglob("*.[ch]")):
        name = path.relative_to(root / "src").as_posix()
        layer = name.split("/")[0]
        test = name.endswith("_test.c")
        includes = INCLUDE.findall(path.read_text(encoding="utf-8"))
        yield from own_header_first(path, name, includes)
        for bracket, header in includes:
            if bracket == '"':
                yield from house_rules(root, name, layer, header)
            elif not test:
                yield from library_rules(name, header)


def own_header_first(path, name, includes):
    """So that every header compiles alone; those without a .c of their own have one made (src/meson.build)."""
    own = name[:-1] + "h"
    if path.suffix == ".c" and not name.endswith("_test.c") and name not in OWN_LATER \
            and path.with_suffix(".h").is_file() and includes[:1] != [('"', own)]:
        yield f"{name}: \"{own}\" comes first of its includes"


def house_rules(root, name, layer, header):
    if not (root / "src" / header).is_file() and not header.startswith("generated/"):
        yield f"{name}: \"{header}\" is not a path from src/"
    target = header.split("/")[0]
    if name == "main.c":
        if header.count("/") != 1 or (target != "base" and header != f"{target}/{target}.h"):
            yield f"{name}: main.c includes base/ and <role>/<role>.h only, not \"{header}\""
    elif layer in MAY_INCLUDE and target not in MAY_INCLUDE[layer]:
        yield f"{name}: {layer}/ may not include {target}/ (\"{header}\")"


def library_rules(name, header):
    for pattern, wrappers in WRAPPERS.items():
        if re.match(pattern, header) and name not in wrappers:
            yield f"{name}: <{header}> belongs to {', '.join(sorted(wrappers))} alone"


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    found = list(breaches(root))
    for line in found:
        print(line)
    print(f"includes: {len(found)} breaches")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
