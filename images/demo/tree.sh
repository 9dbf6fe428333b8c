#!/bin/sh
# tree.sh BUSYBOX DIR: lays out the demo image's files in DIR.
set -eu
busybox=$1
root=$2

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
chmod 755 "$root/bin/busybox"
find "$root" -type d -exec chmod 755 {} +
chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 700 "$root/root"
find "$root/etc" -type f -exec chmod 644 {} +
