#include "guest/network.h"

#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* The kernel's own name for the first: nothing here renames devices. */
#define DEVICE "eth0"
/* As large as the other side takes: it carries streams, not packets of a wire. */
enum { MTU = 65520 };

static int open_control(void)
{
	return socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

void network_loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = open_control();

	if (fd < 0)
		return;
	(void)ioctl(fd, SIOCSIFFLAGS, &request);
	(void)close(fd);
}

static void put_address(struct sockaddr *to, uint32_t address)
{
	const struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(address)}};

	memcpy(to, &in, sizeof(in));
}

static bool set_flags(int fd, short flags)
{
	struct ifreq request = {.ifr_name = DEVICE, .ifr_flags = flags};

	return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

/* Only while it is down. */
static bool set_mac(int fd, const unsigned char *mac)
{
	struct ifreq request = {.ifr_name = DEVICE, .ifr_hwaddr = {.sa_family = ARPHRD_ETHER}};

	memcpy(request.ifr_hwaddr.sa_data, mac, GUEST_MAC_SIZE);
	return ioctl(fd, SIOCSIFHWADDR, &request) == 0;
}

static void set_mtu(int fd)
{
	struct ifreq request = {.ifr_name = DEVICE, .ifr_mtu = MTU};

	(void)ioctl(fd, SIOCSIFMTU, &request);
}

static bool set_address(int fd, const struct guest_network *n)
{
	struct ifreq address = {.ifr_name = DEVICE}, mask = {.ifr_name = DEVICE};

	put_address(&address.ifr_addr, n->address);
	put_address(&mask.ifr_netmask, ~(uint32_t)0 << (32 - n->prefix));
	return ioctl(fd, SIOCSIFADDR, &address) == 0 && ioctl(fd, SIOCSIFNETMASK, &mask) == 0;
}

static bool set_route(int fd, const struct guest_network *n)
{
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

	put_address(&route.rt_dst, 0);
	put_address(&route.rt_genmask, 0);
	put_address(&route.rt_gateway, n->gateway);
	return ioctl(fd, SIOCADDRT, &route) == 0 || errno == EEXIST;
}

bool network_up(const struct guest_network *n)
{
	int fd = open_control();
	bool done = fd >= 0 && set_flags(fd, 0) && set_mac(fd, n->mac);

	if (done)
		set_mtu(fd);
	done = done && set_address(fd, n) && set_flags(fd, IFF_UP | IFF_RUNNING) && set_route(fd, n);
	if (fd >= 0)
		(void)close(fd);
	return done;
}
