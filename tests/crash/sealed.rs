//! A sealed run that is killed, or that an error of the kernel ends, at any call that changes something: whatever it
//! leaves on a disk, nothing of it is in the clear.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::Bench;
use crate::strace::{Call, changes};

const PLANTED: &str = "planted-secret-7f3a9c";
/// Its other half is written down in a reference of somebody else's, and of no use here.
const RECIPIENT: &str = "age1c92l66gk6neh8nhxnjah0gf55rjas0pljknfszyqmdr75vfpwgjsl78n4g";

fn sealed() -> Bench {
    let bench = Bench::first_run();
    bench.host.write("srv/dir/secret", PLANTED.repeat(1000));
    // Without compression: what is in the clear is found.
    bench
        .host
        .configure(&format!("backup: main\n\tinclude /srv\n\tcompression none\n\trecipient {RECIPIENT}\n"));
    bench
}

fn in_the_clear(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap()) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(in_the_clear(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            if bytes.windows(PLANTED.len()).any(|window| window == PLANTED.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

#[track_caller]
fn nothing_in_the_clear(bench: &Bench, when: &str) {
    for folder in [bench.host.root.join("var"), bench.host.root.join("etc"), bench.run_dir()] {
        assert_eq!(in_the_clear(&folder), Vec::<PathBuf>::new(), "{when}");
    }
}

#[test]
fn a_sealed_run_that_ends_anywhere_leaves_nothing_in_the_clear() {
    let bench = sealed();
    // The search finds what it should: a run that does not seal leaves it in its store.
    bench.host.configure("backup: main\n\tinclude /srv\n\tcompression none\n");
    bench.run(&["backup"]).ok();
    assert_eq!(in_the_clear(&bench.host.root.join("var")), bench.files_in_store());

    let bench = sealed();
    let whole = bench.watched(&[], &["backup"]);
    assert_eq!(whole.code(), Some(3), "nobody has proven the key yet: {}", whole.err);
    assert_eq!(bench.files_in_store().len(), 1);
    nothing_in_the_clear(&bench, "a whole run");
    let calls: Vec<Call> = changes(&whole.calls, &[&bench.host.root, &bench.store(), &bench.run_dir()]);
    assert!(calls.len() >= 20, "{calls:?}");
    let mut left = 0;
    for (n, call) in calls.iter().enumerate() {
        bench.reset();
        let done = bench.tampered(call, "signal=KILL", &["backup"]);
        assert!(done.was_killed(), "{call}: {}\n{}", done.out, done.err);
        left += bench.leftovers().len();
        nothing_in_the_clear(&bench, &format!("killed at {call}"));
        if n % 3 == 0 {
            bench.reset();
            let done = bench.tampered(call, "error=ENOSPC", &["backup"]);
            assert!(!(done.out + &done.err).contains(PLANTED), "{call}");
            nothing_in_the_clear(&bench, &format!("no space at {call}"));
        }
    }
    assert!(left > 0, "some of them were killed while a file was there");
}
