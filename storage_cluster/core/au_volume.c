/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_volume.c: the VOLUME file's contents; see au_volume.h.
 */
#include "core/au_volume.h"

#include "common/au_crc32c.h"

void
au_volume_encode(uint8_t *buf, const AuVolumeMeta *m)
{
	memcpy(buf, AU_VOLUME_MAGIC, 8);
	au_put_u32(buf + 8, AU_VOLUME_VERSION);
	au_put_u32(buf + 12, m->segment_size);
	au_put_u64(buf + 16, m->system_identifier);
	au_put_u64(buf + 24, m->start_lsn);
	au_put_u64(buf + 32, m->term);
	au_put_u32(buf + 40, m->timeline);
	au_put_u32(buf + 44, au_crc32c(0, buf, 44));
}

AuStatus
au_volume_decode(const uint8_t *buf, size_t len, AuVolumeMeta *m, const char **why)
{
	*why = "it is damaged; put back the directory from a backup, or remove the "
		"directory to begin anew (its pages are then lost)";
	if (len < 12 || memcmp(buf, AU_VOLUME_MAGIC, 8) != 0)
		return AU_CORRUPT;
	if (au_get_u32(buf + 8) != AU_VOLUME_VERSION)
	{
		*why = "its format is of another version of aurora_storaged; start the "
			"version that wrote it";
		return AU_UNSUPPORTED;
	}
	if (len != AU_VOLUME_LEN || au_get_u32(buf + 44) != au_crc32c(0, buf, 44))
		return AU_CORRUPT;
	m->segment_size = au_get_u32(buf + 12);
	m->system_identifier = au_get_u64(buf + 16);
	m->start_lsn = au_get_u64(buf + 24);
	m->term = au_get_u64(buf + 32);
	m->timeline = au_get_u32(buf + 40);
	if (!au_segment_size_valid(m->segment_size) || m->start_lsn == 0)
		return AU_CORRUPT;
	*why = NULL;
	return AU_OK;
}

bool
au_segment_size_valid(uint32_t size)
{
	return size >= (1u << 20) && size <= (1u << 30) && (size & (size - 1)) == 0;
}
