#!/bin/sh
# assets.sh BUILD: fills BUILD/share with what a VM is made of: vmlinux, initrd (nimbus-guest and drivers) and the demo
# rootfs. The kernel is the package that Debian's linux-image-cloud-amd64 depends on, downloaded (as any user) and
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

# Reproducible: times, owners and order are fixed.
make_demo() {
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    for dir in bin dev etc proc root run sbin sys tmp usr var var/tmp; do
        mkdir "$root/$dir"
    done
    ln -s ../bin "$root/usr/bin"
    ln -s ../sbin "$root/usr/sbin"
    cp "$busybox" "$root/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    printf 'NAME="Nimbus demo"\nID=nimbus-demo\nPRETTY_NAME="Nimbus demo (busybox)"\n' >"$root/etc/os-release"
    find "$root" -type d -exec chmod 755 {} +
    chmod 1777 "$root/tmp" "$root/var/tmp"
    chmod 700 "$root/root"
    find "$root/etc" -type f -exec chmod 644 {} +
    # mksquashfs refuses the time options beside SOURCE_DATE_EPOCH.
    env -u SOURCE_DATE_EPOCH mksquashfs "$root" "$share/demo.squashfs.new" -noappend -all-root -no-xattrs \
        -mkfs-time 0 -all-time 0 -comp lz4 -quiet -no-progress >/dev/null
    mv "$share/demo.squashfs.new" "$share/demo.squashfs"
    rm -rf "$root"
    trap - EXIT
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
if older "$share/demo.squashfs" scripts/assets.sh "$busybox"; then
    make_demo
fi
if older "$share/initrd" "$build/nimbus-guest" "$tool" "$share/vmlinux"; then
    cp "$build/nimbus-guest" "$share/nimbus-guest"
    "$tool" initrd "$share" "$share/initrd"
fi
if older "$share/manifest" "$share/vmlinux" "$share/initrd" "$share/demo.squashfs"; then
    (cd "$share" && sha256sum vmlinux initrd demo.squashfs >manifest.new && mv manifest.new manifest)
fi
