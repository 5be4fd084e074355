/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kvstore.h: the key-value interface's store of a node: au_kv_exec.h's map
 * on RocksDB, in a directory of its own.
 *
 * A batch of operations is one RocksDB write with its log synced: all of it is
 * on disk when au_kvstore_write returns, or none of its operations counts.
 * What was acknowledged must not vanish: damage in the log keeps the store from
 * being opened (by default RocksDB would drop what follows it, without a word);
 * only an incomplete last record is passed over, of which nobody was told.
 * Values carry a checksum over key and value (au_kv_vv.h), besides RocksDB's
 * over blocks.
 *
 * Memory: two memtables of AU_KVSTORE_MEMTABLE, counted in --memory with those
 * of page stores; blocks are in the common cache.
 *
 * Threads: one that writes, one that reads, both may run at once; open, close
 * and the figures belong to the loop.
 */
#ifndef AU_KVSTORE_H
#define AU_KVSTORE_H

#include "cluster/au_kv_exec.h"
#include "store/au_memory.h"

#define AU_KVSTORE_MEMTABLE ((size_t) 2 << 20)
#define AU_KVSTORE_BATCH 64		/* operations in one write, as a rule */

typedef struct AuKvStore AuKvStore;

/* memory NULL: caches of its own.  NULL with err: it cannot be opened. */
AuKvStore  *au_kvstore_open(const char *dir, AuStoreMemory *memory, char *err, size_t errlen);
void		au_kvstore_close(AuKvStore *s);
/* Once, after open: what au_kv_exec_open gives; *state is malloc'ed. */
AuStatus	au_kvstore_begin(AuKvStore *s, uint64_t fresh, AuKvExec *x, uint8_t **state,
							 size_t *state_len, char *err, size_t errlen);
/* Operations that write; false: err says what went wrong with the disk, and
 * the status of each says so, too.  The next batch tries again. */
bool		au_kvstore_write(AuKvStore *s, AuKvOp *list, char *err, size_t errlen);
void		au_kvstore_read(AuKvStore *s, AuKvOp *list);

/*
 * Every record of a stopped node's store, through RocksDB opened for reading
 * only: problem is told what is damaged; *keys and *owed count the others.
 * AU_IO: it cannot be opened, err says why.
 */
AuStatus	au_kvstore_check(const char *dir, void (*problem) (void *ctx, const char *text), void *ctx,
							 uint64_t *keys, uint64_t *owed, char *err, size_t errlen);

/* As last known while the thread that writes opens RocksDB anew. */
uint64_t	au_kvstore_disk_bytes(AuKvStore *s);
uint64_t	au_kvstore_keys(AuKvStore *s);	/* an estimate */

#endif							/* AU_KVSTORE_H */
