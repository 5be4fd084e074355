# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the quickstarts share: where things are, who owns them, build and
# install, a server below $home.  The script that reads this file sets
#
#   top       the source tree
#   name      of the quickstart: build/$name is its directory
#   steps     how many head_lines there will be

PG_MAJOR=${PG_MAJOR:-15}
home=$top/build/$name
log=$top/build/$name.log
step=0
t0=$SECONDS

am_root=0
owner=$(id -un)
if [ "$(id -u)" -eq 0 ]; then
	am_root=1
	owner=postgres
fi

head_line() {
	step=$((step + 1))
	printf '\n[%d/%d] %s  (%d s)\n' "$step" "$steps" "$*" $((SECONDS - t0))
}
say() { printf '      %s\n' "$*"; }
die() { printf '\n%s: %s\n' "$name" "$*" >&2; exit 1; }

as_owner() {
	if [ $am_root -eq 1 ]; then
		(cd / && runuser -u "$owner" -- "$@")
	else
		(cd / && "$@")
	fi
}

find_pg() {
	PG_CONFIG=${PG_CONFIG:-pg_config}
	if [ "$PG_CONFIG" = pg_config ] &&
		[ -x "/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" ]; then
		PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
	fi
	bin=$("$PG_CONFIG" --bindir 2>/dev/null) || bin=
	export PG_CONFIG
}

running() {
	[ -n "$bin" ] && [ -e "$home/data/PG_VERSION" ] &&
		as_owner "$bin/pg_ctl" -D "$home/data" status >/dev/null 2>&1
}

psql_() { as_owner env PGOPTIONS="${PGOPTIONS:-}" "$bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$home" -U postgres -d postgres "$@"; }
value() { psql_ -At -c "$1"; }
show() { psql_ -P footer=off -c "$1" | sed 's/^/      /'; }

start_server() {
	as_owner "$bin/pg_ctl" -w -t 300 -D "$home/data" -l "$home/server.log" start >>"$log" 2>&1 || {
		tail -20 "$home/server.log" >&2
		die "the server did not start, see $home/server.log"
	}
}

# PostgreSQL's owner must be able to enter the directory, and a socket's path
# has 107 bytes at most; where the tree lies too deep or is private (a clone
# below /root), the instance lies in /var/tmp and build/$name leads there.
make_home() {
	mkdir -p "$top/build"
	if [ -L "$home" ] && [ ! -d "$home" ]; then rm -f "$home"; fi
	[ -d "$home" ] && return 0
	if ! as_owner test -x "$top/build" || [ ${#home} -gt 70 ]; then
		local away
		away=$(mktemp -d "/var/tmp/aurora-$name.XXXXXX")
		chmod 755 "$away"
		[ $am_root -eq 1 ] && chown "$owner" "$away"
		ln -s "$away" "$home"
		say "user $owner cannot use $top/build, so the instance is in $away"
	else
		mkdir "$home"
		[ $am_root -eq 1 ] && chown "$owner" "$home"
	fi
	return 0
}

# A short path that every client can use, whatever the link is called.
resolve_home() { [ -L "$home" ] && home=$(readlink -f "$home"); return 0; }

# start_pgbench SECONDS; its process is $load.
start_pgbench() {
	# Each transaction whose COMMIT was answered leaves one line in a log.
	as_owner mkdir -p "$home/acked"
	as_owner find "$home/acked" -type f -delete
	as_owner "$bin/pgbench" -n -h "$home" -U postgres -c 4 -j 2 -T "$1" -l \
		--log-prefix="$home/acked/log" postgres >>"$log" 2>&1 &
	load=$!
}

# Is there still a process that works in the data directory?
processes_left() {
	local p
	for p in /proc/[0-9]*; do
		if [ "$(readlink "$p/cwd" 2>/dev/null)" = "$home/data" ] &&
			[[ "$(readlink "$p/exe" 2>/dev/null)" == */postgres* ]]; then
			return 0
		fi
	done
	return 1
}

# Three steps: packages, build, install.
build_and_install() {
	mkdir -p "$top/build"
	: >"$log"

	head_line "packages: PostgreSQL $PG_MAJOR, RocksDB, libuv and what else is missing"
	"$top/.ci/deps.sh" run
	find_pg
	[ -n "$bin" ] || die "no pg_config"
	say "$("$bin/postgres" --version)"

	head_line "build the extension and the storage daemon"
	(cd "$top" && make -j"$(nproc)") >>"$log" 2>&1 ||
		{ tail -30 "$log" >&2; die "the build failed, see $log"; }
	say "done"

	head_line "install them into $("$PG_CONFIG" --pkglibdir)"
	if [ -w "$("$PG_CONFIG" --pkglibdir)" ]; then
		(cd "$top" && make install) >>"$log" 2>&1 || die "make install failed, see $log"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		(cd "$top" && sudo -n make PG_CONFIG="$PG_CONFIG" install) >>"$log" 2>&1 ||
			die "make install failed, see $log"
	else
		cmp -s "$top/aurora.so" "$("$PG_CONFIG" --pkglibdir)/aurora.so" ||
			die "run \"make install\" as root, then make $name again"
	fi
	say "done"
}

# A server that is stopped, or newly made with this configuration besides.
make_server() {
	[ $am_root -eq 0 ] || id "$owner" >/dev/null 2>&1 || die "there is no user $owner"
	if [ ! -e "$home/data/PG_VERSION" ]; then
		as_owner "$bin/initdb" -D "$home/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 >>"$log" 2>&1 ||
			die "initdb failed, see $log"
		as_owner tee -a "$home/data/postgresql.conf" >/dev/null <<-CONF

		# --- make $name ---
		listen_addresses = ''
		unix_socket_directories = '$home'
		unix_socket_permissions = 0700
		shared_preload_libraries = 'aurora'
		default_table_access_method = 'aurora'
		synchronous_standby_names = 'aurora'	# a commit waits until storage has it
		shared_buffers = 128MB
		$1
		CONF
	fi
	if running; then
		# The library may be newer than the one the server runs with.
		as_owner "$bin/pg_ctl" -w -m fast -D "$home/data" stop >>"$log" 2>&1
	fi
}

# The first user of the shipper waits for it; system catalogs are heap.
create_extension() {
	value 'CREATE EXTENSION IF NOT EXISTS aurora' >/dev/null
	for _ in $(seq 100); do
		[ "$(value 'SELECT state FROM aurora.shipper')" = streaming ] && break
		sleep 0.2
	done
}

make_pgbench_tables() {
	as_owner "$bin/pgbench" -h "$home" -U postgres -i -s 10 -q postgres 2>&1 | tee -a "$log" |
		grep -E 'tuples|done in' | tail -1 | sed 's/^/      /'
}

# What clients were told; after the load has ended.
count_acknowledged() { as_owner find "$home/acked" -type f -exec cat {} + | wc -l; }

# Transactions in the history, and the sums that must agree.
transactions() { value 'SELECT count(*) FROM pgbench_history'; }
show_sums() {
	show "SELECT (SELECT sum(abalance) FROM pgbench_accounts) AS accounts, (SELECT sum(tbalance) FROM pgbench_tellers) AS tellers,
	             (SELECT sum(bbalance) FROM pgbench_branches) AS branches, (SELECT sum(delta) FROM pgbench_history) AS history"
}

# check_nothing_lost TRANSACTIONS ACKNOWLEDGED: dies if anything is.
check_nothing_lost() {
	local sums differing
	show "SELECT relations AS tables, compared AS cached_pages_compared_with_storage, differing FROM aurora.verify_all()"
	sums=$(value "SELECT count(DISTINCT s) FROM (VALUES ((SELECT sum(abalance) FROM pgbench_accounts)), ((SELECT sum(tbalance) FROM pgbench_tellers)),
	          ((SELECT sum(bbalance) FROM pgbench_branches)), ((SELECT sum(delta) FROM pgbench_history))) v(s)")
	differing=$(value 'SELECT differing FROM aurora.verify_all()')
	[ "$1" -ge "$2" ] || die "LOST: $(($2 - $1)) acknowledged transactions are missing"
	[ "$sums" = 1 ] || die "LOST: the balances do not agree"
	[ "$differing" = 0 ] || die "cached pages differ from storage"
	say "nothing that was committed is lost"
}

# Removes the directory, wherever it is.
remove_home() {
	local link=$home
	resolve_home
	case $home in
		*/build/"$name" | "/var/tmp/aurora-$name."*) rm -rf "$home" ;;
	esac
	[ -L "$link" ] && rm -f "$link"
	rm -f "$log"
	echo "Removed $home."
}
