/* SPDX-License-Identifier: Apache-2.0 */
/*
 * testfixture.h: what store tests begin and end with: a directory of their own,
 * of which nothing is left, and processes that are killed at work.  Include
 * after cmocka.h; once a program.
 */
#ifndef AU_TEST_TESTFIXTURE_H
#define AU_TEST_TESTFIXTURE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/testdir.h"

static char dir[200];			/* not made yet; all below it goes at the end */

static inline int
testfixture_setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void) state;
	snprintf(dir, sizeof(dir), "%.100s/au_%s.%ld", tmp != NULL ? tmp : "/tmp",
			 program_invocation_short_name, (long) getpid());
	return 0;
}

static inline int
testfixture_teardown(void **state)
{
	(void) state;
	testdir_remove(dir);
	return 0;
}

/* Run this program again with these arguments (NULL-terminated, with argv[0]);
 * it must kill itself with SIGKILL. */
static inline void
testfixture_run_child(char *const *args)
{
	pid_t		pid = fork();
	int			st;

	if (pid == 0)
	{
		execv("/proc/self/exe", args);
		_exit(10);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &st, 0), pid);
	assert_true(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
}

#endif							/* AU_TEST_TESTFIXTURE_H */
