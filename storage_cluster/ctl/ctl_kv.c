/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_kv.c: `auroractl kv get|put|del|list`: the key-value interface from the
 * command line, by way of any node.
 *
 * put and del without --context read the key first and use what came with it,
 * so they replace what is there; with a context of an earlier `kv get --json`
 * they replace what was there then, and what others wrote since stays beside.
 */
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/au_wire_kv.h"

typedef struct Request
{
	CtlWire    *wire;
	const CtlKv *o;
	AuKvText	key;
	uint8_t		flags;
	uint8_t		n;
	uint8_t		r;
	uint8_t		w;
	uint8_t    *frame;			/* AU_KV_CLIENT_FRAME_MAX */
} Request;

static int
wrong(const char *message, const char *argument)
{
	fprintf(stderr, "auroractl: %s%s%s; see auroractl --help\n", message, argument ? " " : "",
			argument ? argument : "");
	return 2;
}

static bool
number(const char *text, unsigned long max, unsigned long *out)
{
	char	   *end;

	*out = 0;
	if (text == NULL)
		return true;
	errno = 0;
	*out = strtoul(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && *out <= max;
}

/* ---- hexadecimal ------------------------------------------------------ */

static void
print_hex(FILE *f, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		fprintf(f, "%02x", p[i]);
}

static bool
parse_hex(const char *text, uint8_t *out, size_t cap, uint16_t *len)
{
	size_t		n = strlen(text);

	if (n % 2 != 0 || n / 2 > cap)
		return false;
	for (size_t i = 0; i < n / 2; i++)
	{
		unsigned int byte;
		char		two[3] = {text[2 * i], text[2 * i + 1], '\0'};

		if (strspn(two, "0123456789abcdefABCDEF") != 2 || sscanf(two, "%2x", &byte) != 1)
			return false;
		out[i] = (uint8_t) byte;
	}
	*len = (uint16_t) (n / 2);
	return true;
}

/* ---- get -------------------------------------------------------------- */

/* The answer is good until the next question. */
static bool
ask_get(Request *q, AuMsgKvGetOk *m)
{
	AuMsgKvGet	get = {.n = q->n,.r = q->r,.flags = q->flags,.key = q->key};
	AuWriter	w;
	AuFrame		f;

	au_writer_start(&w, q->frame, AU_KV_CLIENT_FRAME_MAX);
	if (!au_enc_kv_get(&w, CTL_WIRE_ID, &get) ||
		!ctl_wire_ask(q->wire, w.data, w.len, AU_MSG_KV_GET_OK, &f))
		return false;
	if (au_dec_kv_get_ok(&f, m))
		return true;
	fprintf(stderr, "auroractl: the node sent a malformed answer\n");
	return false;
}

/* JSON strings are UTF-8; what is not is given in hexadecimal. */
static json_t *
value_json(const uint8_t *bytes, size_t len)
{
	json_t	   *text = json_stringn((const char *) bytes, len);
	char	   *hex;
	json_t	   *o;

	if (text != NULL)
		return text;
	hex = malloc(2 * len + 1);
	if (hex == NULL)
		return json_null();
	for (size_t i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	o = json_pack("{s:s}", "hex", hex);
	free(hex);
	return o;
}

static void
print_json(const AuMsgKvGetOk *m)
{
	json_t	   *values = json_array();
	char		hex[2 * AU_KV_CONTEXT_MAX + 1] = "";
	json_t	   *o;

	for (size_t i = 0; i < m->context.len; i++)
		snprintf(hex + 2 * i, 3, "%02x", m->context.bytes[i]);
	for (uint32_t i = 0; i < m->n; i++)
		json_array_append_new(values, value_json(m->value[i].bytes, m->value[i].len));
	o = json_pack("{s:o, s:s, s:i}", "values", values, "context", hex, "replicas", (int) m->replicas);
	json_dumpf(o, stdout, JSON_INDENT(2));
	printf("\n");
	json_decref(o);
}

static int
get(Request *q)
{
	AuMsgKvGetOk m;

	if (!ask_get(q, &m))
		return 1;
	if (q->o->as_json)
		print_json(&m);
	else
	{
		for (uint32_t i = 0; i < m.n; i++)
		{
			fwrite(m.value[i].bytes, 1, m.value[i].len, stdout);
			putchar('\n');
		}
		if (m.n > 1)
		{
			fprintf(stderr, "auroractl: %u values were written without knowing of each other; write one that replaces them with --context ", m.n);
			print_hex(stderr, m.context.bytes, m.context.len);
			fputc('\n', stderr);
		}
	}
	if (m.n == 0)
		fprintf(stderr, "auroractl: there is no such key\n");
	return m.n == 0;
}

/* ---- put, del --------------------------------------------------------- */

/* One byte more than allowed is read, to know that it is too long. */
static bool
read_value(const char *path, uint8_t *buf, uint32_t *len)
{
	FILE	   *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
	bool		ok;

	if (f == NULL)
	{
		fprintf(stderr, "auroractl: could not open \"%s\": %s\n", path, strerror(errno));
		return false;
	}
	*len = (uint32_t) fread(buf, 1, AU_KV_VALUE_MAX + 1, f);
	ok = ferror(f) == 0;
	if (!ok)
		fprintf(stderr, "auroractl: could not read \"%s\": %s\n", path, strerror(errno));
	if (f != stdin)
		fclose(f);
	return ok;
}

static int
put(Request *q, const uint8_t *value, uint32_t len)
{
	uint8_t		context[AU_KV_CONTEXT_MAX];
	AuMsgKvPut	m = {.n = q->n,.w = q->w,.flags = q->flags,.key = q->key,.value = value,.len = len};
	AuMsgKvGetOk got;
	AuMsgKvPutOk ok;
	AuWriter	w;
	AuFrame		f;

	if (len > AU_KV_VALUE_MAX)
		return wrong("the value is longer than 64 kB", NULL);
	m.context.bytes = context;
	if (q->o->context == NULL)
	{
		if (!ask_get(q, &got))
			return 1;
		m.context.len = got.context.len;
		if (got.context.len > 0)
			memcpy(context, got.context.bytes, got.context.len);
	}
	else if (!parse_hex(q->o->context, context, sizeof(context), &m.context.len))
		return wrong("the context is not of `kv get`:", q->o->context);
	au_writer_start(&w, q->frame, AU_KV_CLIENT_FRAME_MAX);
	if (!au_enc_kv_put(&w, CTL_WIRE_ID, &m) ||
		!ctl_wire_ask(q->wire, w.data, w.len, AU_MSG_KV_PUT_OK, &f))
		return 1;
	if (!au_dec_kv_put_ok(&f, &ok))
	{
		fprintf(stderr, "auroractl: the node sent a malformed answer\n");
		return 1;
	}
	printf("%s on %u replica(s)%s\n", (q->flags & AU_KV_DELETE) != 0 ? "deleted" : "written", ok.replicas,
		   ok.siblings > 1 || ((q->flags & AU_KV_DELETE) != 0 && ok.siblings > 0) ?
		   "; others wrote meanwhile, their values stay beside" : "");
	return 0;
}

/* ---- list ------------------------------------------------------------- */

static int
list(Request *q, const char *prefix)
{
	const char *after = q->o->after != NULL ? q->o->after : "";
	AuMsgKvList m = {
		.prefix = {(uint16_t) strlen(prefix), (const uint8_t *) prefix},
		.after = {(uint16_t) strlen(after), (const uint8_t *) after}
	};
	AuMsgKvListOk ok;
	unsigned long limit;
	AuKvText	key;
	const uint8_t *p;
	size_t		left;
	uint8_t		siblings;
	uint32_t	bytes;
	AuWriter	w;
	AuFrame		f;

	if (!number(q->o->limit, AU_KV_LIST_MAX, &limit))
		return wrong("--limit is at most 1000, not", q->o->limit);
	m.limit = (uint16_t) limit;
	au_writer_start(&w, q->frame, AU_KV_CLIENT_FRAME_MAX);
	if (!au_enc_kv_list(&w, CTL_WIRE_ID, &m))
		return wrong("the prefix is too long", NULL);
	if (!ctl_wire_ask(q->wire, w.data, w.len, AU_MSG_KV_LIST_OK, &f))
		return 1;
	if (!au_dec_kv_list_ok(&f, &ok))
	{
		fprintf(stderr, "auroractl: the node sent a malformed answer\n");
		return 1;
	}
	p = ok.entries;
	left = ok.len;
	while (au_kv_list_next(&p, &left, &key, &siblings, &bytes))
		printf("%-40.*s %u value(s), %u bytes\n", (int) key.len, (const char *) key.bytes, siblings, bytes);
	if (ok.more)
		fprintf(stderr, "auroractl: there are more keys; go on with --after\n");
	return 0;
}

/* ---- the command ------------------------------------------------------ */

/* What can be told without asking a node: 0, or 2 for wrong usage. */
static int
check_words(const CtlKv *o, int nwords, const char **words)
{
	const char *what = nwords > 0 ? words[0] : "";

	if (strcmp(what, "list") == 0)
	{
		if (nwords > 2)
			return wrong("too many words after kv list", NULL);
		if ((nwords == 2 && strlen(words[1]) > AU_KV_KEY_MAX) ||
			(o->after != NULL && strlen(o->after) > AU_KV_KEY_MAX))
			return wrong("a key, and so what it begins with, has at most 1024 bytes", NULL);
		return 0;
	}
	if (strcmp(what, "get") != 0 && strcmp(what, "put") != 0 && strcmp(what, "del") != 0)
		return wrong("there are kv get, put, del and list", NULL);
	if (nwords < 2 || strlen(words[1]) == 0 || strlen(words[1]) > AU_KV_KEY_MAX)
		return wrong("give a key of 1 to 1024 bytes", NULL);
	if (strcmp(what, "put") != 0)
		return nwords == 2 ? 0 : wrong("too many words after kv", what);
	if ((nwords == 3) == (o->file != NULL) || nwords > 3)
		return wrong("kv put needs a value, or --file", NULL);
	return 0;
}

/* With words that check_words has let pass. */
static int
dispatch(Request *q, int nwords, const char **words)
{
	const char *what = words[0];
	uint8_t    *value;
	uint32_t	len;
	int			rc = 1;

	if (strcmp(what, "list") == 0)
		return list(q, nwords == 2 ? words[1] : "");
	q->key.bytes = (const uint8_t *) words[1];
	q->key.len = (uint16_t) strlen(words[1]);
	if (strcmp(what, "get") == 0)
		return get(q);
	if (strcmp(what, "del") == 0)
	{
		q->flags |= AU_KV_DELETE;
		return put(q, NULL, 0);
	}
	if (q->o->file == NULL)
		return put(q, (const uint8_t *) words[2], (uint32_t) strlen(words[2]));
	value = malloc(AU_KV_VALUE_MAX + 1);
	if (value != NULL && read_value(q->o->file, value, &len))
		rc = put(q, value, len);
	free(value);
	return rc;
}

int
ctl_kv(const CtlTarget *target, int nwords, const char **words, const CtlKv *o)
{
	Request		q = {.o = o,.flags = o->sloppy ? AU_KV_SLOPPY : 0};
	unsigned long n,
				r,
				w;
	int			rc;

	if (target->socket == NULL && target->node == NULL)
		return wrong("kv needs --socket or --node", NULL);
	rc = check_words(o, nwords, words);
	if (rc != 0)
		return rc;
	rc = 1;
	if (!number(o->n, AU_RF_MAX, &n) || !number(o->r, AU_RF_MAX, &r) || !number(o->w, AU_RF_MAX, &w))
		return wrong("-n, -r and -w are numbers of replicas, at most 5", NULL);
	q.n = (uint8_t) n;
	q.r = (uint8_t) r;
	q.w = (uint8_t) w;
	q.frame = malloc(AU_KV_CLIENT_FRAME_MAX);
	q.wire = q.frame != NULL ? ctl_wire_open(target) : NULL;
	if (q.wire != NULL)
	{
		rc = dispatch(&q, nwords, words);
		ctl_wire_close(q.wire);
	}
	free(q.frame);
	return rc;
}
