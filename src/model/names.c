#include "model/names.h"

enum { NAME_MAX_BYTES = 128, ENV_NAME_MAX_BYTES = 256 };

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_name(struct str name)
{
	if (name.len == 0 || name.len > NAME_MAX_BYTES || name.data[0] == '.' || name.data[0] == '-')
		return false;
	for (size_t i = 0; i < name.len; i++) {
		char c = name.data[i];
		if (!is_letter(c) && !is_digit(c) && c != '.' && c != '_' && c != '-')
			return false;
	}
	return true;
}

int name_check(struct str name, const char *field, struct err *err)
{
	if (!is_name(name))
		return err_set(err, ERR_INVALID_FIELD,
			       "%s: '%.*s' is not a name: 1 to %d of letters, digits, '.', '_', '-', beginning with "
			       "none of '.' and '-'",
			       field, STR_ARG(name), NAME_MAX_BYTES);
	return 0;
}

int image_name_check(struct str image, struct err *err)
{
	if (str_find(image, '/') >= 0 || str_find(image, ':') >= 0 || str_find(image, '@') >= 0)
		return err_set(err, ERR_INVALID_FIELD,
			       "image: '%.*s' is an OCI reference; container images come with a later version, name a "
			       "rootfs such as 'demo'",
			       STR_ARG(image));
	return name_check(image, "image", err);
}

int job_network_check(struct str network, struct err *err)
{
	if (!str_eq(network, STR(JOB_NETWORK_NONE)) && !str_eq(network, STR(JOB_NETWORK_OPEN)))
		return err_set(err, ERR_INVALID_FIELD,
			       "network: '%.*s' is neither '" JOB_NETWORK_NONE "' nor '" JOB_NETWORK_OPEN "'",
			       STR_ARG(network));
	return 0;
}

int env_name_check(struct str name, const char *field, struct err *err)
{
	bool ok = name.len > 0 && name.len <= ENV_NAME_MAX_BYTES && !is_digit(name.data[0]);

	for (size_t i = 0; ok && i < name.len; i++)
		ok = is_letter(name.data[i]) || is_digit(name.data[i]) || name.data[i] == '_';
	if (!ok)
		return err_set(err, ERR_INVALID_FIELD, "%s: '%.*s' is not the name of an environment variable", field,
			       STR_ARG(name));
	return 0;
}
