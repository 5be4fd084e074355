/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_text.h: a text that grows, and figures in it in Prometheus' format.  All
 * names get the prefix "aurora_storaged_", counters the suffix "_total".
 */
#ifndef AU_TEXT_H
#define AU_TEXT_H

#include "core/au_hist.h"

typedef struct AuText
{
	char	   *data;			/* malloc'ed; NULL: nothing yet */
	size_t		len;
	size_t		cap;
	bool		failed;			/* out of memory; nothing is added any more */
} AuText;

/* At most 511 bytes a call; longer ones are left out. */
void		au_text_add(AuText *t, const char *fmt,...) __attribute__((format(printf, 2, 3)));
/* HELP and TYPE of a counter or gauge. */
void		au_text_metric(AuText *t, const char *name, bool counter, const char *help);
/* The same with its one value. */
void		au_text_value(AuText *t, const char *name, bool counter, const char *help, uint64_t value);
/* The lines of a histogram "NAME_seconds", at powers of two of a microsecond
 * from 4 us to 33 s.  labels: "" or `a="b"`. */
void		au_text_histogram(AuText *t, const char *name, const char *labels, const AuHist *h);

#endif							/* AU_TEXT_H */
