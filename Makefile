# Thin: each target is a line or two. `make demo` and `make test` install what they need.

CARGO ?= cargo
# Build: SQLite's headers. Demo and tests: the tools that read what we wrote.
PACKAGES := libsqlite3-dev pkg-config gcc zstd xz-utils bzip2 tar attr acl libcap2-bin util-linux openssl e2fsprogs strace mandoc
PROGRAM := target/release/pbx-config

.PHONY: all man demo test lint bench build deps clean

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

# The manual and the completions, for the package.
man:
	$(CARGO) run --locked --quiet --example manual -- target/manual

clean:
	$(CARGO) clean
	rm -rf demo
