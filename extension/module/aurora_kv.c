/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_kv.c: aurora.kv_get, kv_put and kv_del: the storage nodes' key-value
 * interface from SQL; docs/keyvalue.md.
 *
 * Not part of the transaction: what is written stays.  A write is sent once: if
 * its connection breaks nobody knows whether it happened, and the error says
 * so.  A node that cannot be reached is left for the next one before that, for
 * all of them can do it.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "client/aurora_client.h"
#include "client/aurora_conn.h"
#include "common/au_wire_kv.h"
#include "module/aurora_guc.h"
#include "module/aurora_module.h"

PG_FUNCTION_INFO_V1(aurora_sql_kv_get);
PG_FUNCTION_INFO_V1(aurora_sql_kv_put);
PG_FUNCTION_INFO_V1(aurora_sql_kv_del);

static void
raise_refusal(const char *verb, const char *key, const AuFrame *answer)
{
	AuMsgError	e;
	int			code;

	if (answer->type != AU_MSG_ERROR || !au_dec_error(answer, &e))
	{
		aurora_conn_close();
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("could not %s key \"%s\" on storage node \"%s\": malformed answer",
						verb, key, aurora_conn_target())));
	}
	switch (e.status)
	{
		case AU_INVALID:
			code = ERRCODE_INVALID_PARAMETER_VALUE;
			break;
		case AU_FULL:
			code = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
			break;
		case AU_CORRUPT:
			code = ERRCODE_DATA_CORRUPTED;
			break;
		case AU_UNSUPPORTED:
			code = ERRCODE_FEATURE_NOT_SUPPORTED;
			break;
		case AU_IO:
			code = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
			break;
		default:
			code = ERRCODE_CONNECTION_FAILURE;
			break;
	}
	ereport(ERROR,
			(errcode(code),
			 errmsg("could not %s key \"%s\" on storage node \"%s\": %s",
					verb, key, aurora_conn_target(), e.message),
			 e.hint[0] != '\0' ? errhint("%s", e.hint) : 0));
}

/* Send a request to a node that can be reached, return the answer. */
static void
ask(const char *verb, const char *key, uint64 id, const AuWriter *w, bool writes,
	uint16 type, AuFrame *answer)
{
	int64		deadline = aurora_storage_timeout_ms <= 0 ? PG_INT64_MAX :
		aurora_now_ms() + aurora_storage_timeout_ms;
	AuMsgHelloOk hello;
	AuMsgError	e;
	int			tries;

	(void) aurora_conn_want(-1, 0);
	tries = Max(aurora_conn_choices(), 1);
	while (!aurora_conn_open(deadline, &hello, &e))
		if (--tries <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("could not %s key \"%s\" on storage node \"%s\": %s",
							verb, key, aurora_conn_target(),
							e.status != AU_OK ? e.message : aurora_conn_error())));
	if (!aurora_conn_send(w->data, w->len, deadline) ||
		!aurora_conn_receive(id, answer, deadline))
		ereport(ERROR,
				(errcode(writes ? ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN :
						 ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not %s key \"%s\" on storage node \"%s\": %s",
						verb, key, aurora_conn_target(), aurora_conn_error()),
				 writes ? errdetail("It may or may not have happened.") : 0,
				 writes ? errhint("Read the key to see what became of it.") : 0));
	if (answer->type != type)
		raise_refusal(verb, key, answer);
}

static AuKvText
get_key(FunctionCallInfo fcinfo, char **name)
{
	text	   *key;
	AuKvText	result;

	aurora_require_preloaded();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key must not be null")));
	key = PG_GETARG_TEXT_PP(0);
	if (VARSIZE_ANY_EXHDR(key) < 1 || VARSIZE_ANY_EXHDR(key) > AU_KV_KEY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must have 1 to %d bytes", AU_KV_KEY_MAX)));
	*name = text_to_cstring(key);
	result.len = (uint16) VARSIZE_ANY_EXHDR(key);
	result.bytes = (const uint8 *) VARDATA_ANY(key);
	return result;
}

/* A number of replicas; null and 0: as the node thinks best. */
static uint8
get_replicas(FunctionCallInfo fcinfo, int arg, const char *name)
{
	int32		n = PG_ARGISNULL(arg) ? 0 : PG_GETARG_INT32(arg);

	if (n < 0 || n > AU_RF_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 0 and %d", name, AU_RF_MAX)));
	return (uint8) n;
}

static uint8
get_flags(FunctionCallInfo fcinfo, int arg)
{
	return !PG_ARGISNULL(arg) && PG_GETARG_BOOL(arg) ? AU_KV_SLOPPY : 0;
}

static bytea *
make_bytea(const uint8 *bytes, Size len)
{
	bytea	   *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	if (len > 0)
		memcpy(VARDATA(result), bytes, len);
	return result;
}

/* kv_get(key, r, n, sloppy): a row a value */
Datum
aurora_sql_kv_get(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	AuMsgKvGet	m = {0};
	AuMsgKvGetOk ok;
	uint8		memory[AU_WIRE_HEADER + 64 + AU_KV_KEY_MAX];
	uint64		id = aurora_conn_next_id();
	char	   *name;
	AuWriter	w;
	AuFrame		answer;

	m.key = get_key(fcinfo, &name);
	m.r = get_replicas(fcinfo, 1, "r");
	m.n = get_replicas(fcinfo, 2, "n");
	m.flags = get_flags(fcinfo, 3);
	InitMaterializedSRF(fcinfo, 0);
	au_writer_start(&w, memory, sizeof(memory));
	if (!au_enc_kv_get(&w, id, &m))
		elog(ERROR, "request does not fit %zu bytes", sizeof(memory));
	ask("read", name, id, &w, false, AU_MSG_KV_GET_OK, &answer);
	if (!au_dec_kv_get_ok(&answer, &ok))
		raise_refusal("read", name, &answer);
	for (int i = 0; i < ok.n; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false};

		values[0] = PointerGetDatum(make_bytea(ok.value[i].bytes, ok.value[i].len));
		values[1] = PointerGetDatum(make_bytea(ok.context.bytes, ok.context.len));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Arguments from `arg` on: context, w, n, sloppy. */
static Datum
put(FunctionCallInfo fcinfo, AuMsgKvPut *m, int arg, const char *verb, const char *name)
{
	uint64		id = aurora_conn_next_id();
	char	   *memory = palloc(AU_KV_CLIENT_FRAME_MAX);
	AuMsgKvPutOk ok;
	AuWriter	w;
	AuFrame		answer;

	if (!PG_ARGISNULL(arg))
	{
		bytea	   *context = PG_GETARG_BYTEA_PP(arg);

		if (VARSIZE_ANY_EXHDR(context) > AU_KV_CONTEXT_MAX)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("context is longer than any that aurora.kv_get gives")));
		m->context.len = (uint16) VARSIZE_ANY_EXHDR(context);
		m->context.bytes = (const uint8 *) VARDATA_ANY(context);
	}
	m->w = get_replicas(fcinfo, arg + 1, "w");
	m->n = get_replicas(fcinfo, arg + 2, "n");
	m->flags |= get_flags(fcinfo, arg + 3);
	au_writer_start(&w, (uint8 *) memory, AU_KV_CLIENT_FRAME_MAX);
	if (!au_enc_kv_put(&w, id, m))
		elog(ERROR, "request does not fit %zu bytes", (Size) AU_KV_CLIENT_FRAME_MAX);
	ask(verb, name, id, &w, true, AU_MSG_KV_PUT_OK, &answer);
	pfree(memory);
	if (!au_dec_kv_put_ok(&answer, &ok))
		raise_refusal(verb, name, &answer);
	PG_RETURN_BYTEA_P(make_bytea(ok.context.bytes, ok.context.len));
}

/* kv_put(key, value, context, w, n, sloppy) */
Datum
aurora_sql_kv_put(PG_FUNCTION_ARGS)
{
	AuMsgKvPut	m = {0};
	bytea	   *value;
	char	   *name;

	m.key = get_key(fcinfo, &name);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("value of key \"%s\" must not be null", name),
				 errhint("Use aurora.kv_del to delete a key.")));
	value = PG_GETARG_BYTEA_PP(1);
	if (VARSIZE_ANY_EXHDR(value) > AU_KV_VALUE_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value of key \"%s\" is longer than %u bytes", name, AU_KV_VALUE_MAX)));
	m.len = (uint32) VARSIZE_ANY_EXHDR(value);
	m.value = (const uint8 *) VARDATA_ANY(value);
	return put(fcinfo, &m, 2, "write", name);
}

/* kv_del(key, context, w, n, sloppy) */
Datum
aurora_sql_kv_del(PG_FUNCTION_ARGS)
{
	AuMsgKvPut	m = {0};
	char	   *name;

	m.flags = AU_KV_DELETE;
	m.key = get_key(fcinfo, &name);
	return put(fcinfo, &m, 1, "delete", name);
}
