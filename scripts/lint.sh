#!/bin/sh
# lint.sh: formatting, the include table, clang-tidy's short list, cppcheck. Fails on any finding.
set -eu
# A folder of its own that is only configured, so that clang-tidy gets the flags that clang knows.
build=build-lint
[ -e "$build/compile_commands.json" ] || CC=clang meson setup "$build" >/dev/null
ninja -C "$build" -t targets all | sed -n 's/^\(src\/[^:]*\.[ch]\): CUSTOM_COMMAND.*/\1/p' | xargs -r ninja -C "$build" --quiet
sources=$(git ls-files 'src/*.c' 'fuzz/*.c' 'bench/*.c')
headers=$(git ls-files 'src/*.h')

# shellcheck disable=SC2086 # lists of files, all without spaces
clang-format --dry-run -Werror $sources $headers
/usr/bin/python3 tests/style/includes.py

checks='-*,bugprone-*,clang-analyzer-*,cert-err34-c'
# Off: opinions on parameter order, on assignments in conditions, on identifiers that Linux itself reserves; va_list,
# which clang 14 takes for uninitialised after va_copy().
checks="$checks,-bugprone-easily-swappable-parameters,-bugprone-assignment-in-if-condition,-bugprone-reserved-identifier"
checks="$checks,-bugprone-macro-parentheses,-bugprone-sizeof-expression,-clang-analyzer-valist.Uninitialized,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling"
product=$(git ls-files 'src/*.c' | grep -v -e '_test\.c$' -e '^src/guest/')
# shellcheck disable=SC2086
printf '%s\n' $product | xargs -P "$(nproc)" -n 6 clang-tidy --quiet -p "$build" --checks="$checks" --warnings-as-errors='*'

# shellcheck disable=SC2086
cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 -I src \
    --suppress=missingIncludeSystem --suppress=nullPointerRedundantCheck -D_GNU_SOURCE $product
echo 'lint: clean'
