# Thin: each target is a line or two. `make demo` and `make test` install what they need.

CARGO ?= cargo
# Build: SQLite's headers. Demo and tests: the tools that read what we wrote.
PACKAGES := libsqlite3-dev pkg-config gcc zstd xz-utils bzip2 tar attr acl libcap2-bin util-linux e2fsprogs
PROGRAM := target/release/pbx-config

FUZZ_SECONDS ?= 60

.PHONY: all demo test lint bench fuzz build deps clean

all: build

deps:
	@dpkg-query -W --showformat='$${db:Status-Status}\n' $(PACKAGES) 2>/dev/null | grep -c '^installed$$' | \
	grep -qx $(words $(PACKAGES)) || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy $(PACKAGES); }

build: deps
	$(CARGO) build --release --locked

# Back up this very machine, look at it, prove it, take it out, compare. Everything stays in demo/.
demo: build
	sh tests/demo.sh $(PROGRAM) demo

test: deps lint
	$(CARGO) test --locked
	$(CARGO) test --locked --example pmxcfs-double

lint: deps
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

# Medians beside tar, zstd, gzip and xz on a generated tree; about three minutes, best on a quiet machine.
bench: build
	python3 tests/bench.py $(PROGRAM)

# Every body of tests/fuzz/bodies.rs under libFuzzer, each so many seconds. What it finds lies in fuzz/artifacts:
# mend it, and keep its input in fuzz/seeds, where `make test` runs it for ever. Stable Rust will do.
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz: export PATH := $(CURDIR)/target/tools/bin:$(PATH)
fuzz: export FUZZ_CORPUS = $(CURDIR)/target/fuzz/corpus
fuzz: deps
	command -v g++ >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -qy g++
	$(CARGO) fuzz --version || $(CARGO) install cargo-fuzz --version 0.13.2 --locked --root target/tools
	$(CARGO) test --locked --test fuzz -- --ignored write_the_seeds
	$(CARGO) fuzz build --target-dir target/fuzz
	set -e; for body in $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))); do \
		$(CARGO) fuzz run --target-dir target/fuzz $$body $(FUZZ_CORPUS)/$$body -- -max_total_time=$(FUZZ_SECONDS) \
			-max_len=65536 -timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=600 -print_final_stats=1; \
	done

clean:
	$(CARGO) clean
	rm -rf demo
