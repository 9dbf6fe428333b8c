/*
 * A distribution as a base: debootstrap lays out the smallest system, its own apt installs the named packages, and what
 * differs from run to run (logs, caches, identities) is taken out. Packages come from where this machine's own apt has
 * them. Needs root, because it runs the packages' scripts in the new tree.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/js.h"
#include "rootfs/config.h"
#include "rootfs/stage.h"

/* Appends "NAME VERSION" of every package that is installed then, in order, to `packages`. */
int recipe_put(struct stage *s, const struct rootfs_recipe *recipe, struct js *packages, struct err *err) must_check;
