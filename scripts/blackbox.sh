#!/bin/sh
# blackbox.sh BUILD DATABASE...: the black-box suite on each of the databases, in lanes that run at once: much of a
# scenario is waiting. The lanes of a database divide its files among themselves: each takes the next that none has
# begun. What they say comes one after the other, the first one's as it runs. What failed runs once more, alone, so that
# a machine which is too small for the lanes is told from a defect; both runs are shown, and the last lines name all that
# failed. PYTEST_FLAGS are pytest's.
set -eu

build=$1
shift
first=$1
# DATABASE: how many lanes it has. The first one's suite is whole; a second one's has half as much.
lanes_of() { if [ "$1" = "$first" ]; then echo 4; else echo 2; fi; }

said=$(mktemp -d)
trap 'kill $(cat "$said"/*.pid) 2>/dev/null || true; rm -rf "$said"' EXIT
trap 'exit 130' INT TERM

# DATABASE WORD... What a flag is given stands behind a '=': before pytest has read conftest.py it would take it for a file.
suite() {
    database=$1
    shift
    # shellcheck disable=SC2086 # a list of words
    exec env NIMBUS_BUILD="$build" "${PYTHON:-python3}" -m pytest -q -p no:cacheprovider ${PYTEST_FLAGS:-} \
        --database="$database" "$@"
}

for database in "$@"; do
    mkdir "$said/$database.begun"
    for lane in $(seq "$(lanes_of "$database")"); do
        output=$said/$database-$lane
        : >"$output" # there before it is followed
        suite "$database" --share="$said/$database.begun" tests/blackbox >"$output" 2>&1 &
        echo $! >"$output.pid"
    done
done

failures=$said/failures
: >"$failures"

for database in "$@"; do
    again=
    for lane in $(seq "$(lanes_of "$database")"); do
        output=$said/$database-$lane
        pid=$(cat "$output.pid")
        echo "== $database, lane $lane"
        tail --pid="$pid" -n +1 -s 1 -f "$output"
        wait "$pid" && continue
        status=$?
        tests=$(sed -n -E 's/^(FAILED|ERROR) (tests[^ ]*).*/\2/p' "$output")
        again="$again $tests"
        sed -n "s/^LEAK: /$database, lane $lane: a secret was said: /p" "$output" >>"$failures"
        grep -q -a '^LEAK: ' "$output" && continue
        [ -n "$tests" ] || { # the run as a whole: a crash
            echo "$database, lane $lane ended with exit status $status:"
            tail -n 5 "$output"
        } >>"$failures"
    done
    printf '%s' "$again" >"$said/$database.again"
done
for database in "$@"; do
    again=$(cat "$said/$database.again")
    [ -n "${again# }" ] || continue
    echo "== $database, once more, alone:$again"
    output=$said/$database-again
    # shellcheck disable=SC2086 # a list of tests
    (suite "$database" $again) >"$output" 2>&1 ||
        grep -a -E '^(FAILED|ERROR|LEAK:) ' "$output" >>"$failures" ||
        echo "$database, once more: ended without a word" >>"$failures"
    cat "$output"
done
[ -s "$failures" ] || exit 0
printf '\n== failed\n'
cat "$failures"
exit 1
