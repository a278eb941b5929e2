//! Errors of the kernel at every call, one at a time: each is told with its place, its cause and what to do, and
//! nothing half stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::Bench;
use crate::common::tree::picture;
use crate::kill::half;
use crate::strace::{Call, changes};

/// As the kernel names them and as people read them.
const ERRORS: [(&str, &str); 5] = [
    ("EIO", "input/output error"),
    ("ENOSPC", "no space left on device"),
    ("EDQUOT", "disk quota exceeded"),
    ("EROFS", "read-only file system"),
    ("ESTALE", "stale file handle"),
];

/// A backup with an error at `call` either fails and says why, or gets over it.
fn backup_with_error(bench: &Bench, call: &Call, errno: &str, cause: &str) {
    let when = format!("{errno} at {call}");
    bench.reset();
    let done = bench.tampered(call, &format!("error={errno}"), &["backup"]);
    let told = format!("{when}\n{}\n{}", done.out, done.err);
    let new = bench.is_old_or_whole(&told);
    match done.code() {
        Some(0 | 3) => assert_eq!(new, 1, "{told}"),
        Some(1 | 4) => {
            done.is_told_well(cause, &when);
            // When its folder cannot be synced the snapshot is there, and whole; only a power cut may take it.
            let published = call.name == "fsync" && call.path() == bench.folder();
            assert_eq!(new, usize::from(published), "{told}");
        }
        _ => panic!("{told}"),
    }
    let left = bench.leftovers();
    if !left.is_empty() {
        // What could not be removed at the end is told, and goes with the next run.
        let said = done.err.contains("cannot be removed") || done.err.contains("cannot be cleaned up");
        assert!(said || left.iter().all(|path| path.ends_with(".probe")), "{told}");
    } else if !["unlink", "unlinkat", "rmdir", "flock"].contains(&call.name.as_str()) {
        // A lock that could not be taken may be another run's.
        bench.nothing_is_left(&told);
    }
    bench.next_run_cleans_up(&told);
}

fn at_every_change(bench: &Bench) {
    let before = bench.picture();
    let (root, store, run_dir) = (&bench.host.root, bench.store(), bench.run_dir());
    let ours = |call: &Call| [root, &store, &run_dir].iter().any(|folder| call.touches(folder));
    let calls: Vec<Call> = bench.changes_of_a_backup().into_iter().filter(ours).collect();
    assert!(calls.len() >= 20, "{calls:?}");
    for (n, call) in calls.iter().enumerate() {
        for (m, (errno, cause)) in ERRORS.iter().enumerate() {
            // Every call meets the first, and one of the others.
            if m == 0 || m == 1 + n % 4 {
                backup_with_error(bench, call, errno, cause);
            }
        }
    }
    assert_eq!(bench.picture(), before);
}

#[test]
fn an_error_at_any_change_of_a_first_run_is_told_and_leaves_nothing_half() {
    at_every_change(&Bench::first_run());
}

#[test]
fn an_error_at_any_change_onto_another_disk_is_told_and_leaves_nothing_half() {
    at_every_change(&Bench::other_disk());
}

/// Calls that read something below `folder`, each a place where a disk can fail.
fn reads(calls: &[Call], folder: &Path) -> Vec<Call> {
    let asks = |call: &&Call| {
        // preadv2 only asks whether the kernel has it already.
        let words = ["open", "stat", "read", "getdents", "list", "getx"];
        words.iter().any(|word| call.name.contains(word)) && call.name != "preadv2"
    };
    let here = |call: &&Call| !call.changes() && !call.failed() && call.touches(folder);
    calls.iter().filter(asks).filter(here).cloned().collect()
}

#[test]
fn an_error_at_any_read_of_what_the_program_keeps_is_told() {
    let bench = Bench::other_disk();
    bench.reset();
    let calls = bench.watched(&[], &["backup"]).ok().calls;
    let kept = [reads(&calls, &bench.state_dir()), reads(&calls, &bench.store())].concat();
    assert!(kept.len() >= 20, "{kept:?}");
    for call in &kept {
        backup_with_error(&bench, call, "EIO", "input/output error");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_rest_is_saved() {
    let bench = Bench::first_run();
    let srv = bench.host.root.join("srv");
    let whole = bench.watched(&[], &["backup"]).ok();
    let entries = || -> BTreeSet<PathBuf> {
        let shown = bench.run(&["show", "latest", "--files", "--json"]).ok().json();
        let entries = shown["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["path"].as_str().unwrap().into()).collect()
    };
    let all = entries();
    let calls = reads(&whole.calls, &srv);
    assert!(calls.len() >= 15, "{calls:?}");
    for call in &calls {
        bench.reset();
        let done = bench.tampered(call, "error=EIO", &["backup", "--json"]);
        let when = format!("{call}\n{}\n{}", done.out, done.err);
        if call.name == "readlink" && done.code() == Some(0) {
            // Read a second time, to see whether its target is saved too.
            assert_eq!(entries(), all, "{when}");
            continue;
        }
        assert_eq!(done.code(), Some(3), "{when}");
        let path = call.path();
        let path = path.strip_prefix(&bench.host.root).unwrap();
        let report = done.json();
        let named = report["problems"].as_array().unwrap().iter().find(|problem| {
            let what = problem["what"].as_str().unwrap();
            what.starts_with(&format!("/{}: ", path.display())) && what.ends_with("input/output error")
        });
        assert!(named.is_some_and(|problem| problem["hint"].is_string()), "{when}");
        let missing: Vec<PathBuf> = all.difference(&entries()).cloned().collect();
        assert!(missing.iter().all(|lost| lost.starts_with(path)), "{missing:?} {when}");
        bench.run(&["verify"]).ok();
        bench.nothing_is_left(&when);
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_is_told_by_every_verb() {
    let bench = Bench::first_run().with_old_snapshot();
    let target = bench.host.beside("target");
    let to = target.to_str().unwrap();
    for verb in [
        &["list"][..],
        &["show", "latest"],
        &["cat", "latest", "srv/first"],
        &["verify", "--all"],
        &["restore", "latest", "--to", to],
    ] {
        let _ = fs::remove_dir_all(&target);
        let calls = reads(&bench.watched(&[], verb).ok().calls, &bench.store());
        assert!(calls.len() >= 3, "{verb:?}: {calls:?}");
        for call in &calls {
            let _ = fs::remove_dir_all(&target);
            let done = bench.tampered(call, "error=EIO", verb);
            let when = format!("{verb:?} {call}\n{}\n{}", done.out, done.err);
            // Whether a folder is one can be asked in another way.
            if done.code() == Some(0) {
                assert!(call.name.contains("stat"), "{when}");
                continue;
            }
            assert!([1, 3, 4].contains(&done.code().unwrap()), "{when}");
            let text = format!("{}{}", done.out, done.err);
            let told: Vec<&str> = text.lines().filter(|line| line.contains("Input/output error")).collect();
            assert!(told.len() == 1 && told[0].contains('/'), "{when}");
            // Of those that are only compared with it, a warning is told.
            assert!(text.contains("its signature cannot be compared") || !target.exists(), "{when}");
            assert_eq!(half(&target), [] as [&Path; 0], "{when}");
        }
    }
}

#[test]
fn an_error_at_any_change_of_an_extraction_is_told_and_leaves_no_target() {
    let bench = Bench::first_run().with_old_snapshot();
    let target = bench.host.beside("target");
    let verb = ["restore", "latest", "--to", target.to_str().unwrap()];
    let calls = changes(&bench.watched(&[], &verb).ok().calls, &[]);
    let calls: Vec<&Call> = calls.iter().filter(|call| call.touches(target.parent().unwrap())).collect();
    assert!(calls.len() >= 30, "{calls:?}");
    let whole = picture(&target, "srv");
    for (n, call) in calls.iter().enumerate() {
        let _ = fs::remove_dir_all(&target);
        let (errno, cause) = ERRORS[n % ERRORS.len()];
        let done = bench.tampered(call, &format!("error={errno}"), &verb);
        let when = format!("{errno} at {call}\n{}\n{}", done.out, done.err);
        if call.name.contains("xattr") {
            assert!(done.code() == Some(0) && done.out.contains("cannot be set here"), "{when}");
            continue;
        }
        assert_eq!(done.code(), Some(1), "{when}");
        done.is_told_well(cause, &when);
        assert_eq!(half(&target), [] as [&Path; 0], "{when}");
        // What has its name but may not be durable is whole all the same.
        if call.name == "syncfs" && call.path() == target {
            assert_eq!(picture(&target, "srv"), whole, "{when}");
        } else {
            assert!(!target.exists(), "{when}");
        }
    }
}

#[test]
fn a_byte_that_the_disk_only_pretended_to_write_is_found_by_reading_back() {
    let bench = Bench::first_run();
    let work = bench.work();
    let mut calls = bench.changes_of_a_backup();
    calls.retain(|call| call.name.contains("write") && call.path().parent() == Some(&work));
    let mut found = 0;
    for call in &calls {
        bench.reset();
        let done = bench.tampered(call, "retval=1", &["backup"]);
        let when = format!("{call}\n{}\n{}", done.out, done.err);
        let new = bench.is_old_or_whole(&when);
        bench.nothing_is_left(&when);
        if new == 1 {
            // What was not written over was the same byte before.
            assert_eq!((done.code(), call.name.as_str()), (Some(0), "pwrite64"), "{when}");
            continue;
        }
        found += 1;
        assert_eq!(done.code(), Some(4), "{when}");
        done.is_told_well("does not read back", &when);
    }
    assert!(found >= 3, "{found} of {calls:?}");
}

#[test]
fn a_share_that_cannot_sync_folders_is_a_store_all_the_same() {
    let bench = Bench::other_disk();
    let calls = bench.changes_of_a_backup();
    let syncs: Vec<&Call> =
        calls.iter().filter(|call| call.name == "fsync" && bench.folder().starts_with(call.path())).collect();
    assert!(syncs.len() >= 2, "{syncs:?}");
    for call in syncs {
        bench.reset();
        let done = bench.tampered(call, "error=EINVAL", &["backup"]).ok();
        assert_eq!(bench.is_old_or_whole(&format!("{call}\n{}", done.out)), 1);
    }
}
