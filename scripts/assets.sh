#!/bin/sh
# assets.sh BUILD: fills BUILD/share with what a VM is made of: vmlinux, initrd (nimbus-guest and drivers) and the demo
# rootfs (images/demo). The kernel is the package that Debian's linux-image-cloud-amd64 depends on, downloaded (as any user) and
# unpacked, never installed. Does only what is missing or older than its sources.
set -eu
cd "$(dirname "$0")/.."
build=$1
share=$build/share
tool=$build/nimbus-assets
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/nimbus
busybox=/bin/busybox
mkdir -p "$share/modules" "$cache"

newest_kernel() {
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '$1 == "Depends:" && /linux-image/ { print $2; exit }')
    [ -n "$package" ] || {
        echo 'assets: apt does not know linux-image-cloud-amd64 (run apt-get update)' >&2
        exit 1
    }
}

# The package stays in the cache, so that another build folder needs no network.
fetch_kernel() {
    deb=$(ls "$cache/${package}_"*.deb 2>/dev/null | tail -n 1)
    [ -n "$deb" ] && return
    echo "assets: downloading $package"
    (cd "$cache" && apt-get -qq download "$package" 2>"$cache/download.log") || {
        cat "$cache/download.log" >&2
        exit 1
    }
    deb=$(ls "$cache/${package}_"*.deb | tail -n 1)
}

# Debian 12's modules are plain; later releases compress them. Type information and signature (which ends with the strip)
# go: the guest's kernel would check them at every boot, and the initial RAM disk is ours anyway.
take_module() {
    file=$(find "$1" -name "$2.ko*" | head -n 1)
    case "$file" in
    *.ko) cp "$file" "$share/modules/$2.ko" ;;
    *.ko.xz) xz -dc "$file" >"$share/modules/$2.ko" ;;
    *)
        echo "assets: no module $2 in $package" >&2
        exit 1
        ;;
    esac
    objcopy --strip-debug --remove-section=.BTF --remove-section=.BTF_ids "$share/modules/$2.ko"
}

make_kernel() {
    newest_kernel
    fetch_kernel
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    dpkg-deb -x "$deb" "$unpacked"
    for module in $("$tool" modules); do
        take_module "$unpacked" "$module"
    done
    "$tool" vmlinux "$(ls "$unpacked"/boot/vmlinuz-* | head -n 1)" "$share/vmlinux"
    rm -rf "$unpacked"
    trap - EXIT
}

make_demo() {
    place=$build/images/demo
    rm -rf "$place"
    mkdir -p "$place/tree"
    images/demo/tree.sh "$busybox" "$place/tree"
    cp images/demo/rootfs.yaml "$place/rootfs.yaml"
    "$build/nimbus" rootfs build --config "$place/rootfs.yaml" >"$place/log" 2>&1 || {
        cat "$place/log" >&2
        exit 1
    }
    cp "$place/out/demo.squashfs" "$share/demo.squashfs.new"
    chmod 644 "$share/demo.squashfs.new"
    mv "$share/demo.squashfs.new" "$share/demo.squashfs"
    rm -rf "$place"
}

older() { # older FILE SOURCE...: FILE is missing or older than one of its sources
    file=$1
    shift
    [ -e "$file" ] || return 0
    for source in "$@"; do
        [ "$source" -nt "$file" ] && return 0
    done
    return 1
}

modules_missing() {
    for module in $("$tool" modules); do
        [ -e "$share/modules/$module.ko" ] || return 0
    done
    return 1
}

if older "$share/vmlinux" scripts/assets.sh || modules_missing; then
    make_kernel
fi
if older "$share/demo.squashfs" images/demo/tree.sh images/demo/rootfs.yaml "$busybox"; then
    make_demo
fi
if older "$share/initrd" "$build/nimbus-guest" "$tool" "$share/vmlinux"; then
    cp "$build/nimbus-guest" "$share/nimbus-guest"
    "$tool" initrd "$share" "$share/initrd"
fi
if older "$share/manifest" "$share/vmlinux" "$share/initrd" "$share/"*.squashfs; then
    (cd "$share" && sha256sum vmlinux initrd -- *.squashfs >manifest.new && mv manifest.new manifest)
fi
