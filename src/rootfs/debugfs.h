/*
 * debugfs, which reads an ext4 image without a mount; confined, as the image is from outside.
 */
#pragma once

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/* One debugfs for all of the commands, a line each; appends what it says. */
int debugfs_ask(int image_fd, struct str commands, struct buf *said, struct err *err) must_check;
/* All of the image into that folder; what it says besides that it cannot give files away is an error. */
int debugfs_lay_out(int image_fd, const char *folder, struct err *err) must_check;
