//! Listing stores: many snapshots, several stores, and what a store that is away does to the others.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{TestHost, snapshot_files};
use jiff::{SignedDuration, Timestamp};
use pbx_config::model::problem::Exit;
use serde_json::Value;

/// Older ones of one snapshot, an hour apart. Their manifests are true, their payloads are not: a listing reads
/// the manifest only.
fn make_older(file: &Path, id: &str, count: i64) {
    let (host, newest) = id.split_once('/').unwrap();
    let newest: Timestamp = newest.parse().unwrap();
    let bytes = fs::read(file).unwrap();
    let at = bytes.windows(id.len()).position(|window| window == id.as_bytes()).unwrap();
    for hours in 1..=count {
        let then = newest - SignedDuration::from_hours(hours);
        let mut older = bytes.clone();
        older[at..at + id.len()].copy_from_slice(format!("{host}/{then}").as_bytes());
        let name = format!("{host}_{}.pbx.tar", then.strftime("%Y%m%dT%H%M%SZ"));
        fs::write(file.with_file_name(name), older).unwrap();
    }
}

fn ids(listing: &Value) -> Vec<&str> {
    listing["snapshots"].as_array().unwrap().iter().map(|listed| listed["id"].as_str().unwrap()).collect()
}

#[test]
fn of_hundreds_every_one_is_listed_with_its_own_manifest_and_a_damaged_one_by_its_name() {
    let host = TestHost::empty();
    host.run(&["backup"]).ok();
    let file = host.snapshot_file();
    make_older(&file, "tiny/2026-11-22T15:17:40Z", 299);
    fs::write(file.with_file_name("tiny_20261121T151740Z.pbx.tar"), "no tar").unwrap();

    let listing = host.run(&["list", "--json"]).exits(Exit::Problems).json();
    let found = ids(&listing);
    assert_eq!(found.len(), 300);
    assert!(found.is_sorted_by(|a, b| a > b), "{found:?}");
    for listed in listing["snapshots"].as_array().unwrap() {
        if listed["id"] == "tiny/2026-11-21T15:17:40Z" {
            assert_eq!(listed["snapshot"], Value::Null);
        } else {
            assert_eq!(listed["snapshot"]["id"], listed["id"]);
        }
    }
    let problems = listing["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0]["what"].as_str().unwrap().contains("tiny/2026-11-21T15:17:40Z"), "{problems:?}");
}

#[test]
fn one_snapshot_in_two_stores_is_listed_once_with_both() {
    let host = TestHost::empty();
    host.configure("dir: near\n\tpath /near\n\ndir: far\n\tpath /far\n");
    host.run(&["backup"]).ok();
    let listing = host.run(&["list", "--json"]).ok().json();
    assert_eq!(ids(&listing), ["tiny/2026-11-22T15:17:40Z"]);
    assert_eq!(listing["snapshots"][0]["stores"], serde_json::json!(["near", "far"]));
}

#[test]
fn a_store_that_is_away_is_told_and_hides_nothing_of_the_others() {
    let host = TestHost::empty();
    host.configure("dir: near\n\tpath /near\n\ndir: nas\n\tpath /nas\n");
    host.run(&["backup"]).ok();
    host.configure("dir: near\n\tpath /near\n\ndir: nas\n\tpath /nas\n\tmountpoint yes\n");
    let listing = host.run(&["list", "--json"]).exits(Exit::Problems).json();
    assert_eq!(listing["snapshots"][0]["stores"], serde_json::json!(["near"]));
    let problems = listing["problems"].to_string();
    assert!(problems.contains("store 'nas': nothing is mounted on"), "{problems}");

    // What is asked for may lie in the one that is away.
    host.run(&["cat", "latest", "etc/hostname"]).ok();
    fs::remove_file(&snapshot_files(&host.root.join("near"))[0]).unwrap();
    let done = host.run(&["cat", "latest", "etc/hostname"]).exits(Exit::Failed);
    assert!(done.err.contains("store 'nas': nothing is mounted on"), "{}", done.err);
}

#[test]
fn when_every_store_is_away_the_list_fails_and_is_not_empty() {
    let host = TestHost::empty();
    host.configure("dir: nas\n\tpath /nas\n\tmountpoint yes\n");
    let done = host.run(&["list"]).exits(Exit::Failed);
    assert_eq!(done.out, "");
    assert!(done.err.contains("store 'nas': nothing is mounted on"), "{}", done.err);
}
