/* SPDX-License-Identifier: Apache-2.0 */
/*
 * testcluster.h: three real daemons that keep one volume, and a writer that
 * ships a log to each of them.  Include after cmocka.h and testnode.h, whose
 * log (tn.wal) it ships.
 */
#ifndef AU_TEST_TESTCLUSTER_H
#define AU_TEST_TESTCLUSTER_H

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>

#include "tests/testnode.h"

#define TC_NODES 3
#define TC_SYSID 7123456789012345680ULL

typedef struct TcNode
{
	char		dir[300];
	char		sock[256];
	char		log[256];
	char		listen[64];
	pid_t		pid;
	uint64_t	id;				/* as it says */
	Client		writer;
	AuLsn		shipped;
} TcNode;

static TcNode tc[TC_NODES];
static AuGroup tc_group;
static uint64_t tc_term;

/*
 * A port for a daemon.  It stays bound, without listening, until we end: no
 * other test and no outgoing connection gets it, not while the daemon is down,
 * either.
 */
static inline int
tc_free_port(void)
{
	static const int on = 1;
	struct sockaddr_in a = {.sin_family = AF_INET,.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	len = sizeof(a);
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *) &a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *) &a, &len), 0);
	/* bound for us alone; from here on who asks for the same may listen there */
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	return ntohs(a.sin_port);
}

static inline void
tc_setup(const char *name)
{
	assert_int_equal(testnode_setup(name, ""), 0);
	for (int i = 0; i < TC_NODES; i++)
	{
		snprintf(tc[i].dir, sizeof(tc[i].dir), "%s/node%d", tn.root, i);
		snprintf(tc[i].sock, sizeof(tc[i].sock), "%s/sock%d", tn.root, i);
		snprintf(tc[i].log, sizeof(tc[i].log), "%s/log%d", tn.root, i);
		snprintf(tc[i].listen, sizeof(tc[i].listen), "127.0.0.1:%d", tc_free_port());
	}
	tc_group = (AuGroup) {.n = TC_NODES,.write_quorum = 2};
	tc_term = 0;
}

/* Start one, with options that are one word each ("--a=b"); learn its id. */
static inline void
tc_start(int i, const char *option, const char *another)
{
	char	   *args[] = {
		"--dir", tc[i].dir, "--socket", tc[i].sock, "--listen", tc[i].listen, "--memory", "32",
		(char *) option, (char *) another, NULL
	};
	Client		c;
	AuMsgHelloOk ok;

	tc[i].pid = daemon_start(args, tc[i].log);
	if (!daemon_wait_socket(tc[i].sock))
		fail_msg("node %d did not come up, see %s", i, tc[i].log);
	snprintf(tn.sock, sizeof(tn.sock), "%s", tc[i].sock);
	testnode_hello(&c, AU_ROLE_ADMIN, 0, &ok);
	client_close(&c);
	tc[i].id = ok.node_id;
	tc_group.members[i].node_id = ok.node_id;
	snprintf(tc_group.members[i].address, AU_ADDRESS_MAX, "%s", tc[i].listen);
}

static inline int
tc_end(int i, int sig)
{
	int			st = daemon_end(tc[i].pid, sig);

	tc[i].pid = 0;
	return st;
}

static inline void
tc_teardown(void)
{
	char		command[512];

	for (int i = 0; i < TC_NODES; i++)
		if (tc[i].pid > 0)
		{
			tc_end(i, SIGKILL);
			snprintf(command, sizeof(command), "echo node %d; tail -20 %s", i, tc[i].log);
			(void) !system(command);
		}
	testnode_teardown();
}

/* A writer is elected in a new term on all nodes that run. */
static inline void
tc_elect(void)
{
	AuFrame		f;

	tc_term++;
	for (int i = 0; i < TC_NODES; i++)
	{
		AuMsgHelloOk hello;
		AuMsgVote	vote = {
			.term = tc_term,.writer_id = tc_term,.timeline = 1,.wal_segment_size = WALMAKE_SEGMENT,
			.start_lsn = tn.wal_start,.may_create = 1,.group = tc_group
		};
		AuMsgVoteOk voted;
		AuMsgElect	elect = {
			.term = tc_term,.writer_id = tc_term,.timeline = 1,.commit_lsn = tn.wal_start,
			.group = tc_group
		};
		AuMsgElectOk elected;

		if (tc[i].pid == 0)
			continue;
		snprintf(tn.sock, sizeof(tn.sock), "%s", tc[i].sock);
		testnode_hello(&tc[i].writer, AU_ROLE_WRITER, TC_SYSID, &hello);
		assert_true(CLIENT_SEND(&tc[i].writer, au_enc_vote, &vote));
		testnode_expect(&tc[i].writer, &f, AU_MSG_VOTE_OK, "VOTE");
		assert_true(au_dec_vote_ok(&f, &voted));
		assert_int_equal(voted.granted, 1);
		elect.history = voted.history;
		assert_true(au_history_push(&elect.history, tc_term, voted.durable_lsn > tn.wal_start ?
									voted.durable_lsn : tn.wal_start, 1));
		assert_true(CLIENT_SEND(&tc[i].writer, au_enc_elect, &elect));
		testnode_expect(&tc[i].writer, &f, AU_MSG_ELECT_OK, "ELECT");
		assert_true(au_dec_elect_ok(&f, &elected));
		tc[i].shipped = elected.received_lsn;
	}
}

static inline void
tc_writers_close(void)
{
	for (int i = 0; i < TC_NODES; i++)
		if (tc[i].pid > 0)
			client_close(&tc[i].writer);
}

/* One message, and its answer. */
static inline AuMsgAppendOk
tc_append(int i, const uint8_t *bytes, uint32_t len, AuLsn commit)
{
	AuMsgAppend m = {
		.term = tc_term,.timeline = 1,.lsn = tc[i].shipped,.length = len,.bytes = bytes,
		.commit_lsn = commit
	};
	AuMsgAppendOk ok;
	AuFrame		f;

	assert_true(CLIENT_SEND(&tc[i].writer, au_enc_append, &m));
	do
	{
		testnode_expect(&tc[i].writer, &f, AU_MSG_APPEND_OK, "APPEND");
		assert_true(au_dec_append_ok(&f, &ok));
	} while (f.id != tc[i].writer.id);
	return ok;
}

/* The log to its end, to all that run, committed and applied. */
static inline void
tc_ship(void)
{
	AuLsn		end = walmake_pos(&tn.wal);

	for (int i = 0; i < TC_NODES; i++)
		while (tc[i].pid > 0 && tc[i].shipped < end)
		{
			uint32_t	n = end - tc[i].shipped < 500000 ? (uint32_t) (end - tc[i].shipped) : 500000;

			(void) tc_append(i, tn.wal.buf + (tc[i].shipped - tn.wal.base), n, 0);
			tc[i].shipped += n;
		}
	for (int i = 0; i < TC_NODES; i++)
		for (int k = 0; tc[i].pid > 0 && tc_append(i, NULL, 0, end).applied_lsn < tn.wal.last_end; k++)
		{
			assert_true(k < 6000);
			usleep(10 * 1000);
		}
}

/* A new writer tells all that run how far the log is committed, and goes. */
static inline void
tc_tell_commit(void)
{
	tc_elect();
	for (int i = 0; i < TC_NODES; i++)
		if (tc[i].pid > 0)
			(void) tc_append(i, NULL, 0, walmake_pos(&tn.wal));
	tc_writers_close();
}

/* ---- what a node says ---------------------------------------------------- */

/* The number behind "name": in its status, of its volume; -1: there is none. */
static inline int64_t
tc_figure(int i, const char *name)
{
	char		quoted[100];
	const char *at;

	snprintf(tn.sock, sizeof(tn.sock), "%s", tc[i].sock);
	snprintf(quoted, sizeof(quoted), "\"%s\":", name);
	at = strstr(testnode_status(), quoted);
	return at != NULL ? strtoll(at + strlen(quoted), NULL, 10) : -1;
}

static inline void
tc_wait_figure(int i, const char *name, int64_t least)
{
	for (int k = 0; k < 1200 && tc_figure(i, name) < least; k++)
		usleep(50 * 1000);
	if (tc_figure(i, name) < least)
		fail_msg("node %d: %s is %lld, never %lld", i, name, (long long) tc_figure(i, name),
				 (long long) least);
}

static inline bool
tc_log_has(int i, const char *text)
{
	char		command[600];

	snprintf(command, sizeof(command), "grep -q '%s' %s", text, tc[i].log);
	return system(command) == 0;
}

#endif							/* AU_TEST_TESTCLUSTER_H */
