/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_volume.c: the VOLUME file's contents; see au_volume.h.
 */
#include "core/au_volume.h"

#include <assert.h>

#include "common/au_crc32c.h"

#define HISTORY_AT 56
#define TERM_LEN 20
#define MEMBERS_AT (HISTORY_AT + AU_HISTORY_MAX * TERM_LEN)
#define MEMBER_LEN (8 + AU_ADDRESS_MAX)
#define CRC_AT (AU_VOLUME_LEN - 4)

_Static_assert(MEMBERS_AT == 1336, "au_volume.h draws it there");
#define EPOCH_AT (MEMBERS_AT + AU_GROUP_MAX * MEMBER_LEN)
#define LOST_AT (EPOCH_AT + 4)
_Static_assert(EPOCH_AT == 2288 && LOST_AT + 8 <= CRC_AT, "the file has room");

void
au_volume_encode(uint8_t *buf, const AuVolumeMeta *m)
{
	assert(m->history.n <= AU_HISTORY_MAX && m->group.n <= AU_GROUP_MAX);
	memset(buf, 0, AU_VOLUME_LEN);
	memcpy(buf, AU_VOLUME_MAGIC, 8);
	/* Older builds would vote regardless. */
	au_put_u32(buf + 8, m->lost_before != 0 ? AU_VOLUME_VERSION : 3);
	au_put_u32(buf + 12, m->segment_size);
	au_put_u64(buf + 16, m->system_identifier);
	au_put_u64(buf + 24, m->start_lsn);
	au_put_u64(buf + 32, m->term);
	au_put_u64(buf + 40, m->voted_for);
	au_put_u32(buf + 48, m->timeline);
	buf[52] = m->group.n;
	buf[53] = m->group.write_quorum;
	au_put_u16(buf + 54, (uint16_t) m->history.n);
	for (uint32_t i = 0; i < m->history.n; i++)
	{
		uint8_t    *p = buf + HISTORY_AT + i * TERM_LEN;

		au_put_u64(p, m->history.terms[i].term);
		au_put_u64(p + 8, m->history.terms[i].start);
		au_put_u32(p + 16, m->history.terms[i].timeline);
	}
	for (uint32_t i = 0; i < m->group.n; i++)
	{
		uint8_t    *p = buf + MEMBERS_AT + i * MEMBER_LEN;

		au_put_u64(p, m->group.members[i].node_id);
		memcpy(p + 8, m->group.members[i].address, AU_ADDRESS_MAX);
	}
	au_put_u32(buf + EPOCH_AT, m->group.epoch);
	au_put_u64(buf + LOST_AT, m->lost_before);
	au_put_u32(buf + CRC_AT, au_crc32c(0, buf, CRC_AT));
}

/* false: not what au_volume_encode writes */
static bool
decode_lists(const uint8_t *buf, AuVolumeMeta *m)
{
	memset(&m->history, 0, sizeof(m->history));
	memset(&m->group, 0, sizeof(m->group));
	m->group.n = buf[52];
	m->group.write_quorum = buf[53];
	m->group.epoch = au_get_u32(buf + EPOCH_AT);
	m->history.n = au_get_u16(buf + 54);
	if (m->history.n > AU_HISTORY_MAX || m->group.n > AU_GROUP_MAX)
		return false;
	for (uint32_t i = 0; i < m->history.n; i++)
	{
		const uint8_t *p = buf + HISTORY_AT + i * TERM_LEN;

		m->history.terms[i].term = au_get_u64(p);
		m->history.terms[i].start = au_get_u64(p + 8);
		m->history.terms[i].timeline = au_get_u32(p + 16);
	}
	for (uint32_t i = 0; i < m->group.n; i++)
	{
		const uint8_t *p = buf + MEMBERS_AT + i * MEMBER_LEN;

		m->group.members[i].node_id = au_get_u64(p);
		if (p[MEMBER_LEN - 1] != 0)
			return false;
		memcpy(m->group.members[i].address, p + 8, AU_ADDRESS_MAX);
	}
	return au_history_valid(&m->history) &&
		au_history_last(&m->history, AU_LSN_MAX) <= m->term &&
		(m->group.n == 0 ? m->group.write_quorum == 0 && m->group.epoch == 0 :
		 au_group_valid(&m->group));
}

AuStatus
au_volume_decode(const uint8_t *buf, size_t len, AuVolumeMeta *m, const char **why)
{
	uint8_t		again[AU_VOLUME_LEN];
	uint32_t	version = len >= 12 ? au_get_u32(buf + 8) : 0;

	*why = "it is damaged; put back the directory from a backup, or remove the "
		"directory to begin anew (its pages are then lost)";
	if (len < 12 || memcmp(buf, AU_VOLUME_MAGIC, 8) != 0)
		return AU_CORRUPT;
	if (version < AU_VOLUME_VERSION_MIN || version > AU_VOLUME_VERSION)
	{
		*why = "its format is of another version of aurora_storaged; start the "
			"version that wrote it";
		return AU_UNSUPPORTED;
	}
	if (len != AU_VOLUME_LEN || au_get_u32(buf + CRC_AT) != au_crc32c(0, buf, CRC_AT))
		return AU_CORRUPT;
	m->segment_size = au_get_u32(buf + 12);
	m->system_identifier = au_get_u64(buf + 16);
	m->start_lsn = au_get_u64(buf + 24);
	m->term = au_get_u64(buf + 32);
	m->voted_for = au_get_u64(buf + 40);
	m->timeline = au_get_u32(buf + 48);
	m->lost_before = au_get_u64(buf + LOST_AT);
	if (!au_segment_size_valid(m->segment_size) || m->start_lsn == 0 ||
		!decode_lists(buf, m) || (version == 2 && m->group.epoch != 0) ||
		(version == AU_VOLUME_VERSION) != (m->lost_before != 0))
		return AU_CORRUPT;
	/* What is not used is zero, so that there is one form only. */
	au_volume_encode(again, m);
	if (memcmp(again + 12, buf + 12, CRC_AT - 12) != 0)
		return AU_CORRUPT;
	*why = NULL;
	return AU_OK;
}

bool
au_volume_may_lose_log(const AuVolumeMeta *m, uint64_t node_id)
{
	return m->group.n > 0 &&
		(au_group_find(&m->group, node_id) < 0 || au_group_votes(&m->group) < m->group.n);
}

/*
 * Not from restart on: of a log that is all there when it ends where it begins
 * a server could not be told from a copy that went its own way.
 */
void
au_volume_lose_log(AuVolumeMeta *m, AuLsn restart, AuLsn *start)
{
	*start = restart > m->start_lsn + AU_VOLUME_COMPARE_BYTES ?
		restart - AU_VOLUME_COMPARE_BYTES : m->start_lsn;
	m->lost_before = m->term + 1;
}

bool
au_volume_log_whole(const AuVolumeMeta *m, bool counts, AuLsn durable, AuLsn applied)
{
	const AuTerm *last = m->history.n > 0 ? &m->history.terms[m->history.n - 1] : NULL;

	if (!counts)
		return durable >= applied;
	return last != NULL && last->term >= m->lost_before && durable >= last->start;
}

bool
au_segment_size_valid(uint32_t size)
{
	return size >= (1u << 20) && size <= (1u << 30) && (size & (size - 1)) == 0;
}
