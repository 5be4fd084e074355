/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_text.c: see au_text.h.
 */
#include "daemon/au_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void
au_text_add(AuText *t, const char *fmt,...)
{
	char		line[512];
	va_list		args;
	int			n;

	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (t->failed || n < 0 || (size_t) n >= sizeof(line))
		return;
	if (t->len + (size_t) n + 1 > t->cap)
	{
		size_t		cap = t->cap == 0 ? 8192 : t->cap * 2;
		char	   *bigger = realloc(t->data, cap);

		if (bigger == NULL)
		{
			t->failed = true;
			return;
		}
		t->data = bigger;
		t->cap = cap;
	}
	memcpy(t->data + t->len, line, (size_t) n + 1);
	t->len += (size_t) n;
}

void
au_text_metric(AuText *t, const char *name, bool counter, const char *help)
{
	au_text_add(t, "# HELP aurora_storaged_%s%s %s\n# TYPE aurora_storaged_%s%s %s\n",
				name, counter ? "_total" : "", help, name, counter ? "_total" : "",
				counter ? "counter" : "gauge");
}

void
au_text_value(AuText *t, const char *name, bool counter, const char *help, uint64_t value)
{
	au_text_metric(t, name, counter, help);
	au_text_add(t, "aurora_storaged_%s%s %" PRIu64 "\n", name, counter ? "_total" : "", value);
}

void
au_text_histogram(AuText *t, const char *name, const char *labels, const AuHist *h)
{
	const char *comma = labels[0] != '\0' ? "," : "";
	const char *open = labels[0] != '\0' ? "{" : "";
	const char *close = labels[0] != '\0' ? "}" : "";

	for (uint32_t k = 2; k <= 25; k++)
		au_text_add(t, "aurora_storaged_%s_seconds_bucket{%s%sle=\"%.6f\"} %" PRIu64 "\n", name, labels,
					comma, (double) ((uint64_t) 1 << k) / 1e6, au_hist_at_most(h, k));
	au_text_add(t, "aurora_storaged_%s_seconds_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, labels,
				comma, h->count);
	au_text_add(t, "aurora_storaged_%s_seconds_sum%s%s%s %.6f\n", name, open, labels, close,
				(double) h->sum_us / 1e6);
	au_text_add(t, "aurora_storaged_%s_seconds_count%s%s%s %" PRIu64 "\n", name, open, labels, close,
				h->count);
}
