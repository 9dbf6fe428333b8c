#include "rootfs/manifest.h"

#include "base/crypto.h"
#include "base/encoding.h"
#include "base/mem.h"

static struct js *part_js(const struct layer *l)
{
	struct js *part = js_new_object();

	js_set(part, "type", js_new_text(l->type));
	js_set(part, "sha256", js_new_text(l->sha256));
	return part;
}

void manifest_id(const struct manifest *m, struct buf *out)
{
	autoptr(js) id = js_new_object();
	struct js *overlays = js_new_array();
	autovar(buf) text = {0};

	for (size_t i = 0; i < m->overlay_count; i++)
		js_push(overlays, part_js(&m->overlays[i].layer));
	js_set(id, "version", js_new_int(1));
	js_set(id, "base", part_js(&m->base.layer));
	js_set(id, "overlays", overlays);
	js_set(id, "compression", js_new_text(m->compression));
	js_set(id, "verity_root", js_new_text(m->packed->verity.root));
	/* All of it is ASCII and whole numbers, for which sorted and compact is canonical. */
	js_write_sorted(id, &text);
	struct sha256 sum = crypto_sha256(buf_str(&text));
	encode_hex((struct str){(const char *)sum.bytes, sizeof(sum.bytes)}, out);
}

static struct js *layer_js(const struct manifest_layer *l)
{
	struct js *v = part_js(&l->layer);

	js_set(v, "source", js_new_text(l->source));
	js_set(v, "size", js_new_int(l->layer.size));
	return v;
}

static struct js *verity_js(const struct verity *v)
{
	struct js *verity = js_new_object();

	js_set(verity, "root_hash", js_new_text(v->root));
	js_set(verity, "data_blocks", js_new_int((int64_t)v->data_blocks));
	js_set(verity, "hash_offset", js_new_int((int64_t)v->data_blocks * VERITY_BLOCK));
	js_set(verity, "block_size", js_new_int(VERITY_BLOCK));
	js_set(verity, "algorithm", js_new_text("sha256"));
	js_set(verity, "salt", js_new_text("-"));
	return verity;
}

static void set_tool(struct js *tools, const char *program, const char *flag)
{
	autofree char *version = pack_tool_version(program, flag);

	js_set(tools, program, js_new_text(version));
}

static struct js *tools_js(const struct manifest *m)
{
	struct js *tools = js_new_object();

	js_set(tools, "nimbus", js_new_text(NIMBUS_VERSION));
	set_tool(tools, "mksquashfs", "-version");
	js_set(tools, "mksquashfs_flags", js_new_text(PACK_FLAGS));
	if (m->packages != NULL)
		set_tool(tools, "debootstrap", "--version");
	return tools;
}

struct js *manifest_js(const struct manifest *m)
{
	struct js *v = js_new_object();
	struct js *overlays = js_new_array();
	autovar(buf) id = {0};

	manifest_id(m, &id);
	for (size_t i = 0; i < m->overlay_count; i++)
		js_push(overlays, layer_js(&m->overlays[i]));
	js_set(v, "format", js_new_int(1));
	js_set(v, "name", js_new_text(m->name));
	if (m->description != NULL)
		js_set(v, "description", js_new_text(m->description));
	js_set(v, "rootfs_id", js_new_str(buf_str(&id)));
	js_set(v, "sha256", js_new_text(m->packed->sha256));
	js_set(v, "size", js_new_int(m->packed->size));
	js_set(v, "compression", js_new_text(m->compression));
	js_set(v, "verity", verity_js(&m->packed->verity));
	js_set(v, "base", layer_js(&m->base));
	js_set(v, "overlays", overlays);
	js_set(v, "tools", tools_js(m));
	if (m->packages != NULL)
		js_set(v, "packages", js_copy(m->packages));
	return v;
}
