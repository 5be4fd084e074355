/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_crc32c.c: CRC-32C by the processor's instruction where there is one
 * (x86-64 with SSE 4.2, asked at run time), three streams at a time, else by
 * tables, eight bytes a step.
 *
 * Invariants:
 *  1. Both ways give the same value for the same bytes, at any alignment and
 *     length, and whatever the split into calls.
 *  2. There is no state: the tables are constants, and the question whether
 *     the instruction exists is answered from what the C runtime found out at
 *     program start.  So any thread may call at any time.
 */
#include "common/au_crc32c.h"

#include "common/au_base.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define AU_CRC_SSE42 1
#include <nmmintrin.h>
#endif

/*
 * Table k holds, for each byte value, the CRC register after that byte and k
 * zero bytes.  That is linear over exclusive or, so the entries of the eight
 * values with a single bit set make all 256: the compiler builds the tables
 * from these.
 */
#define ENTRY(n, a, b, c, d, e, f, g, h) \
	(((n) & 1 ? a : 0) ^ ((n) & 2 ? b : 0) ^ ((n) & 4 ? c : 0) ^ \
	 ((n) & 8 ? d : 0) ^ ((n) & 16 ? e : 0) ^ ((n) & 32 ? f : 0) ^ \
	 ((n) & 64 ? g : 0) ^ ((n) & 128 ? h : 0))
#define ROW4(n, ...) \
	ENTRY(n, __VA_ARGS__), ENTRY((n) + 1, __VA_ARGS__), \
	ENTRY((n) + 2, __VA_ARGS__), ENTRY((n) + 3, __VA_ARGS__)
#define ROW16(n, ...) \
	ROW4(n, __VA_ARGS__), ROW4((n) + 4, __VA_ARGS__), \
	ROW4((n) + 8, __VA_ARGS__), ROW4((n) + 12, __VA_ARGS__)
#define ROW64(n, ...) \
	ROW16(n, __VA_ARGS__), ROW16((n) + 16, __VA_ARGS__), \
	ROW16((n) + 32, __VA_ARGS__), ROW16((n) + 48, __VA_ARGS__)
#define ROWS(...) \
	ROW64(0, __VA_ARGS__), ROW64(64, __VA_ARGS__), \
	ROW64(128, __VA_ARGS__), ROW64(192, __VA_ARGS__)

static const uint32_t crc_table[8][256] = {
	{ROWS(0xF26B8303, 0xE13B70F7, 0xC79A971F, 0x8AD958CF,
		  0x105EC76F, 0x20BD8EDE, 0x417B1DBC, 0x82F63B78)},
	{ROWS(0x13A29877, 0x274530EE, 0x4E8A61DC, 0x9D14C3B8,
		  0x3FC5F181, 0x7F8BE302, 0xFF17C604, 0xFBC3FAF9)},
	{ROWS(0xA541927E, 0x4F6F520D, 0x9EDEA41A, 0x38513EC5,
		  0x70A27D8A, 0xE144FB14, 0xC76580D9, 0x8B277743)},
	{ROWS(0xDD45AAB8, 0xBF672381, 0x7B2231F3, 0xF64463E6,
		  0xE964B13D, 0xD725148B, 0xABA65FE7, 0x52A0C93F)},
	{ROWS(0x38116FAC, 0x7022DF58, 0xE045BEB0, 0xC5670B91,
		  0x8F2261D3, 0x1BA8B557, 0x37516AAE, 0x6EA2D55C)},
	{ROWS(0xEF306B19, 0xDB8CA0C3, 0xB2F53777, 0x6006181F,
		  0xC00C303E, 0x85F4168D, 0x0E045BEB, 0x1C08B7D6)},
	{ROWS(0x68032CC8, 0xD0065990, 0xA5E0C5D1, 0x4E2DFD53,
		  0x9C5BFAA6, 0x3D5B83BD, 0x7AB7077A, 0xF56E0EF4)},
	{ROWS(0x493C7D27, 0x9278FA4E, 0x211D826D, 0x423B04DA,
		  0x847609B4, 0x0D006599, 0x1A00CB32, 0x34019664)}
};

static uint32_t
crc_bytewise(uint32_t reg, const uint8_t *p, size_t len)
{
	while (len-- > 0)
		reg = (reg >> 8) ^ crc_table[0][(reg ^ *p++) & 0xFF];
	return reg;
}

uint32_t
au_crc32c_portable(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t	reg = ~crc;

	for (; len >= 8; p += 8, len -= 8)
	{
		uint32_t	lo = reg ^ au_get_u32(p);
		uint32_t	hi = au_get_u32(p + 4);

		reg = crc_table[7][lo & 0xFF] ^
			crc_table[6][(lo >> 8) & 0xFF] ^
			crc_table[5][(lo >> 16) & 0xFF] ^
			crc_table[4][lo >> 24] ^
			crc_table[3][hi & 0xFF] ^
			crc_table[2][(hi >> 8) & 0xFF] ^
			crc_table[1][(hi >> 16) & 0xFF] ^
			crc_table[0][hi >> 24];
	}
	return ~crc_bytewise(reg, p, len);
}

#ifdef AU_CRC_SSE42
/*
 * The instruction takes three cycles, but one can be begun in each: three
 * stretches of LANE bytes are done side by side.  A register that starts at
 * zero gives what its stretch adds; the register of the stretch before it is
 * moved past it, as if over zero bytes, by shift_table.
 */
#define LANE 512

/* Table k holds, for each value of byte k of the register, the register after
 * LANE zero bytes. */
static const uint32_t shift_table[4][256] = {
	{ROWS(0xBD6F81F8, 0x7F337501, 0xFE66EA02, 0xF921A2F5,
		  0xF7AF331B, 0xEAB210C7, 0xD088577F, 0xA4FCD80F)},
	{ROWS(0x4C15C6EF, 0x982B8DDE, 0x35BB6D4D, 0x6B76DA9A,
		  0xD6EDB534, 0xA8371C99, 0x55824FC3, 0xAB049F86)},
	{ROWS(0x53E549FD, 0xA7CA93FA, 0x4A795105, 0x94F2A20A,
		  0x2C0932E5, 0x581265CA, 0xB024CB94, 0x65A5E1D9)},
	{ROWS(0xCB4BC3B2, 0x937BF195, 0x231B95DB, 0x46372BB6,
		  0x8C6E576C, 0x1D30D829, 0x3A61B052, 0x74C360A4)}
};

static uint32_t
shift_lane(uint32_t reg)
{
	return shift_table[0][reg & 0xFF] ^
		shift_table[1][(reg >> 8) & 0xFF] ^
		shift_table[2][(reg >> 16) & 0xFF] ^
		shift_table[3][reg >> 24];
}

__attribute__((target("sse4.2")))
static uint32_t
crc_three_lanes(uint32_t reg, const uint8_t *p)
{
	uint64_t	a = reg;
	uint64_t	b = 0;
	uint64_t	c = 0;

	for (int i = 0; i < LANE; i += 8)
	{
		uint64_t	word[3];

		memcpy(&word[0], p + i, 8);
		memcpy(&word[1], p + LANE + i, 8);
		memcpy(&word[2], p + 2 * LANE + i, 8);
		a = _mm_crc32_u64(a, word[0]);
		b = _mm_crc32_u64(b, word[1]);
		c = _mm_crc32_u64(c, word[2]);
	}
	return shift_lane(shift_lane((uint32_t) a) ^ (uint32_t) b) ^ (uint32_t) c;
}

__attribute__((target("sse4.2")))
static uint32_t
crc_sse42(uint32_t crc, const uint8_t *p, size_t len)
{
	uint64_t	reg = (uint32_t) ~crc;
	uint32_t	low;

	for (; len >= 3 * LANE; p += 3 * LANE, len -= 3 * LANE)
		reg = crc_three_lanes((uint32_t) reg, p);
	for (; len >= 8; p += 8, len -= 8)
	{
		uint64_t	word;

		memcpy(&word, p, 8);	/* p may have any alignment */
		reg = _mm_crc32_u64(reg, word);
	}
	low = (uint32_t) reg;
	while (len-- > 0)
		low = _mm_crc32_u8(low, *p++);
	return ~low;
}
#endif

uint32_t
au_crc32c(uint32_t crc, const void *data, size_t len)
{
#ifdef AU_CRC_SSE42
	if (__builtin_cpu_supports("sse4.2"))
		return crc_sse42(crc, data, len);
#endif
	return au_crc32c_portable(crc, data, len);
}
