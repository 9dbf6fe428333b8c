#!/bin/sh
# blackbox.sh BUILD DATABASE...: the black-box suite on each of the databases, all at once: most of a scenario is waiting.
# What they say comes one after the other, the first one's as it runs.
set -eu

build=$1
shift
said=$(mktemp -d)
trap 'kill $(cat "$said"/*.pid) 2>/dev/null || true; rm -rf "$said"' EXIT
trap 'exit 130' INT TERM

for database in "$@"; do
    NIMBUS_BUILD=$build "${PYTHON:-python3}" -m pytest -q -p no:cacheprovider --durations=10 tests/blackbox \
        --database "$database" >"$said/$database" 2>&1 &
    echo $! >"$said/$database.pid"
done

failed=0
for database in "$@"; do
    pid=$(cat "$said/$database.pid")
    echo "== $database"
    tail --pid="$pid" -n +1 -s 1 -f "$said/$database"
    wait "$pid" || failed=1
done
exit $failed
