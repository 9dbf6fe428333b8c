/*
 * The least that can be PID 1: says its word on the console, and stays. What a boot cannot be faster than.
 */
#include <unistd.h>

int main(void)
{
	static const char word[] = "a word\n";

	(void)!write(STDOUT_FILENO, word, sizeof(word) - 1);
	for (;;)
		(void)pause();
}
