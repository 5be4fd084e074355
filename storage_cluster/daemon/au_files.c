/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_files.c: the node's directory and small files; see au_files.h.
 */
#include "daemon/au_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/au_crc32c.h"

#define PATH_CAP 4608
#define LOCK_WAIT_MS 10000
#define LOCK_STEP_MS 100
#define NODE_MAGIC "AURORAND"
#define NODE_VERSION 1

bool
au_sync_dir(const char *path, char *err, size_t errlen)
{
	int			fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool		ok = fd >= 0 && fsync(fd) == 0;

	if (!ok)
		snprintf(err, errlen, "could not sync directory \"%s\": %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok;
}

bool
au_sync_parent(const char *path, char *err, size_t errlen)
{
	char		copy[PATH_CAP];

	snprintf(copy, sizeof(copy), "%s", path);
	return au_sync_dir(dirname(copy), err, errlen);
}

bool
au_is_there(const char *path)
{
	return access(path, F_OK) == 0;
}

bool
au_rename_durably(const char *from, const char *to, char *err, size_t errlen)
{
	if (rename(from, to) == 0)
		return au_sync_parent(to, err, errlen);
	snprintf(err, errlen, "could not rename \"%s\" to \"%s\": %s", from, to, strerror(errno));
	return false;
}

bool
au_make_dir(const char *path, char *err, size_t errlen)
{
	struct stat st;

	if (mkdir(path, 0700) == 0)
		return true;
	if (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return true;
	snprintf(err, errlen, "could not make directory \"%s\": %s", path,
			 strerror(errno == EEXIST ? ENOTDIR : errno));
	return false;
}

bool
au_write_file(const char *dir, const char *name, const void *data, size_t len,
			  char *err, size_t errlen)
{
	char		path[PATH_CAP];
	char		temp[PATH_CAP];
	int			fd;
	bool		ok;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(temp, sizeof(temp), "%s/%s.tmp", dir, name);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ok = fd >= 0;
	if (ok)
	{
		ssize_t		n = write(fd, data, len);

		if (n >= 0 && (size_t) n != len)
			errno = ENOSPC;
		ok = n >= 0 && (size_t) n == len && fsync(fd) == 0;
	}
	if (fd >= 0)
	{
		int			saved = errno;

		ok = close(fd) == 0 && ok;
		errno = ok ? errno : saved;
	}
	ok = ok && rename(temp, path) == 0;
	if (!ok)
	{
		snprintf(err, errlen, "could not write file \"%s\": %s", path, strerror(errno));
		unlink(temp);
		return false;
	}
	return au_sync_dir(dir, err, errlen);
}

long
au_read_file(const char *path, void *buf, size_t cap)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t		n;
	int			saved;

	if (fd < 0)
		return -1;
	n = read(fd, buf, cap);
	saved = errno;
	close(fd);
	errno = saved;
	return (long) n;
}

static int
remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void) st;
	(void) flag;
	(void) ftw;
	return remove(path);
}

bool
au_remove_tree(const char *path, char *err, size_t errlen)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT)
		return true;
	snprintf(err, errlen, "could not remove \"%s\": %s", path, strerror(errno));
	return false;
}

int
au_lock_dir(const char *dir, char *err, size_t errlen)
{
	char		path[PATH_CAP];
	char		pid[32];
	int			fd;

	snprintf(path, sizeof(path), "%s/LOCK", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
	{
		snprintf(err, errlen, "could not open \"%s\": %s", path, strerror(errno));
		return -1;
	}
	for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited += LOCK_STEP_MS)
	{
		if ((errno != EWOULDBLOCK && errno != EINTR) || waited >= LOCK_WAIT_MS)
		{
			if (errno == EWOULDBLOCK)
				snprintf(err, errlen, "another aurora_storaged runs on \"%s\"; stop it, or give this one another --dir", dir);
			else
				snprintf(err, errlen, "could not lock \"%s\": %s", path, strerror(errno));
			close(fd);
			return -1;
		}
		usleep(LOCK_STEP_MS * 1000);
	}
	/* for people; the lock itself is what counts */
	snprintf(pid, sizeof(pid), "%ld\n", (long) getpid());
	if (ftruncate(fd, 0) != 0 || write(fd, pid, strlen(pid)) < 0)
		errno = 0;
	return fd;
}

bool
au_dir_in_use(const char *dir)
{
	char		path[PATH_CAP];
	int			fd;
	bool		in_use;

	snprintf(path, sizeof(path), "%s/LOCK", dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	in_use = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
	close(fd);
	return in_use;
}

bool
au_node_identity(const char *dir, uint64_t *node_id, char *err, size_t errlen)
{
	uint8_t		buf[AU_NODE_FILE_LEN + 1];
	char		path[PATH_CAP];
	long		n;

	snprintf(path, sizeof(path), "%s/NODE", dir);
	n = au_read_file(path, buf, sizeof(buf));
	if (n < 0 && errno == ENOENT)
	{
		if (getrandom(node_id, sizeof(*node_id), 0) != (ssize_t) sizeof(*node_id))
		{
			snprintf(err, errlen, "could not get random bytes: %s", strerror(errno));
			return false;
		}
		*node_id |= 1;			/* never 0 */
		memcpy(buf, NODE_MAGIC, 8);
		au_put_u32(buf + 8, NODE_VERSION);
		au_put_u64(buf + 12, *node_id);
		au_put_u32(buf + 20, au_crc32c(0, buf, 20));
		return au_write_file(dir, "NODE", buf, AU_NODE_FILE_LEN, err, errlen);
	}
	if (n < 0)
		snprintf(err, errlen, "could not read \"%s\": %s", path, strerror(errno));
	else if (n >= 12 && memcmp(buf, NODE_MAGIC, 8) == 0 && au_get_u32(buf + 8) != NODE_VERSION)
		snprintf(err, errlen, "\"%s\" has format version %u, this build knows %d; start the version that wrote it",
				 path, au_get_u32(buf + 8), NODE_VERSION);
	else if (n != AU_NODE_FILE_LEN || memcmp(buf, NODE_MAGIC, 8) != 0 ||
			 au_get_u32(buf + 20) != au_crc32c(0, buf, 20))
		snprintf(err, errlen, "\"%s\" is damaged; restore it from a backup, or remove it to give the node a new id", path);
	else
	{
		*node_id = au_get_u64(buf + 12);
		return true;
	}
	return false;
}

AuStatus
au_volume_read(const char *volume_dir, AuVolumeMeta *meta, char *err, size_t errlen)
{
	uint8_t		buf[AU_VOLUME_LEN + 1];
	char		path[PATH_CAP];
	const char *why;
	AuStatus	status;
	long		n;

	snprintf(path, sizeof(path), "%s/VOLUME", volume_dir);
	n = au_read_file(path, buf, sizeof(buf));
	if (n < 0)
	{
		snprintf(err, errlen, "could not read \"%s\": %s", path, strerror(errno));
		return AU_IO;
	}
	status = au_volume_decode(buf, (size_t) n, meta, &why);
	if (status != AU_OK)
		snprintf(err, errlen, "could not use \"%s\": %s", path, why);
	return status;
}

bool
au_volume_write(const char *volume_dir, const AuVolumeMeta *meta, char *err, size_t errlen)
{
	uint8_t		buf[AU_VOLUME_LEN];

	au_volume_encode(buf, meta);
	return au_write_file(volume_dir, "VOLUME", buf, sizeof(buf), err, errlen);
}

void
au_log_path(char *path, size_t cap, const char *log_dir, const char *volume_dir,
			uint64_t node_id, uint64_t system_identifier)
{
	if (log_dir[0] == '\0')
		snprintf(path, cap, "%s/log", volume_dir);
	else
		snprintf(path, cap, "%s/%016" PRIX64 "-%" PRIu64, log_dir, node_id, system_identifier);
}

uint64_t
au_disk_free(const char *path)
{
	struct statvfs s;

	if (statvfs(path, &s) != 0)
		return UINT64_MAX;
	return (uint64_t) s.f_bavail * s.f_frsize;
}
