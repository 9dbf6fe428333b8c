/*
 * Whether debugfs may lay out what an ext4 from outside holds. It takes the names in it as they are: one with a slash
 * leads out of the folder that it writes to, one that is there twice is first a link and then a file written through
 * it, and a folder within itself has no end. Such an image is refused before anything is written.
 */
#pragma once

#include "base/compiler.h"
#include "base/err.h"

int ext4_check_names(int image_fd, struct err *err) must_check;
