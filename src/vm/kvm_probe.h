/*
 * Does KVM work here? That /dev/kvm opens says little: on some nested hosts no guest ever comes to life behind it. So a
 * tiny VM is really started, and its answer to hello decides.
 */
#pragma once

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct kvm_verdict {
	bool usable;
	char sentence[240]; /* for people: what is, and what is used instead */
};

struct kvm_probe_opts {
	int kernel_fd, initrd_fd, root_fd;
	int cache_fd;	     /* a folder: the answer is kept there until the host boots anew or changes its kernel */
	const char *program; /* as in struct vm_spec */
};

/* Without starting anything: the answer that the cache has, or that /dev/kvm gives at once. */
enum { KVM_UNKNOWN = 1 };
int kvm_probe_cached(int cache_fd, struct kvm_verdict *ret, struct err *err) must_check;

/* Blocks for up to 3 s, where nothing is cached; not for a loop's thread. Fails only where no VM could be tried at all
 * (no QEMU): that is no answer about KVM, and not kept. */
int kvm_probe(const struct kvm_probe_opts *opts, struct kvm_verdict *ret, struct err *err) must_check;
