//! What happens to remotes: they die, they are full, they refuse, others write to them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use pbx_config::model::problem::Fault;
use pbx_config::model::snapshot::SnapshotId;

use crate::contract::{id, spool};
use crate::kinds::{self, Place, QUICK, host, section};

fn told(error: &anyhow::Error) -> (String, String) {
    let hint = error.downcast_ref::<Fault>().and_then(|fault| fault.hint.clone()).unwrap_or_default();
    (format!("{error:#}"), hint)
}

fn many(count: i32) -> Vec<SnapshotId> {
    (0..count).map(|n| id(&format!("pve1/2026-11-22T15:{:02}:{:02}Z", n / 60, n % 60))).collect()
}

fn seed(place: &Place, ids: &[SnapshotId]) {
    for id in ids {
        let file = place.root.join(id.host()).join(id.file_name());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("{id} and more")).unwrap();
    }
}

#[test]
fn a_downloaded_copy_is_private_and_goes_with_its_holder() {
    let place = kinds::rclone_local();
    seed(&place, &many(1));
    let fetched = place.open().get(&many(1)[0]).unwrap();
    let path = fetched.path().to_owned();
    assert!(!path.starts_with(&place.root), "{}", path.display());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fetched.place(), Path::new("away:store/pve1").join(many(1)[0].file_name()));
    drop(fetched);
    assert!(!path.exists() && !path.parent().unwrap().exists());
}

#[test]
fn a_copy_that_a_killed_process_had_downloaded_goes_with_the_next_backup() {
    let there = crate::common::TestHost::empty();
    let at = pbx_config::sys::host::Host::detect(
        there.root.clone(),
        jiff::Timestamp::default(),
        Box::new(pbx_config::sys::process::exec::NoTools),
    );
    let dead = at.download_dir().join("4999999.0");
    fs::create_dir_all(&dead).unwrap();
    fs::write(dead.join("tiny_20261122T151740Z.pbx.tar"), "keys").unwrap();
    there.run(&["backup"]).ok();
    assert!(!dead.exists());
}

#[test]
fn the_first_bytes_of_many_come_in_a_few_processes_each_to_its_own() {
    for place in [kinds::rclone_local(), kinds::rclone_webdav(), kinds::rclone_sftp()] {
        let ids = many(70);
        seed(&place, &ids);
        seed(&place, &[id("pve2/2026-11-22T15:00:00Z")]);
        // One is shorter than what is asked for, and one is not wanted.
        fs::write(place.root.join("pve1").join(ids[5].file_name()), "pve").unwrap();
        let store = place.open();
        let mut found = store.list(None).unwrap();
        assert_eq!(found.len(), 71);
        found.retain(|found| found.id != ids[9]);
        found.reverse();
        for (found, head) in found.iter().zip(store.heads(&found, 25).unwrap()) {
            let expected = if found.id == ids[5] { "pve".to_owned() } else { found.id.to_string() };
            assert!(head.unwrap().starts_with(expected.as_bytes()), "{}", found.id);
        }
    }
}

#[test]
fn deletion_goes_in_batches_and_takes_only_what_was_named() {
    let place = kinds::rclone_sftp();
    let ids = many(30);
    seed(&place, &ids);
    seed(&place, &[id("pve2/2026-11-22T15:00:00Z")]);
    fs::write(place.root.join("pve1/notes.txt"), "x").unwrap();
    let store = place.open();
    let done = store.remove_many(&ids[3..28]);
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 25);
    let mut left: Vec<_> = store.list(Some("pve1")).unwrap().into_iter().map(|found| found.id).collect();
    left.sort();
    assert_eq!(left, [&ids[..3], &ids[28..]].concat());
    assert!(place.root.join("pve1/notes.txt").exists() && place.root.join("pve2").exists());
    assert!(store.remove_many(&[]).is_empty());
    assert_eq!(store.list(None).unwrap().len(), 6);
}

#[test]
fn a_server_that_dies_in_the_midst_of_an_upload_leaves_nothing_that_looks_whole() {
    for make in [kinds::rclone_webdav as fn() -> Place, kinds::rclone_sftp] {
        let mut place = make();
        let mut section = place.section.clone();
        // Slow enough to be met in the midst.
        section.entries.extend(kinds::section("rclone: it\n\tbandwidth 256k\n", "").entries);
        let file = spool(&"x".repeat(4 << 20));
        let store = pbx_config::store::open(&section, &host(place.dir.path())).unwrap();
        let new = id("pve1/2026-11-22T15:17:40Z");
        let mut server = place.server.take().unwrap();
        let begun = Instant::now();
        let error = std::thread::scope(|scope| {
            let put = scope.spawn(|| store.put(file.path(), &new));
            let half = place.root.join(format!("pve1/.{}.partial", new.file_name()));
            while !half.exists() && begun.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(10));
            }
            server.kill();
            put.join().unwrap().unwrap_err()
        });
        let (error, _) = told(&error);
        assert!(error.starts_with("store 'it': "), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(120));
        assert!(!place.root.join("pve1").join(new.file_name()).exists());
    }
}

#[test]
fn a_server_that_is_silent_is_left_at_the_limit() {
    let mut place = kinds::rclone_webdav();
    place.section.entries.retain(|entry| entry.key != "timeout");
    place.section.entries.extend(section("rclone: it\n\ttimeout 2\n", "").entries);
    let server = place.server.as_ref().unwrap().pid();
    kill(server, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let (error, hint) = told(&place.open().list(None).unwrap_err());
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(error.contains("store 'it'"), "{error}");
    assert!(hint.contains("the server"), "{error}: {hint}");
    kill(server, Signal::SIGCONT).unwrap();
}

#[test]
fn a_server_that_is_not_there_and_a_wrong_password_are_told_without_the_password() {
    let mut place = kinds::rclone_webdav();
    let wrong = kinds::obscured("wrong-word");
    place
        .section
        .entries
        .iter_mut()
        .filter(|entry| entry.private)
        .for_each(|entry| entry.value = wrong.clone());
    let (error, hint) = told(&place.open().list(None).unwrap_err());
    assert!(hint.contains("credentials") && !error.contains(&wrong), "{error}: {hint}");
    place.server.as_mut().unwrap().kill();
    let (error, hint) = told(&place.open().list(None).unwrap_err());
    assert!(hint.contains("does not answer"), "{error}: {hint}");
}

#[test]
fn an_unknown_remote_and_a_host_without_rclone_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = section(&format!("rclone: it\n\tremote nosuch:x\n{QUICK}"), "");
    let store = pbx_config::store::open(&nowhere, &host(dir.path())).unwrap();
    let (error, hint) = told(&store.list(None).unwrap_err());
    assert!(error.contains("didn't find section") && hint.contains("listremotes"), "{error}: {hint}");
    let mut bare = host(dir.path());
    bare.exec = std::sync::Arc::new(pbx_config::sys::process::exec::NoTools);
    let store = pbx_config::store::open(&nowhere, &bare).unwrap();
    let (error, hint) = told(&store.list(None).unwrap_err());
    assert!(
        error.contains("rclone is not installed") && hint.contains("apt install rclone"),
        "{error}: {hint}"
    );
}

#[test]
fn a_remote_that_is_full_or_read_only_keeps_what_it_has() {
    let mut place = kinds::rclone_local();
    let full = place.dir.path().join("store");
    fs::create_dir(&full).unwrap();
    let mount = |words: &[&str]| {
        assert!(crate::common::tool("mount").args(words).arg(&full).status().unwrap().success());
    };
    mount(&["-t", "tmpfs", "-o", "size=1m", "none"]);
    let small = id("pve1/2026-11-22T15:17:40Z");
    let store = place.open();
    store.put(spool("small").path(), &small).unwrap();
    let big = id("pve1/2026-11-22T15:17:41Z");
    let error = store.put(spool(&"x".repeat(2 << 20)).path(), &big).unwrap_err();
    let (error, hint) = told(&error);
    mount(&["-o", "remount,ro"]);
    let read_only = store.put(spool("x").path(), &big).unwrap_err();
    let listed = store.list(None).unwrap();
    crate::common::tool("umount").arg("-l").arg(&full).status().unwrap();
    place.root = full;
    assert!(error.contains("space") && hint.contains("free some space"), "{error}: {hint}");
    assert!(told(&read_only).0.contains("read-only"), "{read_only:#}");
    assert_eq!(listed.iter().map(|found| &found.id).collect::<Vec<_>>(), [&small]);
}

#[test]
fn no_secret_is_in_an_argument_list_or_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("seen");
    let shim = dir.path().join("rclone");
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {}\necho \"bad $RCLONE_CONFIG_B2_KEY\" >&2\nexit 1\n",
        seen.display()
    );
    crate::common::make_program(&shim, &script);
    let mut host = host(dir.path());
    host.exec = std::sync::Arc::new(crate::common::Shims { bin: dir.path().to_owned() });
    let secret = kinds::word();
    let section = section("rclone: it\n\tremote b2:x\n", &format!("rclone: it\n\tkey {secret}\n"));
    let error = pbx_config::store::open(&section, &host).unwrap().list(None).unwrap_err();
    assert_eq!(format!("{error:#}"), "store 'it': cannot list b2:x: bad ***");
    assert!(!fs::read_to_string(seen).unwrap().contains(&secret));
}
