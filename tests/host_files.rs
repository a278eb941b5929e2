//! The host's own small files are whatever is there: a link out of the root, a FIFO, a device, foreign bytes.
//! None of them holds a verb up, and none shows what is not the host's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use common::TestHost;
use jiff::Timestamp;
use pbx_config::model::facts::{Facts, Product};
use pbx_config::sys::fs::owners::Owners;
use pbx_config::sys::host::Host;
use pbx_config::sys::process::exec::NoTools;

fn facts(root: &Path) -> Facts {
    Host::detect(root.to_owned(), Timestamp::default(), Box::new(NoTools)).facts
}

/// The real program, which must end by itself.
fn program(host: &TestHost, args: &[&str]) -> Output {
    let mut command = common::tool("timeout");
    command.arg("20").arg(common::program()).arg("--root").arg(&host.root).args(args).output().unwrap()
}

fn replace(host: &TestHost, path: &str, make: impl Fn(&Path)) {
    let path = host.root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&path);
    make(&path);
}

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

const SMALL: [&str; 7] = [
    "etc/hostname",
    "etc/machine-id",
    "etc/os-release",
    "etc/corosync/corosync.conf",
    "var/lib/dpkg/status",
    "etc/passwd",
    "etc/group",
];

#[test]
fn a_fifo_or_a_device_in_place_of_a_small_file_holds_nothing_up() {
    let zero = |path: &Path| {
        let made = common::tool("mknod").arg(path).args(["c", "1", "5"]).status().unwrap();
        assert!(made.success());
    };
    let kinds: [&dyn Fn(&Path); 3] = [&fifo, &zero, &|path| fs::create_dir(path).unwrap()];
    for kind in kinds {
        let host = TestHost::empty();
        for path in SMALL {
            replace(&host, path, kind);
        }
        let done = program(&host, &["list"]);
        let err = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{err}");
        assert!(err.contains("/etc/hostname: not a regular file"), "{err}");
        assert!(Owners::of(&host.root).users.is_empty());
    }
}

#[test]
fn a_small_file_that_has_no_end_is_not_read_to_it() {
    let host = TestHost::empty();
    for path in SMALL {
        // Sparse, so that the test's disk is not filled; a reader would meet all of it.
        replace(&host, path, |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap());
    }
    let done = program(&host, &["list"]);
    let err = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{err}");
    assert!(err.contains("/etc/hostname: larger than 1048576 bytes"), "{err}");
}

#[test]
fn a_link_out_of_the_root_shows_nothing_of_another_system() {
    let host = TestHost::empty();
    let outside = host.beside("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("name"), "other\n").unwrap();
    fs::write(outside.join("passwd"), "other:x:7:7::/:/bin/sh\n").unwrap();
    for (path, target) in [
        ("etc/hostname", "name"),
        ("etc/machine-id", "name"),
        ("etc/passwd", "passwd"),
        ("usr/bin/pmxcfs", "name"),
    ] {
        for target in [outside.join(target), Path::new("../../outside").join(target)] {
            replace(&host, path, |path| symlink(&target, path).unwrap());
            let facts = facts(&host.root);
            assert_ne!(facts.node, "other");
            assert_eq!(facts.machine_id, None);
            assert!(facts.products.is_empty(), "{:?}", facts.products);
            assert_eq!(Owners::of(&host.root).user(7), "");
        }
    }
}

#[test]
fn links_within_the_host_are_followed_as_the_host_does() {
    let host = TestHost::empty();
    host.write("usr/lib/os-release", "PRETTY_NAME=\"Debian\"\n");
    host.write("var/name", "pve7\n");
    replace(&host, "etc/os-release", |path| symlink("../usr/lib/os-release", path).unwrap());
    replace(&host, "etc/hostname", |path| symlink("/var/name", path).unwrap());
    let facts = facts(&host.root);
    assert_eq!((facts.os.as_deref(), facts.node.as_str()), (Some("Debian"), "pve7"));
}

#[test]
fn foreign_bytes_cost_no_version() {
    let host = TestHost::empty();
    let status = b"Package: a\nMaintainer: J\xfcrgen\nStatus: install ok installed\nVersion: 1\n\n\
                   Package: pve-manager\nStatus: install ok installed\nMaintainer: \xff\nVersion: 9.1.2\n\n";
    host.write("var/lib/dpkg/status", status);
    host.write("etc/os-release", b"HOME=\xe9\nPRETTY_NAME=\"Debian\"\n");
    let facts = facts(&host.root);
    assert_eq!(facts.products.get(&Product::Pve).map(String::as_str), Some("9.1.2"));
    assert_eq!(facts.os.as_deref(), Some("Debian"));
}
