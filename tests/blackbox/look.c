/*
 * What a job sees first: both clocks and what getrandom() gives, before anything else is done; then its names. Each line
 * on standard input asks for the clocks once more.
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

static void print_clocks(struct timespec real, struct timespec monotonic)
{
	(void)printf("%lld.%09ld %lld.%09ld\n", (long long)real.tv_sec, real.tv_nsec, (long long)monotonic.tv_sec,
		     monotonic.tv_nsec);
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
	struct timespec real = now(CLOCK_REALTIME), monotonic = now(CLOCK_MONOTONIC);
	unsigned char random[16];
	ssize_t got = getrandom(random, sizeof(random), 0);
	char name[128], line[16];

	for (ssize_t i = 0; i < got; i++)
		(void)printf("%02x", random[i]);
	(void)printf("\n");
	print_file("/etc/machine-id");
	print_file("/proc/sys/kernel/random/boot_id");
	(void)printf("%s\n", gethostname(name, sizeof(name)) == 0 ? name : "");
	print_clocks(real, monotonic);
	while (fgets(line, sizeof(line), stdin) != NULL)
		print_clocks(now(CLOCK_REALTIME), now(CLOCK_MONOTONIC));
	return 0;
}
