/* The guest's one device, in a network of the test's own: a veth of the name that a VM's has. */
#include "guest/network.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

static const char *missing;

static int set_up(void **state)
{
	(void)state;
	if (unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) != 0)
		missing = "no network of its own can be made here";
	else if (system("ip link add eth0 type veth peer name peer0 2>/dev/null && ip link set peer0 up") != 0)
		missing = "no veth pair can be made here";
	return 0;
}

static int each(void **state)
{
	(void)state;
	if (missing != NULL) {
		print_message("skipped: %s\n", missing);
		skip();
	}
	return 0;
}

static struct ifreq get(unsigned long what, const char *device)
{
	struct ifreq request = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, what, &request), 0);
	(void)close(fd);
	return request;
}

static void assert_address(unsigned long what, uint32_t want)
{
	struct ifreq request = get(what, "eth0");
	struct sockaddr_in in;

	memcpy(&in, &request.ifr_addr, sizeof(in));
	assert_int_equal(ntohl(in.sin_addr.s_addr), want);
}

static void assert_is(const struct guest_network *n)
{
	autovar(buf) routes = {0};

	assert_memory_equal(get(SIOCGIFHWADDR, "eth0").ifr_hwaddr.sa_data, n->mac, sizeof(n->mac));
	assert_address(SIOCGIFADDR, n->address);
	assert_address(SIOCGIFNETMASK, 0xffffff00);
	assert_true((get(SIOCGIFFLAGS, "eth0").ifr_flags & IFF_UP) != 0);
	/* Destination 0, by 10.0.2.2. */
	assert_int_equal(file_read(AT_FDCWD, "/proc/thread-self/net/route", 65536, &routes, NULL), 0);
	buf_putc(&routes, '\0');
	assert_non_null(strstr(routes.data, "eth0\t00000000\t0202000A\t0003"));
}

/* As when a clone is given its identity: the template's device was there, and down. Once more, with another, is fine.
 */
static void the_device_is_as_the_host_says(void **state)
{
	static const struct guest_network one = {
		.mac = {2, 1, 2, 3, 4, 5}, .address = 0x0a00020f, .prefix = 24, .gateway = 0x0a000202};
	static const struct guest_network other = {
		.mac = {6, 5, 4, 3, 2, 1}, .address = 0x0a000210, .prefix = 24, .gateway = 0x0a000202};

	(void)state;
	assert_true(network_up(&one));
	assert_is(&one);
	assert_int_equal(get(SIOCGIFMTU, "eth0").ifr_mtu, 65520);
	assert_true(network_up(&other));
	assert_is(&other);
}

static void what_cannot_be_is_told(void **state)
{
	static const struct guest_network group = {
		.mac = {1, 1, 2, 3, 4, 5}, .address = 0x0a00020f, .prefix = 24, .gateway = 0x0a000202};
	static const struct guest_network elsewhere = {
		.mac = {2, 1, 2, 3, 4, 5}, .address = 0x0a00020f, .prefix = 24, .gateway = 0x0a010101};

	(void)state;
	assert_false(network_up(&group)); /* a hardware address that is no device's */
	assert_false(network_up(&elsewhere));
}

static void the_loopback_comes_up(void **state)
{
	(void)state;
	network_loopback_up();
	assert_true((get(SIOCGIFFLAGS, "lo").ifr_flags & IFF_UP) != 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, each)
	const struct CMUnitTest tests[] = {
		T(the_device_is_as_the_host_says),
		T(what_cannot_be_is_told),
		T(the_loopback_comes_up),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
