//! /etc/pve as its database, put in place while pmxcfs is stopped: killed at any change, undone, and never a log of
//! one database beside another.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use pbx_config::model::problem::Exit;

use super::common::TestHost;
use super::interrupt::{EVERY, is_long, killed_at, plain, traced};
use super::{picture, saved, tree};

const FOLDER: &str = "var/lib/pve-cluster";
pub const RESTORE: [&str; 6] =
    ["--recover", "--database", "--only", "pve-database,cron", "--skip", "network"];

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What pmxcfs shows, without what it makes up.
fn shown(host: &TestHost) -> Files {
    fn walk(dir: &Path, found: &mut Files) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                walk(&path, found);
            } else if kind.is_file() && !entry.file_name().to_string_lossy().starts_with('.') {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    let mut found = Files::new();
    walk(&host.mount_point(), &mut found);
    // One that was held while it was saved is in the snapshot.
    found.retain(|path, _| !path.starts_with(host.mount_point().join("priv/lock")));
    found
}

#[track_caller]
fn assert_shows(host: &TestHost, should: &Files) {
    let is = shown(host);
    let all = is.keys().chain(should.keys()).filter(|path| is.get(*path) != should.get(*path));
    assert_eq!(all.collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

/// All that the restore may touch, and the folder of the database.
fn whole(host: &TestHost) -> tree::Tree {
    let mut tree = picture(host);
    tree.extend(tree::picture(&host.root, FOLDER));
    tree.remove(&Path::new(FOLDER).join(".pmxcfs.lockfile"));
    tree
}

fn log(host: &TestHost) -> PathBuf {
    host.root.join(FOLDER).join("config.db-wal")
}

pub fn stop(host: &TestHost, signal: Signal) {
    host.signal_daemon(signal);
    crate::common::tool("umount").arg("-l").arg(host.mount_point()).output().unwrap();
}

/// A saved node whose tree was changed since, and whose pmxcfs was killed: its log lies beside its database.
/// With what it showed when it was saved, and at last.
pub fn dead() -> (TestHost, Files, Files) {
    let host = saved("pve-single");
    let then = shown(&host);
    fs::remove_file(host.mount_point().join("storage.cfg")).unwrap();
    fs::write(host.mount_point().join("user.cfg"), "user:root@pam:1:0::::::\n").unwrap();
    let last = shown(&host);
    stop(&host, Signal::SIGKILL);
    host.write("etc/cron.d/other", "# other\n");
    let _ = fs::remove_file(host.root.join("etc/cron.d/pveupdate"));
    assert!(fs::metadata(log(&host)).unwrap().len() > 0);
    (host, then, last)
}

#[test]
fn a_restore_of_the_database_killed_at_any_change_is_undone_or_goes_on() {
    let (host, ..) = dead();
    killed_at(&host, "the database", &RESTORE, if is_long() { 1 } else { 2 * EVERY }, whole);
}

#[test]
fn a_database_that_leaves_its_cluster_killed_at_any_change_is_undone_or_goes_on() {
    let host = saved("pve-cluster");
    stop(&host, Signal::SIGTERM);
    fs::remove_dir_all(host.root.join("etc/corosync")).unwrap();
    let args = [&RESTORE[..], &["--leave-cluster"]].concat();
    killed_at(&host, "leaving the cluster", &args, if is_long() { 1 } else { 3 * EVERY }, whole);
}

#[test]
fn a_database_comes_back_alone_and_private_and_is_what_pmxcfs_starts_on() {
    let (host, then, last) = dead();
    let before = whole(&host);
    let (_, said) = plain(&host, &[&["restore", "latest", "--dry-run"], &RESTORE[..]].concat());
    assert!(said.contains("remove     /var/lib/pve-cluster/config.db-wal"), "{said}");
    let (code, said) = plain(&host, &[&["restore", "latest", "--yes"], &RESTORE[..]].concat());
    assert!(matches!(code, Some(0 | 3)), "{said}");
    for end in ["-wal", "-shm"] {
        assert!(!host.root.join(FOLDER).join(format!("config.db{end}")).exists(), "{end}");
    }
    assert_eq!(fs::metadata(host.database()).unwrap().permissions().mode() & 0o7777, 0o600);
    host.mount(&[]);
    assert_shows(&host, &then);
    // It writes, is killed, and leaves a log of the new database.
    fs::write(host.mount_point().join("datacenter.cfg"), "keyboard: fr\n").unwrap();
    // While it runs, nobody takes its database from under it.
    let (code, said) = plain(&host, &["undo"]);
    assert!(code == Some(3) && said.contains("/etc/pve is mounted"), "{code:?} {said}");
    stop(&host, Signal::SIGKILL);
    assert!(log(&host).exists());
    let (code, said) = plain(&host, &["undo"]);
    assert_eq!(code, Some(0), "{said}");
    tree::assert_same(&whole(&host), &before);
    host.mount(&[]);
    assert_shows(&host, &last);
}

#[test]
fn an_undo_killed_at_any_change_leaves_no_log_beside_a_database_of_another() {
    let (host, ..) = dead();
    let before = whole(&host);
    let old = [fs::read(host.database()).unwrap(), fs::read(log(&host)).unwrap()];
    let restore = [&["restore", "latest", "--yes"], &RESTORE[..]].concat();
    let mut n = 1;
    loop {
        let (code, said) = plain(&host, &restore);
        assert!(matches!(code, Some(0 | 3)), "{said}");
        // As pmxcfs would, before it was killed.
        fs::write(log(&host), "of the new one").unwrap();
        let inject = format!("inject=fdatasync,renameat,unlinkat,syncfs:signal=KILL:when={n}");
        let (ended, _) = traced(&host, &host.beside("calls"), &["-e", &inject], &["undo"]);
        let is_old = fs::read(host.database()).unwrap() == old[0];
        let beside = fs::read(log(&host)).ok();
        if is_old {
            assert!(beside.is_none_or(|beside| beside == old[1]), "{n}");
        } else {
            assert!(beside.is_none_or(|beside| beside == b"of the new one"), "{n}");
        }
        let (code, said) = plain(&host, &["undo"]);
        assert_eq!(code, Some(0), "{n}: {said}");
        tree::assert_same(&whole(&host), &before);
        if ended {
            break;
        }
        n += if is_long() { 1 } else { 3 };
    }
    assert!(n > 8, "{n}");
}

#[test]
fn a_log_of_the_same_database_goes_too() {
    let (host, then, _) = dead();
    let restore = [&["restore", "latest", "--yes"], &RESTORE[..]].concat();
    plain(&host, &restore);
    let restored = fs::read(host.database()).unwrap();
    host.mount(&[]);
    fs::write(host.mount_point().join("datacenter.cfg"), "keyboard: fr\n").unwrap();
    stop(&host, Signal::SIGKILL);
    // Nothing of what it wrote has reached the database itself.
    fs::write(host.database(), restored).unwrap();
    let before = whole(&host);
    let (code, said) = plain(&host, &restore);
    assert!(matches!(code, Some(0 | 3)) && !log(&host).exists(), "{said}");
    host.mount(&[]);
    assert_shows(&host, &then);
    stop(&host, Signal::SIGTERM);
    assert_eq!(plain(&host, &["undo"]).0, Some(0));
    tree::assert_same(&whole(&host), &before);
}

#[test]
fn a_database_that_somebody_has_open_is_left_alone() {
    let (host, ..) = dead();
    let before = whole(&host);
    let holder = |name: &str| {
        let script = format!("exec 3<'{}'; echo; exec sleep 60", host.root.join(FOLDER).join(name).display());
        let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        child
    };
    for name in ["config.db", "config.db-wal"] {
        let mut child = holder(name);
        let done = host.run(&[&["restore", "latest", "--yes"], &RESTORE[..]].concat()).exits(Exit::Failed);
        assert!(done.err.contains(&format!("the process {} (", child.id())), "{name}: {}", done.err);
        assert!(done.err.contains("systemctl stop pve-cluster"), "{}", done.err);
        child.kill().unwrap();
        child.wait().unwrap();
        tree::assert_same(&whole(&host), &before);
    }
    // It was started after the plan was made.
    let file = host.beside("plan.json").display().to_string();
    host.run(&[&["restore", "latest", "--plan", &file], &RESTORE[..]].concat()).ok();
    host.mount(&[]);
    let last = shown(&host);
    let done = host.run(&["restore", "--apply", &file, "--yes"]).exits(Exit::Failed);
    assert!(done.err.contains("/etc/pve is mounted"), "{}", done.err);
    assert_shows(&host, &last);
}

#[test]
fn no_room_for_the_copy_of_the_database_is_told_before_the_first_write() {
    let (host, ..) = dead();
    let snap = host.beside("snap.pbx.tar");
    fs::copy(host.snapshot_file(), &snap).unwrap();
    let before = whole(&host);
    let state = host.root.join("var/lib/proxmox-backup-extra");
    let mount = |words: &[&str]| crate::common::tool(words[0]).args(&words[1..]).arg(&state).status();
    assert!(mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]).unwrap().success());
    let snap = snap.to_str().unwrap();
    let done = host.run(&[&["restore", snap, "--yes"], &RESTORE[..]].concat());
    let left = fs::read_dir(state.join("undo")).into_iter().flatten().count();
    let _ = mount(&["umount"]);
    assert_eq!((done.exit, left), (Exit::Failed, 0), "{}", done.err);
    assert!(done.err.contains("bytes are needed there"), "{}", done.err);
    tree::assert_same(&whole(&host), &before);
}

#[test]
fn what_has_no_database_is_told_by_its_own_words() {
    let host = saved("pbs");
    let done = host.run(&["restore", "latest", "--recover", "--database", "--dry-run"]).exits(Exit::NotFound);
    assert!(done.err.contains("is of a host without Proxmox VE"), "{}", done.err);
    let (with, ..) = dead();
    let snap = host.beside("snap.pbx.tar");
    fs::copy(with.snapshot_file(), &snap).unwrap();
    let snap = snap.to_str().unwrap();
    let done = host.run(&["restore", snap, "--recover", "--database", "--dry-run"]).exits(Exit::Failed);
    assert!(done.err.contains("Proxmox VE is not installed here"), "{}", done.err);
}
