//! SIGTERM, SIGINT and SIGHUP at every call that changes something: a clean end, and the exit code says which.

use std::fs;
use std::path::Path;

use crate::bench::{Bench, Done};
use crate::kill::half;
use crate::strace::{Call, changes};

const SIGNALS: [&str; 3] = ["TERM", "INT", "HUP"];
const STOPPED: &str = "error: stopped by a signal\n";

/// True when it was stopped, false when it had come to its end before it looked.
#[track_caller]
fn was_stopped(done: &Done, when: &str) -> bool {
    match (done.code(), done.err.as_str()) {
        (Some(1), STOPPED) => assert_eq!(done.out, "", "{when}"),
        (Some(0), "") => {}
        _ => panic!("{when}: {:?}\n{}\n{}", done.status, done.out, done.err),
    }
    done.code() == Some(1)
}

/// Some calls of a local disk are never interrupted; those of a share are.
fn stopped_everywhere(bench: &Bench) {
    let before = bench.picture();
    let calls = bench.changes_of_a_backup();
    let mut met = [0, 0];
    for (n, call) in calls.iter().enumerate() {
        // No kernel interrupts the removing of a file, or what is not to wait.
        let goes_through = ["unlink", "unlinkat", "rmdir", "flock"].contains(&call.name.as_str());
        for what in if goes_through { &[""][..] } else { &["", "error=EINTR:"] } {
            bench.reset();
            let signal = SIGNALS[n % SIGNALS.len()];
            let done = bench.tampered(call, &format!("{what}signal={signal}"), &["backup"]);
            let when = format!("{what}{signal} at {call}");
            let stopped = was_stopped(&done, &when);
            assert_eq!(bench.is_old_or_whole(&when), usize::from(!stopped), "{when}");
            met[usize::from(stopped)] += 1;
            bench.nothing_is_left(&when);
        }
    }
    assert!(met.iter().all(|times| *times > 0), "{met:?}");
    assert_eq!(bench.picture(), before);
}

#[test]
fn a_signal_at_any_change_of_a_first_run_ends_it_cleanly() {
    stopped_everywhere(&Bench::first_run());
}

#[test]
fn a_signal_at_any_change_onto_another_disk_ends_it_cleanly() {
    stopped_everywhere(&Bench::other_disk());
}

/// The call in the middle of those that write to `folder`.
fn middle(calls: &[Call], folder: &Path) -> Call {
    let writes = ["write", "copy_file_range", "sendfile", "splice"];
    let wanted = |call: &&Call| {
        let writes = writes.contains(&call.name.as_str());
        writes && call.paths().last().is_some_and(|path| path.starts_with(folder))
    };
    let writes: Vec<&Call> = calls.iter().filter(wanted).collect();
    assert!(writes.len() >= 2, "{writes:?}");
    writes[writes.len() / 2 - 1].clone()
}

#[test]
fn a_signal_stops_the_writing_and_the_copying_of_what_is_large() {
    let bench = Bench::other_disk();
    bench.host.write("srv/noise", noise(12 << 20));
    bench.reset();
    let calls = bench.watched(&[], &["backup"]).ok().calls;
    for folder in [bench.work(), bench.folder()] {
        let call = middle(&calls, &folder);
        for signal in SIGNALS {
            bench.reset();
            let done = bench.tampered(&call, &format!("signal={signal}"), &["backup"]);
            let when = format!("{signal} at {call}");
            assert!(was_stopped(&done, &when), "{when}: it went on\n{}", done.out);
            assert_eq!(bench.is_old_or_whole(&when), 0, "{when}");
            bench.nothing_is_left(&when);
        }
    }
    bench.next_run_cleans_up("after all");
}

/// What no codec makes smaller.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes / 8).flat_map(next).collect()
}

#[test]
fn a_signal_while_a_snapshot_is_read_is_a_stop_and_no_damage() {
    let bench = Bench::first_run().with_old_snapshot();
    let target = bench.host.beside("target");
    let to = target.to_str().unwrap();
    for verb in [&["verify", "--all"][..], &["show", "latest"], &["restore", "latest", "--to", to]] {
        let _ = fs::remove_dir_all(&target);
        let calls = bench.watched(&[], verb).ok().calls;
        let reads = calls.iter().filter(|call| call.name == "read" && call.touches(&bench.store()));
        let writes = changes(&calls, &[]);
        let writes = writes.iter().filter(|call| call.touches(target.parent().unwrap()));
        let mut stops = 0;
        for (n, call) in reads.chain(writes).enumerate() {
            let _ = fs::remove_dir_all(&target);
            let signal = SIGNALS[n % SIGNALS.len()];
            let done = bench.tampered(call, &format!("signal={signal}"), verb);
            let when = format!("{verb:?} {signal} at {call}");
            let stopped = was_stopped(&done, &when);
            stops += usize::from(stopped);
            assert_eq!(half(&target), [] as [&Path; 0], "{when}");
            assert_eq!(target.exists(), verb[0] == "restore" && !stopped, "{when}");
        }
        assert!(stops >= 5, "{verb:?}: {stops}");
        assert_eq!(bench.is_old_or_whole("after all"), 0);
    }
}
