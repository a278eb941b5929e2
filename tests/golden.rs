//! Every golden host, backed up: what is in the snapshot, with which item, owner and mode.
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes the expectations; the diff is for a person to read.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::TestHost;
use pbx_config::model::report::Exit;
use serde_json::Value;

fn check(name: &str) {
    let host = TestHost::golden(name);
    let done = host.run(&["backup", "--json"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}\n{}", done.out, done.err);
    let shown = host.run(&["show", "latest", "--files", "--json"]).ok().json();
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

/// One line an entry, output, absence and problem; times and hashes left out.
fn picture(shown: &Value) -> String {
    let mut text = String::new();
    for entry in shown["entries"].as_array().unwrap() {
        let link = entry["link"].as_str().map(|link| format!(" -> {link}")).unwrap_or_default();
        let secret = if entry["secret"] == true { " secret" } else { "" };
        let kind = &entry["kind"].as_str().unwrap()[..1];
        let mode = entry["mode"].as_u64().unwrap();
        let (uid, gid, item) = (&entry["uid"], &entry["gid"], entry["item"].as_str().unwrap());
        let path = entry["path"].as_str().unwrap();
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
