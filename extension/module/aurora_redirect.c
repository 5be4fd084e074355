/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_redirect.c: calls of functions that look at a table's file become
 * calls of their twins in schema aurora.
 *
 *	parse ──▶ rewrite ──▶ planner_hook: funcid of the original ──▶ plan, run
 *	  what is stored        becomes that of the twin                the twin
 *	  (views, rules)
 *	  names the original
 *
 * An SQL function that is inlined would bring calls into a query that has
 * passed the hook already.  So needs_fmgr_hook says of an SQL function in
 * whose body an original is mentioned that it must be called, not inlined
 * (that is what the server takes from it; there is no fmgr_hook): then its
 * queries are planned by themselves.
 *
 * Invariants:
 *  1. Nothing that is stored depends on a twin: DROP EXTENSION leaves views and
 *     functions as they were.  A cached plan does, and is invalidated.
 *  2. In a database without the extension nothing is redirected; nor is, in
 *     any, what names the original but does not reach the planner: see
 *     docs/compatibility.md.
 *  3. A twin is recognised by its code (a C function of this library), not by
 *     its name alone, and so is an original: nobody but a superuser can make
 *     functions that are called in place of others.
 *  4. An original and its twin are alike to the planner: types, defaults,
 *     strictness, volatility, parallel safety, cost (test redirect compares
 *     them).
 *
 * The hook is in the way of every statement.  It walks the query tree, and
 * compares the function Oids it meets with those of the originals.  What these
 * are in this database is looked up when a first candidate turns up, and again
 * after a change to pg_proc.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "module/aurora_guc.h"
#include "module/aurora_module.h"
#include "module/aurora_redirect.h"

#define OWN_LIBRARY "$libdir/aurora"
#define ARGS_MAX 5

/* Not just another schema: tools look for functions that differ in nothing
 * but that (PostgreSQL's test opr_sanity does). */
#define TWIN_PREFIX "redirected_"

typedef struct Redirect
{
	const char *name;			/* the twin's is TWIN_PREFIX and this */
	int			nargs;
	Oid			args[ARGS_MAX];
	const char *twin_symbol;

	/* One or the other: of the server ... */
	Oid			builtin;
	PGFunction	function;

	/* ... or of a contrib module. */
	const char *library;		/* as in probin */
	const char *symbol;			/* as in prosrc */
} Redirect;

static const Redirect redirects[AURORA_ORIGINALS] = {
	[AURORA_RELATION_SIZE] = {"pg_relation_size", 1, {REGCLASSOID},
		"aurora_pg_relation_size",
	.builtin = F_PG_RELATION_SIZE_REGCLASS},
	[AURORA_RELATION_SIZE_FORK] = {"pg_relation_size", 2, {REGCLASSOID, TEXTOID},
		"aurora_pg_relation_size_fork",
	.builtin = F_PG_RELATION_SIZE_REGCLASS_TEXT,.function = pg_relation_size},
	[AURORA_TABLE_SIZE] = {"pg_table_size", 1, {REGCLASSOID},
		"aurora_pg_table_size",
	.builtin = F_PG_TABLE_SIZE,.function = pg_table_size},
	[AURORA_TOTAL_RELATION_SIZE] = {"pg_total_relation_size", 1, {REGCLASSOID},
		"aurora_pg_total_relation_size",
	.builtin = F_PG_TOTAL_RELATION_SIZE,.function = pg_total_relation_size},
	[AURORA_DATABASE_SIZE_OID] = {"pg_database_size", 1, {OIDOID},
		"aurora_pg_database_size_oid",
	.builtin = F_PG_DATABASE_SIZE_OID,.function = pg_database_size_oid},
	[AURORA_DATABASE_SIZE_NAME] = {"pg_database_size", 1, {NAMEOID},
		"aurora_pg_database_size_name",
	.builtin = F_PG_DATABASE_SIZE_NAME,.function = pg_database_size_name},
	[AURORA_PREWARM] = {"pg_prewarm", 5,
		{REGCLASSOID, TEXTOID, TEXTOID, INT8OID, INT8OID},
		"aurora_pg_prewarm",
	.library = "$libdir/pg_prewarm",.symbol = "pg_prewarm"},
	[AURORA_RAW_PAGE] = {"get_raw_page", 2, {TEXTOID, INT8OID},
		"aurora_get_raw_page",
	.library = "$libdir/pageinspect",.symbol = "get_raw_page_1_9"},
	[AURORA_RAW_PAGE_FORK] = {"get_raw_page", 3, {TEXTOID, TEXTOID, INT8OID},
		"aurora_get_raw_page_fork",
	.library = "$libdir/pageinspect",.symbol = "get_raw_page_fork_1_9"},
	[AURORA_VISIBILITY_BLOCK] = {"pg_visibility", 2, {REGCLASSOID, INT8OID},
		"aurora_pg_visibility_block",
	.library = "$libdir/pg_visibility",.symbol = "pg_visibility"},
	[AURORA_VISIBILITY] = {"pg_visibility", 1, {REGCLASSOID},
		"aurora_pg_visibility",
	.library = "$libdir/pg_visibility",.symbol = "pg_visibility_rel"},
	[AURORA_CHECK_FROZEN] = {"pg_check_frozen", 1, {REGCLASSOID},
		"aurora_pg_check_frozen",
	.library = "$libdir/pg_visibility",.symbol = "pg_check_frozen"},
	[AURORA_CHECK_VISIBLE] = {"pg_check_visible", 1, {REGCLASSOID},
		"aurora_pg_check_visible",
	.library = "$libdir/pg_visibility",.symbol = "pg_check_visible"},
};

/* What they are in this database; InvalidOid: not there.  Valid if nothing in
 * pg_proc has changed since. */
static uint64 proc_changes = 1;
static uint64 resolved_at = 0;	/* proc_changes of then */
static Oid	originals[AURORA_ORIGINALS];
static Oid	twins[AURORA_ORIGINALS];

/* The contrib modules' functions, once they have been called. */
static PGFunction loaded[AURORA_ORIGINALS];

static planner_hook_type prev_planner = NULL;
static needs_fmgr_hook_type prev_needs_fmgr = NULL;

/* ---- which function is which ------------------------------------------ */

static bool
attribute_is(int cache, HeapTuple tup, AttrNumber attr, const char *value)
{
	bool		isnull;
	Datum		d = SysCacheGetAttr(cache, tup, attr, &isnull);
	char	   *s;
	bool		same;

	if (isnull)
		return false;
	s = TextDatumGetCString(d);
	same = strcmp(s, value) == 0;
	pfree(s);
	return same;
}

/* A pg_proc row out of cache: is it this C function? */
static bool
is_c_function(int cache, HeapTuple tup, const char *library, const char *symbol)
{
	return ((Form_pg_proc) GETSTRUCT(tup))->prolang == ClanguageId &&
		attribute_is(cache, tup, Anum_pg_proc_probin, library) &&
		attribute_is(cache, tup, Anum_pg_proc_prosrc, symbol);
}

static Oid
find_twin(const Redirect *r, Oid schema)
{
	char	   *name = psprintf(TWIN_PREFIX "%s", r->name);
	HeapTuple	tup;
	Oid			result = InvalidOid;

	tup = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(name),
						  PointerGetDatum(buildoidvector(r->args, r->nargs)),
						  ObjectIdGetDatum(schema));
	pfree(name);
	if (!HeapTupleIsValid(tup))
		return InvalidOid;
	if (is_c_function(PROCNAMEARGSNSP, tup, OWN_LIBRARY, r->twin_symbol))
		result = ((Form_pg_proc) GETSTRUCT(tup))->oid;
	ReleaseSysCache(tup);
	return result;
}

/* The contrib module may be in any schema. */
static Oid
find_original(const Redirect *r)
{
	CatCList   *list;
	Oid			result = InvalidOid;

	if (OidIsValid(r->builtin))
		return r->builtin;
	list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(r->name));
	for (int i = 0; i < list->n_members && !OidIsValid(result); i++)
	{
		HeapTuple	tup = &list->members[i]->tuple;
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tup);

		if (proc->pronargs == r->nargs &&
			memcmp(proc->proargtypes.values, r->args,
				   r->nargs * sizeof(Oid)) == 0 &&
			is_c_function(PROCNAMEARGSNSP, tup, r->library, r->symbol))
			result = proc->oid;
	}
	ReleaseSysCacheList(list);
	return result;
}

static void
proc_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	proc_changes++;
}

/* A change that arrives while we look, or an error, makes us look again next
 * time. */
static void
resolve(void)
{
	uint64		changes = proc_changes;
	Oid			schema;

	if (resolved_at == changes)
		return;
	schema = get_namespace_oid("aurora", true);
	for (int i = 0; i < AURORA_ORIGINALS; i++)
	{
		twins[i] = OidIsValid(schema) ? find_twin(&redirects[i], schema) :
			InvalidOid;
		originals[i] = OidIsValid(twins[i]) ? find_original(&redirects[i]) :
			InvalidOid;
	}
	resolved_at = changes;
}

static inline bool
is_builtin_original(Oid funcid)
{
	switch (funcid)
	{
		case F_PG_RELATION_SIZE_REGCLASS:
		case F_PG_RELATION_SIZE_REGCLASS_TEXT:
		case F_PG_TABLE_SIZE:
		case F_PG_TOTAL_RELATION_SIZE:
		case F_PG_DATABASE_SIZE_OID:
		case F_PG_DATABASE_SIZE_NAME:
			return true;
		default:
			return false;
	}
}

/* Its twin, or InvalidOid. */
static Oid
twin_of(Oid funcid)
{
	if (!is_builtin_original(funcid) && funcid < FirstNormalObjectId)
		return InvalidOid;
	resolve();
	for (int i = 0; i < AURORA_ORIGINALS; i++)
		if (originals[i] == funcid)
			return twins[i];
	return InvalidOid;
}

/* ---- queries ---------------------------------------------------------- */

/* In place: the planner may scribble on its input, and so may we. */
static bool
redirect_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr))
	{
		FuncExpr   *call = (FuncExpr *) node;
		Oid			twin = twin_of(call->funcid);

		if (OidIsValid(twin))
			call->funcid = twin;
	}
	else if (IsA(node, Query))
		return query_tree_walker((Query *) node, redirect_walker, context,
								 QTW_IGNORE_JOINALIASES);
	return expression_tree_walker(node, redirect_walker, context);
}

static PlannedStmt *
plan(Query *parse, const char *query_string, int cursorOptions,
	 ParamListInfo boundParams)
{
	if (aurora_redirect_functions)
		(void) redirect_walker((Node *) parse, NULL);
	if (prev_planner)
		return prev_planner(parse, query_string, cursorOptions, boundParams);
	return standard_planner(parse, query_string, cursorOptions, boundParams);
}

/* ---- SQL functions ---------------------------------------------------- */

/* Some original's name occurs in the text.  Each name has an underscore, and
 * these are rare. */
static bool
text_mentions_original(const char *body)
{
	for (const char *p = strchr(body, '_'); p != NULL; p = strchr(p + 1, '_'))
	{
		for (int i = 0; i < AURORA_ORIGINALS; i++)
		{
			const char *name = redirects[i].name;
			size_t		before = strchr(name, '_') - name;

			if ((size_t) (p - body) >= before &&
				OidIsValid(originals[i]) &&
				pg_strncasecmp(p - before, name, strlen(name)) == 0)
				return true;
		}
	}
	return false;
}

/* Some original is called in the printed parse tree. */
static bool
tree_mentions_original(const char *body)
{
	static const char label[] = ":funcid ";

	for (const char *p = strstr(body, label); p != NULL; p = strstr(p, label))
	{
		p += sizeof(label) - 1;
		if (OidIsValid(twin_of((Oid) strtoul(p, NULL, 10))))
			return true;
	}
	return false;
}

/* Bodies are text, or (SQL-standard ones) a printed parse tree. */
static bool
body_mentions_original(HeapTuple proc)
{
	bool		isnull;
	bool		is_tree;
	Datum		d;
	char	   *body;
	bool		found;

	d = SysCacheGetAttr(PROCOID, proc, Anum_pg_proc_prosqlbody, &isnull);
	is_tree = !isnull;
	if (!is_tree)
		d = SysCacheGetAttr(PROCOID, proc, Anum_pg_proc_prosrc, &isnull);
	if (isnull)
		return false;
	body = TextDatumGetCString(d);
	found = is_tree ? tree_mentions_original(body) :
		text_mentions_original(body);
	pfree(body);			/* the caller's context may live for long */
	return found;
}

/*
 * Asked for each function that is not built in when a call is set up, and
 * before one is inlined.
 */
static bool
must_be_called(Oid funcid)
{
	HeapTuple	proc;
	bool		result = false;

	if (prev_needs_fmgr && prev_needs_fmgr(funcid))
		return true;
	if (!aurora_redirect_functions || funcid < FirstNormalObjectId)
		return false;
	proc = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(proc))
		return false;			/* the caller finds out, too */
	if (((Form_pg_proc) GETSTRUCT(proc))->prolang == SQLlanguageId)
	{
		resolve();
		result = OidIsValid(twins[0]) && body_mentions_original(proc);
	}
	ReleaseSysCache(proc);
	return result;
}

/* ---- for the twins ---------------------------------------------------- */

void
aurora_original_check(AuroraOriginal which)
{
	const Redirect *r = &redirects[which];

	aurora_require_preloaded();
	resolve();
	if (!OidIsValid(originals[which]))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s of \"%s\" does not exist in this database",
						r->name, r->library),
				 errhint("aurora." TWIN_PREFIX "%s stands in for it; CREATE EXTENSION %s makes it.",
						 r->name, strrchr(r->library, '/') + 1)));
	if (pg_proc_aclcheck(originals[which], GetUserId(),
						 ACL_EXECUTE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, r->name);
}

Datum
aurora_original_call(AuroraOriginal which, FunctionCallInfo fcinfo)
{
	const Redirect *r = &redirects[which];

	if (r->function != NULL)
		return r->function(fcinfo);
	Assert(r->library != NULL);
	if (loaded[which] == NULL)
		loaded[which] = load_external_function(r->library, r->symbol, true,
											   NULL);
	return loaded[which] (fcinfo);
}

void
aurora_redirect_install(void)
{
	prev_planner = planner_hook;
	planner_hook = plan;
	prev_needs_fmgr = needs_fmgr_hook;
	needs_fmgr_hook = must_be_called;
	CacheRegisterSyscacheCallback(PROCOID, proc_changed, (Datum) 0);
}
