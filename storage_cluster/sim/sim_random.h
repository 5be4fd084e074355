/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_random.h: chance in the simulators: xoshiro256**, seeded by splitmix64
 * (Blackman and Vigna).  A seed that failed once must stay the same run, so
 * neither changes.
 */
#ifndef SIM_RANDOM_H
#define SIM_RANDOM_H

#include "cluster/au_view.h"

static inline uint64_t
sim_rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static inline void
sim_random_seed(uint64_t r[4], uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		r[i] = au_mix64(seed += UINT64_C(0x9e3779b97f4a7c15));
}

static inline uint64_t
sim_random_next(uint64_t r[4])
{
	uint64_t	result = sim_rotl(r[1] * 5, 7) * 9;
	uint64_t	t = r[1] << 17;

	r[2] ^= r[0];
	r[3] ^= r[1];
	r[1] ^= r[2];
	r[0] ^= r[3];
	r[2] ^= t;
	r[3] = sim_rotl(r[3], 45);
	return result;
}

#endif							/* SIM_RANDOM_H */
