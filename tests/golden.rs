//! Every golden host, backed up: what is in the snapshot, with which item, owner and mode.
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes the expectations; the diff is for a person to read.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::TestHost;
use pbx_config::model::index::Name;
use pbx_config::model::problem::Exit;
use serde_json::Value;

fn check(name: &str) {
    let host = TestHost::golden(name);
    let before = shape(&host.root);
    let done = host.run(&["backup", "--json"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    let shown = host.run(&["show", "latest", "--files", "--json"]).ok().json();
    for (path, is) in shape(&host.root) {
        assert_eq!(Some(&is), before.get(&path), "{}: the backup changed it", path.display());
    }
    let text = picture(&shown);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts").join(name).join("expect.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (n, (is, should)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is, should, "{}:{}", path.display(), n + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "{}", path.display());
}

/// A name of any bytes as a person is shown it.
fn name(value: &Value) -> String {
    serde_json::from_value::<Name>(value.clone()).unwrap().to_string()
}

/// What lstat tells of every path but of our own folder, and of those above it: when they were last read is
/// no business of a host's.
fn shape(root: &Path) -> BTreeMap<PathBuf, String> {
    let own = root.join("var/lib/proxmox-backup-extra");
    let mut shape = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if own.starts_with(&path) {
            shape.insert(path.clone(), String::new());
        } else {
            let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
            let rest = (meta.mode(), meta.uid(), meta.gid(), meta.size(), meta.nlink(), meta.ino());
            shape.insert(path.clone(), format!("{times:?} {rest:?}"));
        }
        if meta.is_dir() && path != own {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    shape.remove(&own);
    shape
}

/// One line an entry, output, absence and problem; times and hashes left out.
fn picture(shown: &Value) -> String {
    let mut text = String::new();
    for entry in shown["entries"].as_array().unwrap() {
        let link =
            if entry["link"].is_null() { String::new() } else { format!(" -> {}", name(&entry["link"])) };
        let secret = if entry["secret"] == true { " secret" } else { "" };
        let kind = &entry["kind"].as_str().unwrap()[..1];
        let mode = entry["mode"].as_u64().unwrap();
        let (uid, gid, item) = (&entry["uid"], &entry["gid"], entry["item"].as_str().unwrap());
        let path = name(&entry["path"]);
        writeln!(text, "{item}: {kind}{mode:04o} {uid}:{gid} {path}{link}{secret}").unwrap();
    }
    for output in shown["outputs"].as_array().unwrap() {
        writeln!(
            text,
            "output: {}: {}",
            output["name"].as_str().unwrap(),
            output["status"].as_str().unwrap()
        )
        .unwrap();
    }
    for absence in shown["absent"].as_array().unwrap() {
        writeln!(text, "absent: {}", absence["item"].as_str().unwrap()).unwrap();
    }
    for problem in shown["problems"].as_array().unwrap() {
        writeln!(text, "{}: {}", problem["severity"].as_str().unwrap(), problem["what"].as_str().unwrap())
            .unwrap();
    }
    text
}

#[test]
fn a_single_pve_node() {
    check("pve-single");
}

#[test]
fn a_node_of_a_cluster() {
    check("pve-cluster");
}

#[test]
fn a_backup_server() {
    check("pbs");
}

#[test]
fn both_products_on_one_host() {
    check("both");
}

#[test]
fn a_bare_debian() {
    check("bare");
}

#[test]
fn a_host_of_everything_that_a_tree_can_hold() {
    check("hostile");
}
