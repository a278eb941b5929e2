//! kill -9 before every call that changes something.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench::{Bench, REMOVED};
use crate::common::TestHost;
use crate::common::tree::{assert_same, picture};
use crate::signals::noise;
use crate::strace::Call;

/// Kills a backup before each of its changes; the state between any two is met.
fn killed_everywhere(bench: &Bench, at_least: usize) {
    let before = bench.picture();
    let calls = bench.changes_of_a_backup();
    assert!(calls.len() >= at_least, "{calls:?}");
    let mut met = [0, 0];
    for call in &calls {
        let when = format!("killed at {call}");
        bench.reset();
        let done = bench.tampered(call, "signal=KILL", &["backup"]);
        assert!(done.was_killed(), "not {when}: {}\n{}", done.out, done.err);
        met[bench.is_old_or_whole(&when)] += 1;
        assert_eq!(bench.picture(), before, "{when}");
        bench.next_run_cleans_up(&when);
    }
    assert!(met.iter().all(|times| *times > 0), "killed before and after it was published: {met:?}");
}

#[test]
fn a_first_run_killed_at_any_change_leaves_nothing_or_a_whole_snapshot() {
    killed_everywhere(&Bench::first_run(), 20);
}

#[test]
fn a_run_onto_another_disk_killed_at_any_change_leaves_the_old_or_a_whole_snapshot() {
    killed_everywhere(&Bench::other_disk(), 20);
}

#[test]
fn a_run_killed_at_any_moment_leaves_the_old_or_a_whole_snapshot() {
    let bench = Bench::other_disk();
    bench.host.write("srv/noise", noise(4 << 20));
    for n in 0..20 {
        bench.reset();
        let after = Duration::from_micros(n * n * 500);
        bench.killed_after(after, &["backup"]);
        let when = format!("killed after {after:?}");
        bench.is_old_or_whole(&when);
        bench.next_run_cleans_up(&when);
    }
}

/// What the tests of every single call rest on.
#[test]
fn only_the_first_thread_of_a_run_changes_anything() {
    let bench = Bench::first_run();
    bench.host.write("srv/noise", noise(4 << 20));
    let calls = bench.calls_of_other_threads(&["backup"]);
    assert!(calls.len() >= 10, "{calls:?}");
    let changed: Vec<_> = crate::strace::changes(&calls, &[&bench.host.root])
        .into_iter()
        .filter(|call| call.touches(&bench.host.root) || call.touches(&bench.run_dir()))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[test]
fn the_keys_of_a_cluster_that_a_killed_run_copied_are_removed_and_said() {
    let bench = Bench::of(TestHost::golden("pve-single"));
    let run_dir = bench.run_dir();
    let copies = || -> Vec<PathBuf> {
        let all = fs::read_dir(&run_dir).into_iter().flatten().map(|entry| entry.unwrap().path());
        all.filter(|path| !path.ends_with("lock")).collect()
    };
    let calls = bench.watched(&[], &["backup"]).calls;
    let calls = crate::strace::changes(&calls, &[&run_dir]);
    let calls: Vec<&Call> =
        calls.iter().filter(|call| call.args.iter().any(|arg| arg.contains("/.pmxcfs."))).collect();
    assert!(calls.len() >= 5, "{calls:?}");
    let mut left_some = 0;
    for call in calls {
        bench.reset();
        let done = bench.tampered(call, "signal=KILL", &["backup"]);
        assert!(done.was_killed(), "not killed at {call}: {}\n{}", done.out, done.err);
        let left = copies();
        left_some += left.len();
        let next = bench.run(&["backup", "--json"]);
        let said: Vec<_> =
            next.problems().iter().filter_map(|what| what.strip_suffix(REMOVED).map(PathBuf::from)).collect();
        assert_eq!(said, left, "killed at {call}");
        assert!(!run_dir.exists(), "killed at {call}");
    }
    assert!(left_some > 0);
}

#[test]
fn what_was_accepted_is_the_old_or_the_new_after_a_kill_or_an_error_at_any_change() {
    const OLD: &str = r#"{"adopted":["another-machine"],"accepted":null}"#;
    const VERB: [&str; 2] = ["prune", "--accept"];
    let bench = Bench::first_run().with_old_snapshot();
    let file = bench.state_dir().join("confirmed.json");
    let reset = || {
        bench.reset();
        fs::write(&file, OLD).unwrap();
    };
    reset();
    let calls = bench.watched(&[], &VERB).ok().calls;
    let new = fs::read_to_string(&file).unwrap();
    assert!(new.contains("another-machine") && new.contains("tiny/"), "{new}");
    let calls = crate::strace::changes(&calls, &[&bench.host.root, &bench.run_dir()]);
    assert!(calls.iter().any(|call| call.name.starts_with("rename")) && calls.len() >= 8, "{calls:?}");
    let mut met = [0, 0];
    for call in &calls {
        for harm in ["signal=KILL", "error=ENOSPC", "error=EIO"] {
            reset();
            let done = bench.tampered(call, harm, &VERB);
            let when = format!("{harm} at {call}\n{}\n{}", done.out, done.err);
            assert_eq!(done.was_killed(), harm == "signal=KILL", "{when}");
            let now = fs::read_to_string(&file).unwrap();
            assert!(now == OLD || now == new, "{now}: {when}");
            met[usize::from(now == new)] += 1;
            // What is read is what stands there, and nothing half stays beside it.
            bench.run(&["prune", "--dry-run"]).ok();
            bench.run(&VERB).ok();
            assert_eq!(fs::read_to_string(&file).unwrap(), new, "{when}");
            let names = fs::read_dir(bench.state_dir()).unwrap().map(|entry| entry.unwrap().file_name());
            let beside: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".partial")).collect();
            assert!(beside.is_empty(), "{beside:?} {when}");
        }
    }
    assert!(met.iter().all(|times| *times > 0), "{met:?}");
}

/// The folders beside a target that runs left.
pub fn half(target: &Path) -> Vec<PathBuf> {
    let beside = fs::read_dir(target.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    beside.filter(|path| path.to_string_lossy().ends_with(".partial")).collect()
}

#[test]
fn an_extraction_killed_at_any_change_has_no_target_or_a_whole_one() {
    let bench = Bench::first_run().with_old_snapshot();
    let target = bench.host.beside("target");
    let verb = ["restore", "latest", "--json", "--to", target.to_str().unwrap()];
    for empty_folder in [false, true] {
        let reset = || {
            let _ = fs::remove_dir_all(&target);
            if empty_folder {
                fs::create_dir(&target).unwrap();
            }
        };
        reset();
        let calls = bench.watched(&[], &verb).ok().calls;
        let calls = crate::strace::changes(&calls, &[&bench.host.root, target.parent().unwrap()]);
        assert!(calls.len() >= 30, "{calls:?}");
        let whole = picture(&target, "srv");
        assert!(whole.len() >= 6, "{whole:?}");
        let mut met = [0, 0];
        for call in &calls {
            let when = format!("killed at {call}");
            reset();
            let done = bench.tampered(call, "signal=KILL", &verb);
            assert!(done.was_killed(), "not {when}: {}\n{}", done.out, done.err);
            let empty = fs::read_dir(&target).map_or(true, |mut entries| entries.next().is_none());
            assert_eq!(target.exists(), empty_folder || !empty, "{when}");
            met[usize::from(!empty)] += 1;
            if !empty {
                assert_same(&picture(&target, "srv"), &whole);
                assert_eq!(half(&target), [] as [&Path; 0], "{when}");
                continue;
            }
            let left = half(&target);
            let next = bench.run(&verb).ok();
            let said: Vec<_> = next
                .problems()
                .iter()
                .filter_map(|what| what.strip_suffix(REMOVED).map(PathBuf::from))
                .collect();
            assert_eq!(said, left, "{when}");
            assert_same(&picture(&target, "srv"), &whole);
            assert_eq!(half(&target), [] as [&Path; 0], "{when}");
        }
        assert!(met.iter().all(|times| *times > 0), "{met:?}");
    }
}
