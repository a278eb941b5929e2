//! What the program remembers and tells of its runs: changes since the last one, records, the state at a glance,
//! a fleet in one store.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::TestHost;
use pbx_config::model::report::Exit;
use serde_json::{Value, json};

const STATE: &str = "var/lib/proxmox-backup-extra";

fn backup_at(host: &mut TestHost, time: &str) -> Value {
    time.clone_into(&mut host.now);
    host.run(&["backup", "--json"]).ok().json()
}

fn mode(host: &TestHost, path: &str) -> u32 {
    fs::metadata(host.root.join(path)).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_run_tells_what_changed_since_the_last_one_by_path_and_never_a_value() {
    let mut host = TestHost::empty();
    host.write("etc/fstab", "# none\n");
    host.write("etc/cron.d/a", "x\n");
    let first = backup_at(&mut host, "2026-11-20T12:00:00Z");
    assert_eq!(first["changes"], Value::Null);

    host.write("etc/fstab", "password=hunter2\n");
    host.write("etc/cron.d/b", "y\n");
    fs::remove_file(host.root.join("etc/cron.d/a")).unwrap();
    fs::set_permissions(host.root.join("etc/hostname"), fs::Permissions::from_mode(0o600)).unwrap();
    host.now = "2026-11-21T12:00:00Z".to_owned();
    let text = host.run(&["backup"]).ok().out;
    assert!(
        text.contains("changes   1 added, 2 changed, 1 removed since tiny/2026-11-20T12:00:00Z\n"),
        "{text}"
    );
    for line in [
        "          added   /etc/cron.d/b (cron)\n",
        "          removed /etc/cron.d/a (cron)\n",
        "          changed /etc/fstab (fstab)\n",
        "          rights  /etc/hostname (hostname)\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(!text.contains("hunter2"));

    let third = backup_at(&mut host, "2026-11-22T12:00:00Z");
    assert_eq!(third["changes"]["since"], "tiny/2026-11-21T12:00:00Z");
    assert_eq!(third["changes"]["listed"], json!([]));
}

#[test]
fn of_many_changes_ten_are_listed_and_the_others_counted() {
    let mut host = TestHost::empty();
    backup_at(&mut host, "2026-11-20T12:00:00Z");
    for n in 0..30 {
        host.write(&format!("etc/cron.d/job{n}"), "x\n");
    }
    let changes = &backup_at(&mut host, "2026-11-21T12:00:00Z")["changes"];
    let folder = 1;
    assert_eq!(changes["listed"].as_array().unwrap().len(), 10);
    assert_eq!((&changes["added"], &changes["more"]), (&json!(30 + folder), &json!(20 + folder)));
}

#[test]
fn the_memory_is_private_and_knows_no_content_that_could_be_guessed() {
    let mut host = TestHost::empty();
    host.write("etc/fstab", "1234\n");
    backup_at(&mut host, "2026-11-20T12:00:00Z");
    for file in ["memory.json", "memory.key"] {
        assert_eq!(mode(&host, &format!("{STATE}/{file}")), 0o600, "{file}");
    }
    let memory = fs::read_to_string(host.root.join(STATE).join("memory.json")).unwrap();
    assert!(memory.contains("etc/fstab"));
    // Plain hashes of it, whole and cut.
    let known = "a883dafc480d466ee04e0d6da986bd78eb1fdd2178d04693723da3a8f95d42f4";
    assert!(!memory.contains(&known[..32]), "{memory}");
}

#[test]
fn a_memory_that_is_lost_torn_or_of_another_key_is_no_memory_and_no_problem() {
    let mut host = TestHost::empty();
    for (day, break_it) in [
        (
            10,
            Box::new(|state: &std::path::Path| fs::remove_file(state.join("memory.json")).unwrap())
                as Box<dyn Fn(&std::path::Path)>,
        ),
        (12, Box::new(|state| fs::write(state.join("memory.json"), "{ half").unwrap())),
        (14, Box::new(|state| fs::remove_file(state.join("memory.key")).unwrap())),
    ] {
        backup_at(&mut host, &format!("2026-11-{day}T12:00:00Z"));
        break_it(&host.root.join(STATE));
        let next = backup_at(&mut host, &format!("2026-11-{}T12:00:00Z", day + 1));
        assert_eq!(next["changes"], Value::Null, "{day}");
    }
}

#[test]
fn a_backup_of_a_part_neither_tells_changes_nor_is_remembered() {
    let mut host = TestHost::empty();
    host.write("etc/fstab", "x\n");
    backup_at(&mut host, "2026-11-20T12:00:00Z");
    host.now = "2026-11-21T12:00:00Z".to_owned();
    let part = host.run(&["backup", "--only", "identity", "--json"]).ok().json();
    assert_eq!(part["changes"], Value::Null);
    let whole = backup_at(&mut host, "2026-11-22T12:00:00Z");
    assert_eq!(whole["changes"]["since"], "tiny/2026-11-20T12:00:00Z");
    assert_eq!(whole["changes"]["listed"], json!([]));
}

#[test]
fn what_the_system_rewrites_by_itself_is_no_change() {
    let mut host = TestHost::golden("pve-single");
    host.now = "2026-11-20T12:00:00Z".to_owned();
    host.run(&["backup", "--json"]);
    let database = rusqlite::Connection::open(host.database()).unwrap();
    let count = database
        .execute("UPDATE tree SET data = 'new', version = version + 1 WHERE name IN ('authkey.key', 'authkey.pub')", [])
        .unwrap();
    assert!(count > 0, "the golden host has no ticket keys");
    drop(database);
    host.now = "2026-11-21T12:00:00Z".to_owned();
    let done = host.run(&["backup", "--json"]);
    assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}", done.err);
    let changes = &done.json()["changes"];
    assert_eq!(changes["listed"], json!([]), "{changes}");
}
