#!/bin/sh
# images.sh BUILD: builds the images of images/*/rootfs.yaml (demo's aside, which scripts/assets.sh builds) with
# `nimbus rootfs` and installs them into BUILD/share, from where `nimbus up` takes them. Recipes need root.
set -eu
cd "$(dirname "$0")/.."
build=$1
root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo 'images: packages are installed into the new image, which needs root: run this as root' >&2
        exit 1
    }
    root=sudo
fi

for config in images/*/rootfs.yaml; do
    name=$(basename "$(dirname "$config")")
    [ "$name" = demo ] && continue
    $root "$build/nimbus" rootfs build --config "$config" --output-dir "$build/images/store"
    cp --reflink=auto "$build/images/store/$name.squashfs" "$build/share/$name.squashfs.new"
    chmod 644 "$build/share/$name.squashfs.new"
    mv "$build/share/$name.squashfs.new" "$build/share/$name.squashfs"
done
scripts/assets.sh "$build"
