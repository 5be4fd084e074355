/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_kvstore.c: the key-value store on RocksDB; au_kvstore.h has the contract.
 *
 * What a batch has put is kept in a list beside it, so that a later operation
 * of the same batch sees it.  After a failed write RocksDB may refuse all
 * others; it is then closed and opened anew by the next batch, with nobody
 * reading meanwhile.
 */
#include "store/au_kvstore.h"

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/au_heap.h"
#include "store/au_dbread.h"
#include "store/au_memory_int.h"

/* What was acknowledged must not vanish: damage in RocksDB's log is an error,
 * an incomplete last record is a write that nobody was told of. */
#define LOG_RECOVERY rocksdb_tolerate_corrupted_tail_records_recovery
#define LOG_HEADER_ONLY 5		/* as au_pagestore.c, for the same reason */

typedef struct Change
{
	size_t		klen;
	size_t		len;
	bool		gone;
	uint8_t    *bytes;			/* key, value */
} Change;

struct AuKvStore
{
	char		dir[4400];
	rocksdb_t  *db;				/* NULL: could not be opened again yet */
	rocksdb_options_t *options;
	rocksdb_block_based_table_options_t *table;
	rocksdb_readoptions_t *ro;
	rocksdb_writeoptions_t *wo;
	AuStoreMemory *memory;
	AuMemoryShare share;
	pthread_rwlock_t lock;		/* db; written by the thread that writes */
	AuKvExec	exec;
	bool		failed;
	uint64_t	file_bytes;		/* the loop's: figures when last looked at */
	uint64_t	log_bytes;
	uint64_t	keys;
	/* the batch under way */
	rocksdb_writebatch_t *batch;
	Change	   *changes;
	size_t		nchanges;
	size_t		cap;
	bool		nomem;
};

/* ---- the map ---------------------------------------------------------- */

static AuStatus
copy_out(const uint8_t *value, size_t n, uint8_t **out, size_t *len)
{
	*out = malloc(n + 1);
	if (*out == NULL)
		return AU_NOMEM;
	memcpy(*out, value, n);
	*len = n;
	return AU_OK;
}

static AuStatus
db_get(void *ctx, const uint8_t *key, size_t klen, uint8_t **value, size_t *len)
{
	AuKvStore  *s = ctx;
	char	   *dberr = NULL;
	char	   *v;
	AuStatus	status;
	bool		damaged;

	if (s->db == NULL)
		return AU_IO;
	v = rocksdb_get(s->db, s->ro, (const char *) key, klen, len, &dberr);
	if (dberr != NULL)
	{
		damaged = strncmp(dberr, "Corruption", 10) == 0;
		rocksdb_free(dberr);
		return damaged ? AU_CORRUPT : AU_IO;
	}
	if (v == NULL)
		return AU_NOT_FOUND;
	status = copy_out((const uint8_t *) v, *len, value, len);
	rocksdb_free(v);
	return status;
}

static AuStatus
batch_get(void *ctx, const uint8_t *key, size_t klen, uint8_t **value, size_t *len)
{
	AuKvStore  *s = ctx;

	for (size_t i = s->nchanges; i-- > 0;)
	{
		const Change *c = &s->changes[i];

		if (c->klen == klen && memcmp(c->bytes, key, klen) == 0)
			return c->gone ? AU_NOT_FOUND : copy_out(c->bytes + klen, c->len, value, len);
	}
	return db_get(ctx, key, klen, value, len);
}

static void
note(AuKvStore *s, const uint8_t *key, size_t klen, const uint8_t *value, size_t len, bool gone)
{
	Change	   *c;

	if (s->nchanges == s->cap)
	{
		size_t		cap = s->cap == 0 ? 256 : s->cap * 2;
		Change	   *bigger = realloc(s->changes, cap * sizeof(*bigger));

		if (bigger == NULL)
		{
			s->nomem = true;
			return;
		}
		s->changes = bigger;
		s->cap = cap;
	}
	c = &s->changes[s->nchanges];
	c->bytes = malloc(klen + len + 1);
	if (c->bytes == NULL)
	{
		s->nomem = true;
		return;
	}
	memcpy(c->bytes, key, klen);
	if (len > 0)
		memcpy(c->bytes + klen, value, len);
	c->klen = klen;
	c->len = len;
	c->gone = gone;
	s->nchanges++;
}

static void
batch_put(void *ctx, const uint8_t *key, size_t klen, const uint8_t *value, size_t len)
{
	AuKvStore  *s = ctx;

	rocksdb_writebatch_put(s->batch, (const char *) key, klen, (const char *) value, len);
	note(s, key, klen, value, len, false);
}

static void
batch_del(void *ctx, const uint8_t *key, size_t klen)
{
	AuKvStore  *s = ctx;

	rocksdb_writebatch_delete(s->batch, (const char *) key, klen);
	note(s, key, klen, NULL, 0, true);
}

static AuStatus
db_scan(void *ctx, const uint8_t *from, size_t flen,
		bool (*fn) (void *fnctx, const uint8_t *key, size_t klen, const uint8_t *value, size_t len),
		void *fnctx)
{
	AuKvStore  *s = ctx;
	rocksdb_iterator_t *it;
	char	   *dberr = NULL;

	if (s->db == NULL)
		return AU_IO;
	it = rocksdb_create_iterator(s->db, s->ro);
	for (rocksdb_iter_seek(it, (const char *) from, flen); rocksdb_iter_valid(it); rocksdb_iter_next(it))
	{
		size_t		klen,
					len;
		const uint8_t *key = (const uint8_t *) rocksdb_iter_key(it, &klen);
		const uint8_t *value = (const uint8_t *) rocksdb_iter_value(it, &len);

		if (!fn(fnctx, key, klen, value, len))
			break;
	}
	rocksdb_iter_get_error(it, &dberr);
	rocksdb_iter_destroy(it);
	if (dberr == NULL)
		return AU_OK;
	rocksdb_free(dberr);
	return AU_IO;
}

/* ---- opening ---------------------------------------------------------- */

static bool
open_db(AuKvStore *s, char *err, size_t errlen)
{
	char	   *dberr = NULL;
	char		why[128];

	s->db = NULL;
	if (!au_db_is_whole(s->dir, why, sizeof(why)))
	{
		snprintf(err, errlen, "could not open the key-value store \"%s\": %s", s->dir, why);
		return false;
	}
	s->db = rocksdb_open(s->options, s->dir, &dberr);
	if (dberr == NULL)
		return true;
	snprintf(err, errlen, "could not open the key-value store \"%s\": %s", s->dir, dberr);
	rocksdb_free(dberr);
	s->db = NULL;
	return false;
}

AuKvStore *
au_kvstore_open(const char *dir, AuStoreMemory *memory, char *err, size_t errlen)
{
	AuKvStore  *s = calloc(1, sizeof(*s));

	if (s == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	snprintf(s->dir, sizeof(s->dir), "%.4300s", dir);
	pthread_rwlock_init(&s->lock, NULL);
	s->memory = memory;
	s->options = rocksdb_options_create();
	s->table = rocksdb_block_based_options_create();
	rocksdb_options_set_create_if_missing(s->options, 1);
	rocksdb_options_set_paranoid_checks(s->options, 1);
	rocksdb_options_set_max_open_files(s->options, 100);
	rocksdb_options_set_max_background_jobs(s->options, 1);
	rocksdb_options_set_keep_log_file_num(s->options, 2);
	rocksdb_options_set_info_log_level(s->options, LOG_HEADER_ONLY);
	rocksdb_options_set_manifest_preallocation_size(s->options, 64 << 10);
	rocksdb_options_set_write_buffer_size(s->options, AU_KVSTORE_MEMTABLE);
	rocksdb_options_set_max_write_buffer_number(s->options, 2);
	rocksdb_options_set_wal_recovery_mode(s->options, LOG_RECOVERY);
	rocksdb_options_set_max_total_wal_size(s->options, 4 * AU_KVSTORE_MEMTABLE);
	rocksdb_options_set_compression(s->options, rocksdb_lz4_compression);
	rocksdb_block_based_options_set_filter_policy(s->table, rocksdb_filterpolicy_create_bloom_full(10));
	if (memory != NULL)
	{
		rocksdb_block_based_options_set_block_cache(s->table, memory->cache);
		rocksdb_block_based_options_set_cache_index_and_filter_blocks(s->table, 1);
	}
	rocksdb_options_set_block_based_table_factory(s->options, s->table);
	s->ro = au_db_read_options();
	s->wo = rocksdb_writeoptions_create();
	rocksdb_writeoptions_set_sync(s->wo, 1);
	s->batch = rocksdb_writebatch_create();
	if (open_db(s, err, errlen))
		return s;
	au_kvstore_close(s);
	return NULL;
}

void
au_kvstore_close(AuKvStore *s)
{
	if (s->db != NULL)
		rocksdb_close(s->db);
	if (s->memory != NULL)
		au_store_memory_memtables(s->memory, &s->share, 0);
	rocksdb_writebatch_destroy(s->batch);
	rocksdb_writeoptions_destroy(s->wo);
	rocksdb_readoptions_destroy(s->ro);
	rocksdb_block_based_options_destroy(s->table);
	rocksdb_options_destroy(s->options);
	pthread_rwlock_destroy(&s->lock);
	free(s->changes);
	free(s);
}

/* ---- batches ---------------------------------------------------------- */

static void
forget_changes(AuKvStore *s)
{
	for (size_t i = 0; i < s->nchanges; i++)
		free(s->changes[i].bytes);
	s->nchanges = 0;
	s->nomem = false;
	rocksdb_writebatch_clear(s->batch);
}

static bool
commit(AuKvStore *s, char *err, size_t errlen)
{
	char	   *dberr = NULL;

	if (s->nomem)
		snprintf(err, errlen, "could not write the key-value store: out of memory");
	else if (s->nchanges > 0)
	{
		rocksdb_write(s->db, s->wo, s->batch, &dberr);
		if (dberr != NULL)
		{
			snprintf(err, errlen, "could not write the key-value store \"%s\": %s", s->dir, dberr);
			rocksdb_free(dberr);
			s->failed = true;
		}
	}
	return !s->nomem && dberr == NULL;
}

/* RocksDB is opened anew after a failure. */
static bool
mend(AuKvStore *s, char *err, size_t errlen)
{
	bool		ok;

	if (!s->failed && s->db != NULL)
		return true;
	pthread_rwlock_wrlock(&s->lock);
	if (s->db != NULL)
		rocksdb_close(s->db);
	s->db = NULL;
	ok = open_db(s, err, errlen);
	pthread_rwlock_unlock(&s->lock);
	s->failed = !ok;
	return ok;
}

static void
count_memory(AuKvStore *s)
{
	uint64_t	bytes = 0;

	if (s->memory != NULL && rocksdb_property_int(s->db, "rocksdb.size-all-mem-tables", &bytes) == 0)
		au_store_memory_memtables(s->memory, &s->share, bytes);
}

bool
au_kvstore_write(AuKvStore *s, AuKvOp *list, char *err, size_t errlen)
{
	AuKvMap		map = {s, au_heap_alloc, au_heap_release, batch_get, batch_put, batch_del, db_scan};
	bool		ok = mend(s, err, errlen);

	for (AuKvOp *op = list; op != NULL && ok; op = op->next)
		au_kv_exec(&s->exec, &map, op);
	ok = ok && commit(s, err, errlen);
	for (AuKvOp *op = list; op != NULL && !ok; op = op->next)
	{
		op->status = strstr(err, "No space left") != NULL ? AU_FULL : AU_IO;
		op->serial_now = s->exec.serial;
	}
	forget_changes(s);
	if (ok)
		count_memory(s);
	return ok;
}

void
au_kvstore_read(AuKvStore *s, AuKvOp *list)
{
	AuKvMap		map = {s, au_heap_alloc, au_heap_release, db_get, batch_put, batch_del, db_scan};

	pthread_rwlock_rdlock(&s->lock);
	for (AuKvOp *op = list; op != NULL; op = op->next)
		au_kv_exec(NULL, &map, op);
	pthread_rwlock_unlock(&s->lock);
}

AuStatus
au_kvstore_begin(AuKvStore *s, uint64_t fresh, AuKvExec *x, uint8_t **state, size_t *state_len,
				 char *err, size_t errlen)
{
	AuKvMap		map = {s, au_heap_alloc, au_heap_release, batch_get, batch_put, batch_del, db_scan};
	AuStatus	status = au_kv_exec_open(&s->exec, &map, fresh, state, state_len);

	if (status != AU_OK)
		snprintf(err, errlen, "could not use the key-value store \"%s\": its meta record is %s",
				 s->dir, status == AU_UNSUPPORTED ? "of a newer version of aurora_storaged" : "damaged");
	else if (!commit(s, err, errlen))
		status = AU_IO;
	forget_changes(s);
	*x = s->exec;
	return status;
}

/* ---- figures ---------------------------------------------------------- */

static uint64_t
property(AuKvStore *s, const char *name, uint64_t *last)
{
	/* the loop does not wait for RocksDB to be opened */
	if (pthread_rwlock_tryrdlock(&s->lock) != 0)
		return *last;
	if (s->db != NULL)
		(void) rocksdb_property_int(s->db, name, last);
	pthread_rwlock_unlock(&s->lock);
	return *last;
}

uint64_t
au_kvstore_disk_bytes(AuKvStore *s)
{
	/* what is not in files is in RocksDB's log */
	return property(s, "rocksdb.total-sst-files-size", &s->file_bytes) +
		property(s, "rocksdb.size-all-mem-tables", &s->log_bytes);
}

uint64_t
au_kvstore_keys(AuKvStore *s)
{
	return property(s, "rocksdb.estimate-num-keys", &s->keys);
}

/* ---- check ------------------------------------------------------------ */

static const char *
wrong_with(const uint8_t *key, size_t klen, const uint8_t *value, size_t len)
{
	AuKvRecord	r;

	if (klen >= 3 && key[0] == 'r')
		return au_kv_slice(key + 2, klen - 2) != key[1] ? "is in the wrong slice" :
			au_kv_record_decode(&r, key + 2, klen - 2, value, len) ? NULL : "is damaged";
	if (klen >= 6 && key[0] == 'o')
		return len == 8 ? NULL : "(a note of what is owed) is damaged";
	return klen == 1 && (key[0] == 'm' || key[0] == 's') ? NULL : "is none of ours";
}

AuStatus
au_kvstore_check(const char *dir, void (*problem) (void *ctx, const char *text), void *ctx,
				 uint64_t *keys, uint64_t *owed, char *err, size_t errlen)
{
	rocksdb_options_t *options = rocksdb_options_create();
	rocksdb_readoptions_t *ro = au_db_read_options();
	rocksdb_iterator_t *it;
	char	   *dberr = NULL;
	rocksdb_t  *db;
	char		text[200];

	*keys = *owed = 0;
	rocksdb_options_set_wal_recovery_mode(options, LOG_RECOVERY);
	db = rocksdb_open_for_read_only(options, dir, 0, &dberr);
	if (dberr == NULL)
	{
		it = rocksdb_create_iterator(db, ro);
		for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it))
		{
			size_t		klen,
						len;
			const uint8_t *key = (const uint8_t *) rocksdb_iter_key(it, &klen);
			const uint8_t *value = (const uint8_t *) rocksdb_iter_value(it, &len);
			const char *why = wrong_with(key, klen, value, len);

			*keys += why == NULL && key[0] == 'r';
			*owed += why == NULL && key[0] == 'o';
			if (why == NULL)
				continue;
			snprintf(text, sizeof(text), "key-value record \"%.*s\" %s",
					 klen > 2 ? (int) (klen - 2) : 0, (const char *) key + 2, why);
			problem(ctx, text);
		}
		rocksdb_iter_get_error(it, &dberr);
		rocksdb_iter_destroy(it);
		rocksdb_close(db);
	}
	if (dberr != NULL)
		snprintf(err, errlen, "could not read the key-value store \"%s\": %s", dir, dberr);
	rocksdb_readoptions_destroy(ro);
	rocksdb_options_destroy(options);
	if (dberr == NULL)
		return AU_OK;
	rocksdb_free(dberr);
	return AU_IO;
}
