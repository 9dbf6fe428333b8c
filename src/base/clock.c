#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>

static int64_t now(clockid_t clock)
{
	struct timespec ts = {0};

	(void)clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

void clock_pause(int64_t ns)
{
	(void)nanosleep(&(struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S}, NULL);
}

int64_t clock_monotonic_ns(void)
{
	return now(CLOCK_MONOTONIC);
}

int64_t clock_boottime_ns(void)
{
	return now(CLOCK_BOOTTIME);
}

int64_t clock_unix_ns(void)
{
	return now(CLOCK_REALTIME);
}

void clock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t monotonic;
	int rc = pthread_condattr_init(&monotonic);

	assert(rc == 0);
	rc = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	assert(rc == 0);
	rc = pthread_cond_init(cond, &monotonic);
	assert(rc == 0);
	(void)pthread_condattr_destroy(&monotonic);
}

bool clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline_ns)
{
	struct timespec until = {.tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S};

	if (deadline_ns <= 0)
		return false;
	int rc = deadline_ns == INT64_MAX ? pthread_cond_wait(cond, lock) : pthread_cond_timedwait(cond, lock, &until);
	assert(rc == 0 || rc == ETIMEDOUT);
	return rc == 0;
}

char *clock_format(int64_t unix_ns, char text[static CLOCK_TEXT_SIZE])
{
	int64_t fraction = unix_ns % NS_PER_S;
	if (fraction < 0)
		fraction += NS_PER_S;
	time_t seconds = (time_t)((unix_ns - fraction) / NS_PER_S);
	struct tm tm = {0};

	(void)gmtime_r(&seconds, &tm);
	char whole[24];
	(void)strftime(whole, sizeof(whole), "%Y-%m-%dT%H:%M:%S", &tm);
	(void)snprintf(text, CLOCK_TEXT_SIZE, "%.19s.%06uZ", whole, (unsigned)(fraction / 1000) % 1000000);
	return text;
}

/* Takes exactly `digits` digits. */
static bool take_number(struct str *s, size_t digits, int *ret)
{
	int value = 0;

	if (s->len < digits)
		return false;
	for (size_t i = 0; i < digits; i++) {
		char c = s->data[i];
		if (c < '0' || c > '9')
			return false;
		value = value * 10 + (c - '0');
	}
	s->data += digits;
	s->len -= digits;
	*ret = value;
	return true;
}

static bool take_char(struct str *s, char a, char b)
{
	if (s->len == 0 || (s->data[0] != a && s->data[0] != b))
		return false;
	s->data++;
	s->len--;
	return true;
}

static bool take_fraction(struct str *s, int64_t *ret)
{
	int64_t value = 0;
	int64_t unit = NS_PER_S;
	size_t digits = 0;

	while (s->len > 0 && s->data[0] >= '0' && s->data[0] <= '9') {
		unit /= 10; /* becomes 0 after nine digits: further ones are finer than we keep */
		value += unit * (s->data[0] - '0');
		s->data++;
		s->len--;
		digits++;
	}
	*ret = value;
	return digits > 0 && digits <= 18;
}

/* RFC 3339 section 5.6, time-offset; seconds east of UTC. */
static bool take_offset(struct str *s, int *ret)
{
	if (take_char(s, 'Z', 'z')) {
		*ret = 0;
		return true;
	}
	int sign = s->len > 0 && s->data[0] == '-' ? -1 : 1;
	int hours = 0;
	int minutes = 0;
	if (!take_char(s, '+', '-') || !take_number(s, 2, &hours) || !take_char(s, ':', ':') ||
	    !take_number(s, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*ret = sign * (hours * 3600 + minutes * 60);
	return true;
}

static bool take_date_time(struct str *s, struct tm *tm)
{
	return take_number(s, 4, &tm->tm_year) && take_char(s, '-', '-') && take_number(s, 2, &tm->tm_mon) &&
	       take_char(s, '-', '-') && take_number(s, 2, &tm->tm_mday) && take_char(s, 'T', 't') &&
	       take_number(s, 2, &tm->tm_hour) && take_char(s, ':', ':') && take_number(s, 2, &tm->tm_min) &&
	       take_char(s, ':', ':') && take_number(s, 2, &tm->tm_sec);
}

static int days_in(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

int clock_parse(struct str text, int64_t *ret_unix_ns, struct err *err)
{
	struct str s = text;
	struct tm tm = {0};
	int64_t fraction = 0;
	int offset = 0;

	if (!take_date_time(&s, &tm) || (take_char(&s, '.', '.') && !take_fraction(&s, &fraction)) ||
	    !take_offset(&s, &offset) || s.len != 0)
		return err_set(err, ERR_INVALID_FIELD, "'%.*s' is not a time like 2026-11-21T12:40:00Z", STR_ARG(text));
	/* What fits an int64_t of nanoseconds ends in 2262. Second 60 is a leap second: the first of the next minute.
	 */
	if (tm.tm_year < 1970 || tm.tm_year > 2200 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 ||
	    tm.tm_mday > days_in(tm.tm_year, tm.tm_mon) || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
		return err_set(err, ERR_INVALID_FIELD, "'%.*s' is not a real time between 1970 and 2200",
			       STR_ARG(text));
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	time_t seconds = timegm(&tm);
	*ret_unix_ns = ((int64_t)seconds - offset) * NS_PER_S + fraction;
	return 0;
}
