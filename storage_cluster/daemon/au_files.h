/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_files.h: the node's directory.
 *
 *   DIR/LOCK                        held (flock) by the running daemon
 *   DIR/NODE                        the node's id
 *   DIR/VIEW, DIR/meta/             member of a cluster (au_meta.h)
 *   DIR/volumes/SYSID/VOLUME        identity, term (au_volume.h)
 *   DIR/volumes/SYSID/log/          landing log; with --log-dir LOGDIR instead
 *   LOGDIR/NODE-SYSID/              (NODE: 16 hexadecimal digits, so that nodes
 *                                   may share a device)
 *   DIR/volumes/SYSID/pages/        page store (RocksDB)
 *
 * A volume's directory is made under a name ending in ".new" and renamed when
 * it is complete, so one that has the right name is whole.  Small files are
 * replaced: temporary file, fsync, rename, fsync of the directory.
 *
 * All functions describe failures in err (always terminated).
 */
#ifndef AU_FILES_H
#define AU_FILES_H

#include "core/au_volume.h"

/* NODE: u8[8] "AURORAND", u32 version, u64 id, u32 crc of what is before */
#define AU_NODE_FILE_LEN 24

bool		au_make_dir(const char *path, char *err, size_t errlen);	/* fine if there */
bool		au_sync_dir(const char *path, char *err, size_t errlen);
bool		au_sync_parent(const char *path, char *err, size_t errlen); /* the one it is in */
bool		au_is_there(const char *path);
/* Within a file system; durable in the directory of `to`. */
bool		au_rename_durably(const char *from, const char *to, char *err, size_t errlen);
bool		au_write_file(const char *dir, const char *name, const void *data, size_t len,
						  char *err, size_t errlen);
/* Reads at most cap bytes; -1 on failure (errno is kept). */
long		au_read_file(const char *path, void *buf, size_t cap);
bool		au_remove_tree(const char *path, char *err, size_t errlen);

/* Takes the lock, waiting up to 10 s for a predecessor that is ending.
 * Returns the descriptor that holds it, or -1. */
int			au_lock_dir(const char *dir, char *err, size_t errlen);
/* As above without waiting; 0: taken by somebody else. */
bool		au_dir_in_use(const char *dir);

/* Reads NODE, or makes it. */
bool		au_node_identity(const char *dir, uint64_t *node_id, char *err, size_t errlen);

AuStatus	au_volume_read(const char *volume_dir, AuVolumeMeta *meta, char *err, size_t errlen);
bool		au_volume_write(const char *volume_dir, const AuVolumeMeta *meta, char *err, size_t errlen);

/* Where a volume's landing log is; log_dir "": none was given. */
void		au_log_path(char *path, size_t cap, const char *log_dir, const char *volume_dir,
						uint64_t node_id, uint64_t system_identifier);

/* Free bytes for us on the file system of path; UINT64_MAX if unknown. */
uint64_t	au_disk_free(const char *path);

#endif							/* AU_FILES_H */
