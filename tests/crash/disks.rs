//! Disks that are full, without room for another file, read-only, or gone in the middle.

use std::fs;
use std::path::Path;

use crate::bench::{Bench, Disk, Done};
use crate::signals::noise;
use crate::strace::Call;

const FULL: &str = "no space left on device";

/// What a run that could not be done must leave: all as it was.
#[track_caller]
fn failed_well(bench: &Bench, done: &Done, cause: &str, when: &str) {
    let when = format!("{when}\n{}\n{}", done.out, done.err);
    assert_eq!(done.code(), Some(1), "{when}");
    done.is_told_well(cause, &when);
    assert_eq!(bench.is_old_or_whole(&when), 0, "{when}");
    bench.nothing_is_left(&when);
}

/// Gives the disk more and more of something until a backup goes through; how often it did not.
fn until_it_fits(bench: &Bench, steps: impl Iterator<Item = String>) -> usize {
    let before = bench.picture();
    for (failures, options) in steps.enumerate() {
        let disk = bench.disk.as_ref().unwrap();
        disk.remount(&options);
        let there = crate::common::tree::picture(&disk.0, "");
        let done = bench.run(&["backup"]);
        assert_eq!(bench.picture(), before, "{options}");
        if done.code() == Some(0) {
            assert_eq!(bench.is_old_or_whole(&options), 1);
            bench.nothing_is_left(&options);
            return failures;
        }
        failed_well(bench, &done, FULL, &options);
        let names = |tree: &crate::common::tree::Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&crate::common::tree::picture(&disk.0, "")), names(&there), "{options}");
    }
    panic!("it never went through");
}

#[test]
fn a_full_store_is_told_wherever_it_fills_up() {
    let bench = Bench::with_disk("size=64k");
    bench.host.write("srv/noise", noise(96 << 10));
    let failures = until_it_fits(&bench, (3..40).step_by(3).map(|pages| format!("size={}k", pages * 4)));
    assert!(failures >= 5, "{failures}");
}

#[test]
fn a_store_without_room_for_another_file_is_told() {
    let bench = Bench::empty_disk("size=64M,nr_inodes=64");
    // The root of the disk is the first; then the store, the host's folder, the file.
    let failures = until_it_fits(&bench, (1..8).map(|inodes| format!("nr_inodes={inodes}")));
    assert!(failures >= 3, "{failures}");
}

#[test]
fn a_full_disk_under_work_folder_and_store_is_told_and_keeps_what_was_there() {
    let bench = Bench::first_run();
    let _disk = Disk::mount(&bench.host.root.join("var"), "size=1M");
    // It knows before the first run that this is too small.
    bench.host.configure("backup: main\n\tinclude /srv\n\tpreflight off\n");
    let bench = bench.with_old_snapshot();
    bench.host.write("srv/noise", noise(2 << 20));
    let done = bench.run(&["backup"]);
    assert!(done.err.contains("proxmox-backup-extra/work/"), "{}", done.err);
    failed_well(&bench, &done, FULL, "a full work folder");
    fs::remove_file(bench.host.root.join("srv/noise")).unwrap();
    bench.next_run_cleans_up("with room again");
}

#[test]
fn a_second_store_that_is_full_is_a_problem_and_the_first_has_the_snapshot() {
    let bench = Bench::first_run();
    let second = Disk::mount(&bench.host.root.join("mnt"), "size=4k");
    bench.host.configure(
        "backup: main\n\tinclude /srv\n\ndir: local\n\tpath /var/lib/proxmox-backup-extra/store\n\n\
         dir: stick\n\tpath /mnt/store\n",
    );
    let done = bench.run(&["backup", "--json"]);
    assert_eq!(done.code(), Some(3), "{}\n{}", done.out, done.err);
    let problems = done.problems();
    let told =
        problems.iter().any(|what| what.contains("store 'stick'") && what.to_lowercase().contains(FULL));
    assert!(told, "{problems:?}");
    assert_eq!(bench.files_in_store().len(), 1);
    assert_eq!(fs::read_dir(&second.0).unwrap().count(), 0);
    bench.nothing_is_left("a full second store");
}

#[test]
fn a_read_only_store_is_told_and_still_read() {
    let bench = Bench::other_disk();
    bench.disk.as_ref().unwrap().remount("ro");
    let done = bench.run(&["backup"]);
    failed_well(&bench, &done, "read-only file system", "a read-only store");
}

#[test]
fn root_is_not_told_to_be_root() {
    let bench = Bench::first_run();
    let calls = bench.changes_of_a_backup();
    let rename = calls.iter().find(|call| call.name == "renameat2").unwrap();
    bench.reset();
    let done = bench.tampered(rename, "error=EPERM", &["backup"]);
    failed_well(&bench, &done, "operation not permitted", "EPERM");
    assert!(done.err.contains("even root is not allowed to"), "{}", done.err);
}

/// The last call that makes the file in a folder durable; a snapshot is half there from then on.
fn synced_in(calls: &[Call], folder: &Path) -> Call {
    let synced = |call: &&Call| call.name == "fsync" && call.path().parent() == Some(folder);
    calls.iter().rfind(synced).unwrap().clone()
}

#[test]
fn a_store_that_vanishes_while_it_is_written_is_told() {
    let bench = Bench::other_disk();
    let call = synced_in(&bench.changes_of_a_backup(), &bench.folder());
    let disk = bench.disk.as_ref().unwrap();
    let ways: [(&str, &dyn Fn()); 3] = [
        ("its host's folder removed", &|| fs::remove_dir_all(bench.folder()).unwrap()),
        ("removed", &|| fs::remove_dir_all(bench.store()).unwrap()),
        ("unmounted", &|| disk.unmount()),
    ];
    for (how, vanish) in ways {
        bench.reset();
        let partial =
            || assert!(fs::read_dir(bench.folder()).unwrap().count() == 2, "{how}: nothing half there");
        let done = bench.stopped(
            &call,
            || {
                partial();
                vanish();
            },
            &["backup"],
        );
        assert_eq!(done.code(), Some(1), "{how}: {}\n{}", done.out, done.err);
        done.is_told_well("no such file or directory", how);
        assert!(done.err.contains("still mounted?"), "{how}: {}", done.err);
        // Nothing was made where the disk was mounted, or in place of what was removed.
        assert!(!bench.folder().exists(), "{how}");
        bench.nothing_is_left(how);
    }
    assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 0);
    bench.run(&["backup"]).ok();
}

#[test]
fn a_work_folder_that_is_removed_in_the_middle_is_told() {
    let bench = Bench::first_run().with_old_snapshot();
    let calls = bench.changes_of_a_backup();
    let synced = synced_in(&calls, &bench.work());
    let begun = calls.iter().find(|call| call.name == "write" && call.path().parent() == Some(&bench.work()));
    let made = calls.iter().find(|call| call.name.starts_with("mkdir") && call.path() == bench.work());
    for call in [made.unwrap(), begun.unwrap(), &synced] {
        bench.reset();
        let when = format!("removed at {call}");
        let done = bench.stopped(call, || fs::remove_dir_all(bench.work()).unwrap(), &["backup"]);
        if done.code() == Some(0) {
            // Before its first file it is not missed: the work is done in /run.
            assert!(call.name.starts_with("mkdir"), "{when}");
            bench.nothing_is_left(&when);
            continue;
        }
        failed_well(&bench, &done, "no such file or directory", &when);
        bench.next_run_cleans_up(&when);
    }
}
