/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_page.c: page operations, on pages good and bad.
 *
 * Input: u8 mode, u8 items, u8 damage, then operations.  The page is made
 * first: new (mode & 3 == 0), or initialised and filled with `items` tuples
 * (1, 2), or filled and then damaged in `damage` places (3).  mode & 4: the
 * operations are raw bytes; else each is made by the encoder from a few bytes
 * of the input, with numbers that often make sense.
 *
 * Checked: nothing outside the page is touched (the sanitizer); what applies
 * is well formed; the result depends on page and operations alone, and on
 * the operations alone if they say so; a valid page stays valid, and its hole
 * zero, as long as the operations do not overwrite bytes; masking twice is
 * masking once.
 */
#include <stdlib.h>

#include "common/au_page.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond) do { if (!(cond)) __builtin_trap(); } while (0)

#define PD_LOWER 12
#define PD_UPPER 14

typedef struct Input
{
	const uint8_t *p;
	size_t		left;
} Input;

static uint8_t
take(Input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->p++;
}

static uint16_t
take16(Input *in)
{
	uint16_t	low = take(in);

	return (uint16_t) (low | take(in) << 8);
}

static void
make_page(uint8_t *page, uint8_t mode, uint8_t items, uint8_t damage, Input *in)
{
	uint8_t		memory[AU_OPS_MAX];
	uint8_t		tuple[256];
	AuOps		ops;

	memset(page, 0, AU_PAGE_SIZE);
	if ((mode & 3) == 0)
		return;
	au_ops_start(&ops, memory, sizeof(memory));
	au_ops_init(&ops, (mode & 8) ? 16 : 0);
	for (int i = 0; i < items % 60; i++)
	{
		memset(tuple, i, sizeof(tuple));
		au_ops_add(&ops, (uint16_t) (i + 1), (uint16_t) (24 + (i * 13) % 90), tuple);
	}
	CHECK(!ops.overflow);
	CHECK(au_page_apply(page, ops.data, ops.len, NULL) == AU_OK);
	if ((mode & 3) == 3)
	{
		/* mostly in the header and the line pointers */
		for (int i = 0; i < damage % 32; i++)
		{
			uint16_t	at = take16(in);

			page[at % (at & 0x8000 ? AU_PAGE_SIZE : 256)] = take(in);
		}
	}
}

/* Operations from a few bytes each. */
static void
make_ops(AuOps *ops, Input *in)
{
	uint8_t		bytes[600];
	uint16_t	n[32];

	memset(bytes, 0x77, sizeof(bytes));
	while (in->left > 0 && !ops->overflow)
	{
		uint8_t		code = take(in);
		uint16_t	a = take(in) % 64;
		uint16_t	b = take(in) % 64;
		uint16_t	len = (uint16_t) (take(in) * 2);

		switch (code % 10)
		{
			case 0:
				au_ops_init(ops, (uint16_t) (len & ~7));
				break;
			case 1:
				au_ops_patch(ops, (uint16_t) (take16(in) % AU_PAGE_SIZE), (uint16_t) (len % 32), bytes);
				break;
			case 2:
			case 3:
				au_ops_add(ops, a, len, bytes);
				break;
			case 4:
				au_ops_add_delta(ops, a, b, (uint16_t) (take(in) % 64),
								 (uint16_t) (take(in) % 64), (uint16_t) (take(in) % 64),
								 (uint16_t) (len % 40), bytes, (uint16_t) (len / 40), bytes);
				break;
			case 5:
				au_ops_tuphdr(ops, a, (uint8_t) (b % 15 + 1), 1000, 2, 0x8003, 0x0902, len, a);
				break;
			case 6:
				au_ops_prunable(ops, (uint32_t) a << 24 | b);
				break;
			case 7:
				au_ops_flags(ops, b & 7, len & 7);
				break;
			case 8:
				for (int i = 0; i < 32; i++)
					n[i] = take(in) % 64;
				au_ops_prune(ops, n, a % 5, n + 8, b % 8, n + 16, len % 16);
				break;
			default:
				for (int i = 0; i < 8; i++)
					n[i] = take(in) % 64;
				au_ops_unused(ops, n, a % 9);
				break;
		}
	}
}

/* Do the operations write raw bytes? */
static bool
writes_raw(const uint8_t *p, size_t len)
{
	bool		raw = false;

	while (len > 0)
	{
		size_t		n = au_op_length(p, len);

		CHECK(n > 0 && n <= len);
		if (p[0] == AU_OP_IMAGE || p[0] == AU_OP_PATCH)
			raw = true;
		p += n;
		len -= n;
	}
	return raw;
}

static bool
hole_is_zero(const uint8_t *page)
{
	for (uint32_t i = au_get_u16(page + PD_LOWER); i < au_get_u16(page + PD_UPPER); i++)
	{
		if (page[i] != 0)
			return false;
	}
	return true;
}

static void
check_result(const uint8_t *before, const uint8_t *after, const uint8_t *ops, size_t len)
{
	bool		was_valid = au_page_valid(before, NULL);
	bool		raw = writes_raw(ops, len);

	if (was_valid)
		CHECK(au_page_valid(after, NULL));
	if (was_valid && !raw && !au_page_is_new(before) && hole_is_zero(before))
		CHECK(hole_is_zero(after));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Input		in = {data, size};
	uint8_t		mode = take(&in);
	uint8_t		items = take(&in);
	uint8_t		damage = take(&in);
	/* on the heap, so that each byte too far is seen */
	uint8_t    *before = malloc(AU_PAGE_SIZE);
	uint8_t    *after = malloc(AU_PAGE_SIZE);
	uint8_t    *again = malloc(AU_PAGE_SIZE);
	uint8_t    *memory = malloc(AU_OPS_MAX);
	AuOps		ops;
	AuStatus	status;
	const char *why;

	CHECK(before && after && again && memory);
	make_page(before, mode, items, damage, &in);
	au_ops_start(&ops, memory, AU_OPS_MAX);
	if (mode & 4)
	{
		ops.len = (uint32_t) (in.left < AU_OPS_MAX ? in.left : AU_OPS_MAX);
		if (ops.len > 0)
			memcpy(memory, in.p, ops.len);
	}
	else
		make_ops(&ops, &in);
	memory = realloc(memory, ops.len + 1);
	CHECK(memory != NULL);

	memcpy(after, before, AU_PAGE_SIZE);
	memcpy(again, before, AU_PAGE_SIZE);
	status = au_page_apply(after, memory, ops.len, &why);
	CHECK(status == AU_OK || (status == AU_CORRUPT && why != NULL));
	CHECK(au_page_apply(again, memory, ops.len, NULL) == status);
	if (status == AU_OK)
	{
		CHECK(memcmp(after, again, AU_PAGE_SIZE) == 0);
		CHECK(au_ops_check(memory, ops.len, NULL) == AU_OK);
		check_result(before, after, memory, ops.len);
		if (au_ops_self_contained(memory, ops.len))
		{
			memset(again, 0xA5, AU_PAGE_SIZE);
			CHECK(au_page_apply(again, memory, ops.len, NULL) == AU_OK);
			CHECK(memcmp(after, again, AU_PAGE_SIZE) == 0);
		}
	}
	au_page_mask(after);
	memcpy(again, after, AU_PAGE_SIZE);
	au_page_mask(again);
	CHECK(memcmp(after, again, AU_PAGE_SIZE) == 0);

	free(before);
	free(after);
	free(again);
	free(memory);
	return 0;
}
