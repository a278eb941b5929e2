//! A plan in a file is done as it was shown, or not at all: its snapshot, its host and its own words are the same.

use std::fs;
use std::path::PathBuf;

use pbx_config::model::problem::Exit;
use serde_json::{Value, json};

use super::common::TestHost;
use super::{change, picture, saved, tree};

/// A changed host, and a plan of it in a file.
fn planned(words: &[&str]) -> (TestHost, String) {
    let host = saved("bare");
    change(&host);
    let file = host.beside("plan.json").display().to_string();
    host.run(&[&["restore"], words, &["--only", "hosts,cron", "--plan", &file]].concat()).ok();
    (host, file)
}

#[track_caller]
fn refused(host: &TestHost, file: &str, exit: Exit, words: &str) {
    let before = tree::picture(&host.root, "");
    let done = host.run(&["restore", "--apply", file, "--yes"]).exits(exit);
    assert_eq!(done.out, "", "{words}");
    assert!(done.err.contains(words), "{words}: {}", done.err);
    let errors = done.err.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!((errors, done.err.lines().count()), (1, 2), "an error and a hint: {}", done.err);
    tree::assert_same(&tree::picture(&host.root, ""), &before);
}

/// Of the same name and time, with another content.
fn another(host: &TestHost) -> Vec<u8> {
    let other = TestHost::golden("bare");
    other.write("etc/hosts", "127.0.0.1 evil\n");
    other.run(&["backup"]);
    let (here, there) = (host.snapshot_file(), other.snapshot_file());
    assert_eq!(here.file_name(), there.file_name());
    fs::read(there).unwrap()
}

#[test]
fn a_snapshot_that_is_another_now_is_not_restored() {
    let by_file = |host: &TestHost| host.snapshot_file().display().to_string();
    for word in ["latest", "file"] {
        let (host, file) = planned(&["latest"]);
        if word == "file" {
            let snap = by_file(&host);
            host.run(&["restore", &snap, "--only", "hosts,cron", "--plan", &file]).ok();
        }
        let real = fs::read(host.snapshot_file()).unwrap();
        fs::write(host.snapshot_file(), another(&host)).unwrap();
        refused(
            &host,
            &file,
            Exit::Failed,
            "is not the deb1/2026-11-22T15:17:40Z that the plan was made from",
        );
        fs::write(host.snapshot_file(), &real[..real.len() / 2]).unwrap();
        refused(&host, &file, Exit::Verification, "deb1_20261122T151740Z.pbx.tar");
        fs::write(host.snapshot_file(), &real).unwrap();
        let done = host.run(&["restore", "--apply", &file, "--yes"]);
        assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}", done.err);
        assert!(fs::read_to_string(host.root.join("etc/hosts")).unwrap().contains("deb1"));
    }
}

#[test]
fn a_snapshot_or_a_store_that_is_gone_is_told() {
    let (host, file) = planned(&["latest"]);
    fs::remove_file(host.snapshot_file()).unwrap();
    refused(&host, &file, Exit::NotFound, "deb1/2026-11-22T15:17:40Z");

    let (host, file) = planned(&["latest"]);
    host.configure("dir: other\n\tpath /srv/other\n");
    refused(&host, &file, Exit::NotFound, "local");

    let (host, file) = planned(&["latest"]);
    let moved: PathBuf = host.beside("snap.pbx.tar");
    fs::copy(host.snapshot_file(), &moved).unwrap();
    host.run(&["restore", moved.to_str().unwrap(), "--only", "hosts", "--plan", &file]).ok();
    fs::remove_file(&moved).unwrap();
    refused(&host, &file, Exit::NotFound, "snap.pbx.tar");
}

/// Every value of a document, as a path of keys.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found));
        }
        Value::Array(all) => {
            all.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

fn edited(value: &Value) -> Value {
    match value {
        Value::Null => json!("x"),
        Value::Bool(is) => json!(!is),
        Value::Number(n) => json!(n.as_i64().unwrap() + 1),
        Value::String(text) => json!(format!("{text}x")),
        Value::Array(all) => [all.clone(), vec![json!("x")]].concat().into(),
        Value::Object(map) => {
            let mut map = map.clone();
            map.insert("x".to_owned(), json!("x"));
            map.into()
        }
    }
}

#[test]
fn a_plan_edited_in_any_place_is_refused() {
    let (host, file) = planned(&["latest"]);
    let text = fs::read_to_string(&file).unwrap();
    let plan: Value = serde_json::from_str(&text).unwrap();
    let before = picture(&host);
    let refused = |edit: &Value, what: &str| {
        fs::write(&file, edit.to_string()).unwrap();
        let done = host.run(&["restore", "--apply", &file, "--yes"]);
        assert_eq!((done.exit, done.out.as_str()), (Exit::Usage, ""), "{what}: {}", done.err);
        assert!(done.err.starts_with(&format!("error: {file}: ")), "{what}: {}", done.err);
    };
    let mut all = Vec::new();
    places(&plan, "", &mut all);
    assert!(all.len() > 40, "{all:?}");
    for place in &all {
        let mut edit = plan.clone();
        let value = edit.pointer_mut(place).unwrap();
        *value = edited(value);
        refused(&edit, &format!("{place} edited"));
        let Some((above, key)) = place.rsplit_once('/') else { continue };
        let mut edit = plan.clone();
        match edit.pointer_mut(above).unwrap() {
            Value::Object(map) => drop(map.remove(key)),
            Value::Array(list) => drop(list.remove(key.parse().unwrap())),
            _ => unreachable!(),
        }
        refused(&edit, &format!("{place} removed"));
    }
    tree::assert_same(&picture(&host), &before);
    for broken in [&text[..text.len() / 2], "", "[]", "null", "{}", "not json"] {
        fs::write(&file, broken).unwrap();
        let done = host.run(&["restore", "--apply", &file, "--yes"]).exits(Exit::Usage);
        assert!(done.err.contains("is not a plan"), "{broken}: {}", done.err);
    }
    // Laid out by another tool it says the same.
    fs::write(&file, plan.to_string()).unwrap();
    let done = host.run(&["restore", "--apply", &file, "--yes"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}", done.err);
}

/// With the sum over all of it made anew, as somebody would who knows how a plan is made.
fn sealed_anew(plan: &str) -> String {
    let (before, rest) = plan.split_once("\"integrity\": \"").unwrap();
    let (_, end) = rest.split_once('"').unwrap();
    let with = |sum: &str| format!("{before}\"integrity\": \"{sum}\"{end}");
    let mut in_text = false;
    let mut compact = with("");
    compact.retain(|c| {
        in_text ^= c == '"';
        in_text || !c.is_whitespace()
    });
    with(&pbx_config::sys::fs::hash::sha256(compact.as_bytes()))
}

#[test]
fn a_plan_whose_sum_was_made_anew_is_the_plan_of_today_or_none() {
    let (host, file) = planned(&["latest"]);
    let text = fs::read_to_string(&file).unwrap();
    let plan: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(sealed_anew(&text), text);
    let of = |key: &str| plan[key].as_str().unwrap().to_owned();
    for (old, new, words) in [
        (of("digest"), "0".repeat(64), "changed since the plan was made: this host"),
        (of("manifest-sha256"), "0".repeat(64), "that the plan was made from"),
        ("\"cron\"\n".to_owned(), "\"ssh\"\n".to_owned(), "changed since the plan was made: /"),
        ("\"recover\": false".to_owned(), "\"recover\": true".to_owned(), "changed since the plan was made"),
    ] {
        let edit = text.replacen(&old, &new, 1);
        assert_ne!(edit, text, "{old}");
        fs::write(&file, sealed_anew(&edit)).unwrap();
        refused(&host, &file, Exit::Failed, words);
    }
    // The step that is shown is none that could be done.
    fs::write(&file, sealed_anew(&text.replace("\"etc/hosts\"", "\"etc/shadow\""))).unwrap();
    let shadow = fs::read(host.root.join("etc/shadow")).unwrap();
    host.run(&["restore", "--apply", &file, "--yes"]);
    assert_eq!(fs::read(host.root.join("etc/shadow")).unwrap(), shadow);
}

#[test]
fn a_plan_of_another_host_or_of_a_newer_version_is_called_so() {
    let (host, file) = planned(&["latest"]);
    let name = fs::read(host.root.join("etc/hostname")).unwrap();
    host.write("etc/hostname", "other\n");
    refused(&host, &file, Exit::Failed, "the plan is for deb1 (machine ");
    host.write("etc/hostname", name);
    let machine = fs::read(host.root.join("etc/machine-id")).unwrap();
    host.write("etc/machine-id", "00000000000000000000000000000abc\n");
    refused(&host, &file, Exit::Failed, "this is deb1 (machine 00000000000000000000000000000abc)");
    host.write("etc/machine-id", machine);
    // A host that has not even the snapshot.
    let other = TestHost::golden("pbs");
    refused(&other, &file, Exit::Failed, "the plan is for deb1 (machine ");

    let newer = json!({ "format": 2, "everything": "else" });
    fs::write(&file, newer.to_string()).unwrap();
    refused(&host, &file, Exit::Usage, "is a plan of format 2, this version reads 1");
    fs::remove_file(&file).unwrap();
    let done = host.run(&["restore", "--apply", &file, "--yes"]);
    assert_ne!(done.exit, Exit::Ok);
    assert!(done.err.contains(&format!("cannot read {file}")), "{}", done.err);
}
