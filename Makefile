# Thin: each target is a line or two. `make demo` and `make test` install what they need.

CARGO ?= cargo
# Build: SQLite's headers. Demo and tests: the tools that read what we wrote.
PACKAGES := libsqlite3-dev pkg-config gcc zstd xz-utils bzip2 tar attr acl libcap2-bin util-linux openssl
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

.PHONY: all demo test lint bench build deps clean man deb test-deb test-deb-quick chroot repo

all: build

# Installs what is not there yet.
INSTALL = @dpkg-query -W --showformat='$${db:Status-Status}\n' $(1) 2>/dev/null | grep -c '^installed$$' | \
	grep -qx $(words $(1)) || { apt-get update -q && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qy $(1); }

deps:
	$(call INSTALL,$(PACKAGES))

build: deps
	$(RELEASE) $(CROSS) $(CARGO) build --release --locked $(FOR)

# Back up this very machine, look at it, prove it, take it out, compare. Everything stays in demo/.
demo: build
	sh tests/demo.sh $(PROGRAM) demo

test: deps lint
	$(CARGO) test --locked
	$(CARGO) test --locked --example pmxcfs-double
	$(MAKE) test-deb-quick

lint: deps
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

# Medians beside tar, zstd, gzip and xz on a generated tree; about three minutes, best on a quiet machine.
bench: build
	python3 tests/bench.py $(PROGRAM)

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

clean:
	$(CARGO) clean
	rm -rf demo
