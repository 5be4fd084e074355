/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_local.c: see ctl_local.h.
 */
#include "ctl/ctl_local.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/au_files.h"

bool
local_absolute(const char *dir, char *out, size_t cap)
{
	char		cwd[PATH_MAX];
	size_t		len;
	int			n;

	if (dir[0] == '/')
		n = snprintf(out, cap, "%s", dir);
	else if (getcwd(cwd, sizeof(cwd)) != NULL)
		n = snprintf(out, cap, "%s/%s", cwd, dir);
	else
		return false;
	if (n < 0 || (size_t) n >= cap)
		return false;
	for (len = (size_t) n; len > 1 && out[len - 1] == '/'; len--)
		out[len - 1] = '\0';
	return true;
}

void
local_path(const LocalCluster *c, char *out, const char *name)
{
	snprintf(out, LOCAL_PATH_MAX, "%s/%s", c->dir, name);
}

void
local_node_path(const LocalCluster *c, char *out, int i, const char *suffix)
{
	snprintf(out, LOCAL_PATH_MAX, "%s/node%d%s", c->dir, i, suffix);
}

bool
local_write_config(const LocalCluster *c, int i, char *err, size_t errlen)
{
	char		path[LOCAL_PATH_MAX];
	char		dir[LOCAL_PATH_MAX];
	char		http[LOCAL_PATH_MAX];
	char		text[2 * LOCAL_PATH_MAX + 256];
	char		member[64];
	int			len;

	local_node_path(c, path, i, ".conf");
	if (access(path, F_OK) == 0)
		return true;
	local_node_path(c, dir, i, "");
	local_node_path(c, http, i, ".http");
	if (i == 1)
		snprintf(member, sizeof(member), "cluster-init = on");
	else
		snprintf(member, sizeof(member), "join = 127.0.0.1:%d", c->port);
	len = snprintf(text, sizeof(text),
				   "# aurora_storaged --help lists what may stand here\n"
				   "dir = %s\nlisten = 127.0.0.1:%d\nhttp-socket = %s\n%s\n",
				   dir, local_port(c, i), http, member);
	return au_write_file(c->dir, strrchr(path, '/') + 1, text, (size_t) len, err, errlen);
}

/* Is this process an aurora_storaged that was started with this file? */
static bool
is_ours(pid_t pid, const char *config)
{
	char		path[64];
	char		line[LOCAL_PATH_MAX + PATH_MAX];
	long		n;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int) pid);
	n = au_read_file(path, line, sizeof(line) - 1);
	if (n <= 0)
		return false;
	line[n] = '\0';
	for (const char *p = line; p < line + n; p += strlen(p) + 1)
		if (strcmp(p, config) == 0)
			return true;
	return false;
}

pid_t
local_pid(const LocalCluster *c, int i)
{
	char		path[LOCAL_PATH_MAX];
	char		text[32];
	long		n;
	int			pid;

	local_node_path(c, path, i, "");
	if (!au_dir_in_use(path))
		return 0;
	local_node_path(c, path, i, ".pid");
	n = au_read_file(path, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	pid = atoi(text);
	local_node_path(c, path, i, ".conf");
	return pid > 0 && is_ours((pid_t) pid, path) ? (pid_t) pid : 0;
}

/* aurora_storaged beside this program. */
static bool
find_daemon(char *out, size_t cap)
{
	ssize_t		n = readlink("/proc/self/exe", out, cap - 1);
	char	   *slash;

	if (n <= 0)
		return false;
	out[n] = '\0';
	slash = strrchr(out, '/');
	if (slash == NULL || (size_t) (slash - out) + sizeof("/aurora_storaged") > cap)
		return false;
	memcpy(slash, "/aurora_storaged", sizeof("/aurora_storaged"));
	return access(out, X_OK) == 0;
}

/* In the child: never returns. */
static void
become_daemon(const char *program, const char *config, int log)
{
	int			null = open("/dev/null", O_RDONLY);

	setsid();
	dup2(null, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	execl(program, program, "--config", config, (char *) NULL);
	fprintf(stderr, "could not run \"%s\": %s\n", program, strerror(errno));
	_exit(127);
}

pid_t
local_launch(const LocalCluster *c, int i, char *err, size_t errlen)
{
	char		program[PATH_MAX];
	char		config[LOCAL_PATH_MAX];
	char		path[LOCAL_PATH_MAX];
	char		text[32];
	int			log;
	int			len;
	pid_t		pid;

	if (!find_daemon(program, sizeof(program)))
	{
		snprintf(err, errlen, "there is no aurora_storaged beside auroractl");
		return -1;
	}
	local_node_path(c, config, i, ".conf");
	local_node_path(c, path, i, ".log");
	log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (log < 0)
	{
		snprintf(err, errlen, "could not open \"%s\": %s", path, strerror(errno));
		return -1;
	}
	/* A socket that a killed predecessor left would look like an answer to come. */
	local_node_path(c, path, i, ".http");
	unlink(path);
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		become_daemon(program, config, log);
	close(log);
	if (pid < 0)
	{
		snprintf(err, errlen, "could not start a process: %s", strerror(errno));
		return -1;
	}
	local_node_path(c, path, i, ".pid");
	len = snprintf(text, sizeof(text), "%d\n", (int) pid);
	if (!au_write_file(c->dir, strrchr(path, '/') + 1, text, (size_t) len, err, errlen))
		return -1;
	return pid;
}

bool
local_answers(const LocalCluster *c, int i)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char		path[LOCAL_PATH_MAX];
	int			fd;
	bool		ok;

	local_node_path(c, path, i, ".http");
	if (strlen(path) >= sizeof(a.sun_path))
		return false;
	memcpy(a.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ok = fd >= 0 && connect(fd, (struct sockaddr *) &a, sizeof(a)) == 0;
	if (fd >= 0)
		close(fd);
	return ok;
}
