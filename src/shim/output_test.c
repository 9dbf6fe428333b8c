#include "shim/output.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auth/masker.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

struct fixture {
	char *path;
	int dirfd;
	struct spool *spool;
	struct output *output;
	int64_t last_seq;
	bool tell_markup;
	struct buf lines; /* "o|text\n" for each line, o e s being the stream */
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->path = xstrdup("/tmp/nimbus-output-XXXXXX");
	assert_non_null(mkdtemp(f->path));
	assert_int_equal(dir_open(f->path, &f->dirfd, NULL), 0);
	assert_int_equal(spool_open(&(struct spool_opts){f->dirfd, "spool", 1 << 30, 0}, &f->spool, NULL), 0);
	f->output = output_new(f->spool);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	output_free(f->output);
	spool_free(f->spool);
	assert_int_equal(dir_remove(AT_FDCWD, f->path, NULL), 0);
	fd_close(&f->dirfd);
	buf_fini(&f->lines);
	free(f->path);
	free(f);
	return 0;
}

static void collect(void *ctx, const struct spool_record *r)
{
	struct fixture *f = ctx;

	/* One numbering for all streams, without gaps. */
	assert_int_equal(r->seq, f->last_seq + 1);
	f->last_seq = r->seq;
	buf_putc(&f->lines, "oes"[r->stream]);
	buf_putc(&f->lines, '|');
	if (r->markup != LOG_MARKUP_NONE && f->tell_markup)
		buf_printf(&f->lines, "%s/%s|", log_markup_name(r->markup), log_line_level_name(r->level));
	buf_append_str(&f->lines, r->message);
	buf_putc(&f->lines, '\n');
}

/* All lines since the last look. */
static const char *lines(struct fixture *f)
{
	int64_t bytes = 0;

	buf_clear(&f->lines);
	assert_int_equal(spool_write(f->spool, NULL), 0);
	do {
		assert_int_equal(spool_read(f->spool, 1 << 20, collect, f, &bytes, NULL), 0);
		spool_ack(f->spool, bytes);
	} while (bytes > 0);
	return f->lines.data != NULL ? f->lines.data : "";
}

static void feed(struct fixture *f, enum log_stream stream, const char *text)
{
	output_feed(f->output, stream, str_c(text));
}

static void lines_end_with_newlines_or_the_stream(void **state)
{
	struct fixture *f = *state;

	feed(f, LOG_STREAM_STDOUT, "one\ntw");
	assert_string_equal(lines(f), "o|one\n");
	feed(f, LOG_STREAM_STDERR, "err\r\n\n");
	feed(f, LOG_STREAM_STDOUT, "o\n:");
	feed(f, LOG_STREAM_STDOUT, ":no command\n::add-maskx\nlast");
	assert_string_equal(lines(f), "e|err\ne|\no|two\no|::no command\no|::add-maskx\n");
	output_end(f->output, LOG_STREAM_STDOUT);
	output_end(f->output, LOG_STREAM_STDOUT);
	output_end(f->output, LOG_STREAM_STDERR);
	assert_string_equal(lines(f), "o|last\n");
}

static const char story[] = "plain\r\n  ::Add-Mask::hunter2secret\nsay hunter2secret!\n"
			    "::add-mask::two%0Alines-here\nx two y\nz lines-here\n:\n::\n::add-mask::\n \ntail";

/* The same text gives the same lines however it is cut. */
static void chunks_do_not_matter(void **state)
{
	struct fixture *f = *state;
	autofree char *first = NULL;

	for (size_t step = 1; step < sizeof(story); step++) {
		autoptr(output) o = output_new(f->spool);
		for (size_t at = 0; at < sizeof(story) - 1; at += step) {
			size_t len = sizeof(story) - 1 - at < step ? sizeof(story) - 1 - at : step;
			output_feed(o, LOG_STREAM_STDOUT, (struct str){story + at, len});
		}
		output_end(o, LOG_STREAM_STDOUT);
		const char *got = lines(f);
		assert_null(strstr(got, "hunter2secret"));
		assert_null(strstr(got, "lines-here"));
		assert_non_null(strstr(got, "o|say ***!\n"));
		assert_non_null(strstr(got, "o|z ***\n"));
		if (first == NULL)
			first = xstrdup(got);
		assert_string_equal(got, first);
	}
}

static void a_secret_is_masked_in_both_streams(void **state)
{
	struct fixture *f = *state;

	output_mask(f->output, "TOKEN", STR("s3cr3t-value"));
	feed(f, LOG_STREAM_STDOUT, "a s3cr3t");
	assert_string_equal(lines(f), "");
	feed(f, LOG_STREAM_STDERR, "s3cr3t-value\n");
	feed(f, LOG_STREAM_STDOUT, "-value b\n");
	assert_string_equal(lines(f), "e|***\no|a *** b\n");
	output_note(f->output, LOG_LINE_INFO, "note of s3cr3t-value");
	assert_string_equal(lines(f), "s|note of ***\n");
}

/* Also where a secret's beginning is the last that a stream brings. */
static void what_is_held_back_is_given_out_at_the_end(void **state)
{
	struct fixture *f = *state;

	output_mask(f->output, "TOKEN", STR("s3cr3t-value"));
	feed(f, LOG_STREAM_STDOUT, "s3cr3t");
	output_end(f->output, LOG_STREAM_STDOUT);
	assert_string_equal(lines(f), "o|s3cr3t\n");
}

static void a_value_too_short_to_mask_is_said(void **state)
{
	struct fixture *f = *state;

	output_mask(f->output, "PIN", STR("123"));
	output_mask(f->output, "EMPTY", STR(""));
	assert_string_equal(lines(f), "s|the value PIN is shorter than 4 bytes: it is not masked\n");
	feed(f, LOG_STREAM_STDOUT, "::add-mask::abc\nabc\n");
	const char *got = lines(f);
	assert_non_null(strstr(got, "o|::add-mask::***\n"));
	assert_non_null(strstr(got, "o|abc\n"));
}

static void long_lines_are_split_between_characters(void **state)
{
	struct fixture *f = *state;
	autovar(buf) text = {0};

	for (size_t i = 0; i < LOG_LINE_MAX - 1; i++)
		buf_putc(&text, 'x');
	buf_puts(&text, "\xc3\xa4rest\n");
	for (size_t i = 0; i < LOG_LINE_MAX; i++)
		buf_putc(&text, 'y');
	buf_puts(&text, "\nend\n");
	output_feed(f->output, LOG_STREAM_STDOUT, buf_str(&text));
	struct str got = str_c(lines(f));
	assert_int_equal(str_cut(&got, '\n').len, 2 + LOG_LINE_MAX - 1);
	assert_true(str_eq(str_cut(&got, '\n'), STR("o|\xc3\xa4rest")));
	assert_int_equal(str_cut(&got, '\n').len, 2 + LOG_LINE_MAX);
	assert_true(str_eq(str_cut(&got, '\n'), STR("o|end")));
}

/* A line without end is no more memory than one line. */
static void a_line_without_end_is_bounded(void **state)
{
	struct fixture *f = *state;
	static char text[65536];

	memset(text, 'x', sizeof(text));
	for (int i = 0; i < 64; i++) {
		output_feed(f->output, LOG_STREAM_STDOUT, (struct str){text, sizeof(text)});
		assert_int_equal(spool_write(f->spool, NULL), 0);
	}
	assert_int_equal(spool_last_seq(f->spool), 15);
}

static void numbering_goes_on_behind_the_spool(void **state)
{
	struct fixture *f = *state;

	feed(f, LOG_STREAM_STDOUT, "one\n");
	autoptr(output) next = output_new(f->spool);
	output_note(next, LOG_LINE_INFO, "two");
	assert_string_equal(lines(f), "o|one\ns|two\n");
}

/* A pipeline refuses a line over its limit for good, and with it all that follows. */
static void a_long_line_of_binary_bytes_does_not_grow_over_the_limit(void **state)
{
	struct fixture *f = *state;
	autofree char *bytes = xcalloc(1, LOG_LINE_MAX);

	memset(bytes, 0xff, LOG_LINE_MAX);
	output_feed(f->output, LOG_STREAM_STDOUT, (struct str){bytes, LOG_LINE_MAX});
	feed(f, LOG_STREAM_STDOUT, "\nnext\n");
	(void)lines(f);
	struct str got = buf_str(&f->lines);
	size_t total = 0;
	while (str_starts_with(got, STR("o|\xff"))) {
		struct str line = str_cut(&got, '\n');
		assert_true(3 * (line.len - 2) <= LOG_LINE_MAX);
		total += line.len - 2;
	}
	assert_int_equal(total, LOG_LINE_MAX);
	assert_true(str_eq(got, STR("o|next\n")));
}

/* Each mask between two lines of text costs a pass over all masks: a guest must not make a minute's work of one read.
 */
static void masks_without_end_become_refused_not_slow(void **state)
{
	struct fixture *f = *state;
	bool refused = false;

	for (uint32_t i = 0; i < MASKER_VALUES_MAX && !refused; i++) {
		uint32_t n = i * 2654435761U; /* no common beginnings */
		autofree char *text = xasprintf("::add-mask::%08x%08x%08x%08x\ntext\n", n, ~n, n ^ i, n + 1);
		feed(f, LOG_STREAM_STDOUT, text);
		refused = strstr(lines(f), "too much work") != NULL;
	}
	assert_true(refused);
	feed(f, LOG_STREAM_STDOUT, "00000000ffffffff0000000000000001\n");
	assert_string_equal(lines(f), "o|***\n");
}

/* They need no pass each: nothing between them is looked at. */
static void many_masks_in_a_row_are_all_taken(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 1000; i++) {
		autofree char *text = xasprintf("::add-mask::token-%08d\n", i);
		feed(f, LOG_STREAM_STDOUT, text);
	}
	assert_null(strstr(lines(f), "not masked"));
	feed(f, LOG_STREAM_STDOUT, "token-00000000 token-00000999\n");
	assert_string_equal(lines(f), "o|*** ***\n");
}

static void commands_are_lines_of_their_kind(void **state)
{
	struct fixture *f = *state;

	f->tell_markup = true;
	feed(f, LOG_STREAM_STDOUT,
	     "a\n::group::Build\nb\n  ::error file=a.c::bad\r\n##[warning]w\n::debug::d\n::notice::n\n");
	feed(f, LOG_STREAM_STDERR, "::endgroup::");
	output_end(f->output, LOG_STREAM_STDERR);
	assert_string_equal(lines(f), "o|a\no|group/info|::group::Build\no|b\n"
				      "o|error/error|  ::error file=a.c::bad\no|warning/warning|##[warning]w\n"
				      "o|debug/debug|::debug::d\no|notice/info|::notice::n\n"
				      "e|endgroup/info|::endgroup::\n");
	feed(f, LOG_STREAM_STDOUT, "::stop-commands::tok\n::error::x\n::add-mask::text-now\ntext-now\n");
	feed(f, LOG_STREAM_STDERR, "::error::y\n::tok::\n::error::z\n::set-output name=a::b\n::\n");
	assert_string_equal(lines(f), "o|stop-commands/info|::stop-commands::tok\no|::error::x\n"
				      "o|::add-mask::text-now\no|text-now\ne|::error::y\n"
				      "e|resume-commands/info|::tok::\ne|error/error|::error::z\n"
				      "e|::set-output name=a::b\ne|::\n");
}

static void commands_hold_no_secrets(void **state)
{
	struct fixture *f = *state;

	f->tell_markup = true;
	output_mask(f->output, "TOKEN", STR("a+s3cret:x"));
	feed(f, LOG_STREAM_STDOUT, "::error title=a+s3cret:x::a+s3cret:x\n##[add-mask]an%0Aother-one\n");
	assert_string_equal(lines(f), "o|error/error|::error title=***::***\no|add-mask/info|::add-mask::***\n");
	/* Not by its escapes either, which are taken away when it is shown. */
	feed(f, LOG_STREAM_STDOUT,
	     "::error title=a+s3cret%3Ax::t\n::group::other%2done other-one\n::notice::100%25 %0A\n");
	assert_string_equal(lines(f), "o|error/error|::error::***\no|group/info|::group::other%2done ***\n"
				      "o|notice/info|::notice::100%25 %0A\n");
}

static void a_mask_without_end_is_not_shown(void **state)
{
	struct fixture *f = *state;
	autovar(buf) text = {0};

	buf_puts(&text, "  ::add-mask::");
	for (int i = 0; i < 10000; i++)
		buf_puts(&text, "0123456789");
	f->tell_markup = true;
	feed(f, LOG_STREAM_STDOUT, text.data);
	feed(f, LOG_STREAM_STDOUT, "tail\nnext\n");
	assert_string_equal(lines(f), "o|add-mask/info|::add-mask::***\n"
				      "s|the value of ::add-mask:: is longer than 65536 bytes: it is not masked\n"
				      "o|next\n");
	/* And in one piece. */
	buf_puts(&text, "\nnext\n");
	feed(f, LOG_STREAM_STDERR, text.data);
	assert_null(strstr(lines(f), "0123456789"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	static const struct CMUnitTest tests[] = {
		TEST(lines_end_with_newlines_or_the_stream),
		TEST(chunks_do_not_matter),
		TEST(a_secret_is_masked_in_both_streams),
		TEST(what_is_held_back_is_given_out_at_the_end),
		TEST(a_value_too_short_to_mask_is_said),
		TEST(long_lines_are_split_between_characters),
		TEST(a_line_without_end_is_bounded),
		TEST(numbering_goes_on_behind_the_spool),
		TEST(a_long_line_of_binary_bytes_does_not_grow_over_the_limit),
		TEST(masks_without_end_become_refused_not_slow),
		TEST(many_masks_in_a_row_are_all_taken),
		TEST(commands_are_lines_of_their_kind),
		TEST(commands_hold_no_secrets),
		TEST(a_mask_without_end_is_not_shown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
