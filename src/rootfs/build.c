#include "rootfs/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/file.h"
#include "base/mem.h"
#include "rootfs/layer.h"
#include "rootfs/manifest.h"
#include "rootfs/pack.h"
#include "rootfs/recipe.h"
#include "rootfs/stage.h"

/* A folder where images are made, removed with all in it. */
struct work {
	struct rootfs_store *store;
	char *name;
	char *path;
};

static void work_fini(struct work *w)
{
	if (w->name != NULL)
		(void)!dir_remove(w->store->place.fd, w->name, NULL);
	free(w->name);
	free(w->path);
}
AUTOVAR_DEFINE(work)

static int work_init(struct work *w, struct rootfs_store *store, struct err *err)
{
	w->store = store;
	w->name = xasprintf(".work-%016llx", (unsigned long long)crypto_random_u64());
	w->path = xasprintf("%s/%s", store->place.path, w->name);
	return dir_make(w->path, 0700, err);
}

static void say(const struct build_opts *o, const char *step)
{
	if (o->say != NULL)
		o->say(o->ctx, step);
}

/* Labels, access lists and the like: what is not in the image although a layer had it. */
static void say_left_out(const struct build_opts *o, const struct xattrs_left_out *left_out)
{
	for (size_t i = 0; i < left_out->count; i++) {
		const struct xattrs_dropped *d = &left_out->items[i];
		autofree char *more = d->count > 1 ? xasprintf(" and %zu more", d->count - 1) : xstrdup("");
		autofree char *text =
			xasprintf("extended attribute '%s' of '%.200s'%s is left out", d->name, d->first, more);
		say(o, text);
	}
}

/* Beside the configuration, unless it says where. The caller frees. */
static char *resolve(const struct build_opts *o, const char *path)
{
	return path[0] == '/' ? xstrdup(path) : xasprintf("%s/%s", o->config_dir, path);
}

/* --- the base --- */

/* The list of packages is what a recipe came to: the same list is the same base. */
static int put_recipe(const struct build_opts *o, struct stage *s, struct js *packages, struct layer *ret,
		      struct err *err)
{
	autovar(buf) list = {0};
	autovar(buf) hex = {0};

	say(o, "installing packages (this takes minutes)");
	int rc = recipe_put(s, o->version->debootstrap, packages, err);
	if (rc == 0)
		rc = stage_read_xattrs(s, err);
	if (rc < 0)
		return rc;
	js_write_sorted(packages, &list);
	struct sha256 sum = crypto_sha256(buf_str(&list));
	encode_hex((struct str){(const char *)sum.bytes, sizeof(sum.bytes)}, &hex);
	ret->type = "debootstrap";
	memcpy(ret->sha256, hex.data, sizeof(ret->sha256));
	return 0;
}

static int check_base(const struct rootfs_version *v, const struct layer *l, struct err *err)
{
	if (v->size > 0 && l->size != v->size)
		return err_set(err, ERR_INVALID, "%s has %lld bytes, and 'size' says %lld", v->base_path,
			       (long long)l->size, (long long)v->size);
	if (v->sha256 != NULL && strcmp(l->sha256, v->sha256) != 0)
		return err_set(err, ERR_INVALID, "%s has sha256 %s, and the configuration says %s", v->base_path,
			       l->sha256, v->sha256);
	return 0;
}

static int put_download(const struct build_opts *o, struct stage *s, struct layer *ret, struct err *err)
{
	const struct rootfs_version *v = o->version;
	autofree char *folder = xasprintf("%s/.downloads", o->store->place.path);
	autofree char *path = NULL;

	say(o, "downloading the base");
	int rc = fetch(
		&(struct fetch_opts){
			.url = v->base_url,
			.sha256 = v->sha256,
			.size = v->size,
			.folder = folder,
			.progress = o->progress,
			.ctx = o->ctx,
		},
		&path, err);
	if (rc < 0)
		return err_wrap(err, "base_url");
	say(o, "unpacking the base");
	rc = layer_put(s, path, true, ret, err);
	return rc < 0 ? err_wrap(err, "%s", v->base_url) : 0;
}

static int put_base(const struct build_opts *o, struct stage *s, struct js *packages, struct manifest_layer *ret,
		    struct err *err)
{
	const struct rootfs_version *v = o->version;

	if (v->debootstrap != NULL) {
		ret->source = v->debootstrap->suite;
		return put_recipe(o, s, packages, &ret->layer, err);
	}
	if (v->base_url != NULL) {
		ret->source = v->base_url;
		return put_download(o, s, &ret->layer, err);
	}
	autofree char *path = resolve(o, v->base_path);
	ret->source = v->base_path;
	say(o, "reading the base");
	int rc = layer_put(s, path, true, &ret->layer, err);
	return rc == 0 ? check_base(v, &ret->layer, err) : err_wrap(err, "base_path");
}

static int put_overlays(const struct build_opts *o, struct stage *s, struct manifest_layer *layers, struct err *err)
{
	const struct js_texts *overlays = &o->version->overlays;

	for (size_t i = 0; i < overlays->count; i++) {
		autofree char *path = resolve(o, overlays->items[i]);
		say(o, "staging an overlay");
		layers[i].source = overlays->items[i];
		int rc = layer_put(s, path, false, &layers[i].layer, err);
		if (rc < 0)
			return err_wrap(err, "overlay_dir");
	}
	return 0;
}

/* --- the whole --- */

static int build_in(const struct build_opts *o, struct work *w, struct manifest *m, struct manifest_layer *overlays,
		    struct js *packages, struct packed *packed, struct err *err)
{
	autovar(stage) s = {.root_fd = -1};
	autofree char *tree = xasprintf("%s/tree", w->path);
	autofree char *image = xasprintf("%s/image", w->path);

	int rc = stage_init(&s, tree, err);
	if (rc == 0)
		rc = put_base(o, &s, packages, &m->base, err);
	if (rc == 0)
		rc = put_overlays(o, &s, overlays, err);
	if (rc < 0)
		return rc;
	say_left_out(o, &s.left_out);
	say(o, "packing");
	rc = pack_image(&s, o->version->compression, image, packed, err);
	if (rc < 0)
		return rc;
	autoptr(js) manifest = manifest_js(m);
	autofree char *made = xasprintf("%s/image", w->name);
	return rootfs_store_put(o->store, made, packed->sha256, m->name, manifest, err);
}

int rootfs_build(const struct build_opts *o, struct js **ret, struct err *err)
{
	const struct rootfs_version *v = o->version;
	struct manifest_layer *overlays = xcalloc(v->overlays.count + 1, sizeof(*overlays));
	autovar(work) w = {0};
	autoptr(js) packages = js_new_array();
	struct packed packed = {0};
	struct manifest m = {
		.name = v->name,
		.description = v->description,
		.compression = v->compression,
		.overlays = overlays,
		.overlay_count = v->overlays.count,
		.packed = &packed,
		.packages = v->debootstrap != NULL ? packages : NULL,
	};

	int rc = work_init(&w, o->store, err);
	if (rc == 0)
		rc = build_in(o, &w, &m, overlays, packages, &packed, err);
	if (rc == 0)
		*ret = manifest_js(&m);
	free(overlays);
	return rc < 0 ? err_wrap(err, "version '%s'", v->name) : 0;
}
