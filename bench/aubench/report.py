# SPDX-License-Identifier: Apache-2.0
"""
From samples to medians, ratios and tables.

  python3 -m aubench.report SECTION.md DOC.md   puts a section into a document,
                                                between its two markers
"""

import statistics
import sys

# key: (workload, peer, of which workload, of which peer).  Above 1: the first is
# faster (for those counted in seconds the quotient is turned round).
SPEED_RATIOS = {
    "tpcb_embedded_vs_heap": ("tpcb", "embedded", "tpcb", "heap"),
    "tpcb_embedded_sync_vs_heap": ("tpcb_sync", "embedded", "tpcb", "heap"),
    "simple_update_embedded_vs_heap": ("simple_update", "embedded", "simple_update", "heap"),
    "select_cached_embedded_vs_heap": ("select_cached", "embedded", "select_cached", "heap"),
    "tpcb_large_embedded_vs_heap": ("tpcb_large", "embedded", "tpcb_large", "heap"),
    "simple_update_large_embedded_vs_heap":
        ("simple_update_large", "embedded", "simple_update_large", "heap"),
    "select_large_embedded_vs_heap": ("select_large", "embedded", "select_large", "heap"),
    "copy_embedded_vs_heap": ("copy", "embedded", "copy", "heap"),
    "index_build_embedded_vs_heap": ("index_build", "embedded", "index_build", "heap"),
    "update_bulk_embedded_vs_heap": ("update_bulk", "embedded", "update_bulk", "heap"),
    "seqscan_warm_embedded_vs_heap": ("seqscan_warm", "embedded", "seqscan_warm", "heap"),
    "seqscan_cold_embedded_vs_heap": ("seqscan_cold", "embedded", "seqscan_cold", "heap"),
    "seqscan_disk_embedded_vs_heap": ("seqscan_disk", "embedded", "seqscan_disk", "heap"),
    "point_cold_embedded_vs_heap": ("point_cold", "embedded", "point_cold", "heap"),
    "recovery_speedup_vs_heap": ("recovery", "embedded", "recovery", "heap"),
    "recovery_same_changes_speedup_vs_heap": ("recovery_same", "embedded", "recovery", "heap"),
    "ingest_vs_standby_replay": ("ingest", "embedded", "ingest", "heap"),
    "heap_any2_vs_heap_tpcb": ("tpcb", "heap_any2", "tpcb", "heap"),
    "tpcb_node_vs_heap_any2": ("tpcb", "node", "tpcb", "heap_any2"),
    "simple_update_node_vs_heap_any2": ("simple_update", "node", "simple_update", "heap_any2"),
    "tpcb_cluster3_vs_heap_any2": ("tpcb", "cluster3", "tpcb", "heap_any2"),
    "simple_update_cluster3_vs_heap_any2":
        ("simple_update", "cluster3", "simple_update", "heap_any2"),
    "tpcb_large_cluster3_vs_heap_any2": ("tpcb_large", "cluster3", "tpcb_large", "heap_any2"),
}

# key: figure in the samples of a workload; cluster3's over heap_any2's.  Below 1:
# the cluster needs less.  Written: by all processes of a peer, to all its disks.
CLUSTER_COSTS = {
    "%s_p99_cluster3_vs_heap_any2": ("latency", "p99_ms"),
    "%s_wal_cluster3_vs_heap_any2": ("per_transaction", "wal_bytes"),
    "%s_written_cluster3_vs_heap_any2": ("per_transaction", "write_bytes"),
    "%s_cpu_cluster3_vs_heap_any2": ("per_transaction", "cpu_ms_total"),
}

# What the project wants: at least (+) or at most (-) so much.
TARGETS = {
    "tpcb_embedded_vs_heap": (+1, 0.9),
    "wal_bytes_embedded_vs_heap": (-1, 0.6),
    "select_cached_embedded_vs_heap": (+1, 0.97),
    "copy_embedded_vs_heap": (+1, 0.7),
    "seqscan_cold_embedded_vs_heap": (+1, 0.7),
    "disk_bytes_embedded_vs_heap": (-1, 0.5),
    "recovery_speedup_vs_heap": (+1, 5.0),
    "ingest_vs_standby_replay": (+1, 1.0),
    "tpcb_cluster3_vs_heap_any2": (+1, 1.0),
    "simple_update_cluster3_vs_heap_any2": (+1, 1.0),
    "tpcb_p99_cluster3_vs_heap_any2": (-1, 1.0),
    "simple_update_p99_cluster3_vs_heap_any2": (-1, 1.0),
    "tpcb_wal_cluster3_vs_heap_any2": (-1, 1.0),
    "tpcb_written_cluster3_vs_heap_any2": (-1, 1.0),
}

SECONDS = {"s"}


def of(result, workload, peer):
    return [s for s in result["samples"] if s["workload"] == workload and s["peer"] == peer]


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def dig(sample, path):
    for key in path:
        if not isinstance(sample, dict) or key not in sample:
            return None
        sample = sample[key]
    return sample


def middle(result, workload, peer, *path):
    """Median over the repeats of a figure in the samples."""
    return median([dig(s, path or ("value",)) for s in of(result, workload, peer)])


def quotient(a, b):
    return round(a / b, 4) if a is not None and b else None


def summarize(result):
    """Adds medians, ratios and targets to the result."""
    medians = {}
    for s in result["samples"]:
        medians.setdefault(s["workload"], {}).setdefault(s["peer"], []).append(s["value"])
    result["medians"] = {w: {p: statistics.median(v) for p, v in by.items()}
                         for w, by in medians.items()}
    ratios = {}
    for key, (w, p, bw, bp) in SPEED_RATIOS.items():
        units = [s["unit"] for s in of(result, w, p)]
        a, b = middle(result, w, p), middle(result, bw, bp)
        if units and units[0] in SECONDS:
            a, b = b, a
        ratios[key] = quotient(a, b)

    def both(workload, *path, against="heap"):
        return quotient(middle(result, workload, "embedded", *path),
                        middle(result, workload, against, *path))
    ratios["wal_bytes_embedded_vs_heap"] = both("wal")
    ratios["wal_bytes_embedded_vs_heap_lz4"] = both("wal", against="heap_lz4")
    ratios["wal_total_embedded_vs_heap"] = both("wal", "wal_bytes_per_transaction")
    ratios["disk_bytes_embedded_vs_heap"] = both("wal", "disk", "table_bytes")
    ratios["disk_bytes_end_embedded_vs_heap"] = both("disk_end", "bytes_per_row")
    all_cpu = middle(result, "ingest", "heap", "all_cpu_s")
    ratios["ingest_vs_standby_all_processes"] = quotient(
        all_cpu, middle(result, "ingest", "embedded", "cpu_seconds"))
    ratios["redo_speedup_vs_heap"] = quotient(middle(result, "recovery", "heap", "redo_s"),
                                              middle(result, "recovery", "embedded", "redo_s"))
    ratios["cpu_per_tpcb_embedded_vs_heap"] = both("tpcb", "per_transaction", "cpu_ms_total")
    for w in ("tpcb", "simple_update"):
        for key, path in CLUSTER_COSTS.items():
            ratios[key % w] = quotient(middle(result, w, "cluster3", *path),
                                       middle(result, w, "heap_any2", *path))
    result["ratios"] = {k: v for k, v in ratios.items() if v is not None}
    result["targets"] = {
        k: {"at_least" if sign > 0 else "at_most": limit,
            "measured": result["ratios"].get(k),
            "met": None if k not in result["ratios"]
            else sign * result["ratios"][k] >= sign * limit}
        for k, (sign, limit) in TARGETS.items()}


# ---- tables -------------------------------------------------------------------

def number(v):
    if v is None:
        return "-"
    if isinstance(v, str):
        return v
    if abs(v) >= 1000:
        return "{:,.0f}".format(v)
    return "%.3g" % v if abs(v) < 100 else "%.0f" % v


def table(head, rows):
    out = ["| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    out += ["| " + " | ".join(number(c) for c in r) + " |" for r in rows]
    return "\n".join(out) + "\n"


def target_rows(result):
    for k, t in result["targets"].items():
        want = "≥ %g" % t["at_least"] if "at_least" in t else "≤ %g" % t["at_most"]
        yield ["`%s`" % k, "-" if t["measured"] is None else "%.3f" % t["measured"], want,
               {True: "met", False: "**missed**", None: "not measured"}[t["met"]]]


def speed_rows(result, peers):
    for w, info in result["workloads"].items():
        values = [result["medians"].get(w, {}).get(p) for p in peers]
        if any(v is not None for v in values):
            yield [info["title"], info["unit"]] + values


def latency_rows(result, peers):
    for w, info in result["workloads"].items():
        cells = []
        for p in peers:
            a, b = (middle(result, w, p, "latency", k) for k in ("p50_ms", "p99_ms"))
            cells.append(None if a is None else "%.2f / %.2f" % (a, b))
        if any(cells):
            yield [info["title"]] + cells


def cost_rows(result, peers, workload):
    per = ("per_transaction",)
    for title, path, scale in (
            ("WAL, bytes", ("wal_bytes",), 1), ("full-page images", ("wal_full_page_images",), 1),
            ("read from disk, bytes", ("read_bytes",), 1),
            ("written to disk, bytes", ("write_bytes",), 1),
            ("CPU, ms", ("cpu_ms_total",), 1)):
        yield [title] + [middle(result, workload, p, *per, *path) for p in peers]
    kinds = sorted({k for p in peers for s in of(result, workload, p)
                    for k in s.get("per_transaction", {}).get("cpu_ms", {})})
    for k in kinds:
        yield ["... " + k] + [middle(result, workload, p, *per, "cpu_ms", k) for p in peers]
    for title, path in (("memory (PSS), MB", ("memory", "total", "pss")),
                        ("... anonymous, MB", ("memory", "total", "anon"))):
        values = [middle(result, workload, p, *path) for p in peers]
        yield [title] + [None if v is None else v / 1e6 for v in values]


def wal_rows(result):
    for p in ("heap", "heap_lz4", "embedded"):
        for s in of(result, "wal", p):
            o, n = s["by_object"], s["transactions"]
            def per(what, field="bytes"):
                return o.get(what, {}).get(field, 0) / n
            yield ([p] + [per(w) for w in ("table", "index", "transaction", "catalog")]
                   + [s["wal_bytes_per_transaction"], per("table", "image_bytes"),
                      per("index", "image_bytes")])


def ingest_rows(result):
    names = {"heap": "stock standby, heap's WAL", "embedded": "storage node, aurora's WAL",
             "node_given_heap_wal": "storage node, heap's WAL (no pages in it)"}
    for p, title in names.items():
        if of(result, "ingest", p):
            m = [middle(result, "ingest", p, k) for k in
                 ("value", "wal_mb_per_cpu_second", "cpu_seconds", "seconds")]
            yield [title] + m + [middle(result, "ingest", p, "all_cpu_s")]


def recovery_rows(result):
    for w, p, title in (("recovery", "heap", "heap"), ("recovery", "embedded", "embedded"),
                        ("recovery_same", "embedded", "embedded, as many changes as heap")):
        if of(result, w, p):
            m = [middle(result, w, p, k) for k in
                 ("value", "ready_s", "redo_s", "wal_bytes", "row_changes")]
            yield [title] + m[:3] + [m[3] / 1e6, m[4], 1e6 * m[0] / m[4]]


def disk_rows(result):
    for w, when in (("wal", "after the captured run"), ("disk_end", "at the end")):
        for p in result["peers"]:
            for s in of(result, w, p):
                d = s.get("disk")
                if d:
                    yield [p, when, d["table_bytes"] / 1e6, d["page_bytes"] / 1e6,
                           d["table_bytes"] / max(1, d["page_bytes"]),
                           d.get("landing_log_bytes", 0) / 1e6]


def machine_line(result):
    m = result["machine"]
    return ("%s, %d cores, %d MB, %s, Linux %s, a synced 8 kB write takes %d µs, load "
            "before %.1f; %s; revision %s, %s" % (
                m["cpu"], m["cpus"], m["memory_mb"], m["file_system"], m["kernel"],
                m["fdatasync_us"], m["load_before"], m["postgresql"], result["revision"], result["date"]))


def markdown(result, plots):
    peers = list(result["peers"])
    o = result["settings"]
    parts = ["Made by `%s` in %d min on: %s. Mode %s, scale %d, %d clients, median of %d.\n" % (
        result["command"], round(result["seconds"] / 60), machine_line(result), o["mode"],
        o["scale"], o["clients"], o["repeats"])]
    if not result["complete"]:
        parts.append("**Incomplete**: it was interrupted; what is missing was not measured.\n")

    def part(title, head, rows, text=""):
        rows = list(rows)
        if rows:
            parts.append("### %s\n%s\n%s" % (title, text, table(head, rows)))
    part("Targets", ["ratio", "measured", "target", ""], target_rows(result))
    part("Speed", ["workload", "unit"] + peers, speed_rows(result, peers),
         "tps: more is better; s: less is.\n")
    part("Latency, p50 / p99 in ms", ["workload"] + peers, latency_rows(result, peers))
    for w, title in (("tpcb", "TPC-B"), ("simple_update", "simple-update"),
                     ("select_large", "select-only, data >> shared_buffers")):
        if any(of(result, w, p) for p in peers):
            part("Per transaction: " + title, ["" ] + peers, cost_rows(result, peers, w))
    part("WAL bytes per TPC-B transaction, by what changed",
         ["", "table", "index", "transaction", "catalog", "all", "images in table",
          "images in index"], wal_rows(result))
    part("Log ingest", ["", "tx / CPU-s", "MB / CPU-s", "CPU s", "wall s",
                        "CPU s, all processes"], ingest_rows(result))
    part("Recovery", ["", "s until a row is read", "until connections", "redo alone", "WAL, MB",
                      "row changes", "s per million changes"],
         recovery_rows(result))
    part("Disk", ["", "when", "table data, MB", "table pages, MB", "bytes per page byte",
                  "landing log, MB"], disk_rows(result))
    part("All ratios", ["ratio", "value"],
         ([["`%s`" % k, "%.3f" % v] for k, v in sorted(result["ratios"].items())]))
    if result["errors"]:
        parts.append("### Failed\n\n" + "\n".join(
            "- %s: %s" % (e["what"], e["error"].splitlines()[0]) for e in result["errors"]) + "\n")
    parts.append("\n".join("![%s](%s)" % (n.rpartition(".")[0], n) for n in plots) + "\n")
    return "\n".join(parts)


def console(result):
    """The same for a terminal, shorter."""
    peers = list(result["peers"])
    lines = ["%-44s %-4s" % ("", "") + "".join("%14s" % p for p in peers)]
    for r in speed_rows(result, peers):
        lines.append("%-44s %-4s" % tuple(r[:2]) + "".join("%14s" % number(c) for c in r[2:]))
    lines.append("")
    for r in target_rows(result):
        lines.append("%-36s %10s   target %-8s %s" % (r[0].strip("`"), r[1], r[2],
                                                       r[3].strip("*")))
    return "\n".join(lines)


BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def put_into(document, section):
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit("bench: no markers in the document")
    return head + BEGIN + "\n" + section + END + tail


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        new = f.read()
    with open(sys.argv[2]) as f:
        old = f.read()
    with open(sys.argv[2], "w") as f:
        f.write(put_into(old, new))
