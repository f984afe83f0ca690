/* Loaded into a client, makes its connections come from the address in $SHOAL_SOURCE, whatever port it asks for: on
 * loopback one machine can so be many clients. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int chosen(int family, in_port_t port, struct sockaddr_storage *address, socklen_t *length)
{
	const char *text = getenv("SHOAL_SOURCE");
	struct sockaddr_in *v4 = (struct sockaddr_in *)address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;

	memset(address, 0, sizeof(*address));
	address->ss_family = family;
	if (text && family == AF_INET && inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_port = port;
		*length = sizeof(*v4);
		return 1;
	}
	if (text && family == AF_INET6 && inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_port = port;
		*length = sizeof(*v6);
		return 1;
	}
	return 0;
}

static int real_bind(int fd, const struct sockaddr *address, socklen_t length)
{
	int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
	return next(fd, address, length);
}

/* sin_port and sin6_port are at the same place. */
static in_port_t port_of(const void *address)
{
	return ((const struct sockaddr_in *)address)->sin_port;
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	struct sockaddr_storage own;
	socklen_t own_length;

	if (chosen(address->sa_family, port_of(address), &own, &own_length))
		return real_bind(fd, (struct sockaddr *)&own, own_length);
	return real_bind(fd, address, length);
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	int (*next)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
	struct sockaddr_storage own, now;
	socklen_t own_length, now_length = sizeof(now);

	if (chosen(address->sa_family, 0, &own, &own_length) &&
	    getsockname(fd, (struct sockaddr *)&now, &now_length) == 0 && port_of(&now) == 0 &&
	    real_bind(fd, (struct sockaddr *)&own, own_length) != 0)
		return -1;
	return next(fd, address, length);
}
