/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_view.c: bytes of views and commands from a hostile peer or a damaged
 * file, and views that commands of any kind made.
 *
 * The first byte chooses: 0: a view, 1: a command (the rest is the body; header
 * and CRC are put around it), 2: either as it is, else: pieces of
 * COMMAND_BYTES, each a command for one view.
 *
 * Checked: nothing is read outside the input; what decodes is valid and,
 * encoded again, gives the same bytes; a view stays valid whatever is applied.
 */
#include <stdlib.h>

#include "cluster/au_ring.h"
#include "common/au_crc32c.h"
#include "tests/viewmake.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond) do { if (!(cond)) __builtin_trap(); } while (0)
#define HEADER 12
#define COMMAND_BYTES 8

static uint8_t out[AU_VIEW_ENCODED_MAX];

static void
decode_both(const uint8_t *bytes, size_t len)
{
	static AuView v;
	static AuRingLoad load;
	AuViewCommand c;

	if (au_view_decode(&v, bytes, len))
	{
		CHECK(au_view_encode(&v, out, sizeof(out)) == len);
		CHECK(memcmp(out, bytes, len) == 0);
		au_ring_load(&v, &load);
	}
	if (au_view_command_decode(&c, bytes, len))
	{
		CHECK(au_view_command_encode(&c, out, sizeof(out)) == len);
		CHECK(memcmp(out, bytes, len) == 0);
	}
}

/* A body with the header and the CRC it should have; exactly as long, so that
 * a byte too far is seen. */
static void
decode_body(const char *magic, const uint8_t *body, size_t size)
{
	size_t		len = HEADER + size + 4;
	uint8_t    *made = malloc(len);

	CHECK(made != NULL);
	memcpy(made, magic, 4);
	au_put_u32(made + 4, 1);
	au_put_u32(made + 8, (uint32_t) size);
	memcpy(made + HEADER, body, size);
	au_put_u32(made + len - 4, au_crc32c(0, made, len - 4));
	decode_both(made, len);
	free(made);
}

static void
run_commands(const uint8_t *p, size_t size)
{
	static AuView v;
	AuViewCommand c = view_init((uint8_t) (1 + p[0] % AU_RF_MAX));
	char		text[128];
	bool		changed;
	int			left = 100;

	memset(&v, 0, sizeof(v));
	CHECK(au_view_apply(&v, &c, &changed, text, sizeof(text)) == AU_OK);
	for (; size >= COMMAND_BYTES && left > 0; p += COMMAND_BYTES, size -= COMMAND_BYTES, left--)
	{
		snprintf(text, sizeof(text), "z%u", p[2] % 5);
		c = view_join(p[1], text);
		c.type = p[0];
		c.number = p[1];
		c.with = p[2];
		c.up = p[3];
		c.ngroup = p[4];
		c.write_quorum = p[5];
		c.group_epoch = p[6];
		c.system_identifier = p[7];
		c.node.weight = (uint16_t) (c.type == AU_VIEW_WEIGHT ? p[6] * 50 : 100);
		c.epoch = v.epoch - p[2] % 2;
		memset(&c.slices, p[4], sizeof(c.slices));
		CHECK(au_view_apply(&v, &c, &changed, text, sizeof(text)) != AU_CORRUPT);
		CHECK(au_view_valid(&v, text, sizeof(text)));
	}
	size = au_view_encode(&v, out, sizeof(out));
	CHECK(size > 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	if (data[0] == 0)
		decode_body("AUVW", data + 1, size - 1);
	else if (data[0] == 1)
		decode_body("AUVC", data + 1, size - 1);
	else if (data[0] == 2)
		decode_both(data + 1, size - 1);
	else
		run_commands(data + 1, size - 1);
	return 0;
}
