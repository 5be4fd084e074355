/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_raft.c: bytes at a node's port for consensus: greetings and messages.
 *
 * Checked: nothing is read outside the input; what is asked for grows; what is
 * found good stays inside the message for a reader that believes all of its
 * lengths, as libraft does.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/au_raft_frame.h"

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond) do { if (!(cond)) __builtin_trap(); } while (0)

/* As libraft reads a configuration: without a look at its end. */
static void
read_servers(const uint8_t *p)
{
	uint64_t	n = au_get_u64(p + 1);

	CHECK(p[0] == 1);
	p += 9;
	for (uint64_t i = 0; i < n; i++)
	{
		CHECK(au_get_u64(p) != 0);
		p += 8 + strlen((const char *) p + 8) + 1;
		CHECK(*p <= 2);
		p++;
	}
}

static void
read_entries(const uint8_t *h, const uint8_t *payload, const uint8_t *end)
{
	uint64_t	n = au_get_u64(h + 32);

	for (uint64_t i = 0; i < n; i++)
	{
		const uint8_t *e = h + 40 + i * 16;

		CHECK(e[8] >= 1 && e[8] <= 3);
		CHECK((size_t) (end - payload) >= au_get_u32(e + 12));
		if (e[8] == 3)
			read_servers(payload);
		payload += au_get_u32(e + 12);
	}
	CHECK(payload == end);
}

static void
read_message(const uint8_t *b, size_t len, const AuRaftFrame *f)
{
	const uint8_t *h = b + 16;
	size_t		header = (size_t) au_get_u64(b + 8);

	CHECK(f->type == au_get_u64(b) && f->term == au_get_u64(h) && 16 + header <= len);
	if (f->type == AU_RAFT_APPEND)
		read_entries(h, h + header, b + len);
	else if (f->type == AU_RAFT_SNAPSHOT)
	{
		size_t		conf = (size_t) au_get_u64(h + 32);

		read_servers(h + 40);
		CHECK(au_get_u64(h + 40 + conf) == len - 16 - header);
	}
	else
		CHECK(len == 16 + header);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AuRaftHello hello;
	AuRaftFrame f;
	size_t		used;
	AuStatus	status = au_raft_hello_parse(data, size, &hello, &used);

	CHECK(status != AU_NEED_MORE || (used > size && used <= AU_RAFT_HELLO_MAX));
	CHECK(status != AU_OK || (used <= size && hello.number != 0 &&
							  memchr(hello.address, '\0', sizeof(hello.address)) != NULL));
	while ((status = au_raft_frame_check(data, size, &f, &used)) == AU_OK)
	{
		/* exactly as long, so that a byte too far is seen */
		uint8_t    *copy = malloc(used);

		CHECK(copy != NULL && used <= size);
		memcpy(copy, data, used);
		read_message(copy, used, &f);
		free(copy);
		data += used;
		size -= used;
	}
	CHECK(status != AU_NEED_MORE || (used > size && used <= 16 + 2 * AU_RAFT_MESSAGE_MAX));
	return 0;
}
