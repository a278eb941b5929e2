# Thin: each target is a line or two. `make demo` and `make test` install what they need.

CARGO ?= cargo
# Build: SQLite's headers. Demo and tests: the tools that read what we wrote.
PACKAGES := libsqlite3-dev pkg-config gcc zstd xz-utils bzip2 tar attr acl libcap2-bin util-linux openssl e2fsprogs strace mandoc \
	rclone age openssh-client python3 python3-aiosmtpd dosfstools exfatprogs exfat-fuse ntfs-3g nftables
PROGRAM := target/release/pbx-config
# What the package takes beside it, and what its tests take.
DEB_PACKAGES := dpkg-dev binutils
DEB_TEST_PACKAGES := lintian mmdebstrap systemd-container apt-utils gpg python3
CARGO_DEB_VERSION := 3.8.0
CARGO_DEB := target/tools/cargo-deb-$(CARGO_DEB_VERSION)
# Another machine to build for, as aarch64-unknown-linux-gnu: its Rust target, crossbuild-essential-arm64 and
# libsqlite3-dev:arm64 must be there.
TARGET ?=
GNU = $(subst -unknown-,-,$(TARGET))
CROSS = $(if $(TARGET),PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=/usr/lib/$(GNU)/pkgconfig:/usr/share/pkgconfig)
FOR = $(if $(TARGET),--target $(TARGET) --config 'target.$(TARGET).linker="$(GNU)-gcc"')
# No path of the builder in the program, neither from Rust nor from the C code of crates.
CARGO_HOME ?= $(HOME)/.cargo
REMAP = $(foreach map,$(CURDIR)=/src $(CARGO_HOME)=/cargo,$(1)=$(map))
RELEASE = RUSTFLAGS="$(RUSTFLAGS) $(call REMAP,--remap-path-prefix)" CFLAGS="$(CFLAGS) $(call REMAP,-ffile-prefix-map)"

DOUBLE := target/release/examples/pmxcfs-double
DENY := target/tools/cargo-deny@0.20.2/bin/cargo-deny
TARPAULIN := target/tools/cargo-tarpaulin@0.37.5/bin/cargo-tarpaulin
# What reads our metrics, for the tests.
PROMETHEUS := target/tools/prometheus
# An S3 server for the tests of stores.
MOTO := target/tools/moto
MOTO_VERSION := 5.2.5
# At least so many percent of the lines; of what it is about 93 are.
COVERAGE := 80

FUZZ_SECONDS ?= 60

.PHONY: all demo test test-restore lint figures coverage bench fuzz build deps test-tools clean man deb test-deb test-deb-quick chroot repo

all: build

# Installs what is not there yet.
INSTALL = @dpkg-query -W --showformat='$${db:Status-Status}\n' $(1) 2>/dev/null | grep -c '^installed$$' | \
	grep -qx $(words $(1)) || { apt-get update -q && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qy $(1); }

deps:
	$(call INSTALL,$(PACKAGES))

# What only the tests take.
test-tools: $(PROMETHEUS) $(MOTO)

$(MOTO):
	rm -rf $@.partial
	python3 -m pip install --quiet --root-user-action=ignore --target $@.partial 'moto[server]==$(MOTO_VERSION)'
	mv $@.partial $@

# Debian's, unpacked and not installed: the packages would start services.
$(PROMETHEUS):
	mkdir -p $@.part
	cd $@.part && { apt-get download -q prometheus prometheus-node-exporter || \
		{ apt-get update -q && apt-get download -q prometheus prometheus-node-exporter; }; }
	for package in $@.part/*.deb; do dpkg-deb -x $$package $@.part || exit 1; done
	rm $@.part/*.deb
	mv $@.part $@

build: deps
	$(RELEASE) $(CROSS) $(CARGO) build --release --locked $(FOR)

# Back up this very machine, look at it, prove it, take it out, compare. Everything stays in demo/.
demo: build
	sh tests/demo.sh $(PROGRAM) demo

# ONLY=NAME runs one test binary alone; a name that is unknown is answered with all there are.
ifeq ($(ONLY),)
test: deps test-tools lint
	$(CARGO) test --locked --no-fail-fast
	$(CARGO) test --locked --example pmxcfs-double
	$(MAKE) test-deb-quick
else
test: deps test-tools
	$(CARGO) build --locked --examples
	$(CARGO) test --locked --test '$(ONLY)'
endif

# Restores killed before every single change, on every golden host: minutes.
test-restore: deps
	PBX_TEST_LONG=1 $(CARGO) test --locked --test restore

# ADVISORY_DB=FOLDER, a copy of the RustSec advisory database, also checks against that.
lint: deps $(DENY)
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	sh tests/deny.sh $(DENY) $(ADVISORY_DB)
	$(CARGO) test --locked --test floors

# How easy src is to live in; `python3 tests/house_figures.py --list NAME` prints the places behind a figure.
figures:
	@python3 tests/house_figures.py

# Which lines the tests run, in threads, spawned programs and unit tests; what a child forked by us runs is not seen.
# Skipped: tests that see each call or variable of the program, and so the measuring, too.
coverage: deps test-tools $(TARPAULIN)
	$(CARGO) build --locked --examples
	install -D -t target/coverage/debug/examples target/debug/examples/pmxcfs-double target/debug/examples/manual
	$(TARPAULIN) --engine llvm --follow-exec --locked --skip-clean --timeout 900 --exclude-files 'tests/*' 'man/*' \
		--target-dir target/coverage --output-dir target/coverage --out Lcov --fail-under $(COVERAGE) --no-fail-fast \
		-- --skip kill:: --skip power:: --skip errors:: --skip signals:: --skip disks:: \
		--skip a_script_from_before_gets_the_same_words

# Medians beside other tools on generated trees, best on a quiet machine: minutes. ONLY=a,d picks from tests/bench.py.
bench: build
	$(RELEASE) $(CARGO) build --release --locked --example pmxcfs-double
	python3 tests/bench.py $(PROGRAM) $(DOUBLE) --only '$(ONLY)'

# They run for seconds: to optimise them takes longer than it saves.
$(DENY) $(TARPAULIN):
	CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0 \
	$(CARGO) install --quiet --locked --no-default-features --root $(patsubst %/bin/,%,$(dir $@)) $(word 3,$(subst /, ,$@))

# Manual and completions, into target/manual.
man: deps
	$(CARGO) run --quiet --locked --example manual -- target/manual

# target/debian/proxmox-backup-extra_VERSION_ARCH.deb
deb: build man $(CARGO_DEB)/bin/cargo-deb
	$(call INSTALL,$(DEB_PACKAGES))
	CARGO_DEB=$(CARGO_DEB)/bin/cargo-deb sh debian/package $(TARGET)

# Built for being built soon, not for speed: it runs a second.
$(CARGO_DEB)/bin/cargo-deb:
	CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	$(CARGO) install --quiet --locked --no-default-features --version $(CARGO_DEB_VERSION) --root $(CARGO_DEB) \
		--target-dir target/tools/build cargo-deb
	rm -rf target/tools/build

# The life of the package in Debian 12 and 13; the quick half is in `make test`.
test-deb: deb
	$(call INSTALL,$(DEB_TEST_PACKAGES))
	python3 tests/deb.py

# What takes long is done side by side.
test-deb-quick: deps
	$(call INSTALL,$(DEB_PACKAGES) $(DEB_TEST_PACKAGES))
	$(MAKE) --jobs=3 build $(CARGO_DEB)/bin/cargo-deb chroot
	$(MAKE) deb
	python3 tests/deb.py --quick

chroot:
	python3 tests/deb.py --chroots bookworm

# A signed repository of what is in target/debian: make repo REPO_KEY=KEY (as gpg --local-user takes it)
repo: deb
	$(call INSTALL,apt-utils gpg)
	sh debian/repo "$(REPO_KEY)"

# Every body of tests/fuzz/bodies.rs under libFuzzer, each so many seconds. What it finds lies in tests/fuzz/artifacts:
# repair it, and keep its input in tests/fuzz/seeds, where `make test` runs it for ever. Stable Rust will do.
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz: export PATH := $(CURDIR)/target/tools/bin:$(PATH)
fuzz: export FUZZ_CORPUS = $(CURDIR)/target/fuzz/corpus
fuzz: deps
	command -v g++ >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -qy g++
	$(CARGO) fuzz --version || $(CARGO) install cargo-fuzz --version 0.13.2 --locked --root target/tools
	$(CARGO) test --locked --test fuzz -- --ignored write_the_seeds
	$(CARGO) fuzz build --fuzz-dir tests/fuzz --target-dir target/fuzz
	set -e; for body in $(basename $(notdir $(wildcard tests/fuzz/fuzz_targets/*.rs))); do \
		$(CARGO) fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz $$body $(FUZZ_CORPUS)/$$body -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=60 -rss_limit_mb=2048 -malloc_limit_mb=600 -print_final_stats=1; \
	done

clean:
	$(CARGO) clean
	rm -rf demo
