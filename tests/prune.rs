//! Retention from a user's chair: runs over many days, a store that two hosts share, a host that lost much, a
//! reinstalled one.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::process::Command;

use common::{TestHost, program, snapshot_files};
use pbx_config::model::problem::Exit;

const STORE: &str = "var/lib/proxmox-backup-extra/store";
const KEEP: &str = "dir: local\n\tpath /var/lib/proxmox-backup-extra/store\n\tkeep-last 1\n\tkeep-daily 3\n";

fn host(keep: &str) -> TestHost {
    let host = TestHost::empty();
    host.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    host.configure(keep);
    host
}

fn backup_at(host: &mut TestHost, time: &str, exit: Exit) -> serde_json::Value {
    time.clone_into(&mut host.now);
    host.run(&["backup", "--json"]).exits(exit).json()
}

fn ids(host: &TestHost) -> Vec<String> {
    let listing = host.run(&["list", "--json"]).ok().json();
    let all = listing["snapshots"].as_array().unwrap().iter();
    all.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// A week with two runs a day; the zone of the tests' machine must not matter, so they are far from midnight
/// anywhere: nearly the same second.
fn week(host: &mut TestHost) {
    for day in 14..21 {
        for second in [10, 20] {
            backup_at(host, &format!("2026-11-{day}T12:00:{second}Z"), Exit::Ok);
        }
    }
}

#[test]
fn without_a_keep_option_everything_stays() {
    let mut host = host("");
    week(&mut host);
    assert_eq!(ids(&host).len(), 14);
    host.run(&["prune"]).ok();
    assert_eq!(ids(&host).len(), 14);
}

#[test]
fn every_run_prunes_what_it_wrote_to_and_counts_for_real() {
    let mut host = host(KEEP);
    week(&mut host);
    assert_eq!(
        ids(&host),
        [
            "tiny/2026-11-20T12:00:20Z",
            "tiny/2026-11-19T12:00:20Z",
            "tiny/2026-11-18T12:00:20Z",
            "tiny/2026-11-17T12:00:20Z",
        ]
    );
    let report = backup_at(&mut host, "2026-11-21T12:00:10Z", Exit::Ok);
    assert_eq!(report["stores"][0]["kept"], 4);
    assert_eq!(report["stores"][0]["removed"], serde_json::json!(["tiny/2026-11-17T12:00:20Z"]));
    assert!(host.run(&["verify", "--all"]).ok().out.lines().count() == 4);
}

#[test]
fn a_dry_run_tells_every_snapshot_with_its_reason_and_removes_nothing() {
    let mut host = host("");
    week(&mut host);
    host.configure(KEEP);
    let table = host.run(&["prune", "--dry-run"]).ok().out;
    assert!(table.contains("  keep    tiny/2026-11-20T12:00:20Z  last 1/1\n"), "{table}");
    assert!(table.contains("  keep    tiny/2026-11-19T12:00:20Z  daily 1/3\n"), "{table}");
    assert!(
        table.contains("  remove  tiny/2026-11-19T12:00:10Z  a newer one of its day is kept\n"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 15, "{table}");
    assert_eq!(ids(&host).len(), 14);
    let done = host.run(&["prune"]).ok().out;
    assert!(done.contains("store local: 4 kept, 10 removed\n"), "{done}");
    assert_eq!(ids(&host).len(), 4);
}

#[test]
fn protected_ones_and_everything_that_is_not_this_hosts_stay() {
    let mut host = host(KEEP);
    host.now = "2026-11-10T12:00:00Z".to_owned();
    host.run(&["backup", "--protect"]).ok();
    let store = host.root.join(STORE);
    fs::create_dir_all(store.join("other")).unwrap();
    for foreign in [
        "other/other_20200101T000000Z.pbx.tar",
        "tiny/tiny_20200101T000000Z.pbx.tar",
        "tiny/host-backup.bundle.tar",
        "tiny/notes.txt",
    ] {
        fs::write(store.join(foreign), "not readable as ours").unwrap();
    }
    for day in 11..19 {
        time(&mut host, &format!("2026-11-{day}T12:00:00Z"));
        host.run(&["backup"]);
    }
    // Three days and the last, the protected one, the foreign ones.
    assert_eq!(snapshot_files(&store).len(), 4 + 1 + 2);
    assert!(store.join("tiny/tiny_20261110T120000Z.pbx.tar").exists());
    assert!(store.join("tiny/host-backup.bundle.tar").exists() && store.join("tiny/notes.txt").exists());
}

fn time(host: &mut TestHost, time: &str) {
    time.clone_into(&mut host.now);
}

#[test]
fn a_part_of_the_host_never_pushes_a_whole_backup_out() {
    let mut host = host("dir: local\n\tpath /var/lib/proxmox-backup-extra/store\n\tkeep-last 1\n");
    backup_at(&mut host, "2026-11-20T12:00:00Z", Exit::Ok);
    time(&mut host, "2026-11-20T13:00:00Z");
    host.run(&["backup", "--only", "identity"]).ok();
    assert_eq!(ids(&host).len(), 2);
}

#[test]
fn a_host_that_lost_much_keeps_its_old_snapshots_until_that_is_accepted() {
    let mut host = host("dir: local\n\tpath /var/lib/proxmox-backup-extra/store\n\tkeep-last 2\n");
    for n in 0..20 {
        host.write(&format!("etc/cron.d/job{n}"), "x\n");
    }
    for day in 10..13 {
        backup_at(&mut host, &format!("2026-11-{day}T12:00:00Z"), Exit::Ok);
    }
    assert_eq!(ids(&host).len(), 2);
    fs::remove_dir_all(host.root.join("etc/cron.d")).unwrap();
    for day in 13..16 {
        let report = backup_at(&mut host, &format!("2026-11-{day}T12:00:00Z"), Exit::Problems);
        let told = report["problems"].to_string();
        assert!(
            told.contains("nothing is removed, because the host seems to have lost many files"),
            "{told}"
        );
        assert!(told.contains("pbx-config prune --accept"), "{told}");
    }
    assert_eq!(ids(&host).len(), 5);
    host.run(&["prune"]).exits(Exit::Problems);
    assert_eq!(ids(&host).len(), 5);
    host.run(&["prune", "--accept"]).ok();
    assert_eq!(ids(&host), ["tiny/2026-11-15T12:00:00Z", "tiny/2026-11-14T12:00:00Z"]);
    backup_at(&mut host, "2026-11-16T12:00:00Z", Exit::Ok);
}

#[test]
fn after_a_reinstallation_the_old_snapshots_stay_until_they_are_adopted() {
    let mut host = host(KEEP);
    week(&mut host);
    host.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n");
    for day in 22..28 {
        let report = backup_at(&mut host, &format!("2026-11-{day}T12:00:00Z"), Exit::Ok);
        assert!(
            report["problems"]
                .to_string()
                .contains("4 snapshots of tiny are of another machine and are kept")
        );
    }
    assert_eq!(ids(&host).len(), 8);
    let adopted = host.run(&["store", "adopt"]).ok().out;
    assert_eq!(adopted, "adopted 4 snapshots of machine 0123456789abcdef0123456789abcdef\n");
    host.run(&["prune"]).ok();
    assert_eq!(ids(&host).len(), 4);
    assert!(host.run(&["store", "adopt"]).ok().out.contains("nothing to adopt"));
}

#[test]
fn nothing_is_pruned_where_this_run_could_not_write() {
    let mut host = host("");
    week(&mut host);
    // The other store has a file where the host's folder would be.
    fs::rename(host.root.join(STORE), host.root.join("srv-old")).unwrap();
    fs::create_dir_all(host.root.join("srv/b")).unwrap();
    fs::rename(host.root.join("srv-old/tiny"), host.root.join("srv/b/tiny")).unwrap();
    host.configure("dir: local\n\tpath /srv/a\n\ndir: b\n\tpath /srv/b\n\tmountpoint yes\n\tkeep-last 1\n");
    let report = backup_at(&mut host, "2026-11-22T12:00:00Z", Exit::Problems);
    assert_eq!(report["stores"][1]["kept"], serde_json::Value::Null);
    assert_eq!(snapshot_files(&host.root.join("srv/b")).len(), 14);
}

#[test]
fn a_store_that_does_not_answer_keeps_no_other_from_its_retention() {
    let mut host = host("");
    week(&mut host);
    let broken = "dir: away\n\tpath /mnt\n\tmountpoint yes\n\tkeep-last 1\n\n";
    host.configure(&format!("{broken}{KEEP}"));
    host.now = "2026-11-22T12:00:00Z".to_owned();
    let planned = host.run(&["prune", "--dry-run"]).exits(Exit::Problems).out;
    assert!(planned.contains("nothing is mounted") && planned.contains("hint: mount it"), "{planned}");
    assert_eq!(planned.matches("\n  remove").count(), 10, "{planned}");
    let old = host.run(&["prune", "--legacy", "keep-last=1"]).exits(Exit::Problems).out;
    assert!(old.contains("store away\nerror: ") && old.contains("store local\n"), "{old}");
    let done = host.run(&["prune", "--accept"]).exits(Exit::Problems).out;
    assert!(
        done.contains("store away: FAILED") && done.contains("store local: 4 kept, 10 removed"),
        "{done}"
    );
    let record = host.run(&["log", "latest", "--json"]).ok().json();
    assert_eq!(record["stores"][0]["kept"], serde_json::Value::Null);
    assert_eq!(record["stores"][1]["removed"], 10);
    // What is shown may not be the newest.
    let shown =
        Command::new(program()).arg("--root").arg(&host.root).args(["show", "latest"]).output().unwrap();
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(shown.status.success() && said.contains("it may have a newer one"), "{said}");
    host.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n");
    assert!(host.run(&["store", "adopt"]).exits(Exit::Problems).out.starts_with("adopted 4 snapshots"));
    assert_eq!(
        host.run(&["store", "adopt"]).exits(Exit::Problems).out,
        "nothing to adopt in what could be read\n"
    );
    let listed = host.run(&["store", "list"]).exits(Exit::Problems).out;
    assert!(listed.contains("hint: mount it"), "{listed}");
    let shown = host.run(&["show", "latest", "--store", "away"]).exits(Exit::Failed).err;
    assert!(
        shown.contains("of tiny in what could be read: store 'away'") && shown.contains("hint: mount it"),
        "{shown}"
    );
    // Where none answers there is nothing to tell.
    for words in [&["prune"][..], &["prune", "--dry-run"], &["prune", "--accept"], &["store", "adopt"]] {
        let done = host.run(&[words, &["--store", "away"]].concat()).exits(Exit::Failed);
        assert!(done.err.contains("nothing is mounted"), "{}", done.err);
    }
}

#[test]
fn a_run_whose_clock_went_back_removes_nothing_and_keeps_what_it_made() {
    let mut host = host(KEEP);
    week(&mut host);
    let before = ids(&host);
    // By the clock the new ones would be the oldest, and go at once; they are named after the newest.
    for day in 10..13 {
        let report = backup_at(&mut host, &format!("2026-11-{day}T12:00:00Z"), Exit::Problems);
        assert_eq!(report["stores"][0]["removed"], serde_json::json!([]));
        assert!(report["problems"].to_string().contains("has a time in the future"), "{report}");
    }
    host.run(&["prune"]).exits(Exit::Problems);
    assert_eq!(ids(&host).len(), before.len() + 3);
    // The clock is right again: everything is as if it had never been wrong.
    backup_at(&mut host, "2026-11-21T12:00:00Z", Exit::Ok);
    let days = |ids: &[String]| ids.iter().map(|id| id[..15].to_owned()).collect::<Vec<_>>();
    assert_eq!(days(&ids(&host)[1..]), days(&before[..3]));
    // One that a clock far ahead made: removed by hand it stands in nobody's way.
    backup_at(&mut host, "2031-01-01T12:00:00Z", Exit::Ok);
    let stuck = backup_at(&mut host, "2026-11-22T12:00:00Z", Exit::Problems);
    assert!(stuck["problems"].to_string().contains("move its file out of the store"), "{stuck}");
    fs::remove_file(host.root.join(STORE).join("tiny/tiny_20310101T120000Z.pbx.tar")).unwrap();
    backup_at(&mut host, "2026-11-23T12:00:00Z", Exit::Ok);
}

#[test]
fn words_of_retention_with_a_slip_say_what_was_meant() {
    let host = host("dir: local\n\tpath /srv\n\tkeep-lst 3\n");
    let done = host.run(&["list"]).exits(Exit::Usage);
    assert!(
        done.err.contains("cfg:3: dir 'local': unknown key 'keep-lst'\nhint: did you mean 'keep-last'?"),
        "{}",
        done.err
    );
    host.configure("dir: local\n\tpath /srv\n\tkeep-all yes\n");
    let done = host.run(&["list"]).exits(Exit::Usage);
    assert!(
        done.err.contains("hint: without any keep option all snapshots are kept: remove it"),
        "{}",
        done.err
    );
    host.configure("dir: local\n\tpath /srv\n");
    let done = host.run(&["prune", "--legacy", "keep-last=1,keep-dayly=2"]).exits(Exit::Usage);
    assert!(
        done.err.contains("keep-dayly=2': unknown key 'keep-dayly'\nhint: did you mean 'keep-daily'?"),
        "{}",
        done.err
    );
    let done = host.run(&["prune", "--legacy", "keep-last=0"]).exits(Exit::Usage);
    assert!(done.err.contains("keeps nothing\nhint: for example --legacy keep-last=3"), "{}", done.err);
    let done = host.run(&["list", "--store", "locl"]).exits(Exit::NotFound);
    assert!(done.err.contains("did you mean 'local'? the stores are: local;"), "{}", done.err);
}

#[test]
fn what_was_confirmed_and_cannot_be_read_removes_nothing() {
    let mut host = host(KEEP);
    week(&mut host);
    host.write("var/lib/proxmox-backup-extra/confirmed.json", "{ half");
    let report = backup_at(&mut host, "2026-11-22T12:00:00Z", Exit::Problems);
    assert!(report["problems"].to_string().contains("nothing was pruned"), "{report}");
    assert_eq!(ids(&host).len(), 5);
    let done = host.run(&["prune"]).exits(Exit::Failed);
    assert!(done.err.contains("confirmed.json"), "{}", done.err);
}

#[test]
fn two_runs_at_once_are_told_apart() {
    let host = host(KEEP);
    let detected = pbx_config::sys::host::Host::detect(
        host.root.clone(),
        jiff::Timestamp::now(),
        Box::new(pbx_config::sys::process::exec::NoTools),
    );
    let lock = pbx_config::sys::process::lock::Lock::acquire(&detected.run_dir()).unwrap();
    host.run(&["prune"]).exits(Exit::Locked);
    host.run(&["prune", "--dry-run"]).ok();
    drop(lock);
}

#[test]
fn a_list_of_the_stores_tells_what_they_keep_and_have() {
    let mut host = host(KEEP);
    week(&mut host);
    let list = host.run(&["store", "list"]).ok().out;
    assert!(list.contains("    4 snapshots, 4 of this host; keep-last 1, keep-daily 3\n"), "{list}");
    let json = host.run(&["store", "list", "--json"]).ok().json();
    assert_eq!((&json[0]["keep-daily"], &json[0]["snapshots"]), (&3.into(), &4.into()));
    host.configure("dir: a\n\tpath /a\n\tkeep-daily many\n");
    let done = host.run(&["store", "list"]).exits(Exit::Usage);
    assert!(done.err.contains("pbx-config.cfg:3: dir 'a': "), "{}", done.err);
}
