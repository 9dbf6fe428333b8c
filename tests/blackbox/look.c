/*
 * What a job sees first: both clocks and what getrandom() gives, before anything else is done; then its names. Each
 * line on standard input asks for the clocks once more.
 */
#include <stdio.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static struct timespec now(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return t;
}

/* The wall clock between two readings of the other, which tell how long it took. */
struct clocks {
	struct timespec before, real, after;
};

static struct clocks read_clocks(void)
{
	struct clocks c;

	c.before = now(CLOCK_MONOTONIC);
	c.real = now(CLOCK_REALTIME);
	c.after = now(CLOCK_MONOTONIC);
	return c;
}

static void print_clocks(struct clocks c)
{
	(void)printf("%lld.%09ld %lld.%09ld %lld.%09ld\n", (long long)c.before.tv_sec, c.before.tv_nsec,
		     (long long)c.real.tv_sec, c.real.tv_nsec, (long long)c.after.tv_sec, c.after.tv_nsec);
	(void)fflush(stdout);
}

static void print_file(const char *path)
{
	char text[128] = "";
	FILE *file = fopen(path, "re");

	if (file != NULL && fgets(text, sizeof(text), file) == NULL)
		text[0] = '\0';
	(void)printf("%s", text);
	if (file != NULL)
		(void)fclose(file);
}

int main(void)
{
	struct clocks first = read_clocks();
	unsigned char random[16];
	ssize_t got = getrandom(random, sizeof(random), 0);
	char name[128], line[16];

	for (ssize_t i = 0; i < got; i++)
		(void)printf("%02x", random[i]);
	(void)printf("\n");
	print_file("/etc/machine-id");
	print_file("/proc/sys/kernel/random/boot_id");
	(void)printf("%s\n", gethostname(name, sizeof(name)) == 0 ? name : "");
	print_clocks(first);
	while (fgets(line, sizeof(line), stdin) != NULL)
		print_clocks(read_clocks());
	return 0;
}
