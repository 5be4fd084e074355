/* SPDX-License-Identifier: Apache-2.0 */
/* aurora_options.h: storage parameters that aurora tables cannot have. */
#ifndef AURORA_OPTIONS_H
#define AURORA_OPTIONS_H

/* From _PG_init. */
extern void aurora_options_install(void);

#endif							/* AURORA_OPTIONS_H */
