//! Onto a live system: what a plan says, that exactly that is done, and that undo leaves no trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod armed;
mod cards;
mod database;
mod guests;
mod interrupt;
mod names;
mod probes;
mod renamed;
mod rules;
mod saved;
mod services;
mod shown;
mod undo;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::TestHost;
use common::tree::{self, Tree};
use pbx_config::model::problem::Exit;

fn saved(name: &str) -> TestHost {
    let host = TestHost::golden(name);
    if name != "pbs" && name != "bare" {
        host.mount(&[]);
    }
    host.run(&["backup"]);
    // The golden hosts show a lock that is held.
    for lock in fs::read_dir(host.root.join("etc/pve/priv/lock")).into_iter().flatten().flatten() {
        fs::remove_dir_all(lock.path()).unwrap();
    }
    host
}

#[test]
fn the_plan_of_an_unchanged_host_has_no_step() {
    for name in ["bare", "pbs", "pve-single", "pve-cluster", "both"] {
        let host = saved(name);
        let plan = host.run(&["restore", "latest", "--dry-run", "--json"]).exits(Exit::Ok).json();
        assert_eq!(plan["steps"], serde_json::json!([]), "{name}");
        assert!(plan["unchanged"].as_u64().unwrap() > 10, "{name}");
        assert_eq!(plan["differences"], serde_json::json!([]), "{name}");
    }
}

/// All that a restore may touch: not our own state, nor what pmxcfs makes up or keeps beside.
fn picture(host: &TestHost) -> Tree {
    let mut tree = tree::picture(&host.root, "");
    let ours = ["var/lib/proxmox-backup-extra", "var/lib/pve-cluster", "run", "etc/pve/priv/lock"];
    tree.retain(|path, _| {
        let name = path.strip_prefix("etc/pve").ok().and_then(|below| below.to_str()).unwrap_or_default();
        !ours.iter().any(|ours| path.starts_with(ours)) && !name.starts_with('.')
    });
    for path in ["", "var/lib", "etc/pve", "etc/pve/priv"] {
        tree.remove(Path::new(path));
    }
    tree
}

/// A host on which something of every kind is another than in its snapshot.
fn change(host: &TestHost) {
    host.write("etc/hosts", "127.0.0.1 localhost\n10.0.0.9 other\n");
    host.write("etc/network/interfaces", "auto lo\n");
    let root = |path: &str| host.root.join(path);
    fs::set_permissions(root("etc/hostname"), fs::Permissions::from_mode(0o600)).unwrap();
    for path in ["etc/cron.d", "etc/modprobe.d", "root/.ssh"] {
        let _ = fs::remove_dir_all(root(path));
    }
    let _ = fs::remove_file(root("etc/localtime"));
    if root("etc/pve/storage.cfg").exists() {
        fs::write(root("etc/pve/storage.cfg"), "dir: local\n\tpath /var/lib/vz\n").unwrap();
        for entry in walk(&root("etc/pve/nodes")).iter().filter(|path| path.ends_with("conf")) {
            fs::remove_file(entry).unwrap();
        }
        let _ = fs::remove_file(root("etc/pve/user.cfg"));
    }
    if root("etc/proxmox-backup/user.cfg").exists() {
        host.write("etc/proxmox-backup/user.cfg", "user: eve@pbs\n");
        let _ = fs::remove_file(root("etc/proxmox-backup/remote.cfg"));
    }
}

fn walk(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[test]
fn a_changed_host_becomes_the_snapshot_and_undo_leaves_no_trace() {
    for name in ["bare", "pbs", "pve-single", "both"] {
        let host = saved(name);
        change(&host);
        let before = picture(&host);
        host.run(&["restore", "latest", "--dry-run"]).ok();
        tree::assert_same(&picture(&host), &before);
        let done = host.run(&["restore", "latest", "--yes", "--skip", "network"]);
        assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{name}: {}\n{}", done.out, done.err);
        assert!(done.err.starts_with("to undo it: pbx-config undo "), "{}", done.err);
        let again = host.run(&["restore", "latest", "--dry-run", "--json", "--skip", "network"]).ok().json();
        assert_eq!(again["steps"], serde_json::json!([]), "{name}");
        host.run(&["undo"]).ok();
        tree::assert_same(&picture(&host), &before);
        assert_eq!(host.run(&["undo", "--json"]).ok().json()["put-back"], 0);
        tree::assert_same(&picture(&host), &before);
    }
}
