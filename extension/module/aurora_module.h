/* SPDX-License-Identifier: Apache-2.0 */
/* aurora_module.h: the state of the library itself. */
#ifndef AURORA_MODULE_H
#define AURORA_MODULE_H

/*
 * Raises an error with a hint unless the library was loaded by
 * shared_preload_libraries: without shared memory, settings and the resource
 * manager nothing of Aurora works.  Every function that SQL can call first
 * goes through here.
 */
extern void aurora_require_preloaded(void);

#endif							/* AURORA_MODULE_H */
