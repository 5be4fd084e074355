#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
check_result.py latest.json: is everything there that docs/benchmark.md promises,
and can the figures be true?  For the tests; a smoke run's figures say nothing about
speed, so only what must hold on any machine is looked at.
"""

import json
import sys

RATIOS = [
    "tpcb_embedded_vs_heap", "tpcb_embedded_sync_vs_heap", "wal_bytes_embedded_vs_heap",
    "select_cached_embedded_vs_heap", "copy_embedded_vs_heap", "seqscan_cold_embedded_vs_heap",
    "disk_bytes_embedded_vs_heap", "recovery_speedup_vs_heap",
    "recovery_same_changes_speedup_vs_heap", "ingest_vs_standby_replay",
    "tpcb_cluster3_vs_heap_any2", "simple_update_cluster3_vs_heap_any2",
    "tpcb_p99_cluster3_vs_heap_any2", "simple_update_p99_cluster3_vs_heap_any2",
    "tpcb_wal_cluster3_vs_heap_any2", "tpcb_written_cluster3_vs_heap_any2",
    "tpcb_node_vs_heap_any2", "simple_update_node_vs_heap_any2", "heap_any2_vs_heap_tpcb",
]
wrong = []


def check(ok, text):
    if not ok:
        wrong.append(text)


def check_pgbench(s):
    what = "%s of %s" % (s["workload"], s["peer"])
    check(s["transactions"] > 0, what + ": no transactions")
    latency = s["latency"]
    check(0 < latency["p50_ms"] <= latency["p99_ms"] <= latency["max_ms"],
          what + ": latencies %s" % latency)
    check(s["cpu_s"].get("backend", 0) > 0, what + ": backends used no processor time")
    if s["workload"].startswith("tpcb"):
        each = s["per_transaction"]["wal_bytes"]
        check(200 < each < 100000, what + ": %d bytes of WAL per transaction" % each)
        check(s["io"].get("write_bytes", 0) > 0, what + ": nothing written")
    if s["peer"] in ("embedded", "node", "cluster3") and s["workload"] == "tpcb":
        check(s["cpu_s"].get("storaged", 0) > 0, what + ": the daemon did nothing")
    if s["peer"] == "heap_any2" and s["workload"] == "tpcb":
        check(s["cpu_s"].get("standby", 0) > 0, what + ": the standbys did nothing")


def check_wal(r):
    by = {s["peer"]: s for s in r["samples"] if s["workload"] == "wal"}
    heap, ours = by["heap"], by["embedded"]
    check(heap["transactions"] == ours["transactions"], "captured runs differ in length")
    for s in (heap, ours):
        total = sum(v["bytes"] for v in s["by_object"].values())
        check(0.8 * s["wal_bytes"] <= total <= s["wal_bytes"],
              "records add up to %d of %d bytes of WAL" % (total, s["wal_bytes"]))
        check(s["disk"]["table_bytes"] > 0, "no bytes on disk")
    check(heap["by_object"]["table"]["image_bytes"] > 0, "heap without full-page images")
    check(ours["disk"]["page_bytes"] > 0, "aurora's tables have no pages")
    check(ours["disk"]["of_which_local_maps"] < ours["disk"]["page_bytes"] / 10,
          "aurora's tables have local files")


def main():
    with open(sys.argv[1]) as f:
        r = json.load(f)
    for e in r["errors"]:
        check(False, "%s failed: %s" % (e["what"], e["error"]))
    for key in ("revision", "command", "date", "machine", "settings", "medians", "targets"):
        check(r.get(key), "no \"%s\"" % key)
    for key in RATIOS:
        v = r["ratios"].get(key)
        check(v is not None and 0 < v < 1000, "ratio %s is %s" % (key, v))
    for key, t in r["targets"].items():
        check(t["met"] is not None, "target %s was not measured" % key)
    for w in r["workloads"]:
        check(r["medians"].get(w, {}).get("embedded", 0) > 0, "no figure for " + w)
    for s in r["samples"]:
        if "per_transaction" in s:
            check_pgbench(s)
    if not wrong:
        check_wal(r)
    for text in wrong:
        print("wrong: " + text)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
