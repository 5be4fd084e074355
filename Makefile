# SPDX-License-Identifier: Apache-2.0
#
# Aurora: table pages live in a storage daemon, the log is the database.
#
#   make, make install, make installcheck   the PGXS way (for packagers)
#   make check                              build, install and run every test
#   make quickstart                         a private instance with a demo
#   make help                               all targets
#
# The targets in OWN_TARGETS need nothing installed beforehand (they install
# what is missing from the distribution's packages), so PGXS is left out for
# them.

PG_MAJOR ?= 15
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config) pg_config)

OWN_TARGETS = simulate simulate-kv check check-unit check-sql check-isolation check-tap check-core \
	check-long check-faults quickstart quickstart-stop quickstart-clean \
	quickstart-cluster quickstart-cluster-stop quickstart-cluster-clean bench soak \
	profile deps help

ifneq (,$(filter $(OWN_TARGETS),$(MAKECMDGOALS)))

SHELL = /bin/bash
.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)
export PG_CONFIG PG_MAJOR

check:
	@t/run-all.sh unit sql isolation tap core bench beside asan tsan sim fuzz

check-unit:
	@t/run-all.sh unit asan tsan fuzz

# make check-sql TESTS='dml ddl', make check-isolation TESTS='extend',
# make check-tap TESTS='t/001_basic.pl'
check-sql:
	@t/run-all.sh sql

check-isolation:
	@t/run-all.sh isolation

check-tap:
	@t/run-all.sh tap

# PostgreSQL's own tests on aurora tables, all of them in four ways; writes the
# table in docs/compatibility.md
check-core:
	@t/run-all.sh core-full

# pgbench at scale 50, many crashes, other things that take more than minutes
check-long:
	@t/run-all.sh long

# make check-faults FAULTS=500: kills, partitions, bad disks under load; the last
# line has the figures
check-faults:
	@t/run-all.sh faults; rc=$$?; tail -n 1 build/check-logs/faults.log; exit $$rc

# BENCH_OPTIONS="--mode quick", docs/benchmark.md
bench:
	@bench/run.sh bench

# make simulate SEEDS=1000: the cluster on a seeded clock, network and disk
SEEDS ?= 200
simulate:
	@$(MAKE) --no-print-directory -C storage_cluster simulate SEEDS=$(SEEDS)

# make simulate-kv SEEDS=1000: the key-value interface likewise
simulate-kv:
	@$(MAKE) --no-print-directory -C storage_cluster simulate-kv SEEDS=$(SEEDS)

# 20 minutes under a memory limit, or SOAK_SECONDS
soak:
	@bench/run.sh soak

# instructions and WAL bytes per operation, under valgrind; 2 minutes
profile:
	@bench/profile.sh

quickstart quickstart-stop quickstart-clean:
	@.ci/quickstart.sh $@

quickstart-cluster quickstart-cluster-stop quickstart-cluster-clean:
	@.ci/quickstart-cluster.sh $@

deps:
	@.ci/deps.sh

help:
	@echo 'make                   build the extension and the storage daemon'
	@echo 'make install           install them into the PostgreSQL of $(PG_CONFIG)'
	@echo 'make install-systemd   a unit for storage nodes of their own, aurora-storaged@NAME'
	@echo 'make installcheck      tests against a running server that has the extension preloaded'
	@echo 'make check             install what is missing, build, install, run every test'
	@echo 'make check-unit        ... only the storage side'"'"'s unit tests, sanitizers, fuzzers'
	@echo 'make check-sql         ... only pg_regress; TESTS="name ..." picks some'
	@echo 'make check-isolation   ... only sessions that meet, step by step; TESTS="extend ..." picks some'
	@echo 'make check-tap         ... only TAP; TESTS="t/001_basic.pl ..." picks some'
	@echo 'make check-core        PostgreSQL'"'"'s own tests on aurora tables; MODES="small ..." picks some'
	@echo 'make simulate          the cluster in the simulator; SEEDS=n'
	@echo 'make simulate-kv       its key-value interface in the simulator; SEEDS=n'
	@echo 'make check-long        tests that take long (pgbench scale 50, many crashes)'
	@echo 'make check-faults      a long campaign of faults on 3 and 5 storage nodes; FAULTS=n'
	@echo 'make bench             Aurora beside stock heap, as ratios; BENCH_OPTIONS="--mode quick"'
	@echo 'make soak              20 minutes of load under a memory limit; SOAK_SECONDS'
	@echo 'make profile           instructions and WAL bytes per operation, heap and aurora'
	@echo 'make quickstart        a private instance with a demo; quickstart-stop, quickstart-clean'
	@echo 'make quickstart-cluster  ... on three storage nodes, one of which is killed; -stop, -clean'
	@echo 'make deps              install what is missing from the distribution'"'"'s packages'
	@echo 'make clean             remove what was built'

# Other goals given together with these: one make each.
OTHER_GOALS = $(filter-out $(OWN_TARGETS),$(MAKECMDGOALS))
ifneq (,$(OTHER_GOALS))
$(OTHER_GOALS):
	@$(MAKE) --no-print-directory $@
endif

else

MODULE_big = aurora
SOURCES = $(sort $(wildcard extension/*/*.c) $(wildcard storage_cluster/common/*.c) \
	$(wildcard storage_cluster/core/au_proposer*.c) \
	$(wildcard storage_cluster/cluster/au_view*.c) storage_cluster/cluster/au_ring.c)
OBJS = $(SOURCES:.c=.o)

EXTENSION = extension/aurora
DATA = $(sort $(wildcard extension/aurora--*.sql))

REGRESS = extension dml scans indexes constraints transactions prepared ddl toast \
	maintenance persistence partitions heap_compare errors sizes redirect
REGRESS_OPTS = --temp-config=$(srcdir)/t/aurora.conf
TAP_TESTS = 1

# Server headers count as system headers: our warning level is not theirs.
PG_CPPFLAGS = -MMD -MP -isystem $(shell $(PG_CONFIG) --includedir-server) \
	-I$(srcdir)/extension -I$(srcdir)/storage_cluster
PG_CFLAGS = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-declaration-after-statement
EXTRA_CLEAN = $(OBJS:.o=.d)

# No bitcode: it would double the build's time, and inlining our functions
# into expressions has nothing to win.
override with_llvm = no

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq (,$(wildcard $(PGXS)))
$(error PostgreSQL's development files were not found with "$(PG_CONFIG)"; run "make deps", or set PG_CONFIG)
endif
include $(PGXS)
-include $(OBJS:.o=.d)

# A module may lack symbols until it is loaded; ours must not lack our own.
.PHONY: whole-module
all: whole-module
whole-module: $(shlib)
	@! nm -u $(shlib) | grep ' U au_' || { echo "$(shlib) lacks these: SOURCES is to name their files" >&2; exit 1; }

# The storage side has its own makefile and needs no PostgreSQL.
.PHONY: storage install-storage install-systemd clean-storage
all: storage
storage:
	$(MAKE) -C storage_cluster all
install: install-storage
install-storage: storage
	$(MAKE) -C storage_cluster install bindir='$(bindir)' DESTDIR='$(DESTDIR)'
# Not part of install: a unit for nodes of their own; embedded ones need none.
install-systemd:
	$(MAKE) -C storage_cluster install-systemd bindir='$(bindir)' DESTDIR='$(DESTDIR)'
clean: clean-storage
clean-storage:
	$(MAKE) -C storage_cluster clean

endif
