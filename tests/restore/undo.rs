//! Back from a restore: which one, from a memory that is damaged, on more than one disk, and when it cannot be done.

use std::fs;
use std::io::Write;
use std::path::Path;

use pbx_config::model::problem::Exit;

use super::common::{TestHost, tree};
use super::interrupt::{plain, traced};
use super::{change, picture, saved};

/// Restores what these items are, and says its id.
fn restored(host: &TestHost, items: &str) -> String {
    let done = host.run(&["restore", "latest", "--yes", "--only", items]);
    let line = done.err.lines().find_map(|line| line.strip_prefix("to undo it: pbx-config undo "));
    line.unwrap_or_else(|| panic!("{}", done.err)).to_owned()
}

fn memory(host: &TestHost, id: &str) -> std::path::PathBuf {
    host.root.join("var/lib/proxmox-backup-extra/undo").join(id)
}

#[test]
fn an_undo_without_words_is_of_the_last_restore_and_never_of_one_before() {
    let host = saved("bare");
    change(&host);
    let first = restored(&host, "hosts");
    let between = picture(&host);
    let second = restored(&host, "cron");
    let shown = host.run(&["undo", "--dry-run"]).exits(Exit::Ok);
    assert!(shown.out.contains(&second) && shown.out.contains("remove     /etc/cron.d"), "{}", shown.out);
    assert!(!shown.out.contains("/etc/hosts"), "{}", shown.out);
    host.run(&["undo"]).ok();
    tree::assert_same(&picture(&host), &between);
    let again = host.run(&["undo"]).exits(Exit::Ok);
    assert!(again.out.contains(&format!("{second} was undone already")), "{}", again.out);
    assert!(again.out.contains(&format!("pbx-config undo {first}")), "{}", again.out);
    tree::assert_same(&picture(&host), &between);
    host.run(&["undo", &first]).ok();
    assert_eq!(fs::read(host.root.join("etc/hosts")).unwrap(), b"127.0.0.1 localhost\n10.0.0.9 other\n");
}

#[test]
fn a_dry_run_tells_what_was_changed_since_and_a_forced_undo_keeps_it() {
    let host = saved("bare");
    change(&host);
    let before = picture(&host);
    let id = restored(&host, "hosts,cron");
    host.write("etc/hosts", "mine\n");
    let shown = host.run(&["undo", "--dry-run"]).exits(Exit::Ok);
    assert!(shown.out.contains("leave      /etc/hosts  (was changed since)"), "{}", shown.out);
    let shown = host.run(&["undo", "--dry-run", "--force", "--json"]).exits(Exit::Ok).json();
    let does: Vec<_> =
        shown["paths"].as_array().unwrap().iter().filter(|one| one["path"] == "etc/hosts").collect();
    assert_eq!(does[0]["does"], "overwrite", "{shown}");
    assert_eq!(fs::read(host.root.join("etc/hosts")).unwrap(), b"mine\n");
    let done = host.run(&["undo", "--force"]).ok();
    tree::assert_same(&picture(&host), &before);
    let copy = fs::read_dir(memory(&host, &id).join("found")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read(&copy).unwrap(), b"mine\n");
    assert!(done.out.contains(&copy.display().to_string()), "{}", done.out);
}

#[test]
fn what_is_no_line_of_a_journal_says_nothing() {
    let host = saved("bare");
    change(&host);
    let before = picture(&host);
    let id = restored(&host, "hosts,cron");
    let journal = memory(&host, &id).join("journal");
    let mut text = fs::read(&journal).unwrap();
    text.extend(b"begin 999\nend 999\nbegin 18446744073709551615\n\xff\xfe\n\n");
    fs::write(&journal, text).unwrap();
    let (code, said) = plain(&host, &["undo", &id]);
    assert_eq!(code, Some(0), "{said}");
    tree::assert_same(&picture(&host), &before);
}

#[test]
fn a_record_that_cannot_be_read_is_told_with_the_one_before_it() {
    let host = saved("bare");
    change(&host);
    let first = restored(&host, "hosts");
    let second = restored(&host, "cron");
    fs::write(memory(&host, &second).join("record.json"), "{}").unwrap();
    let before = picture(&host);
    let done = host.run(&["undo"]).exits(Exit::Failed);
    assert!(done.err.contains(&format!("the last restore {second} cannot be read")), "{}", done.err);
    assert!(done.err.contains(&format!("`pbx-config undo {first}`")), "{}", done.err);
    tree::assert_same(&picture(&host), &before);
    host.run(&["undo", &first]).ok();
}

#[test]
fn every_file_system_that_was_written_to_is_on_its_disk_before_that_is_said() {
    let host = saved("bare");
    let other = host.root.join("etc/cron.d");
    let mount = |words: &[&str]| {
        crate::common::tool(words[0]).args(&words[1..]).arg(&other).status().unwrap().success()
    };
    assert!(mount(&["mount", "-t", "tmpfs", "tmpfs"]));
    let synced = |args: &[&str]| -> usize {
        let log = host.beside("calls");
        let (_, said) = traced(&host, &log, &["-y", "-e", "trace=syncfs"], args);
        assert!(!said.contains("error"), "{said}");
        let calls = fs::read_to_string(&log).unwrap();
        calls.lines().filter(|line| line.starts_with("syncfs(") && line.contains("/etc/cron.d>")).count()
    };
    let counts = [synced(&["restore", "latest", "--yes", "--only", "cron"]), synced(&["undo"])];
    assert!(mount(&["umount", "-l"]));
    assert_eq!(counts, [1, 1]);
}

#[test]
fn one_that_was_killed_is_told_by_the_audit_by_check_by_status_and_by_the_next() {
    let host = saved("bare");
    change(&host);
    let inject = ["-e", "inject=renameat:signal=KILL:when=3"];
    let (_, said) = traced(&host, &host.beside("calls"), &inject, &["restore", "latest", "--yes"]);
    let id = said.lines().find_map(|line| line.strip_prefix("to undo it: pbx-config undo ")).unwrap();
    let lines = host.run(&["log", "--restores"]).ok().out;
    assert!(lines.contains(id) && lines.contains("begun"), "{lines}");
    let ways = format!("`pbx-config undo {id}` undoes it, `pbx-config restore --resume {id}` resumes it");
    for args in [&["check"][..], &["status"], &["restore", "latest", "--dry-run"]] {
        let (_, said) = plain(&host, args);
        assert!(said.contains(&format!("{id} was interrupted: half done")), "{args:?}: {said}");
        assert!(said.contains(&ways), "{args:?}: {said}");
    }
    host.run(&["undo"]).ok();
    let (_, said) = plain(&host, &["restore", "latest", "--dry-run"]);
    assert!(!said.contains("cut short"), "{said}");
}

#[test]
fn the_audit_says_when_a_restore_that_failed_could_not_be_undone() {
    let host = saved("bare");
    change(&host);
    let log = host.beside("calls");
    let inject = ["-e", "inject=renameat,renameat2:error=EIO:when=3+"];
    let (_, said) = traced(&host, &log, &inject, &["restore", "latest", "--yes", "--only", "hosts,network"]);
    assert!(said.contains("could not be put back"), "{said}");
    let lines = host.run(&["log", "--restores"]).ok().out;
    assert!(lines.contains("failed; 1 path could not be put back") && !lines.contains("undone"), "{lines}");
    let id = lines.split_whitespace().find(|word| word.len() == 16 && word.ends_with('Z')).unwrap();
    assert!(host.run(&["log", id]).ok().out.contains("failed; 1 path could not be put back"));
    host.run(&["undo"]).ok();
}

/// A host on which `hosts` and `cron` were restored; its picture from before, and the id.
fn restored_two() -> (TestHost, tree::Tree, String) {
    let host = saved("bare");
    change(&host);
    let before = picture(&host);
    let id = restored(&host, "hosts,cron");
    (host, before, id)
}

#[test]
fn a_damaged_copy_is_named_and_never_put_in_place_and_the_rest_is_undone() {
    fn overwritten(path: &Path) {
        let len = fs::metadata(path).unwrap().len();
        fs::write(path, "x".repeat(usize::try_from(len).unwrap())).unwrap();
    }
    let damages: [fn(&Path); 6] = [
        |path| fs::write(path, "garbage").unwrap(),
        |path| fs::write(path, "").unwrap(),
        |path| fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"\n").unwrap(),
        overwritten,
        |path| fs::remove_file(path).unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        },
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let (host, before, id) = restored_two();
        let copies = fs::read_dir(memory(&host, &id).join("before")).unwrap();
        let copy = copies.map(|entry| entry.unwrap().path()).next().unwrap();
        let (good, after) = (fs::read(&copy).unwrap(), fs::read(host.root.join("etc/hosts")).unwrap());
        damage(&copy);
        let done = host.run(&["undo", "--json"]);
        assert!(matches!(done.exit, Exit::Failed | Exit::Problems), "{n}: {}", done.out);
        let said = done.json();
        assert_eq!(said["left"], 1, "{n}: {said}");
        assert!(said["problems"].to_string().contains(copy.to_str().unwrap()), "{n}: {said}");
        assert_eq!(fs::read(host.root.join("etc/hosts")).unwrap(), after, "{n}");
        assert!(!host.root.join("etc/cron.d").exists(), "{n}: the rest is undone");
        // Once the copy, or the file, is good again it goes on.
        let _ = fs::remove_file(&copy);
        fs::write(&copy, good).unwrap();
        host.run(&["undo"]).ok();
        tree::assert_same(&picture(&host), &before);
    }
}

#[test]
fn a_copy_that_is_damaged_between_a_kill_and_its_resume_is_not_put_in_place() {
    let host = saved("bare");
    change(&host);
    let before = picture(&host);
    // The record comes first.
    let inject = ["-e", "inject=renameat:signal=KILL:when=2"];
    let args = ["restore", "latest", "--yes", "--only", "hosts,cron"];
    let (_, said) = traced(&host, &host.beside("calls"), &inject, &args);
    let id = said.lines().find_map(|line| line.strip_prefix("to undo it: pbx-config undo ")).unwrap();
    for copy in fs::read_dir(memory(&host, id).join("after")).unwrap() {
        fs::write(copy.unwrap().path(), "garbage").unwrap();
    }
    let (code, said) = plain(&host, &["restore", "--resume", id, "--yes"]);
    assert!(code == Some(1) && said.contains("is damaged: its SHA-256 is another"), "{code:?} {said}");
    tree::assert_same(&picture(&host), &before);
}

#[test]
fn a_journal_that_takes_nothing_keeps_no_undo_from_putting_back() {
    for (calls, error) in [("write", "ENOSPC"), ("write", "EIO"), ("fdatasync", "EIO")] {
        let (host, before, id) = restored_two();
        let journal = memory(&host, &id).join("journal");
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error={error}"));
        let run = |args: &[&str]| {
            let mut command = crate::common::tool("strace");
            command
                .args(["-qq", "-f", "-o", "/dev/null", "-P"])
                .arg(&journal)
                .args(["-e", &trace, "-e", &inject]);
            let done = command
                .arg(crate::common::program())
                .arg("--root")
                .arg(&host.root)
                .args(args)
                .output()
                .unwrap();
            (done.status.code(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
        };
        let (code, said) = run(&["undo", &id]);
        assert!(code == Some(3) && said.contains("journal"), "{calls} {error}: {code:?} {said}");
        tree::assert_same(&picture(&host), &before);
        // Nor does the one that undoes by itself give up.
        let armed = r#"{"id":"ID","boot":"another boot","deadline":0,"session":{"audit":null,"tty":0,"leader":0},"probes":[]}"#;
        host.write("etc/hosts", "changed since\n");
        host.write("var/lib/proxmox-backup-extra/undo/armed.json", armed.replace("ID", &id));
        let (code, said) = run(&["undo", "--armed"]);
        assert_eq!(code, Some(0), "{calls} {error}: {said}");
        tree::assert_same(&picture(&host), &before);
    }
}

#[test]
fn a_damaged_copy_leaves_a_restore_armed_and_the_rest_goes_back() {
    let (host, _, id) = restored_two();
    let armed = host.root.join("var/lib/proxmox-backup-extra/undo/armed.json");
    let text = r#"{"id":"ID","boot":"another boot","deadline":0,"session":{"audit":null,"tty":0,"leader":0},"probes":[]}"#;
    fs::write(&armed, text.replace("ID", &id)).unwrap();
    let copy = fs::read_dir(memory(&host, &id).join("before")).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&copy).unwrap();
    fs::write(&copy, "garbage").unwrap();
    for args in [&["undo", "--armed"][..], &["undo"]] {
        let (code, said) = plain(&host, args);
        assert!(code == Some(1) && said.contains("is damaged"), "{args:?}: {code:?} {said}");
        assert!(armed.exists() && !host.root.join("etc/cron.d").exists(), "{args:?}: {said}");
    }
    fs::write(&copy, good).unwrap();
    assert_eq!(plain(&host, &["undo", "--armed"]).0, Some(0));
    assert!(!armed.exists());
}
