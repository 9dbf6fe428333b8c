#include "vm/driver.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "vm/qemu.h"

static const struct vm_driver *const drivers[] = {&qemu_driver};

const struct vm_driver *vm_driver_by_name(struct str name)
{
	for (size_t i = 0; i < ARRAY_LEN(drivers); i++) {
		if (str_eq(name, str_c(drivers[i]->name)))
			return drivers[i];
	}
	return NULL;
}

int vm_find_program(const char *program, char **ret, struct err *err)
{
	const char *path = getenv("PATH");
	struct str rest = str_c(path != NULL ? path : "/usr/local/bin:/usr/bin:/bin");

	while (strchr(program, '/') == NULL && rest.data != NULL) {
		struct str dir = str_cut(&rest, ':');
		autofree char *file = xasprintf("%.*s/%s", STR_ARG(dir), program);
		if (dir.len > 0 && access(file, X_OK) == 0) {
			*ret = TAKE(file);
			return 0;
		}
	}
	if (strchr(program, '/') == NULL || access(program, X_OK) != 0)
		return err_set(err, ERR_UNAVAILABLE, "%s is not installed (Debian: apt-get install qemu-system-x86)",
			       program);
	*ret = xstrdup(program);
	return 0;
}

int vm_prepare(const struct vm_driver *driver, const struct vm_spec *spec, struct vm **ret, struct err *err)
{
	assert(spec->kernel_fd >= 0 && spec->initrd_fd >= 0 && spec->root_fd >= 0);
	if (spec->vcpus < 1 || spec->vcpus > VM_VCPUS_MAX)
		return err_set(err, ERR_INVALID_FIELD, "vcpus: %u; it may be 1 to %d", spec->vcpus, VM_VCPUS_MAX);
	if (spec->memory_mb < VM_MEMORY_MB_MIN || spec->memory_mb > VM_MEMORY_MB_MAX)
		return err_set(err, ERR_INVALID_FIELD, "memory_mb: %u; it may be %d to %d", spec->memory_mb,
			       VM_MEMORY_MB_MIN, VM_MEMORY_MB_MAX);
	return driver->prepare(spec, ret, err);
}

int vm_connect(struct vm *vm, int *ret_fd, struct err *err)
{
	return vm->driver->connect(vm, ret_fd, err);
}

int vm_hear(struct vm *vm, vm_news_fn fn, void *ctx, struct err *err)
{
	return vm->driver->hear(vm, fn, ctx, err);
}

int vm_hold(struct vm *vm, struct err *err)
{
	return vm->driver->hold(vm, err);
}

int vm_go_on(struct vm *vm, struct err *err)
{
	return vm->driver->go_on(vm, err);
}

int vm_save(struct vm *vm, int64_t deadline_ns, struct err *err)
{
	return vm->driver->save(vm, deadline_ns, err);
}

void vm_free(struct vm *vm)
{
	if (vm != NULL)
		vm->driver->free(vm);
}
