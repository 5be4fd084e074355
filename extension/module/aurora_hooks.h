/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_hooks.h: where stock code that knows nothing of us is intercepted;
 * aurora_hooks.c tells why.
 */
#ifndef AURORA_HOOKS_H
#define AURORA_HOOKS_H

/* From _PG_init. */
extern void aurora_hooks_install(void);

#endif							/* AURORA_HOOKS_H */
