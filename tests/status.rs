//! What the program remembers and tells of its runs: changes since the last one, records, the state at a glance,
//! a fleet in one store.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::TestHost;
use pbx_config::model::problem::Exit;
use pbx_config::sys::process::exec::{Cmd, Exec, ProcessOutput, ToolStatus};
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

const SKIP: &str = "backup: main\n\tskip-unchanged yes\n";

fn ids(host: &TestHost) -> usize {
    host.run(&["list", "--json"]).json()["snapshots"].as_array().unwrap().len()
}

fn records(host: &TestHost) -> Vec<Value> {
    host.run(&["log", "--json"]).ok().json().as_array().unwrap().clone()
}

#[test]
fn where_nothing_changed_no_new_snapshot_is_made_and_the_run_records_that_it_looked() {
    let mut host = TestHost::empty();
    host.configure(SKIP);
    host.write("etc/fstab", "a\n");
    backup_at(&mut host, "2026-11-20T12:00:00Z");
    // Times do not count.
    fs::File::options()
        .write(true)
        .open(host.root.join("etc/fstab"))
        .unwrap()
        .set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(5))
        .unwrap();
    let second = backup_at(&mut host, "2026-11-21T12:00:00Z");
    assert_eq!(second["unchanged"], "tiny/2026-11-20T12:00:00Z");
    assert_eq!(second["snapshot"], Value::Null);
    assert_eq!(ids(&host), 1);
    assert_eq!(records(&host)[0]["unchanged"], "tiny/2026-11-20T12:00:00Z");
    let text = host.run(&["backup"]).ok().out;
    assert!(
        text.starts_with("unchanged since tiny/2026-11-20T12:00:00Z; no new snapshot was made\n"),
        "{text}"
    );

    host.write("etc/fstab", "b\n");
    let third = backup_at(&mut host, "2026-11-22T12:00:00Z");
    assert_eq!((&third["unchanged"], ids(&host)), (&Value::Null, 2));
    // And against that one from now on.
    assert_eq!(backup_at(&mut host, "2026-11-23T12:00:00Z")["unchanged"], "tiny/2026-11-22T12:00:00Z");
}

#[test]
fn a_new_snapshot_is_made_when_the_last_is_old_away_torn_or_one_is_asked_for() {
    let mut host = TestHost::empty();
    let two = "dir: a\n\tpath /srv/a\n\ndir: b\n\tpath /srv/b\n";
    host.configure(&format!("{SKIP}\n{two}"));
    let made = |report: &Value| report["unchanged"].is_null() && !report["snapshot"].is_null();
    backup_at(&mut host, "2026-11-01T12:00:00Z");
    assert!(!made(&backup_at(&mut host, "2026-11-08T11:00:00Z")));
    // Older than a week, and a clock that went back.
    assert!(made(&backup_at(&mut host, "2026-11-08T13:00:00Z")));
    host.now = "2026-11-07T00:00:00Z".to_owned();
    assert!(made(&host.run(&["backup", "--json"]).exits(Exit::Problems).json()));
    backup_at(&mut host, "2026-11-09T12:00:00Z");
    // Gone from either store, or torn in the first.
    for (n, store) in ["a", "b"].into_iter().enumerate() {
        let newest = common::snapshot_files(&host.root.join("srv").join(store)).pop().unwrap();
        fs::remove_file(newest).unwrap();
        assert!(made(&backup_at(&mut host, &format!("2026-11-09T13:0{n}:00Z"))), "{store}");
    }
    assert!(!made(&backup_at(&mut host, "2026-11-09T14:00:00Z")));
    let newest = common::snapshot_files(&host.root.join("srv/a")).pop().unwrap();
    let size = fs::metadata(&newest).unwrap().len();
    fs::write(&newest, vec![0; usize::try_from(size).unwrap()]).unwrap();
    host.now = "2026-11-09T15:00:00Z".to_owned();
    assert!(made(&host.run(&["backup", "--json"]).json()));
    for asked in [&["--note", "x"][..], &["--protect"], &["--only", "identity"]] {
        host.now = format!("2026-11-09T16:00:0{}Z", asked.len() + asked[0].len() % 3);
        assert!(made(&host.run(&[&["backup", "--json"], asked].concat()).json()), "{asked:?}");
    }
}

#[test]
fn a_second_store_that_is_away_is_told_and_makes_no_new_snapshot() {
    let mut host = TestHost::empty();
    let two = "dir: a\n\tpath /srv/a\n\ndir: b\n\tpath /srv/b\n";
    host.configure(&format!("{SKIP}\n{two}"));
    backup_at(&mut host, "2026-11-20T12:00:00Z");
    fs::rename(host.root.join("srv/b"), host.root.join("srv/was-b")).unwrap();
    host.write("srv/b", "no folder any more\n");
    host.now = "2026-11-21T12:00:00Z".to_owned();
    let report = host.run(&["backup", "--json"]).exits(Exit::Problems).json();
    assert_eq!(report["unchanged"], "tiny/2026-11-20T12:00:00Z");
    assert!(report["problems"].to_string().contains("store 'b'"), "{report}");
}

#[test]
fn every_run_leaves_a_private_record_with_its_figures() {
    let mut host = TestHost::empty();
    backup_at(&mut host, "2026-11-20T12:00:00Z");
    let id = "20261120T120000Z-backup";
    assert_eq!(mode(&host, &format!("{STATE}/reports")), 0o700);
    assert_eq!(mode(&host, &format!("{STATE}/reports/{id}.json")), 0o600);
    let record = host.run(&["log", id, "--json"]).ok().json();
    assert_eq!(record["outcome"], "ok");
    assert_eq!(record["trigger"], "manual");
    assert_eq!(record["stores"][0]["store"], "local");
    let stats = &record["stats"];
    assert_eq!(stats["compression"]["name"], "zstd");
    assert!(stats["compression"]["threads"].as_u64().unwrap() > 0);
    assert!(stats["files"].as_u64().unwrap() > 0 && stats["size"].as_u64() > stats["payload"].as_u64());
    assert!(stats["ratio"].as_f64().unwrap() > 0.0);
    for phase in ["prepare", "write", "verify", "store"] {
        assert!(stats["phases"][phase].as_f64().unwrap() >= 0.0);
    }
    let text = host.run(&["log", "latest"]).ok().out;
    assert!(
        text.contains("run        20261120T120000Z-backup\n") && text.contains("result     ok (exit 0)\n")
    );
    let list = host.run(&["log", "--runs"]).ok().out;
    assert!(list.lines().nth(1).unwrap().starts_with(id), "{list}");
    host.run(&["log", "2026112"]).ok();
    assert!(host.run(&["log", "1999"]).exits(Exit::NotFound).err.contains("no such record"));
    assert!(host.run(&["log", "../../etc/passwd"]).exits(Exit::NotFound).err.contains("no such record"));
}

#[test]
fn failed_runs_verifications_and_prunes_are_recorded_too() {
    let mut host = TestHost::empty();
    host.write("srv/file", "no folder\n");
    host.configure("dir: a\n\tpath /srv/file/store\n");
    host.now = "2026-11-20T12:00:00Z".to_owned();
    host.run(&["backup"]).exits(Exit::Failed);
    host.configure("dir: a\n\tpath\n");
    host.now = "2026-11-20T13:00:00Z".to_owned();
    host.run(&["backup"]).exits(Exit::Usage);
    host.run(&["backup", "--dry-run"]).exits(Exit::Usage);
    host.configure("dir: a\n\tpath /srv/a\n\tkeep-last 1\n");
    backup_at(&mut host, "2026-11-20T14:00:00Z");
    host.run(&["verify", "--all"]).ok();
    host.run(&["prune"]).ok();
    // A question, and a word that names nothing, are no runs.
    host.run(&["verify", "1999"]).exits(Exit::NotFound);
    host.run(&["prune", "--dry-run"]).ok();

    let all = records(&host);
    let told: Vec<_> =
        all.iter().map(|one| format!("{} {}", one["id"], one["outcome"]).replace('"', "")).collect();
    assert_eq!(
        told,
        [
            "20261120T140000Z-prune ok",
            "20261120T140000Z-verify ok",
            "20261120T140000Z-backup ok",
            "20261120T130000Z-backup failed",
            "20261120T120000Z-backup failed",
        ]
    );
    assert_eq!((&all[4]["exit"], &all[3]["exit"]), (&json!(1), &json!(2)));
    assert!(all[4]["problems"][0]["what"].as_str().unwrap().contains("/srv/file"), "{}", all[4]);
    let verified = &all[1]["verified"][0];
    assert_eq!(
        (&verified["store"], &verified["whole"], &verified["good"]),
        (&json!("a"), &json!(true), &json!(1))
    );

    let newest = common::snapshot_files(&host.root.join("srv/a")).pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let frame = bytes.windows(4).rposition(|four| four == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    bytes[frame + 20] ^= 1;
    fs::write(&newest, bytes).unwrap();
    host.now = "2026-11-20T15:00:00Z".to_owned();
    let results = host.run(&["verify", "--all", "--json"]).exits(Exit::Verification).json();
    assert_eq!(results[0]["id"], "tiny/2026-11-20T14:00:00Z");
    let record = &records(&host)[0];
    assert_eq!(record["verified"][0]["damaged"], json!(["tiny/2026-11-20T14:00:00Z"]));
    assert_eq!((&record["outcome"], &record["exit"]), (&json!("failed"), &json!(4)));
    assert!(host.run(&["log"]).ok().out.contains("FAILED") || host.run(&["log"]).ok().out.contains("failed"));
}

#[test]
fn records_are_bounded_in_number_and_one_in_bytes() {
    let mut host = TestHost::empty();
    let reports = host.root.join(STATE).join("reports");
    backup_at(&mut host, "2026-11-20T12:00:00Z");
    let one = fs::read(reports.join("20261120T120000Z-backup.json")).unwrap();
    for n in 0..510 {
        fs::write(
            reports.join(format!("2025{:02}{:02}T120000Z-backup.json", n / 28 % 12 + 1, n % 28 + 1)),
            &one,
        )
        .unwrap();
        fs::write(
            reports.join(format!("2024{:02}{:02}T120000Z-backup.json", n / 28 % 12 + 1, n % 28 + 1)),
            &one,
        )
        .unwrap();
    }
    fs::write(reports.join("20250101T000000Z-backup.json"), "{ half").unwrap();
    // Nobody else's.
    fs::write(reports.join("note.txt"), "mine").unwrap();
    backup_at(&mut host, "2026-11-21T12:00:00Z");
    let count = fs::read_dir(&reports).unwrap().count();
    assert_eq!(count, 501);
    let list = records(&host);
    assert_eq!(list[0]["id"], "20261121T120000Z-backup");
    assert!(list.len() >= 499);
    assert!(reports.join("note.txt").exists());
}

/// Answers for the timer alone, as systemd does; every other question is wrong.
struct Timers(&'static str);

impl Exec for Timers {
    fn run(&self, cmd: &Cmd) -> anyhow::Result<Option<ProcessOutput>> {
        let argv: Vec<&str> = cmd.argv.iter().map(String::as_str).collect();
        if argv.first() != Some(&"systemctl") {
            return Ok(None);
        }
        let asked =
            ["systemctl", "list-timers", "--all", "--no-pager", "-o", "json", "proxmox-backup-extra.timer"];
        assert_eq!(argv, asked);
        assert!(cmd.limit <= std::time::Duration::from_secs(10));
        Ok(Some(ProcessOutput {
            status: ToolStatus::Exit(0),
            stdout: self.0.as_bytes().to_vec(),
            ..ProcessOutput::default()
        }))
    }
}

/// 2026-11-23T01:23:00Z, as systemd 252 and 257 write it.
const PLANNED: &str = r#"[{"next":1795396980000000,"left":0,"last":0,"passed":0,"unit":"proxmox-backup-extra.timer","activates":"proxmox-backup-extra.service"}]"#;

fn status_at(host: &mut TestHost, time: &str, timer: &'static str, more: &[&str]) -> common::Done {
    time.clone_into(&mut host.now);
    host.run_with(&[&["status"], more].concat(), Box::new(Timers(timer)))
}

#[test]
fn status_tells_a_healthy_host_in_a_line_and_a_table() {
    let mut host = TestHost::empty();
    host.write("etc/fstab", "a\n");
    backup_at(&mut host, "2026-11-22T01:00:00Z");
    host.write("etc/fstab", "password=hunter2\n");
    let text = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &[]).ok().out;
    assert!(text.starts_with("OK: tiny: the last backup is 3 h old\n"), "{text}");
    let row = text.lines().find(|line| line.starts_with("local ")).unwrap();
    assert!(row.contains("3 h ") && row.contains(" never ") && row.ends_with(" ok"), "{row}");
    assert!(text.contains(", in 21 h 23 min\n"), "{text}");
    assert!(text.contains("drift      1 changed since tiny/2026-11-22T01:00:00Z\n"), "{text}");
    assert!(text.contains("           changed /etc/fstab (fstab)\n") && !text.contains("hunter2"), "{text}");

    let json = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--json"]).ok().json();
    assert_eq!(json["level"], "ok");
    assert_eq!(json["timer"]["next"], "2026-11-23T01:23:00Z");
    assert_eq!(json["stores"][0]["newest"], "tiny/2026-11-22T01:00:00Z");
    assert_eq!(json["drift"]["changed"], 1);
    let quick = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--json", "--quick"]).ok().json();
    assert_eq!(quick["drift"], Value::Null);
}

#[test]
fn status_ends_as_monitors_want_it() {
    let mut host = TestHost::empty();
    host.configure("dir: a\n\tpath /srv/a\n\ndir: b\n\tpath /srv/b\n\tmountpoint yes\n");
    // Nothing at all.
    let none = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &[]).exits(Exit::Usage);
    assert!(none.out.starts_with("CRITICAL: tiny: "), "{}", none.out);
    host.configure("dir: a\n\tpath /srv/a\n");
    backup_at(&mut host, "2026-11-22T01:00:00Z");
    status_at(&mut host, "2026-11-23T02:00:00Z", PLANNED, &[]).ok();
    let late = status_at(&mut host, "2026-11-23T04:00:00Z", PLANNED, &[]).exits(Exit::Failed);
    assert!(
        late.out.starts_with("WARNING: tiny: store 'a': the last success is 1 d 3 h old\n"),
        "{}",
        late.out
    );
    status_at(&mut host, "2026-11-23T04:00:00Z", PLANNED, &["--max-age", "2d"]).ok();
    status_at(&mut host, "2026-11-30T04:00:00Z", PLANNED, &[]).exits(Exit::Usage);
    // A timer that is off, a second store that is away.
    let off = status_at(&mut host, "2026-11-22T02:00:00Z", "[]", &[]).exits(Exit::Failed);
    assert!(off.out.contains("systemctl enable --now proxmox-backup-extra.timer"), "{}", off.out);
    host.configure("dir: a\n\tpath /srv/a\n\ndir: b\n\tpath /srv/b\n\tmountpoint yes\n");
    let away = status_at(&mut host, "2026-11-22T02:00:00Z", PLANNED, &[]).exits(Exit::Failed);
    assert!(away.out.contains("b      -") && away.out.contains("cannot be reached"), "{}", away.out);
    assert!(away.out.contains("hint: mount it, or see why it is not"), "{}", away.out);
    // What cannot be looked at at all is no warning, and its first line is where a monitor looks.
    host.configure("dir: a\n\tpat /srv/a\n");
    let wrong = status_at(&mut host, "2026-11-22T02:00:00Z", PLANNED, &[]).exits(Exit::Usage);
    assert!(
        wrong.out.starts_with("CRITICAL: tiny: ") && wrong.out.contains("did you mean 'path'?"),
        "{}",
        wrong.out
    );
    assert_eq!(wrong.err, "");
    host.configure("dir: a\n\tpath /srv/a\n");
    let reports = host.root.join("var/lib/proxmox-backup-extra/reports");
    fs::rename(&reports, host.beside("reports")).unwrap();
    fs::write(&reports, "x").unwrap();
    let blind = status_at(&mut host, "2026-11-22T02:00:00Z", PLANNED, &[]).exits(Exit::Usage);
    assert!(blind.out.starts_with("CRITICAL: tiny: cannot read "), "{}", blind.out);
    let blind = status_at(&mut host, "2026-11-22T02:00:00Z", PLANNED, &["--json"]).exits(Exit::Usage);
    assert!(blind.err.contains("\"exit\":2"), "{}", blind.err);
    fs::remove_file(&reports).unwrap();
    fs::rename(host.beside("reports"), &reports).unwrap();
    for bad in ["soon", "-3h", "0h"] {
        let done = status_at(&mut host, "2026-11-22T02:00:00Z", PLANNED, &[&format!("--max-age={bad}")]);
        assert!(done.exits(Exit::Usage).err.contains("is not a valid time; use 90m, 26h, 2d or 1w"));
    }
}

#[test]
fn status_counts_a_run_that_found_nothing_new_as_a_success() {
    let mut host = TestHost::empty();
    host.configure(SKIP);
    backup_at(&mut host, "2026-11-20T01:00:00Z");
    backup_at(&mut host, "2026-11-22T01:00:00Z");
    let json = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--json"]).ok().json();
    assert_eq!(json["stores"][0]["newest"], "tiny/2026-11-20T01:00:00Z");
    assert_eq!(json["stores"][0]["last-success"], "2026-11-22T01:00:00Z");
}

#[test]
fn status_knows_what_the_last_verification_found() {
    let mut host = TestHost::empty();
    for day in 1..3 {
        backup_at(&mut host, &format!("2026-11-0{day}T01:00:00Z"));
    }
    backup_at(&mut host, "2026-11-22T01:00:00Z");
    let never = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &[]).exits(Exit::Failed);
    assert!(never.out.contains("store 'local': nothing was verified for 21 d 3 h"), "{}", never.out);
    host.now = "2026-11-22T03:00:00Z".to_owned();
    host.run(&["verify", "--all"]).ok();
    let json = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--json"]).ok().json();
    assert_eq!(json["stores"][0]["verified-at"], "2026-11-22T03:00:00Z");
    assert_eq!(json["stores"][0]["verified"]["newest"], "tiny/2026-11-22T01:00:00Z");

    let oldest = common::snapshot_files(&host.root.join(STATE).join("store")).remove(0);
    let good = fs::read(&oldest).unwrap();
    let mut bad = good.clone();
    let frame = bad.windows(4).rposition(|four| four == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    bad[frame + 20] ^= 1;
    fs::write(&oldest, bad).unwrap();
    host.run(&["verify", "--all"]).exits(Exit::Verification);
    let damaged = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &[]).exits(Exit::Usage);
    assert!(
        damaged.out.contains("one copy is damaged, tiny/2026-11-01T01:00:00Z among them"),
        "{}",
        damaged.out
    );
    // Put right and looked at again by its name.
    fs::write(&oldest, good).unwrap();
    host.run(&["verify", "tiny/2026-11-01"]).ok();
    status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &[]).ok();
}

#[test]
fn snapshots_of_a_part_or_of_another_machine_are_no_success_of_this_host() {
    let mut host = TestHost::empty();
    host.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    backup_at(&mut host, "2026-11-20T01:00:00Z");
    host.now = "2026-11-22T01:00:00Z".to_owned();
    host.run(&["backup", "--only", "identity"]).ok();
    let json = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--json"]).exits(Exit::Failed).json();
    assert_eq!(json["stores"][0]["newest"], "tiny/2026-11-20T01:00:00Z");
    host.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n");
    let json = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--json"]).exits(Exit::Usage).json();
    assert_eq!(json["stores"][0]["newest"], Value::Null);
}

/// Makes snapshots of other hosts out of one: the manifest has room for another name.
fn others(host: &TestHost, store: &str, clusters: &[(&str, &str, &str)]) {
    let template = common::snapshot_files(&host.root.join(store)).remove(0);
    let bytes = fs::read(&template).unwrap();
    let end = 512 + usize::from_str_radix(std::str::from_utf8(&bytes[124..135]).unwrap(), 8).unwrap();
    for (name, time, nodes) in clusters {
        let mut manifest: Value = serde_json::from_slice(&bytes[512..end]).unwrap();
        manifest["id"] = json!(format!("{name}/{time}"));
        manifest["node"] = json!(name);
        if !nodes.is_empty() {
            let (cluster, nodes) = nodes.split_once(':').unwrap();
            manifest["cluster"] = json!({ "name": cluster, "nodes": nodes.split(',').collect::<Vec<_>>() });
        }
        let mut text = serde_json::to_vec(&manifest).unwrap();
        assert!(text.len() <= end - 512);
        text.resize(end - 512, b' ');
        let mut made = bytes.clone();
        made[512..end].copy_from_slice(&text);
        let id: pbx_config::model::snapshot::SnapshotId = format!("{name}/{time}").parse().unwrap();
        fs::create_dir_all(host.root.join(store).join(name)).unwrap();
        fs::write(host.root.join(store).join(name).join(id.file_name()), made).unwrap();
    }
}

#[test]
fn a_fleet_is_judged_by_the_newest_manifests_and_a_node_that_never_reported_fails_too() {
    let mut host = TestHost::empty();
    host.configure("dir: a\n\tpath /srv/a\n");
    backup_at(&mut host, "2026-11-22T01:00:00Z");
    others(
        &host,
        "srv/a",
        &[
            ("pve1", "2026-11-22T01:00:00Z", "prod:pve1,pve2"),
            // It was a member once; its own manifest does not know that it left.
            ("pve9", "2026-09-01T01:00:00Z", "prod:pve1,pve2,pve9"),
            // Another cluster of the same name.
            ("lab1", "2026-11-22T02:00:00Z", "prod:lab1"),
            ("pve2", "2026-11-20T01:00:00Z", "prod:pve1,pve2,pve9"),
            ("pve2", "2026-11-22T01:10:00Z", "prod:pve1,pve2"),
        ],
    );
    let done = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--fleet", "--max-age", "26h"]).ok();
    assert!(done.out.starts_with("OK: 5 hosts\n"), "{}", done.out);
    assert!(
        done.out
            .lines()
            .any(|line| line.starts_with("pve9 ") && line.ends_with("no longer a node of cluster prod"))
    );

    others(&host, "srv/a", &[("pve2", "2026-11-22T02:30:00Z", "prod:pve1,pve2,pve3")]);
    let done = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--fleet", "--json"])
        .exits(Exit::Usage)
        .json();
    let members = done["members"].as_array().unwrap();
    let member = |name: &str| members.iter().find(|one| one["host"] == name).unwrap();
    assert_eq!(member("pve3")["why"], "has no snapshot, though it is a node of cluster prod");
    assert_eq!((&member("pve2")["level"], &member("pve2")["snapshots"]), (&json!("ok"), &json!(3)));
    let text = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--fleet"]).exits(Exit::Usage).out;
    assert!(
        text.starts_with(
            "CRITICAL: 1 of 6 hosts: pve3 has no snapshot, though it is a node of cluster prod\n"
        ),
        "{text}"
    );

    let late = status_at(&mut host, "2026-11-23T04:00:00Z", PLANNED, &["--fleet"]).exits(Exit::Usage).out;
    assert!(late.contains("pve1 late: 1 d 3 h old"), "{late}");
    status_at(&mut host, "2026-11-23T04:00:00Z", PLANNED, &["--fleet", "--max-age", "2d"]).exits(Exit::Usage);
}

#[test]
fn in_a_fleet_a_host_that_skips_what_is_unchanged_is_late_a_week_later() {
    let mut host = TestHost::empty();
    host.configure(SKIP);
    backup_at(&mut host, "2026-11-01T01:00:00Z");
    let done = status_at(&mut host, "2026-11-06T01:00:00Z", PLANNED, &["--fleet"]).ok().out;
    assert!(done.contains("ok: nothing changed, or no run, for 5 d"), "{done}");
    status_at(&mut host, "2026-11-09T02:00:00Z", PLANNED, &["--fleet"]).ok();
    let late = status_at(&mut host, "2026-11-09T04:00:00Z", PLANNED, &["--fleet"]).exits(Exit::Usage).out;
    assert!(late.contains("late: 8 d 3 h old"), "{late}");
    // Without the option the same manifest would be late after a day.
    host.configure("");
    host.write("etc/fstab", "new");
    backup_at(&mut host, "2026-11-10T01:00:00Z");
    status_at(&mut host, "2026-11-12T01:00:00Z", PLANNED, &["--fleet"]).exits(Exit::Usage);
}

#[test]
fn an_empty_or_missing_fleet_is_no_healthy_one() {
    let mut host = TestHost::empty();
    host.configure("dir: a\n\tpath /srv/a\n");
    let none = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--fleet"]).exits(Exit::Usage);
    assert!(none.out.starts_with("CRITICAL: no host has a snapshot\n"), "{}", none.out);
    backup_at(&mut host, "2026-11-22T01:00:00Z");
    host.configure("dir: a\n\tpath /srv/a\n\ndir: b\n\tpath /srv/b\n\tmountpoint yes\n");
    let away = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--fleet"]).exits(Exit::Usage);
    // In the line that a monitor shows.
    assert!(away.out.starts_with("CRITICAL: 1 host; store 'b': nothing is mounted on"), "{}", away.out);
    // What is no manifest.
    host.configure("dir: a\n\tpath /srv/a\n");
    fs::create_dir_all(host.root.join("srv/a/odd")).unwrap();
    fs::write(host.root.join("srv/a/odd/odd_20261122T010000Z.pbx.tar"), "no tar").unwrap();
    let odd = status_at(&mut host, "2026-11-22T04:00:00Z", PLANNED, &["--fleet"]).exits(Exit::Usage);
    assert!(odd.out.contains("odd none of its manifests can be read"), "{}", odd.out);
}

#[test]
fn a_listing_takes_globs_for_hosts() {
    let mut host = TestHost::empty();
    host.configure("dir: a\n\tpath /srv/a\n");
    backup_at(&mut host, "2026-11-22T01:00:00Z");
    others(&host, "srv/a", &[("pve1", "2026-11-22T01:00:00Z", ""), ("pve2", "2026-11-22T01:00:00Z", "")]);
    let count = |glob: &str| {
        host.run(&["list", "--host", glob, "--json"]).ok().json()["snapshots"].as_array().unwrap().len()
    };
    assert_eq!((count("*"), count("pve*"), count("pve2"), count("pve?"), count("x*")), (3, 2, 1, 2, 0));
    assert!(
        host.run(&["list", "--host", "["]).exits(Exit::Usage).err.contains("--host: '[' is not a valid glob")
    );
}

#[test]
fn a_copy_that_was_found_damaged_never_pushes_a_good_one_out() {
    let mut host = TestHost::empty();
    host.configure("dir: a\n\tpath /srv/a\n\tkeep-last 1\n");
    backup_at(&mut host, "2026-11-20T01:00:00Z");
    let kept = common::snapshot_files(&host.root.join("srv/a")).remove(0);
    let mut bytes = fs::read(&kept).unwrap();
    let frame = bytes.windows(4).rposition(|four| four == [0x28, 0xb5, 0x2f, 0xfd]).unwrap();
    bytes[frame + 20] ^= 1;
    fs::write(&kept, bytes).unwrap();
    host.run(&["verify", "--all"]).exits(Exit::Verification);
    backup_at(&mut host, "2026-11-21T01:00:00Z");
    backup_at(&mut host, "2026-11-22T01:00:00Z");
    let table = host.run(&["prune", "--dry-run"]).ok().out;
    assert!(table.contains("keep    tiny/2026-11-22T01:00:00Z  last 1/1\n"), "{table}");
    assert!(
        table.contains("keep    tiny/2026-11-20T01:00:00Z  damaged, as its last verification found\n"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[test]
fn no_secret_of_the_host_stands_in_what_is_kept_or_said_of_a_run() {
    let host = TestHost::golden("pve-single");
    fs::create_dir_all(host.root.join("var/lib/prometheus/node-exporter")).unwrap();
    host.configure("prometheus: node\n");
    let mut said = String::new();
    for words in
        [&["backup", "-vv"][..], &["verify", "--all"], &["status"], &["log"], &["log", "latest"], &["prune"]]
    {
        let done = host.run(words);
        said.push_str(&done.out);
        said.push_str(&done.err);
    }
    let state = host.root.join(STATE);
    let mut kept: Vec<std::path::PathBuf> =
        ["memory.json", "reports"].iter().map(|name| state.join(name)).collect();
    kept.push(host.root.join("var/lib/prometheus/node-exporter/pbx_config.prom"));
    let reports = kept.remove(1);
    kept.extend(fs::read_dir(reports).unwrap().map(|entry| entry.unwrap().path()));
    assert!(kept.len() > 3);
    kept.iter().for_each(|path| said.push_str(&fs::read_to_string(path).unwrap()));

    let entries = host.run(&["show", "latest", "--files", "--json"]).ok().json();
    let secret: Vec<&Value> =
        entries["entries"].as_array().unwrap().iter().filter(|entry| entry["secret"] == true).collect();
    assert!(secret.len() > 5);
    let mut looked = 0;
    for entry in secret {
        let content = host.run(&["cat", "latest", entry["path"].as_str().unwrap()]).out;
        // A word of a secret file that is long enough to be one.
        for word in
            content.split(|c: char| c.is_whitespace() || "\"',:=".contains(c)).filter(|word| word.len() >= 20)
        {
            looked += 1;
            assert!(!said.contains(word), "{}: {word}", entry["path"]);
        }
    }
    assert!(looked > 10, "{looked}");
}
