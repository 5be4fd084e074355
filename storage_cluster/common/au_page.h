/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_page.h: the page operations that Aurora's WAL records are made of, and
 * the one function that applies them.
 *
 * Invariant 3 of docs/architecture.md (page on compute = page on storage =
 * page on a replica at one LSN) holds by construction: the access method
 * never writes into a page of its own accord.  It encodes what it wants as
 * operations (au_ops_*), applies them to its cached page with
 * au_page_apply(), and logs the same bytes.  The storage daemon and a
 * replica's redo apply the same bytes with the same function.  What is
 * outside the operations (hint bits, pd_lsn, pd_checksum) is masked by
 * au_page_mask() when pages are compared.
 *
 * A page has PostgreSQL's standard layout (version 4).  Bytes between
 * pd_lower and pd_upper are zero after every operation.
 *
 * Operations are a byte string: u8 opcode, then its fields, little-endian
 * and unaligned:
 *
 *   INIT       u16 special_size                 empty page, zeroed
 *   IMAGE      u16 hole_off, u16 hole_len, bytes[8192 - hole_len]
 *   PATCH      u16 off, u16 len, bytes[len]      raw overwrite, not over the
 *                                                first 12 bytes (LSN, checksum,
 *                                                flags)
 *   ADD        u16 offnum, u16 len, bytes[len]   new item at pd_upper; offnum
 *                                                is max+1 or an unused one
 *   ADD_DELTA  u16 offnum, u16 from_offnum, u16 from_pos, u16 prefix,
 *              u16 suffix, u16 head_len, u16 mid_len, head, mid
 *                                                new item = head + `prefix`
 *                                                bytes of item from_offnum
 *                                                starting at from_pos + mid +
 *                                                its last `suffix` bytes
 *   TUPHDR     u16 offnum, u8 fields, then those present in this order:
 *              xmax u32, cid u32, infomask2 u16, infomask u16,
 *              ctid (u32 block, u16 offnum)      change a tuple's header
 *   PRUNABLE   u32 xid                           pd_prune_xid = older of both
 *   FLAGS      u16 set, u16 clear                pd_flags
 *   PRUNE      u16 nredirect, u16 ndead, u16 nunused,
 *              (u16 from, u16 to)[], u16 dead[], u16 unused[]
 *                                                line pointers, then the tuples
 *                                                are packed to the page's end
 *   UNUSED     u16 n, u16 offnum[]               dead line pointers become
 *                                                unused, trailing ones go
 *
 * Infomask hint bits in TUPHDR: the logged infomask replaces the page's.
 */
#ifndef AU_PAGE_H
#define AU_PAGE_H

#include "au_base.h"

#define AU_OP_INIT 1
#define AU_OP_IMAGE 2
#define AU_OP_PATCH 3
#define AU_OP_ADD 4
#define AU_OP_ADD_DELTA 5
#define AU_OP_TUPHDR 6
#define AU_OP_PRUNABLE 7
#define AU_OP_FLAGS 8
#define AU_OP_PRUNE 9
#define AU_OP_UNUSED 10

/* TUPHDR field bits */
#define AU_TH_XMAX 0x01
#define AU_TH_CID 0x02			/* the t_cid / t_xvac word */
#define AU_TH_INFOMASK 0x04		/* both infomask2 and infomask */
#define AU_TH_CTID 0x08
#define AU_TH_ALL 0x0F

/* Ops of one block in one record never exceed this (WAL: 16-bit length). */
#define AU_OPS_MAX 32768

/*
 * Encoder.  The caller gives the memory; no allocation, so a caller may stand
 * in a critical section.  An operation that does not fit sets `overflow` and
 * adds nothing; callers look at it once, before they apply or log.
 */
typedef struct AuOps
{
	uint8_t    *data;
	uint32_t	len;
	uint32_t	cap;
	bool		overflow;
} AuOps;

void		au_ops_start(AuOps *ops, uint8_t *memory, uint32_t cap);
void		au_ops_init(AuOps *ops, uint16_t special_size);
void		au_ops_image(AuOps *ops, const uint8_t *page);	/* hole taken from the page's header */
void		au_ops_patch(AuOps *ops, uint16_t off, uint16_t len, const void *bytes);
void		au_ops_add(AuOps *ops, uint16_t offnum, uint16_t len, const void *tuple);
void		au_ops_add_delta(AuOps *ops, uint16_t offnum, uint16_t from_offnum,
							 uint16_t from_pos, uint16_t prefix, uint16_t suffix,
							 uint16_t head_len, const void *head,
							 uint16_t mid_len, const void *mid);
/* Values of fields not named in `fields` are ignored. */
void		au_ops_tuphdr(AuOps *ops, uint16_t offnum, uint8_t fields,
						  uint32_t xmax, uint32_t cid, uint16_t infomask2,
						  uint16_t infomask, uint32_t ctid_blk, uint16_t ctid_off);
void		au_ops_prunable(AuOps *ops, uint32_t xid);
void		au_ops_flags(AuOps *ops, uint16_t set, uint16_t clear);
/* redirects: 2 * nredirect numbers, from/to pairs */
void		au_ops_prune(AuOps *ops, const uint16_t *redirects, int nredirect,
						 const uint16_t *dead, int ndead,
						 const uint16_t *unused, int nunused);
void		au_ops_unused(AuOps *ops, const uint16_t *offnums, int n);

/*
 * Apply `len` bytes of operations to the page, in order.
 *
 * Returns AU_OK, or AU_CORRUPT when the bytes are no valid operations or do
 * not fit the page (an item that is not there, no room, ...); *why then names
 * the reason (a static string; why may be NULL) and the page's contents are
 * undefined (work on a copy if that matters).  Never reads or writes outside
 * page[0 .. 8191] and ops[0 .. len-1], whatever the bytes.  Does not touch
 * pd_lsn or pd_checksum; INIT and IMAGE set pd_lsn and pd_checksum to zero.
 */
AuStatus	au_page_apply(uint8_t *page, const uint8_t *ops, size_t len,
						  const char **why);

/* True if the result of these operations does not depend on the page before
 * (they begin with INIT or IMAGE). */
bool		au_ops_self_contained(const uint8_t *ops, size_t len);

/* Walks over the operations without a page: AU_OK if well formed. */
AuStatus	au_ops_check(const uint8_t *ops, size_t len, const char **why);

/* Bytes of the first operation; 0 if it is malformed or len is 0.  For those
 * who describe operations. */
size_t		au_op_length(const uint8_t *ops, size_t len);

AuLsn		au_page_lsn(const uint8_t *page);
void		au_page_set_lsn(uint8_t *page, AuLsn lsn);

/* True for an all-zero page header (pd_upper == 0), as PageIsNew(). */
bool		au_page_is_new(const uint8_t *page);

/* Structure check of a page from outside: header fields in order, each line
 * pointer within bounds.  A new page is valid. */
bool		au_page_valid(const uint8_t *page, const char **why);

/*
 * Blank out what may differ between two copies of a page at one LSN: LSN and
 * checksum words, pd_prune_xid, PD_HAS_FREE_LINES and PD_PAGE_FULL, the hole,
 * and the four xmin/xmax hint bits of every tuple (of a frozen tuple only
 * those of xmax).
 */
void		au_page_mask(uint8_t *page);

#endif							/* AU_PAGE_H */
