#!/bin/sh
# pages.sh NIMBUS FOLDER: manual pages and completions, as a package lays them out below /usr/share: FOLDER/man/man1/...,
# FOLDER/bash-completion/completions/nimbus and so on. All of it comes from the program's own command table. `meson install`
# calls it without arguments.
set -eu
nimbus=${1:-$MESON_INSTALL_DESTDIR_PREFIX/bin/nimbus}
share=${2:-$MESON_INSTALL_DESTDIR_PREFIX/share}

for page in $("$nimbus" reference manual); do
    section=$share/man/man${page##*.}
    mkdir -p "$section"
    "$nimbus" reference manual "$page" >"$section/$page"
done
complete() {
    mkdir -p "$share/${2%/*}"
    "$nimbus" completion "$1" >"$share/$2"
}
complete bash bash-completion/completions/nimbus
complete zsh zsh/vendor-completions/_nimbus
complete fish fish/vendor_completions.d/nimbus.fish
