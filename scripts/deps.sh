#!/bin/sh
# deps.sh GROUP...: installs what is missing of the named groups of Debian packages, and says what it installs.
# Groups: build, run, images, test, lint, fuzz. Quick, and silent, when nothing is missing.
set -eu

build='gcc libc6-dev make meson ninja-build pkg-config python3 musl-tools linux-libc-dev
libmicrohttpd-dev libgnutls28-dev libcurl4-openssl-dev libssl-dev libcjose-dev libjansson-dev libsqlite3-dev libsystemd-dev
libzstd-dev zlib1g-dev liblz4-dev libpq-dev libyaml-dev libarchive-dev'
run='binutils qemu-system-x86 passt squashfs-tools busybox-static e2fsprogs dpkg ca-certificates'
images='debootstrap util-linux'
test='libcmocka-dev tmux binutils python3-pytest python3-requests python3-hypothesis python3-psycopg2 git curl openssl zstd
nginx-light haproxy postgresql pgbouncer strace faketime mount util-linux iproute2 mandoc zsh fish
cryptsetup-bin'
lint='clang clang-format clang-tidy cppcheck'
fuzz='clang libclang-rt-14-dev'

wanted=
for group in "$@"; do
    case "$group" in
    build) wanted="$wanted $build" ;;
    run) wanted="$wanted $run" ;;
    images) wanted="$wanted $images" ;;
    test) wanted="$wanted $test" ;;
    lint) wanted="$wanted $lint" ;;
    fuzz) wanted="$wanted $fuzz" ;;
    *)
        echo "deps: no such group: $group (build, run, images, test, lint, fuzz)" >&2
        exit 2
        ;;
    esac
done

missing=
for package in $wanted; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "deps: installing$missing"
root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: these packages need root: run 'apt-get install$missing' as root, then this again" >&2
        exit 1
    fi
    root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# The tests start servers of their own: what is installed here need not listen anywhere.
policy=/usr/sbin/policy-rc.d
if [ -e $policy ]; then
    policy=
else
    printf '#!/bin/sh\nexit 101\n' | $root tee $policy >/dev/null
    $root chmod 755 $policy
fi
trap 'rm -f "$log"; [ -z "$policy" ] || $root rm -f "$policy"' EXIT
trap 'exit 130' INT TERM
# shellcheck disable=SC2086 # lists of words
if ! { $root apt-get update -qq && $root apt-get install -qq -y --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "deps: apt-get failed; its output stands above" >&2
    exit 1
fi
