#!/bin/sh
# blackbox.sh BUILD DATABASE...: the black-box suite on each of the databases, in lanes that run at once: most of a
# scenario is waiting. What the lanes say comes one after the other, the first one's as it runs.
set -eu

lanes=3
build=$1
shift
said=$(mktemp -d)
trap 'kill $(cat "$said"/*.pid) 2>/dev/null || true; rm -rf "$said"' EXIT
trap 'exit 130' INT TERM

start() {
    database=$1
    lane=$2
    : >"$said/$database-$lane" # there before it is followed
    # shellcheck disable=SC2046 # a list of files
    NIMBUS_BUILD=$build "${PYTHON:-python3}" -m pytest -q -p no:cacheprovider --database "$database" \
        $(printf '%s\n' tests/blackbox/test_*.py | awk "NR % $lanes == $lane") >"$said/$database-$lane" 2>&1 &
    echo $! >"$said/$database-$lane.pid"
}

for database in "$@"; do
    for lane in $(seq 0 $((lanes - 1))); do
        start "$database" "$lane"
    done
done

failed=0
for file in "$said"/*.pid; do
    lane=${file%.pid}
    pid=$(cat "$file")
    echo "== ${lane##*/}"
    tail --pid="$pid" -n +1 -s 1 -f "$lane"
    wait "$pid" || failed=1
done
exit $failed
