/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_socket.c: from a node's address to a socket that is connected to it.
 *
 * Every wait ends at its deadline and can be cancelled, but for the look-up of a
 * name; see aurora_client_hurry_resolver.
 */
#include "postgres.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"

#include "client/aurora_client.h"
#include "client/aurora_conn_int.h"
#include "module/aurora_guc.h"

/* Last: its _res is a macro, and a variable in headers of the server. */
#include <resolv.h>

/* No wait is longer than this before the deadline is looked at again. */
#define WAIT_SLICE_MS 1000

/* A socket that aurora_open_socket was just connecting when an error was
 * raised; closed by the next call. */
static int	half_open_fd = -1;

/* How long the next wait may be; 0 when the deadline is past. */
long
aurora_slice_until(int64 deadline_ms)
{
	int64		left = deadline_ms - aurora_now_ms();

	return left <= 0 ? 0 : (long) Min(left, WAIT_SLICE_MS);
}

bool
aurora_client_split_node(const char *node, char *host, size_t hostlen, const char **port)
{
	return strchr(node, ',') == NULL && au_split_address(node, host, hostlen, port) &&
		host[0] != '\0' && host[0] != '[';
}

/* What the settings say, for messages about storage as a whole. */
const char *
aurora_client_target(void)
{
	return aurora_storage_nodes[0] != '\0' ? aurora_storage_nodes : aurora_node_address(0);
}

int
aurora_client_open_unix(const char *path, char **err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	uid_t		uid;
	gid_t		gid;
	int			fd;

	if (strlen(path) >= sizeof(addr.sun_path))
	{
		*err = psprintf("socket path \"%s\" is too long (maximum %zu bytes)",
						path, sizeof(addr.sun_path) - 1);
		return -1;
	}
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		*err = psprintf("could not create socket: %m");
		return -1;
	}
	if (connect(fd, (struct sockaddr *) &addr, sizeof(addr)) != 0)
	{
		*err = psprintf("could not connect to \"%s\": %m", path);
		close(fd);
		return -1;
	}
	/* the default path is ours alone; a configured one is the user's word */
	if (aurora_storage_nodes[0] == '\0' && aurora_storage_socket[0] == '\0' &&
		(getpeereid(fd, &uid, &gid) != 0 || uid != geteuid()))
	{
		*err = psprintf("the process behind \"%s\" runs as another user", path);
		close(fd);
		return -1;
	}
	return fd;
}

/* Wait until a connecting socket is connected; 0 or an errno. */
static int
finish_connect(int fd, int64 deadline_ms)
{
	for (;;)
	{
		long		ms = aurora_slice_until(deadline_ms);
		int			rc;

		if (ms == 0)
			return ETIMEDOUT;
		rc = WaitLatchOrSocket(MyLatch,
							   WL_LATCH_SET | WL_SOCKET_CONNECTED |
							   WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							   fd, ms, PG_WAIT_EXTENSION);
		if (rc & WL_LATCH_SET)
			ResetLatch(MyLatch);
		aurora_check_interrupts();
		if (rc & WL_SOCKET_CONNECTED)
		{
			int			soerr = 0;
			socklen_t	len = sizeof(soerr);

			if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &soerr, &len) != 0)
				return errno;
			return soerr;
		}
	}
}

/* A node that vanished without a word is noticed after about 25 s, although
 * we may wait much longer for one that is only slow. */
void
aurora_client_tcp_options(int fd)
{
	static const struct
	{
		int			level;
		int			name;
		int			value;
	}			options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, 10},
		{IPPROTO_TCP, TCP_KEEPINTVL, 5},
		{IPPROTO_TCP, TCP_KEEPCNT, 3},
	};

	/* without them it works as well */
	for (int i = 0; i < lengthof(options); i++)
		(void) setsockopt(fd, options[i].level, options[i].name,
						  &options[i].value, sizeof(int));
}

void
aurora_client_hurry_resolver(void)
{
	static bool done = false;

	if (!done && res_init() == 0)
		_res.retrans = _res.retry = 1;
	done = true;
}

static int
open_tcp(const char *node, int64 deadline_ms, char **err)
{
	static struct addrinfo *list = NULL;	/* one that an error left is freed */
	struct addrinfo hints = {.ai_family = AF_UNSPEC,.ai_socktype = SOCK_STREAM};
	char		host[NI_MAXHOST];
	const char *port;
	int			rc;

	if (!aurora_client_split_node(node, host, sizeof(host), &port))
	{
		*err = psprintf("\"%s\" is not of the form host:port", node);
		return -1;
	}
	if (list != NULL)
		freeaddrinfo(list);
	list = NULL;
	aurora_client_hurry_resolver();
	rc = getaddrinfo(host, port, &hints, &list);
	if (rc != 0)
	{
		list = NULL;
		*err = psprintf("could not look up \"%s\": %s", node, gai_strerror(rc));
		return -1;
	}
	*err = NULL;
	for (struct addrinfo *a = list; a != NULL && half_open_fd < 0; a = a->ai_next)
	{
		int			failed = 0;

		half_open_fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK |
							  SOCK_CLOEXEC, a->ai_protocol);
		if (half_open_fd < 0)
		{
			*err = psprintf("could not create socket: %m");
			continue;
		}
		aurora_client_tcp_options(half_open_fd);
		if (connect(half_open_fd, a->ai_addr, a->ai_addrlen) != 0)
			failed = errno;
		if (failed == EINPROGRESS)
			failed = finish_connect(half_open_fd, deadline_ms);
		if (failed != 0)
		{
			close(half_open_fd);
			half_open_fd = -1;
			errno = failed;
			*err = psprintf("could not connect to \"%s\": %m", node);
		}
	}
	freeaddrinfo(list);
	list = NULL;
	if (half_open_fd < 0 && *err == NULL)
		*err = psprintf("\"%s\" has no address", node);
	rc = half_open_fd;
	half_open_fd = -1;
	return rc;
}

/* A connected, non-blocking, close-on-exec socket; -1 with *err (palloc'd). */
int
aurora_open_socket(int node, int timeout_ms, char **err)
{
	const char *address = aurora_node_address(node);

	if (half_open_fd >= 0)
	{
		close(half_open_fd);
		half_open_fd = -1;
	}
	if (address[0] == '/')
		return aurora_client_open_unix(address, err);
	return open_tcp(address, aurora_now_ms() + timeout_ms, err);
}
