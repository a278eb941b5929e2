# Thin: each target is a line or two. `make demo` and `make test` install what they need.

CARGO ?= cargo
# Build: SQLite's headers. Demo and tests: the tools that read what we wrote.
PACKAGES := libsqlite3-dev pkg-config gcc zstd xz-utils bzip2 tar attr acl libcap2-bin util-linux openssl e2fsprogs strace mandoc
PROGRAM := target/release/pbx-config

DOUBLE := target/release/examples/pmxcfs-double
DENY := target/tools/cargo-deny@0.20.2/bin/cargo-deny
TARPAULIN := target/tools/cargo-tarpaulin@0.37.5/bin/cargo-tarpaulin
# At least so many percent of the lines; of what it is about 93 are.
COVERAGE := 80

.PHONY: all man demo test lint coverage bench build deps clean

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

# ADVISORY_DB=FOLDER, a copy of the RustSec advisory database, also checks against that.
lint: deps $(DENY)
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	sh tests/deny.sh $(DENY) $(ADVISORY_DB)

# Which lines the tests run, in threads, spawned programs and unit tests; what a child forked by us runs is not seen.
coverage: deps $(TARPAULIN)
	$(CARGO) build --locked --examples
	install -D -t target/coverage/debug/examples target/debug/examples/pmxcfs-double target/debug/examples/manual
	$(TARPAULIN) --engine llvm --follow-exec --locked --skip-clean --timeout 900 --exclude-files 'tests/*' \
		--target-dir target/coverage --output-dir target/coverage --out Lcov --fail-under $(COVERAGE)

# Medians beside other tools on generated trees, best on a quiet machine: minutes. ONLY=a,d picks from tests/bench.py.
bench: build
	$(CARGO) build --release --locked --example pmxcfs-double
	python3 tests/bench.py $(PROGRAM) $(DOUBLE) --only '$(ONLY)'

# They run for seconds: to optimise them takes longer than it saves.
$(DENY) $(TARPAULIN):
	CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
	$(CARGO) install --quiet --locked --no-default-features --root $(patsubst %/bin/,%,$(dir $@)) $(word 3,$(subst /, ,$@))

# The manual and the completions, for the package.
man:
	$(CARGO) run --locked --quiet --example manual -- target/manual

clean:
	$(CARGO) clean
	rm -rf demo
