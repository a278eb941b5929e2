//! kill -9 before every call that changes something: undo leaves no trace, and resume reaches the goal.

use std::path::Path;
use std::process::Command;

use super::common::{TestHost, program, tree};
use super::{change, picture, saved};

/// The calls of the process that restores; those that go through the cluster file system are its children's.
const CALLS: &str = "fdatasync,fsync,renameat,renameat2,mkdirat,symlinkat,unlinkat,fchmod,fchown,utimensat,\
    syncfs";
/// In a quick run every so many-th of them.
pub const EVERY: usize = 5;

pub fn is_long() -> bool {
    std::env::var_os("PBX_TEST_LONG").is_some()
}

/// Runs the program on the host under strace; what it said, and whether it ended by itself.
pub fn traced(host: &TestHost, log: &Path, more: &[&str], args: &[&str]) -> (bool, String) {
    let mut command = crate::common::tool("strace");
    command.args(["-qq", "-s", "0", "-o"]).arg(log).args(["-e", &format!("trace={CALLS}")]).args(more);
    command.arg(program()).arg("--root").arg(&host.root).args(args);
    let done = command.output().expect("strace is installed");
    (done.status.code().is_some(), String::from_utf8_lossy(&done.stderr).into_owned())
}

pub fn plain(host: &TestHost, args: &[&str]) -> (Option<i32>, String) {
    let done = Command::new(program()).arg("--root").arg(&host.root).args(args).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn killed_everywhere(name: &str, args: &[&str], every: usize) {
    let host = saved(name);
    change(&host);
    killed_at(&host, name, args, every, picture);
}

/// `picture` is all that the restore may touch.
pub fn killed_at(
    host: &TestHost,
    name: &str,
    args: &[&str],
    every: usize,
    picture: impl Fn(&TestHost) -> tree::Tree,
) {
    let before = picture(host);
    let contents = |host: &TestHost| contents_of(&picture(host));
    let mut restore = vec!["restore", "latest", "--yes"];
    restore.extend(args);
    let log = host.beside("calls");
    let (ended, said) = traced(host, &log, &[], &restore);
    assert!(ended, "{said}");
    let goal = contents(host);
    assert_ne!(goal, contents_of(&before), "{said}");
    assert_eq!(plain(host, &["undo"]).0, Some(0));
    tree::assert_same(&picture(host), &before);

    let calls = std::fs::read_to_string(&log).unwrap();
    let mut nth: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    let mut points = Vec::new();
    for line in calls.lines() {
        let Some((call, _)) = line.split_once('(') else { continue };
        if !CALLS.split(',').any(|known| known == call) {
            continue;
        }
        let n = nth.entry(call).or_default();
        *n += 1;
        points.push((call, *n));
    }
    assert!(points.len() > 10, "{calls}");
    let mut met = 0;
    for (call, n) in points.into_iter().step_by(every) {
        let inject = format!("inject={call}:signal=KILL:when={n}");
        for goes_on in [false, true] {
            let when = format!("{name}: killed before {call} {n}");
            let (ended, said) = traced(host, &log, &["-e", &inject], &restore);
            assert!(!ended, "not {when}: {said}");
            met += 1;
            let Some(id) = said.lines().find_map(|line| line.strip_prefix("to undo it: pbx-config undo "))
            else {
                // Not even the record was whole.
                tree::assert_same(&picture(host), &before);
                continue;
            };
            if goes_on {
                let (_, said) = plain(host, &["restore", "--resume", id]);
                assert!(contents(host) == goal || said.contains("is already applied"), "{when}: {said}");
                tree::assert_same(&contents(host), &goal);
            }
            let (code, said) = plain(host, &["undo", id]);
            assert!(code == Some(0), "{when}: {said}");
            tree::assert_same(&picture(host), &before);
        }
    }
    assert!(met > 3);
}

/// The contents of a goal: the times of folders are the moment's.
fn contents_of(before: &tree::Tree) -> tree::Tree {
    let mut tree = before.clone();
    for (path, seen) in &mut tree {
        if seen.kind == "folder" || path.starts_with("etc/pve") {
            seen.mtime = (0, 0);
        }
    }
    tree
}

#[test]
fn a_restore_killed_at_any_change_is_undone_or_goes_on() {
    killed_everywhere("bare", &[], if is_long() { 1 } else { EVERY });
}

#[test]
fn a_restore_through_the_cluster_file_system_killed_at_any_change_is_undone_or_goes_on() {
    killed_everywhere("pve-single", &["--only", "storage,guests,access"], if is_long() { 1 } else { EVERY });
}

#[test]
fn an_undo_killed_at_any_change_ends_when_it_is_run_again() {
    let host = saved("bare");
    change(&host);
    let before = picture(&host);
    let log = host.beside("calls");
    let every = if is_long() { 1 } else { EVERY };
    let mut n = 1;
    loop {
        plain(&host, &["restore", "latest", "--yes"]);
        let (ended, _) = traced(
            &host,
            &log,
            &["-e", &format!("inject=fdatasync,renameat,unlinkat:signal=KILL:when={n}")],
            &["undo"],
        );
        let (code, said) = plain(&host, &["undo"]);
        assert_eq!(code, Some(0), "{n}: {said}");
        tree::assert_same(&picture(&host), &before);
        if ended {
            break;
        }
        n += every;
    }
    assert!(n > 5, "{n}");
}

#[test]
fn every_host_killed_at_every_change() {
    if is_long() {
        for name in ["pbs", "both", "pve-cluster"] {
            killed_everywhere(name, &[], 1);
        }
    }
}
