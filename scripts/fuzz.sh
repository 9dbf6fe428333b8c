#!/bin/sh
# fuzz.sh SECONDS: builds every fuzzer with clang and runs each that long from its corpus, with its dictionary where it has
# one. A crash fails, and is kept.
set -eu
seconds=$1
build=build-fuzz
[ -e "$build/build.ninja" ] || CC=clang meson setup "$build" -Dfuzzers=true -Dtests=disabled \
    -Db_sanitize=address,undefined -Db_lundef=false >/dev/null
ninja -C "$build" --quiet
mkdir -p "$build/crashes"
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 # else it only says so
for fuzzer in "$build"/fuzz/fuzz_*; do
    [ -x "$fuzzer" ] && [ -f "$fuzzer" ] || continue
    name=$(basename "$fuzzer")
    mkdir -p "$build/corpus/$name"
    set --
    echo "== $name, $seconds s"
    dictionary=fuzz/dictionaries/${name#fuzz_}.dict
    [ ! -e "$dictionary" ] || set -- "-dict=$dictionary"
    "$fuzzer" "$@" -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$build/crashes/$name-" \
        "$build/corpus/$name" "fuzz/corpus/${name#fuzz_}" 2>&1 | grep -E 'stat::|ERROR|SUMMARY' || true
done
if [ -n "$(ls "$build/crashes")" ]; then
    echo "fuzz: inputs that crashed lie in $build/crashes" >&2
    exit 1
fi
