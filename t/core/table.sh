# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Part of t/core/run.sh: the table for docs/compatibility.md.

table=

count_rows() {
	awk -F'\t' -v m="$1" -v a="$2" -v s="$3" -v v="$4" \
		'$1 == m && $2 == a && $3 == s && (v == "" || $5 == v) {n++} END {print n + 0}' "$results"
}

# Heap's tests that are as expected; nothing if heap was not run in this mode.
heap_rows() {
	[ ! -d "$work/runs/$1-heap-$2" ] || count_rows "$1" heap "$2" ok
}

mode_text() {
	case $1 in
		default) echo "stock settings" ;;
		small) echo "\`shared_buffers = ${AURORA_CORE_BUFFERS:-512kB}\`" ;;
		crash) echo "\`kill -9\` between groups" ;;
		consistency) echo "\`wal_consistency_checking\`" ;;
	esac
}

table_of_runs() {
	local mode suite
	say "| run | suite | tests | as expected | same as heap | listed | failed | heap itself: as expected |"
	say "|---|---|---:|---:|---:|---:|---:|---:|"
	for mode in "${modes[@]}"; do
		for suite in regress isolation; do
			printf '| %s | %s | %d | %d | %d | %d | %d | %s |\n' \
				"$(mode_text "$mode")" "$suite" \
				"$(count_rows "$mode" aurora $suite "")" \
				"$(count_rows "$mode" aurora $suite ok)" \
				"$(count_rows "$mode" aurora $suite "same as heap")" \
				"$(count_rows "$mode" aurora $suite listed)" \
				"$(count_rows "$mode" aurora $suite FAILED)" \
				"$(heap_rows "$mode" $suite)"
		done
		printf '| %s | pages, files, indexes afterwards | %d | %d | | | %d | |\n' \
			"$(mode_text "$mode")" \
			"$(count_rows "$mode" aurora check "")" \
			"$(count_rows "$mode" aurora check ok)" \
			"$(count_rows "$mode" aurora check FAILED)"
	done
}

# What became of a test: one word if it is the same in all runs.
verdicts_of() {
	awk -F'\t' -v a="$1" -v s="$2" -v t="$3" '
		$2 == a && $3 == s && $4 == t {
			if (n++ == 0) same = $5
			else if ($5 != same) mixed = 1
			all = all (n == 1 ? "" : "; ") $1 ": " $5
		}
		END {print mixed ? all : same}' "$results"
}

# Tests whose output is not the expected one, in any run.
table_of_differences() {
	local suite test verdicts lines reason
	awk -F'\t' '$2 == "aurora" && $3 != "check" && $5 != "ok" {print $3 "\t" $4}' \
		"$results" | sort -u | while IFS=$'\t' read -r suite test; do
		verdicts=$(verdicts_of aurora "$suite" "$test")
		lines=
		reason=
		case $verdicts in
			*listed*) lines=$(listed_lines "$test"); reason=$(listed_reason "$test") ;;
			"same as heap") reason="the server is newer than the tests" ;;
		esac
		printf '| %s | %s | %s | %s | %s |\n' "$test" \
			"$(verdicts_of heap "$suite" "$test")" "$verdicts" "$lines" "$reason"
	done
}

listed_lines() {
	[ -e "$here/listed/$1.diff" ] || return
	printf '%d' "$(grep -c '^[-+]' "$here/listed/$1.diff")"
}

listed_reason() {
	sed -n "s/^$1: //p" "$here/listed/README"
}

write_table() {
	table=$work/table.md
	{
		say "PostgreSQL $installed; tests and psql of $version. \`default_table_access_method = aurora\`."
		say ""
		table_of_runs
		say ""
		say "Tests whose output is not the expected one in every run:"
		say ""
		say "| test | heap | aurora | lines | reason |"
		say "|---|---|---|---:|---|"
		table_of_differences
		say ""
		say "$passed passed, $failed failed, $listed listed, all runs and checks together."
	} >"$table"
}

# Replaces what is between the markers.
put_table_into() {
	local doc=$1
	grep -q '^<!-- check-core: begin' "$doc" ||
		die "$doc has no place for the table"
	awk -v table="$table" '
		/^<!-- check-core: begin/ {
			print; skip = 1
			while ((getline line < table) > 0) print line
		}
		/^<!-- check-core: end/ {skip = 0}
		!skip {print}' "$doc" >"$work/doc.md" &&
		cat "$work/doc.md" >"$doc"
}
