#include "cli/volumes.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/str.h"

/* Without doubled slashes, "." and one at the end; ERR_INVALID where ".." is in it. */
static int clean(const char *path, struct arena *arena, const char **ret, struct err *err)
{
	struct str rest = str_c(path);
	const char *whole = path[0] == '/' ? "" : NULL;

	while (rest.data != NULL) {
		struct str part = str_cut(&rest, '/');
		if (str_eq(part, STR("..")))
			return err_set(err, ERR_INVALID, "'%s': '..' cannot be in a path of a job", path);
		if (part.len == 0 || str_eq(part, STR(".")))
			continue;
		whole = whole == NULL ? arena_str(arena, part) : arena_printf(arena, "%s/%.*s", whole, STR_ARG(part));
	}
	if (whole == NULL || whole[0] == '\0')
		return err_set(err, ERR_INVALID, "'%s' is no path of a job to bring or fetch", path);
	*ret = whole;
	return 0;
}

static const char *folder_of(const char *path, struct arena *arena)
{
	const char *slash = strrchr(path, '/');

	if (slash == NULL)
		return ".";
	return slash == path ? "/" : arena_str(arena, (struct str){path, (size_t)(slash - path)});
}

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* Cuts ":ro" or ":rw" off the end. */
static bool cut_mode(struct str *text)
{
	bool read_only = str_ends_with(*text, STR(":ro"));

	if (read_only || str_ends_with(*text, STR(":rw")))
		text->len -= 3;
	return read_only;
}

int volume_parse(const char *text, struct arena *arena, struct volume *ret, struct err *err)
{
	struct volume v = {0};
	struct str guest = str_c(text);
	const char *path = NULL;
	struct stat st;

	v.read_only = cut_mode(&guest);
	struct str host = str_cut(&guest, ':');
	if (host.len == 0 || guest.data == NULL || guest.len == 0 || guest.data[0] != '/')
		return err_set(err, ERR_INVALID, "-v '%s': write it as HOST:GUEST or HOST:GUEST:ro, GUEST absolute",
			       text);
	int rc = clean(arena_str(arena, guest), arena, &path, err);
	if (rc < 0)
		return rc;
	v.host = arena_str(arena, host);
	if (stat(v.host, &st) < 0)
		return err_set(err, ERR_INVALID, "-v '%s': %s: %s", text, v.host, strerrordesc_np(errno));
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return err_set(err, ERR_INVALID, "-v '%s': %s is neither file nor folder", text, v.host);
	v.is_file = S_ISREG(st.st_mode);
	v.name = name_of(path);
	v.input = v.is_file ? folder_of(path, arena) : path;
	v.output = v.is_file ? path : arena_printf(arena, "%s/.", path);
	*ret = v;
	return 0;
}

int wanted_parse(const char *text, bool workspace, struct arena *arena, struct wanted *ret, struct err *err)
{
	struct str folder = str_c(text);
	struct str path = str_cut(&folder, ':');
	const char *cleaned = NULL;

	int rc = clean(arena_str(arena, path), arena, &cleaned, err);
	if (rc < 0)
		return rc;
	bool absolute = cleaned[0] == '/';
	if (!absolute && !workspace)
		return err_set(err, ERR_INVALID, "--output '%s': without a workspace, the path must be absolute", text);
	ret->output = absolute ? cleaned : arena_printf(arena, WORKSPACE "/%s", cleaned);
	ret->name = name_of(cleaned);
	if (folder.data != NULL)
		ret->folder = folder.len > 0 ? arena_str(arena, folder) : ".";
	else
		ret->folder = absolute ? "." : folder_of(cleaned, arena);
	return 0;
}
