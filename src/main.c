#include <stdio.h>

int main(void)
{
	(void)puts("nimbus " NIMBUS_VERSION);
	return 0;
}
