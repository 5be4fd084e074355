/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_toast.c: values too big for a row go to the TOAST table, compressed
 * or in chunks.
 *
 * The TOAST table of an aurora table is an aurora table with the usual three
 * columns (chunk_id, chunk_seq, chunk_data) and its usual index, and what is
 * left in the row is the usual pointer, so that stock code (detoasting,
 * rewrites, pg_column_size) works as it is.  Compression and the choice of
 * values are done by the stock helpers; what would end in heap_insert or
 * heap_delete is done here.
 *
 * Invariants:
 *  1. No content lock is held here: chunks are inserted and deleted by
 *     ordinary changes of the TOAST table.
 *  2. The lock on the TOAST table and its indexes is kept until the end of
 *     the transaction, so that a concurrent REINDEX of it waits for us.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heaptoast.h"
#include "access/table.h"
#include "access/toast_helper.h"
#include "access/toast_internals.h"
#include "access/xact.h"
#include "am/aurora_am.h"
#include "am/aurora_write.h"
#include "catalog/catalog.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"

/* An open TOAST table. */
typedef struct ToastTable
{
	Relation	rel;
	Relation   *indexes;
	int			nindexes;
	Relation	valid_index;
} ToastTable;

static void
toast_open(ToastTable *t, Oid relid, LOCKMODE lockmode)
{
	int			valid;

	t->rel = table_open(relid, lockmode);
	if (!aurora_is_aurora_rel(t->rel))
		elog(ERROR, "TOAST table \"%s\" of an aurora table does not use access method aurora",
			 RelationGetRelationName(t->rel));
	valid = toast_open_indexes(t->rel, lockmode, &t->indexes, &t->nindexes);
	t->valid_index = t->indexes[valid];
}

static void
toast_close(ToastTable *t, LOCKMODE lockmode)
{
	toast_close_indexes(t->indexes, t->nindexes, lockmode);
	table_close(t->rel, lockmode);
}

/* ---- value ids -------------------------------------------------------- */

/* Chunks of this value, dead ones included: an id that any version of any
 * row may still refer to is not free. */
static bool
value_exists(ToastTable *t, Oid valueid)
{
	ScanKeyData key;
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&key, (AttrNumber) 1, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(valueid));
	scan = systable_beginscan(t->rel, RelationGetRelid(t->valid_index), true,
							  SnapshotAny, 1, &key);
	found = systable_getnext(scan) != NULL;
	systable_endscan(scan);
	return found;
}

/* The table of that OID need not be ours: a rewrite may come from heap. */
static bool
value_exists_in(Oid toastrelid, Oid valueid)
{
	ToastTable	t;
	bool		found;
	int			valid;

	t.rel = table_open(toastrelid, AccessShareLock);
	valid = toast_open_indexes(t.rel, AccessShareLock, &t.indexes, &t.nindexes);
	t.valid_index = t.indexes[valid];
	found = value_exists(&t, valueid);
	toast_close(&t, AccessShareLock);
	return found;
}

static Oid
new_value_id(ToastTable *t)
{
	return GetNewOidWithIndex(t->rel, RelationGetRelid(t->valid_index),
							  (AttrNumber) 1);
}

/*
 * Choose the id of a value that is about to be stored.
 *
 * A rewrite of the table (rd_toastoid is the TOAST table that the new one
 * will stand in for) keeps the ids of values that come from there.  Several
 * versions of a row may share a value: then it is in the new table already,
 * and *stored is set.
 */
static Oid
choose_value_id(Relation rel, ToastTable *t, struct varlena *oldexternal,
				bool *stored)
{
	Oid			valueid;

	*stored = false;
	if (!OidIsValid(rel->rd_toastoid))
		return new_value_id(t);

	if (oldexternal != NULL && VARATT_IS_EXTERNAL_ONDISK(oldexternal))
	{
		struct varatt_external old;

		VARATT_EXTERNAL_GET_POINTER(old, oldexternal);
		if (old.va_toastrelid == rel->rd_toastoid &&
			OidIsValid(old.va_valueid))
		{
			*stored = value_exists(t, old.va_valueid);
			return old.va_valueid;
		}
	}

	/* unused in the new table and in the one it replaces */
	do
	{
		valueid = new_value_id(t);
	} while (value_exists_in(rel->rd_toastoid, valueid));
	return valueid;
}

/* ---- storing ---------------------------------------------------------- */

/* What the chunks hold: *data, returned length; pointer's size fields. */
static int32
payload(struct varlena *value, char **data, struct varatt_external *pointer)
{
	int32		len;

	if (VARATT_IS_SHORT(value))
	{
		*data = VARDATA_SHORT(value);
		len = VARSIZE_SHORT(value) - VARHDRSZ_SHORT;
		pointer->va_rawsize = len + VARHDRSZ;
		pointer->va_extinfo = len;
		return len;
	}

	*data = VARDATA(value);
	len = VARSIZE(value) - VARHDRSZ;
	if (VARATT_IS_COMPRESSED(value))
	{
		pointer->va_rawsize = VARDATA_COMPRESSED_GET_EXTSIZE(value) + VARHDRSZ;
		VARATT_EXTERNAL_SET_SIZE_AND_COMPRESS_METHOD(*pointer, len,
													 VARDATA_COMPRESSED_GET_COMPRESS_METHOD(value));
	}
	else
	{
		pointer->va_rawsize = VARSIZE(value);
		pointer->va_extinfo = len;
	}
	return len;
}

/* The indexes' columns are the first ones of the table, and a btree needs no
 * IndexInfo; nobody may put other indexes on a TOAST table. */
static void
index_chunk(ToastTable *t, Datum *values, bool *isnull, ItemPointer tid)
{
	for (int i = 0; i < t->nindexes; i++)
	{
		Relation	index = t->indexes[i];

		if (index->rd_index->indisready)
			index_insert(index, values, isnull, tid, t->rel,
						 index->rd_index->indisunique ? UNIQUE_CHECK_YES :
						 UNIQUE_CHECK_NO, false, NULL);
	}
}

static void
store_chunks(ToastTable *t, Oid valueid, const char *data, int32 len,
			 int options)
{
	CommandId	cid = GetCurrentCommandId(true);
	union
	{
		struct varlena header;
		char		bytes[TOAST_MAX_CHUNK_SIZE + VARHDRSZ];
		int32		align;
	}			chunk;
	Datum		values[3];
	bool		isnull[3] = {false, false, false};

	values[0] = ObjectIdGetDatum(valueid);
	values[2] = PointerGetDatum(&chunk);
	for (int32 seq = 0; len > 0; seq++)
	{
		int32		n = Min((int32) TOAST_MAX_CHUNK_SIZE, len);
		HeapTuple	tup;

		CHECK_FOR_INTERRUPTS();
		values[1] = Int32GetDatum(seq);
		SET_VARSIZE(&chunk, n + VARHDRSZ);
		memcpy(VARDATA(&chunk), data, n);
		tup = heap_form_tuple(RelationGetDescr(t->rel), values, isnull);
		aurora_insert(t->rel, tup, cid, options, NULL);
		index_chunk(t, values, isnull, &tup->t_self);
		heap_freetuple(tup);
		data += n;
		len -= n;
	}
}

/*
 * Store a value in the TOAST table of rel; returns the palloc'd pointer to
 * it.  oldexternal: the pointer it was fetched by, or NULL.
 */
static Datum
save_value(Relation rel, Datum value, struct varlena *oldexternal, int options)
{
	struct varlena *attr = (struct varlena *) DatumGetPointer(value);
	struct varatt_external pointer;
	struct varlena *result;
	ToastTable	t;
	char	   *data;
	int32		len;
	bool		stored;

	Assert(!VARATT_IS_EXTERNAL(attr));
	toast_open(&t, rel->rd_rel->reltoastrelid, RowExclusiveLock);

	len = payload(attr, &data, &pointer);
	pointer.va_toastrelid = OidIsValid(rel->rd_toastoid) ? rel->rd_toastoid :
		RelationGetRelid(t.rel);
	pointer.va_valueid = choose_value_id(rel, &t, oldexternal, &stored);
	if (!stored)
		store_chunks(&t, pointer.va_valueid, data, len, options);
	toast_close(&t, NoLock);

	result = palloc(TOAST_POINTER_SIZE);
	SET_VARTAG_EXTERNAL(result, VARTAG_ONDISK);
	memcpy(VARDATA_EXTERNAL(result), &pointer, sizeof(pointer));
	return PointerGetDatum(result);
}

/* ---- deleting --------------------------------------------------------- */

static void
delete_value(Datum value, bool is_speculative)
{
	struct varlena *attr = (struct varlena *) DatumGetPointer(value);
	struct varatt_external pointer;
	ScanKeyData key;
	SysScanDesc scan;
	SnapshotData snapshot;
	HeapTuple	tup;
	ToastTable	t;

	if (!VARATT_IS_EXTERNAL_ONDISK(attr))
		return;
	VARATT_EXTERNAL_GET_POINTER(pointer, attr);
	toast_open(&t, pointer.va_toastrelid, RowExclusiveLock);

	ScanKeyInit(&key, (AttrNumber) 1, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(pointer.va_valueid));
#if PG_VERSION_NUM >= 180000
	snapshot = *get_toast_snapshot();
#else
	init_toast_snapshot(&snapshot);
#endif
	scan = systable_beginscan_ordered(t.rel, t.valid_index, &snapshot, 1, &key);
	while ((tup = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
	{
		if (is_speculative)
			aurora_abort_speculative(t.rel, &tup->t_self);
		else
			aurora_simple_delete(t.rel, &tup->t_self);
	}
	systable_endscan_ordered(scan);
	toast_close(&t, NoLock);
}

/* A row is deleted (or a speculative insertion taken back): its values go
 * with it.  The tuple may be in a pinned, unlocked buffer. */
void
aurora_toast_delete(Relation rel, HeapTuple oldtup, bool is_speculative)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Datum		values[MaxHeapAttributeNumber];
	bool		isnull[MaxHeapAttributeNumber];

	Assert(aurora_rel_toasts(rel));
	heap_deform_tuple(oldtup, desc, values, isnull);
	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attlen == -1 && !isnull[i])
			delete_value(values[i], is_speculative);
	}
}

/* ---- making a row fit ------------------------------------------------- */

/* Everything about one row that is being made to fit. */
typedef struct Toaster
{
	ToastTupleContext ctx;
	int			options;
	Size		limit;			/* for the data part of the tuple */
	bool		has_table;
	Datum		values[MaxHeapAttributeNumber];
	bool		isnull[MaxHeapAttributeNumber];
	Datum		oldvalues[MaxHeapAttributeNumber];
	bool		oldisnull[MaxHeapAttributeNumber];
	ToastAttrInfo attrs[MaxHeapAttributeNumber];
} Toaster;

static bool
too_big(Toaster *t)
{
	return heap_compute_data_size(RelationGetDescr(t->ctx.ttc_rel), t->values,
								  t->isnull) > t->limit;
}

static void
externalize(Toaster *t, int attno)
{
	ToastAttrInfo *attr = &t->attrs[attno];
	Datum		old = t->values[attno];

	attr->tai_colflags |= TOASTCOL_IGNORE;
	t->values[attno] = save_value(t->ctx.ttc_rel, old, attr->tai_oldexternal,
								  t->options);
	if (attr->tai_colflags & TOASTCOL_NEEDS_FREE)
		pfree(DatumGetPointer(old));
	attr->tai_colflags |= TOASTCOL_NEEDS_FREE;
	t->ctx.ttc_flags |= TOAST_NEEDS_CHANGE | TOAST_NEEDS_FREE;
}

/*
 * Compress the biggest values until the row fits.  A value that even so is
 * too big for a row by itself is moved out at once, which may save the others
 * from being compressed.
 */
static void
compress_biggest(Toaster *t, bool main_columns)
{
	TupleDesc	desc = RelationGetDescr(t->ctx.ttc_rel);

	while (too_big(t))
	{
		int			attno = toast_tuple_find_biggest_attribute(&t->ctx, true,
															   main_columns);
		char		storage;

		if (attno < 0)
			break;
		storage = TupleDescAttr(desc, attno)->attstorage;
		if (storage == TYPSTORAGE_EXTENDED || storage == TYPSTORAGE_MAIN)
			toast_tuple_try_compression(&t->ctx, attno);
		else
			t->attrs[attno].tai_colflags |= TOASTCOL_INCOMPRESSIBLE;
		if (!main_columns && t->has_table &&
			(Size) t->attrs[attno].tai_size > t->limit)
			externalize(t, attno);
	}
}

static void
externalize_biggest(Toaster *t, bool main_columns)
{
	while (t->has_table && too_big(t))
	{
		int			attno = toast_tuple_find_biggest_attribute(&t->ctx, false,
															   main_columns);

		if (attno < 0)
			break;
		externalize(t, attno);
	}
}

/* Header and null bitmap as heap_form_tuple lays them out. */
static Size
header_size(Toaster *t)
{
	Size		size = SizeofHeapTupleHeader;

	if (t->ctx.ttc_flags & TOAST_HAS_NULLS)
		size += BITMAPLEN(RelationGetDescr(t->ctx.ttc_rel)->natts);
	return MAXALIGN(size);
}

/* The tuple with its new values; the header is the candidate's, but for the
 * number of columns, which may have grown since that was formed. */
static HeapTuple
form_result(Toaster *t, HeapTuple newtup)
{
	TupleDesc	desc = RelationGetDescr(t->ctx.ttc_rel);
	Size		hoff = header_size(t);
	Size		data_len = heap_compute_data_size(desc, t->values, t->isnull);
	HeapTuple	result = palloc0(HEAPTUPLESIZE + hoff + data_len);
	HeapTupleHeader header;

	header = (HeapTupleHeader) ((char *) result + HEAPTUPLESIZE);
	result->t_len = hoff + data_len;
	result->t_self = newtup->t_self;
	result->t_tableOid = newtup->t_tableOid;
	result->t_data = header;

	memcpy(header, newtup->t_data, SizeofHeapTupleHeader);
	HeapTupleHeaderSetNatts(header, desc->natts);
	header->t_hoff = hoff;
	heap_fill_tuple(desc, t->values, t->isnull, (char *) header + hoff,
					data_len, &header->t_infomask,
					(t->ctx.ttc_flags & TOAST_HAS_NULLS) ? header->t_bits : NULL);
	return result;
}

/* Values of the old row that the new one does not use any more. */
static void
delete_replaced(Toaster *t)
{
	if (!(t->ctx.ttc_flags & TOAST_NEEDS_DELETE_OLD))
		return;
	for (int i = 0; i < RelationGetDescr(t->ctx.ttc_rel)->natts; i++)
	{
		if (t->attrs[i].tai_colflags & TOASTCOL_NEEDS_DELETE_OLD)
			delete_value(t->oldvalues[i], false);
	}
	/* done: the stock clean-up shall only free memory */
	t->ctx.ttc_flags &= ~TOAST_NEEDS_DELETE_OLD;
}

/*
 * Make newtup fit into a row.  oldtup: the version that it replaces, or NULL.
 * Returns newtup if nothing had to change, else a palloc'd tuple, which is to
 * be stored in its place; newtup and oldtup are left alone.
 */
HeapTuple
aurora_toast_insert_or_update(Relation rel, HeapTuple newtup, HeapTuple oldtup,
							  int options)
{
	Toaster		t;
	HeapTuple	result = newtup;

	Assert(aurora_rel_toasts(rel));
	heap_deform_tuple(newtup, RelationGetDescr(rel), t.values, t.isnull);
	if (oldtup != NULL)
		heap_deform_tuple(oldtup, RelationGetDescr(rel), t.oldvalues,
						  t.oldisnull);
	t.ctx.ttc_rel = rel;
	t.ctx.ttc_values = t.values;
	t.ctx.ttc_isnull = t.isnull;
	t.ctx.ttc_oldvalues = oldtup != NULL ? t.oldvalues : NULL;
	t.ctx.ttc_oldisnull = oldtup != NULL ? t.oldisnull : NULL;
	t.ctx.ttc_attr = t.attrs;
	toast_tuple_init(&t.ctx);

	/* chunks are ordinary rows even if the row itself is speculative */
	t.options = options & ~HEAP_INSERT_SPECULATIVE;
	t.has_table = OidIsValid(rel->rd_rel->reltoastrelid);
	t.limit = RelationGetToastTupleTarget(rel, TOAST_TUPLE_TARGET) -
		header_size(&t);

	/* EXTENDED and EXTERNAL columns first: compressed, then moved out */
	compress_biggest(&t, false);
	externalize_biggest(&t, false);
	/* MAIN columns stay in the row unless it cannot be helped */
	compress_biggest(&t, true);
	t.limit = TOAST_TUPLE_TARGET_MAIN - header_size(&t);
	externalize_biggest(&t, true);

	if (t.ctx.ttc_flags & TOAST_NEEDS_CHANGE)
		result = form_result(&t, newtup);
	delete_replaced(&t);
	toast_tuple_cleanup(&t.ctx);
	return result;
}
