/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_wait.c: time, and interrupts while something is waited for; see
 * aurora_conn.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"

#include "client/aurora_conn.h"

int64
aurora_now_ms(void)
{
	instr_time	t;

	INSTR_TIME_SET_CURRENT(t);
	return (int64) INSTR_TIME_GET_MILLISEC(t);
}

void
aurora_check_interrupts(void)
{
	uint32		held;

	Assert(CritSectionCount == 0);
	CHECK_FOR_INTERRUPTS();
	if (InterruptHoldoffCount == 0)
		return;
	if (!ProcDiePending &&
		!(QueryCancelPending && QueryCancelHoldoffCount == 0))
		return;

	/*
	 * Somebody wants us to stop, but an LWLock (an index page's, say) holds
	 * interrupts off.  To raise an error here is as good as any error a read
	 * can raise, and the abort releases the locks.
	 */
	held = InterruptHoldoffCount;
	InterruptHoldoffCount = 0;
	CHECK_FOR_INTERRUPTS();
	InterruptHoldoffCount = held;
}

void
aurora_nap(long ms)
{
	int			rc;

	rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				   ms, PG_WAIT_EXTENSION);
	if (rc & WL_LATCH_SET)
		ResetLatch(MyLatch);
	aurora_check_interrupts();
}
