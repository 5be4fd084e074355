/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_page.c: encode and apply page operations (see au_page.h).
 *
 * Compiled into the extension, the storage daemon, the tests and the fuzzers;
 * needs nothing but string.h.  The layout constants below are PostgreSQL's
 * page layout version 4 (storage/bufpage.h, storage/itemid.h,
 * access/htup_details.h); extension/wal/aurora_change.c holds static
 * assertions that they agree with the server's headers.
 *
 * Invariants:
 *  1. au_page_apply depends on the page, the operations, and nothing else.
 *  2. After AU_OK the hole between pd_lower and pd_upper and the padding
 *     behind items are zero if they were before.
 *  3. No byte outside the page and the operations is touched, whatever the
 *     input.
 */
#include "common/au_page.h"

/* Page header fields, by offset. */
#define PG_FLAGS 10
#define PG_LOWER 12
#define PG_UPPER 14
#define PG_SPECIAL 16
#define PG_SIZE_VERSION 18
#define PG_PRUNE_XID 20
#define PG_HEADER 24
#define PG_SIZE_VERSION_VALUE (AU_PAGE_SIZE | 4)

#define PD_HAS_FREE_LINES 0x0001
#define PD_PAGE_FULL 0x0002
#define PD_VALID_FLAGS 0x0007

/* Line pointers: 15 bits offset, 2 bits state, 15 bits length. */
#define LP_SIZE 4
#define LP_UNUSED 0u
#define LP_NORMAL 1u
#define LP_REDIRECT 2u
#define LP_DEAD 3u

/* Tuple header fields, by offset. */
#define TH_XMAX 4
#define TH_CID 8
#define TH_CTID 12
#define TH_INFOMASK2 18
#define TH_INFOMASK 20
#define TH_SIZE 23

#define HINT_XMIN 0x0300
#define HINT_XMAX 0x0C00

#define FIRST_NORMAL_XID 3u

#define ALIGN8(n) (((uint32_t) (n) + 7u) & ~7u)

_Static_assert(AU_OPS_MAX > AU_PAGE_SIZE * 2, "an image and more must fit");
_Static_assert(AU_OPS_MAX <= 65535, "block data length in WAL is 16 bits");

/* ---- page access ------------------------------------------------------ */

static inline uint32_t
lp_make(uint32_t off, uint32_t state, uint32_t len)
{
	return off | (state << 15) | (len << 17);
}

static inline uint32_t
lp_off(uint32_t lp)
{
	return lp & 0x7FFF;
}

static inline uint32_t
lp_state(uint32_t lp)
{
	return (lp >> 15) & 3;
}

static inline uint32_t
lp_len(uint32_t lp)
{
	return lp >> 17;
}

static inline uint8_t *
lp_ptr(uint8_t *page, uint32_t offnum)
{
	return page + PG_HEADER + (offnum - 1) * LP_SIZE;
}

static inline uint32_t
lp_get(const uint8_t *page, uint32_t offnum)
{
	return au_get_u32(page + PG_HEADER + (offnum - 1) * LP_SIZE);
}

static inline uint32_t
page_lower(const uint8_t *page)
{
	return au_get_u16(page + PG_LOWER);
}

static inline uint32_t
page_upper(const uint8_t *page)
{
	return au_get_u16(page + PG_UPPER);
}

static inline uint32_t
page_special(const uint8_t *page)
{
	return au_get_u16(page + PG_SPECIAL);
}

static inline uint32_t
page_max_offset(const uint8_t *page)
{
	return (page_lower(page) - PG_HEADER) / LP_SIZE;
}

AuLsn
au_page_lsn(const uint8_t *page)
{
	return ((AuLsn) au_get_u32(page) << 32) | au_get_u32(page + 4);
}

void
au_page_set_lsn(uint8_t *page, AuLsn lsn)
{
	au_put_u32(page, (uint32_t) (lsn >> 32));
	au_put_u32(page + 4, (uint32_t) lsn);
}

bool
au_page_is_new(const uint8_t *page)
{
	return page_upper(page) == 0;
}

/* The header alone: what every operation relies on. */
static const char *
header_problem(const uint8_t *page)
{
	uint32_t	lower = page_lower(page);
	uint32_t	upper = page_upper(page);
	uint32_t	special = page_special(page);

	if (au_get_u16(page + PG_SIZE_VERSION) != PG_SIZE_VERSION_VALUE)
		return "page size or layout version is wrong";
	if (lower < PG_HEADER || lower > upper || upper > special ||
		special > AU_PAGE_SIZE)
		return "page header bounds are out of order";
	if (special % 8 != 0 || (lower - PG_HEADER) % LP_SIZE != 0)
		return "page header bounds are not aligned";
	return NULL;
}

static const char *
line_pointer_problem(const uint8_t *page)
{
	uint32_t	upper = page_upper(page);
	uint32_t	special = page_special(page);
	uint32_t	max = page_max_offset(page);

	for (uint32_t i = 1; i <= max; i++)
	{
		uint32_t	lp = lp_get(page, i);
		uint32_t	off = lp_off(lp);

		if (lp_state(lp) == LP_NORMAL)
		{
			if (off < upper || off % 8 != 0 || lp_len(lp) == 0 || off + lp_len(lp) > special)
				return "line pointer is out of bounds";
		}
		else if (lp_state(lp) == LP_REDIRECT && (off == 0 || off > max))
			return "line pointer redirects out of bounds";
	}
	return NULL;
}

bool
au_page_valid(const uint8_t *page, const char **why)
{
	const char *problem = NULL;

	if (!au_page_is_new(page))
	{
		problem = header_problem(page);
		if (problem == NULL)
			problem = line_pointer_problem(page);
	}
	if (why != NULL)
		*why = problem;
	return problem == NULL;
}

void
au_page_mask(uint8_t *page)
{
	if (au_page_is_new(page))
		return;
	memset(page, 0, PG_FLAGS);	/* pd_lsn, pd_checksum */
	au_put_u16(page + PG_FLAGS, au_get_u16(page + PG_FLAGS) &
			   (uint16_t) ~(PD_HAS_FREE_LINES | PD_PAGE_FULL));
	au_put_u32(page + PG_PRUNE_XID, 0);
	if (!au_page_valid(page, NULL))
		return;
	memset(page + page_lower(page), 0, page_upper(page) - page_lower(page));
	for (uint32_t i = 1; i <= page_max_offset(page); i++)
	{
		uint32_t	lp = lp_get(page, i);
		uint8_t    *infomask;
		uint16_t	bits;

		if (lp_state(lp) != LP_NORMAL || lp_len(lp) < TH_SIZE)
			continue;
		infomask = page + lp_off(lp) + TH_INFOMASK;
		bits = au_get_u16(infomask);
		bits &= (uint16_t) ~HINT_XMAX;
		if ((bits & HINT_XMIN) != HINT_XMIN)	/* both: frozen, no hint */
			bits &= (uint16_t) ~HINT_XMIN;
		au_put_u16(infomask, bits);
	}
}

/* ---- encoder ---------------------------------------------------------- */

void
au_ops_start(AuOps *ops, uint8_t *memory, uint32_t cap)
{
	ops->data = memory;
	ops->len = 0;
	ops->cap = cap;
	ops->overflow = false;
}

/* Room for an operation of `size` bytes with its opcode written; NULL if it
 * does not fit. */
static uint8_t *
ops_room(AuOps *ops, uint8_t opcode, size_t size)
{
	uint8_t    *p;

	if (ops->overflow || size > ops->cap - ops->len)
	{
		ops->overflow = true;
		return NULL;
	}
	p = ops->data + ops->len;
	ops->len += (uint32_t) size;
	*p = opcode;
	return p + 1;
}

static uint8_t *
put_bytes(uint8_t *p, const void *bytes, size_t len)
{
	if (len > 0)
		memcpy(p, bytes, len);
	return p + len;
}

static uint8_t *
put_u16(uint8_t *p, uint16_t v)
{
	au_put_u16(p, v);
	return p + 2;
}

static uint8_t *
put_u16s(uint8_t *p, const uint16_t *v, int n)
{
	for (int i = 0; i < n; i++)
		p = put_u16(p, v[i]);
	return p;
}

void
au_ops_init(AuOps *ops, uint16_t special_size)
{
	uint8_t    *p = ops_room(ops, AU_OP_INIT, 3);

	if (p != NULL)
		put_u16(p, special_size);
}

void
au_ops_image(AuOps *ops, const uint8_t *page)
{
	uint16_t	hole_off = 0;
	uint16_t	hole_len = 0;
	uint8_t    *p;

	if (!au_page_is_new(page) && header_problem(page) == NULL)
	{
		hole_off = (uint16_t) page_lower(page);
		hole_len = (uint16_t) (page_upper(page) - hole_off);
	}
	p = ops_room(ops, AU_OP_IMAGE, 5 + AU_PAGE_SIZE - (size_t) hole_len);
	if (p == NULL)
		return;
	p = put_u16(p, hole_off);
	p = put_u16(p, hole_len);
	p = put_bytes(p, page, hole_off);
	put_bytes(p, page + hole_off + hole_len,
			  (size_t) AU_PAGE_SIZE - hole_off - hole_len);
}

void
au_ops_patch(AuOps *ops, uint16_t off, uint16_t len, const void *bytes)
{
	uint8_t    *p = ops_room(ops, AU_OP_PATCH, 5 + (size_t) len);

	if (p == NULL)
		return;
	p = put_u16(p, off);
	p = put_u16(p, len);
	put_bytes(p, bytes, len);
}

void
au_ops_add(AuOps *ops, uint16_t offnum, uint16_t len, const void *tuple)
{
	uint8_t    *p = ops_room(ops, AU_OP_ADD, 5 + (size_t) len);

	if (p == NULL)
		return;
	p = put_u16(p, offnum);
	p = put_u16(p, len);
	put_bytes(p, tuple, len);
}

void
au_ops_add_delta(AuOps *ops, uint16_t offnum, uint16_t from_offnum,
				 uint16_t from_pos, uint16_t prefix, uint16_t suffix,
				 uint16_t head_len, const void *head,
				 uint16_t mid_len, const void *mid)
{
	uint8_t    *p = ops_room(ops, AU_OP_ADD_DELTA,
							 15 + (size_t) head_len + mid_len);

	if (p == NULL)
		return;
	p = put_u16(p, offnum);
	p = put_u16(p, from_offnum);
	p = put_u16(p, from_pos);
	p = put_u16(p, prefix);
	p = put_u16(p, suffix);
	p = put_u16(p, head_len);
	p = put_u16(p, mid_len);
	p = put_bytes(p, head, head_len);
	put_bytes(p, mid, mid_len);
}

static size_t
tuphdr_size(uint8_t fields)
{
	return (fields & AU_TH_XMAX ? 4u : 0u) + (fields & AU_TH_CID ? 4u : 0u) +
		(fields & AU_TH_INFOMASK ? 4u : 0u) + (fields & AU_TH_CTID ? 6u : 0u);
}

void
au_ops_tuphdr(AuOps *ops, uint16_t offnum, uint8_t fields,
			  uint32_t xmax, uint32_t cid, uint16_t infomask2,
			  uint16_t infomask, uint32_t ctid_blk, uint16_t ctid_off)
{
	uint8_t    *p = ops_room(ops, AU_OP_TUPHDR, 4 + tuphdr_size(fields));

	if (p == NULL)
		return;
	p = put_u16(p, offnum);
	*p++ = fields;
	if (fields & AU_TH_XMAX)
	{
		au_put_u32(p, xmax);
		p += 4;
	}
	if (fields & AU_TH_CID)
	{
		au_put_u32(p, cid);
		p += 4;
	}
	if (fields & AU_TH_INFOMASK)
	{
		p = put_u16(p, infomask2);
		p = put_u16(p, infomask);
	}
	if (fields & AU_TH_CTID)
	{
		au_put_u32(p, ctid_blk);
		put_u16(p + 4, ctid_off);
	}
}

void
au_ops_prunable(AuOps *ops, uint32_t xid)
{
	uint8_t    *p = ops_room(ops, AU_OP_PRUNABLE, 5);

	if (p != NULL)
		au_put_u32(p, xid);
}

void
au_ops_flags(AuOps *ops, uint16_t set, uint16_t clear)
{
	uint8_t    *p = ops_room(ops, AU_OP_FLAGS, 5);

	if (p == NULL)
		return;
	p = put_u16(p, set);
	put_u16(p, clear);
}

void
au_ops_prune(AuOps *ops, const uint16_t *redirects, int nredirect,
			 const uint16_t *dead, int ndead,
			 const uint16_t *unused, int nunused)
{
	uint8_t    *p = ops_room(ops, AU_OP_PRUNE,
							 7 + 2 * (2 * (size_t) nredirect + (size_t) ndead +
									  (size_t) nunused));

	if (p == NULL)
		return;
	p = put_u16(p, (uint16_t) nredirect);
	p = put_u16(p, (uint16_t) ndead);
	p = put_u16(p, (uint16_t) nunused);
	p = put_u16s(p, redirects, 2 * nredirect);
	p = put_u16s(p, dead, ndead);
	put_u16s(p, unused, nunused);
}

void
au_ops_unused(AuOps *ops, const uint16_t *offnums, int n)
{
	uint8_t    *p = ops_room(ops, AU_OP_UNUSED, 3 + 2 * (size_t) n);

	if (p == NULL)
		return;
	p = put_u16(p, (uint16_t) n);
	put_u16s(p, offnums, n);
}

/* ---- apply ------------------------------------------------------------ */

/*
 * One operation taken apart: its fixed numbers in the order of the format,
 * and its bytes.  Parsing knows nothing of the page, so au_ops_check shares
 * it.
 */
typedef struct Op
{
	uint8_t		code;
	uint8_t		fields;			/* TUPHDR */
	uint16_t	n[7];
	uint32_t	xid;			/* PRUNABLE */
	const uint8_t *bytes;
	size_t		nbytes;
} Op;

/* Fixed part of an operation, opcode not counted: how many u16 it has. */
static int
op_numbers(uint8_t code)
{
	switch (code)
	{
		case AU_OP_INIT:
		case AU_OP_TUPHDR:
		case AU_OP_UNUSED:
			return 1;
		case AU_OP_IMAGE:
		case AU_OP_PATCH:
		case AU_OP_ADD:
		case AU_OP_FLAGS:
			return 2;
		case AU_OP_PRUNE:
			return 3;
		case AU_OP_ADD_DELTA:
			return 7;
		case AU_OP_PRUNABLE:
			return 0;
		default:
			return -1;
	}
}

/* Bytes that follow the numbers; SIZE_MAX when the numbers make no sense. */
static size_t
op_tail(const Op *op)
{
	switch (op->code)
	{
		case AU_OP_IMAGE:
			if ((uint32_t) op->n[0] + op->n[1] > AU_PAGE_SIZE)
				return SIZE_MAX;
			return (size_t) AU_PAGE_SIZE - op->n[1];
		case AU_OP_PATCH:
		case AU_OP_ADD:
			return op->n[1];
		case AU_OP_ADD_DELTA:
			return (size_t) op->n[5] + op->n[6];
		case AU_OP_PRUNE:
			return 2 * (2 * (size_t) op->n[0] + op->n[1] + op->n[2]);
		case AU_OP_UNUSED:
			return 2 * (size_t) op->n[0];
		default:
			return 0;
	}
}

/* Take one operation off the front of *p; NULL or what is wrong. */
static const char *
op_parse(const uint8_t **p, const uint8_t *end, Op *op)
{
	const uint8_t *q = *p;
	size_t		left = (size_t) (end - q) - 1;
	int			numbers;

	op->code = *q++;
	op->fields = 0;
	op->xid = 0;
	numbers = op_numbers(op->code);
	if (numbers < 0)
		return "unknown page operation";
	if (left < 2 * (size_t) numbers)
		return "page operation is cut short";
	for (int i = 0; i < numbers; i++, q += 2)
		op->n[i] = au_get_u16(q);
	left -= 2 * (size_t) numbers;

	if (op->code == AU_OP_TUPHDR)
	{
		if (left < 1)
			return "page operation is cut short";
		op->fields = *q++;
		left--;
		if (op->fields == 0 || (op->fields & ~AU_TH_ALL) != 0)
			return "unknown tuple header fields";
		op->nbytes = tuphdr_size(op->fields);
	}
	else if (op->code == AU_OP_PRUNABLE)
		op->nbytes = 4;
	else
		op->nbytes = op_tail(op);

	if (op->nbytes > left)
		return op->nbytes == SIZE_MAX ? "image hole is out of bounds" :
			"page operation is cut short";
	op->bytes = q;
	if (op->code == AU_OP_PRUNABLE)
		op->xid = au_get_u32(q);
	*p = q + op->nbytes;
	return NULL;
}

static const char *
apply_init(uint8_t *page, const Op *op)
{
	uint16_t	special = op->n[0];

	if (special % 8 != 0 || special > AU_PAGE_SIZE - PG_HEADER)
		return "special size is out of bounds";
	memset(page, 0, AU_PAGE_SIZE);
	au_put_u16(page + PG_LOWER, PG_HEADER);
	au_put_u16(page + PG_UPPER, (uint16_t) (AU_PAGE_SIZE - special));
	au_put_u16(page + PG_SPECIAL, (uint16_t) (AU_PAGE_SIZE - special));
	au_put_u16(page + PG_SIZE_VERSION, PG_SIZE_VERSION_VALUE);
	return NULL;
}

static const char *
apply_image(uint8_t *page, const Op *op)
{
	uint32_t	hole_off = op->n[0];
	uint32_t	hole_end = hole_off + op->n[1];
	const char *why;

	memcpy(page, op->bytes, hole_off);
	memset(page + hole_off, 0, op->n[1]);
	memcpy(page + hole_end, op->bytes + hole_off, AU_PAGE_SIZE - hole_end);
	memset(page, 0, PG_FLAGS);	/* LSN and checksum are not ours to carry */
	au_page_valid(page, &why);
	return why;
}

static const char *
apply_patch(uint8_t *page, const Op *op)
{
	const char *why;

	if (op->n[0] < PG_LOWER || (uint32_t) op->n[0] + op->n[1] > AU_PAGE_SIZE)
		return "patch is out of bounds";
	/* the hole stays zero: images do not carry it */
	if (op->n[0] < page_upper(page) &&
		(uint32_t) op->n[0] + op->n[1] > page_lower(page))
		return "patch reaches into the page's free space";
	memcpy(page + op->n[0], op->bytes, op->n[1]);
	if (op->n[0] >= page_upper(page) && op->n[0] + op->n[1] <= page_special(page))
		return NULL;			/* bytes of items: header and line pointers stand */
	au_page_valid(page, &why);
	return why;
}

/* Make room for a new item of len bytes at offnum; *dest is where its bytes
 * go (padding behind it is zeroed). */
static const char *
item_place(uint8_t *page, uint32_t offnum, uint32_t len, uint8_t **dest)
{
	uint32_t	max = page_max_offset(page);
	uint32_t	lower = page_lower(page);
	uint32_t	upper = page_upper(page);

	if (len == 0 || len > AU_PAGE_SIZE)
		return "item length is out of bounds";
	if (offnum == 0 || offnum > max + 1)
		return "item number is out of bounds";
	if (offnum <= max && lp_state(lp_get(page, offnum)) != LP_UNUSED)
		return "item number is in use";
	if (offnum > max)
		lower += LP_SIZE;
	if (lower > upper || ALIGN8(len) > upper - lower)
		return "no room for the item";

	upper -= ALIGN8(len);
	if (upper % 8 != 0)
		return "page header bounds are not aligned";
	au_put_u16(page + PG_LOWER, (uint16_t) lower);
	au_put_u16(page + PG_UPPER, (uint16_t) upper);
	au_put_u32(lp_ptr(page, offnum), lp_make(upper, LP_NORMAL, len));
	*dest = page + upper;
	memset(page + upper + len, 0, ALIGN8(len) - len);
	return NULL;
}

static const char *
apply_add(uint8_t *page, const Op *op)
{
	uint8_t    *dest;
	const char *why = item_place(page, op->n[0], op->n[1], &dest);

	if (why == NULL)
		memcpy(dest, op->bytes, op->n[1]);
	return why;
}

/* The item's bytes, if it is a normal one within the page's bounds. */
static const char *
item_get(uint8_t *page, uint32_t offnum, uint8_t **item, uint32_t *len)
{
	uint32_t	lp;

	if (offnum == 0 || offnum > page_max_offset(page))
		return "item number is out of bounds";
	lp = lp_get(page, offnum);
	if (lp_state(lp) != LP_NORMAL)
		return "item is not a tuple";
	if (lp_off(lp) < page_upper(page) ||
		lp_off(lp) + lp_len(lp) > page_special(page))
		return "line pointer is out of bounds";
	*item = page + lp_off(lp);
	*len = lp_len(lp);
	return NULL;
}

static const char *
apply_add_delta(uint8_t *page, const Op *op)
{
	uint32_t	from_pos = op->n[2];
	uint32_t	prefix = op->n[3];
	uint32_t	suffix = op->n[4];
	uint32_t	head_len = op->n[5];
	uint32_t	mid_len = op->n[6];
	uint8_t    *from;
	uint8_t    *dest;
	uint32_t	from_len;
	const char *why;

	why = item_get(page, op->n[1], &from, &from_len);
	if (why != NULL)
		return why;
	if (from_pos + prefix > from_len || suffix > from_len)
		return "delta reaches outside its source";
	why = item_place(page, op->n[0], head_len + prefix + mid_len + suffix,
					 &dest);
	if (why != NULL)
		return why;
	dest = put_bytes(dest, op->bytes, head_len);
	dest = put_bytes(dest, from + from_pos, prefix);
	dest = put_bytes(dest, op->bytes + head_len, mid_len);
	put_bytes(dest, from + from_len - suffix, suffix);
	return NULL;
}

static const char *
apply_tuphdr(uint8_t *page, const Op *op)
{
	const uint8_t *p = op->bytes;
	uint8_t    *tuple;
	uint32_t	len;
	const char *why = item_get(page, op->n[0], &tuple, &len);

	if (why != NULL)
		return why;
	if (len < TH_SIZE)
		return "item is too short for a tuple";
	if (op->fields & AU_TH_XMAX)
	{
		memcpy(tuple + TH_XMAX, p, 4);
		p += 4;
	}
	if (op->fields & AU_TH_CID)
	{
		memcpy(tuple + TH_CID, p, 4);
		p += 4;
	}
	if (op->fields & AU_TH_INFOMASK)
	{
		memcpy(tuple + TH_INFOMASK2, p, 4);
		p += 4;
	}
	if (op->fields & AU_TH_CTID)
	{
		uint32_t	blk = au_get_u32(p);

		/* BlockIdData: high half first */
		au_put_u16(tuple + TH_CTID, (uint16_t) (blk >> 16));
		au_put_u16(tuple + TH_CTID + 2, (uint16_t) blk);
		memcpy(tuple + TH_CTID + 4, p + 4, 2);
	}
	return NULL;
}

static const char *
apply_prunable(uint8_t *page, const Op *op)
{
	uint32_t	old = au_get_u32(page + PG_PRUNE_XID);

	if (op->xid < FIRST_NORMAL_XID)
		return "prunable xid is not a normal one";
	/* xids compare modulo 2^32 */
	if (old < FIRST_NORMAL_XID || (int32_t) (op->xid - old) < 0)
		au_put_u32(page + PG_PRUNE_XID, op->xid);
	return NULL;
}

static const char *
apply_flags(uint8_t *page, const Op *op)
{
	uint16_t	flags = au_get_u16(page + PG_FLAGS);

	if (((op->n[0] | op->n[1]) & ~PD_VALID_FLAGS) != 0)
		return "unknown page flags";
	flags = (uint16_t) ((flags & ~op->n[1]) | op->n[0]);
	au_put_u16(page + PG_FLAGS, flags);
	return NULL;
}

/* Trailing unused line pointers go; PD_HAS_FREE_LINES tells of the rest. */
static void
trim_line_pointers(uint8_t *page)
{
	uint32_t	max = page_max_offset(page);
	uint32_t	old_lower = page_lower(page);
	uint32_t	lower;
	uint16_t	flags = au_get_u16(page + PG_FLAGS);

	while (max > 0 && lp_state(lp_get(page, max)) == LP_UNUSED)
		max--;
	lower = PG_HEADER + max * LP_SIZE;
	memset(page + lower, 0, old_lower - lower);
	au_put_u16(page + PG_LOWER, (uint16_t) lower);

	flags &= (uint16_t) ~PD_HAS_FREE_LINES;
	for (uint32_t i = 1; i <= max; i++)
		if (lp_state(lp_get(page, i)) == LP_UNUSED)
			flags |= PD_HAS_FREE_LINES;
	au_put_u16(page + PG_FLAGS, flags);
}

/* The items of a page in the order of their places, which are multiples of 8. */
typedef struct Places
{
	uint64_t	taken[AU_PAGE_SIZE / 8 / 64];	/* a bit for each place */
	uint16_t	item[AU_PAGE_SIZE / 8]; /* that begins there, if it is taken */
} Places;

static const char *
find_places(const uint8_t *page, Places *at)
{
	uint32_t	max = page_max_offset(page);

	memset(at->taken, 0, sizeof(at->taken));
	for (uint32_t i = 1; i <= max; i++)
	{
		uint32_t	lp = lp_get(page, i);
		uint32_t	place = lp_off(lp) / 8;
		uint64_t	bit = (uint64_t) 1 << (place % 64);

		if (lp_state(lp) != LP_NORMAL)
			continue;
		if (lp_off(lp) < page_upper(page) || lp_off(lp) % 8 != 0 || lp_len(lp) == 0 ||
			lp_off(lp) + lp_len(lp) > page_special(page) ||
			(at->taken[place / 64] & bit) != 0)
			return "items overlap or are out of bounds";
		at->taken[place / 64] |= bit;
		at->item[place] = (uint16_t) i;
	}
	return NULL;
}

/* The bytes from .. until - 1 go to `to`, which is not below. */
static void
move_up(uint8_t *page, uint32_t from, uint32_t until, uint32_t to)
{
	if (to != from)
		memmove(page + to, page + from, until - from);
}

/* Pack the tuples to the page's end, keeping their physical order.  From the
 * last one down each moves up or stays, so none is overwritten before it was
 * moved, and no two may overlap. */
static const char *
compact(uint8_t *page)
{
	Places		at;
	const char *why = find_places(page, &at);
	uint32_t	above = page_special(page);
	uint32_t	upper = above;
	uint32_t	from = above;	/* of the stretch that moves as one */
	uint32_t	until = above;

	for (uint32_t w = AU_PAGE_SIZE / 8 / 64; why == NULL && w-- > 0;)
		while (at.taken[w] != 0)
		{
			uint32_t	bit = 63 - (uint32_t) __builtin_clzll(at.taken[w]);
			uint32_t	off = (w * 64 + bit) * 8;
			uint32_t	offnum = at.item[w * 64 + bit];
			uint32_t	len = lp_len(lp_get(page, offnum));

			at.taken[w] ^= (uint64_t) 1 << bit;
			if (off + ALIGN8(len) > above)
				return "items overlap or are out of bounds";
			if (off + ALIGN8(len) < above)
			{
				move_up(page, from, until, upper);
				until = off + ALIGN8(len);
			}
			above = from = off;
			upper -= ALIGN8(len);
			if (upper != off)
				au_put_u32(lp_ptr(page, offnum), lp_make(upper, LP_NORMAL, len));
		}
	if (why != NULL)
		return why;
	move_up(page, from, until, upper);
	memset(page + page_lower(page), 0, upper - page_lower(page));
	au_put_u16(page + PG_UPPER, (uint16_t) upper);
	return NULL;
}

static const char *
set_line_pointers(uint8_t *page, const uint8_t *offnums, uint32_t n,
				  uint32_t value)
{
	uint32_t	max = page_max_offset(page);

	for (uint32_t i = 0; i < n; i++)
	{
		uint32_t	offnum = au_get_u16(offnums + 2 * i);

		if (offnum == 0 || offnum > max)
			return "item number is out of bounds";
		au_put_u32(lp_ptr(page, offnum), value);
	}
	return NULL;
}

static const char *
apply_prune(uint8_t *page, const Op *op)
{
	uint32_t	nredirect = op->n[0];
	uint32_t	ndead = op->n[1];
	uint32_t	max = page_max_offset(page);
	const uint8_t *p = op->bytes;
	const char *why;

	for (uint32_t i = 0; i < nredirect; i++, p += 4)
	{
		uint32_t	from = au_get_u16(p);
		uint32_t	to = au_get_u16(p + 2);

		if (from == 0 || from > max || to == 0 || to > max || from == to)
			return "redirect is out of bounds";
		au_put_u32(lp_ptr(page, from), lp_make(to, LP_REDIRECT, 0));
	}
	why = set_line_pointers(page, p, ndead, lp_make(0, LP_DEAD, 0));
	if (why == NULL)
		why = set_line_pointers(page, p + 2 * ndead, op->n[2], 0);
	if (why != NULL)
		return why;
	trim_line_pointers(page);
	why = compact(page);
	if (why == NULL)
		au_page_valid(page, &why);	/* no redirect lost its target */
	return why;
}

static const char *
apply_unused(uint8_t *page, const Op *op)
{
	const char *why = set_line_pointers(page, op->bytes, op->n[0], 0);

	if (why == NULL)
	{
		trim_line_pointers(page);
		au_page_valid(page, &why);
	}
	return why;
}

static const char *
op_apply(uint8_t *page, const Op *op)
{
	const char *why;

	if (op->code == AU_OP_INIT)
		return apply_init(page, op);
	if (op->code == AU_OP_IMAGE)
		return apply_image(page, op);

	if (au_page_is_new(page))
		return "page was never initialised";
	why = header_problem(page);
	if (why != NULL)
		return why;
	switch (op->code)
	{
		case AU_OP_PATCH:
			return apply_patch(page, op);
		case AU_OP_ADD:
			return apply_add(page, op);
		case AU_OP_ADD_DELTA:
			return apply_add_delta(page, op);
		case AU_OP_TUPHDR:
			return apply_tuphdr(page, op);
		case AU_OP_PRUNABLE:
			return apply_prunable(page, op);
		case AU_OP_FLAGS:
			return apply_flags(page, op);
		case AU_OP_PRUNE:
			return apply_prune(page, op);
		case AU_OP_UNUSED:
			return apply_unused(page, op);
		default:
			return "unknown page operation";
	}
}

static AuStatus
walk(uint8_t *page, const uint8_t *ops, size_t len, const char **why)
{
	const uint8_t *p = ops;
	const uint8_t *end = ops + len;
	const char *problem = len == 0 ? "no page operations" : NULL;

	while (problem == NULL && p < end)
	{
		Op			op;

		problem = op_parse(&p, end, &op);
		if (problem == NULL && page != NULL)
			problem = op_apply(page, &op);
	}
	if (why != NULL)
		*why = problem;
	return problem == NULL ? AU_OK : AU_CORRUPT;
}

AuStatus
au_page_apply(uint8_t *page, const uint8_t *ops, size_t len, const char **why)
{
	return walk(page, ops, len, why);
}

AuStatus
au_ops_check(const uint8_t *ops, size_t len, const char **why)
{
	return walk(NULL, ops, len, why);
}

bool
au_ops_self_contained(const uint8_t *ops, size_t len)
{
	return len > 0 && (ops[0] == AU_OP_INIT || ops[0] == AU_OP_IMAGE);
}

size_t
au_op_length(const uint8_t *ops, size_t len)
{
	const uint8_t *p = ops;
	Op			op;

	if (len == 0 || op_parse(&p, ops + len, &op) != NULL)
		return 0;
	return (size_t) (p - ops);
}
