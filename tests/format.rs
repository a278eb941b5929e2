//! A format number is a promise: what was ever released restores for ever.
//! tests/format holds snapshots as they were written then, and state directories; they are never written again.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use common::{TestHost, copy_tree, snapshot_files};
use pbx_config::model::problem::Exit;
use serde_json::{Value, json};

fn archives() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "tar")).collect();
    files.sort();
    files
}

#[test]
fn every_format_ever_released_is_read_to_the_last_byte() {
    let archives = archives();
    assert_eq!(archives.len(), 6, "one for each codec of format 1");
    for file in archives {
        let host = TestHost::empty();
        let file = file.to_str().unwrap();
        host.run(&["verify", file]).ok();
        assert_eq!(host.run(&["cat", file, "etc/hostname"]).ok().out, "deb1\n");
        let target = host.beside("out");
        host.run(&["restore", file, "--to", target.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(target.join("etc/hostname")).unwrap(), "deb1\n", "{file}");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(target.join("etc/shadow")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o7777, 0o640);
    }
}

/// Our state directory as program 0.1.0 left it on the golden host `bare`: after a backup /etc/hosts was changed and
/// /etc/cron.d was removed, and a restore of `hosts,cron` brought both back.
const SAMPLE: &str = "tests/format/0.1.0";
const STATE: &str = "var/lib/proxmox-backup-extra";
const RESTORE: &str = "20261122T151740Z";
const SNAPSHOT: &str = "deb1/2026-11-22T15:17:40Z";

/// The golden host as that restore left it, with the state of 0.1.0.
fn host_of_the_sample() -> TestHost {
    let host = TestHost::golden("bare");
    copy_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SAMPLE), &host.root.join(STATE));
    // Git keeps no modes.
    let done = common::tool("chmod").arg("-R").arg("go=").arg(host.root.join(STATE)).status();
    assert!(done.unwrap().success());

    let record = host.root.join(STATE).join("undo").join(RESTORE).join("record.json");
    let record: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    // From the last one: a directory gets a new time from what is put into it.
    for step in record["steps"].as_array().unwrap().iter().rev() {
        let [seconds, nanos] = [0, 1].map(|n| step["after"]["mtime"][n].as_u64().unwrap());
        let time = UNIX_EPOCH + Duration::new(seconds, u32::try_from(nanos).unwrap());
        let file = fs::File::open(host.root.join(step["path"].as_str().unwrap())).unwrap();
        file.set_modified(time).unwrap();
    }
    host
}

#[test]
fn a_store_of_0_1_0_is_listed_verified_and_restored() {
    let host = host_of_the_sample();
    let list = host.run(&["list", "--json"]).ok().json();
    assert_eq!(list["snapshots"][0]["id"], SNAPSHOT, "{list}");
    host.run(&["verify", "--all"]).ok();
    let target = host.beside("out");
    host.run(&["restore", "latest", "--to", target.to_str().unwrap()]).ok();
    for path in ["etc/hosts", "etc/cron.d/app", "etc/passwd"] {
        assert_eq!(fs::read(target.join(path)).unwrap(), fs::read(host.root.join(path)).unwrap(), "{path}");
    }
    assert_eq!(snapshot_files(&host.root.join(STATE).join("store")).len(), 1);
}

#[test]
fn a_restore_of_0_1_0_is_undone() {
    let host = host_of_the_sample();
    host.run(&["undo", RESTORE]).ok();
    assert_eq!(
        fs::read_to_string(host.root.join("etc/hosts")).unwrap(),
        "127.0.0.1 localhost\n10.0.0.9 other\n"
    );
    assert!(!host.root.join("etc/cron.d").exists());
    let again = host.run(&["undo", RESTORE]);
    assert!(again.out.contains("undone already"), "{}{}", again.out, again.err);
}

#[test]
fn the_record_of_a_run_of_0_1_0_is_in_log_and_status() {
    let host = host_of_the_sample();
    let log = host.run(&["log"]).ok().out;
    let line = format!("{RESTORE}-backup  2026-11-22 15:17  ok          0.0  {SNAPSHOT}, 58 files");
    assert!(log.contains(&line), "{log}");
    let shown = host.run(&["log", &format!("{RESTORE}-backup"), "--json"]).ok().json();
    assert_eq!((&shown["verb"], &shown["tool"]), (&json!("backup"), &json!("0.1.0")), "{shown}");
    let status = host.run(&["status"]).exits(Exit::Ok).out;
    assert!(status.contains("OK: deb1: the last backup is 0 min old"), "{status}");
    assert!(status.contains(&format!("nothing since {SNAPSHOT}")), "the baseline is read: {status}");
}
