# SPDX-License-Identifier: Apache-2.0
"""Bar charts as SVG, nothing but text needed."""

from xml.sax.saxutils import escape

from . import report

COLOURS = ["#4c78a8", "#9ecae9", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2",
           "#eeca3b", "#9d755d", "#bab0ac"]


class Svg:
    def __init__(self, width, height, title):
        self.parts = [
            '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
            'viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' % (
                width, height, width, height),
            '<rect width="%d" height="%d" fill="white"/>' % (width, height)]
        self.text(width / 2, 20, title, "middle", 15)

    def text(self, x, y, s, anchor="start", size=12):
        self.parts.append('<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d">%s</text>'
                          % (x, y, anchor, size, escape(s)))

    def bar(self, x, y, w, h, colour, hint=""):
        self.parts.append('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s">'
                          '<title>%s</title></rect>' % (x, y, max(0, w), h, colour,
                                                        escape(hint)))

    def line(self, x1, y1, x2, y2, colour="#ccc"):
        self.parts.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>'
                          % (x1, y1, x2, y2, colour))

    def legend(self, y, names, left):
        for i, n in enumerate(names):
            self.bar(left + 120 * (i % 5), y + 18 * (i // 5) - 10, 12, 12,
                     COLOURS[i % len(COLOURS)])
            self.text(left + 17 + 120 * (i % 5), y + 18 * (i // 5), n)

    def done(self):
        return "\n".join(self.parts + ["</svg>", ""])


def grouped(title, rows, names, mark=None):
    """rows: (label, {name: value}); horizontal bars, one group a row."""
    left, width, thick = 270, 910, 13
    height = 70 + sum(10 + thick * max(1, len(v)) for _, v in rows)
    svg = Svg(width, height, title)
    svg.legend(44, names, left)
    top = max([v for _, by in rows for v in by.values()] + [mark or 0, 1e-9])
    scale = (width - left - 80) / top
    if mark:
        svg.line(left + mark * scale, 55, left + mark * scale, height - 5, "#888")
    y = 60
    for label, by in rows:
        svg.text(left - 8, y + thick * len(by) / 2 + 4, label, "end")
        for name, v in by.items():
            svg.bar(left, y, v * scale, thick - 2, COLOURS[names.index(name) % len(COLOURS)],
                    "%s: %s" % (name, report.number(v)))
            svg.text(left + v * scale + 4, y + thick - 3, report.number(v), size=10)
            y += thick
        y += 10
    return svg.done()


def stacked(title, rows, names):
    """rows: (label, {name: value}); one bar a row, its parts side by side."""
    left, width, thick = 120, 860, 26
    head = 62 + 18 * ((len(names) - 1) // 5)
    svg = Svg(width, head + len(rows) * (thick + 10) + 10, title)
    svg.legend(44, names, left)
    top = max([sum(by.values()) for _, by in rows] + [1e-9])
    scale = (width - left - 80) / top
    y = head
    for label, by in rows:
        svg.text(left - 8, y + thick / 2 + 4, label, "end")
        x = left
        for n in names:
            v = by.get(n, 0)
            svg.bar(x, y, v * scale, thick, COLOURS[names.index(n) % len(COLOURS)],
                    "%s: %s" % (n, report.number(v)))
            x += v * scale
        svg.text(x + 4, y + thick / 2 + 4, report.number(sum(by.values())), size=11)
        y += thick + 10
    return svg.done()


def all_plots(result):
    """{file name: SVG}"""
    out = {}
    peers = list(result["peers"])
    rows = []
    for w, info in result["workloads"].items():
        by = result["medians"].get(w, {})
        base = by.get("heap")
        if base:
            rows.append((info["title"].replace("data >> shared_buffers", "large"), {
                p: (base / by[p] if info["unit"] == "s" else by[p] / base)
                for p in peers if by.get(p)}))
    if rows:
        out["speed.svg"] = grouped("Speed relative to stock heap (more is better)", rows,
                                   peers, 1.0)

    rows = [(report_title, {p: v for p in peers for v in
                            [report.middle(result, w, p, "latency", "p99_ms")] if v})
            for w, report_title in (("tpcb", "TPC-B"), ("simple_update", "simple-update"),
                                    ("tpcb_large", "TPC-B, large"),
                                    ("point_cold", "cold point reads"))]
    rows = [r for r in rows if r[1]]
    if rows:
        out["latency-p99.svg"] = grouped("p99 latency in ms (less is better)", rows, peers)

    rows, kinds = [], []
    for p in peers:
        samples = report.of(result, "tpcb", p)
        names = {k for s in samples for k in s.get("per_transaction", {}).get("cpu_ms", {})}
        by = {k: report.middle(result, "tpcb", p, "per_transaction", "cpu_ms", k) or 0
              for k in sorted(names)}
        kinds += [k for k in by if k not in kinds]
        if by:
            rows.append((p, by))
    if rows:
        out["cpu.svg"] = stacked("CPU per TPC-B transaction in ms, by process", rows, kinds)

    rows = [(r[0], dict(zip(("table", "index", "transaction"), r[1:4])))
            for r in report.wal_rows(result)]
    if rows:
        out["wal.svg"] = stacked("WAL bytes per TPC-B transaction, by what changed", rows,
                                 ["table", "index", "transaction"])
    return out
