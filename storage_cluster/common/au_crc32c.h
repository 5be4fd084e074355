/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_crc32c.h: CRC-32C (Castagnoli), the checksum of PostgreSQL's WAL
 * records and of every format of ours.
 */
#ifndef AU_CRC32C_H
#define AU_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * Continue a CRC over `len` bytes.  Start with crc = 0; the value is already
 * inverted at both ends, so au_crc32c(au_crc32c(0, a), b) is the CRC of the
 * concatenation and compares equal to PostgreSQL's FIN_CRC32C result.
 */
uint32_t	au_crc32c(uint32_t crc, const void *data, size_t len);

/* The same without the processor's instruction; public so that it is tested
 * on machines which have it. */
uint32_t	au_crc32c_portable(uint32_t crc, const void *data, size_t len);

#endif							/* AU_CRC32C_H */
