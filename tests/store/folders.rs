//! What is particular to folders: what they lie on, what hangs, what keeps neither owners nor links.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pbx_config::model::problem::{Exit, Fault};
use pbx_config::store::{self, Store};
use tempfile::TempDir;

use crate::common::TestHost;
use crate::contract::{id, spool};
use crate::kinds::{self, host, section};

/// A file system in a file, mounted.
struct Disk {
    point: PathBuf,
    dir: TempDir,
}

impl Disk {
    /// None when this kernel has no loop device to spare, which is told.
    fn made(make: &[&str], mount: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, point) = (dir.path().join("image"), dir.path().join("host/disk"));
        fs::create_dir_all(&point).unwrap();
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        let ran = crate::common::tool(make[0]).args(&make[1..]).arg(&image).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let device = crate::common::tool("losetup").args(["--find", "--show"]).arg(&image).output().unwrap();
        if !device.status.success() {
            println!("not tried: {}", String::from_utf8_lossy(&device.stderr));
            return None;
        }
        let device = String::from_utf8(device.stdout).unwrap();
        let mounted = crate::common::tool(mount[0]).args(&mount[1..]).arg(device.trim()).arg(&point).output();
        let mounted = mounted.expect("installed by `make deps`");
        // It goes with the last mount of it.
        let _ = crate::common::tool("losetup").args(["--detach", device.trim()]).status();
        if !mounted.status.success() {
            println!("not tried: {mount:?}: {}", String::from_utf8_lossy(&mounted.stderr).trim());
            return None;
        }
        Some(Self { point, dir })
    }

    fn store(&self, more: &str) -> Box<dyn Store> {
        let text = format!("dir: stick\n\tpath /disk/store\n{more}");
        store::open(&section(&text, ""), &host(self.dir.path())).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.point).status();
    }
}

#[test]
fn a_stick_that_keeps_no_owners_takes_snapshots_without_a_word() {
    let mut tried = 0;
    for (make, mount) in [
        (&["mkfs.vfat"][..], &["mount", "-t", "vfat"][..]),
        (&["mkfs.exfat"], &["mount.exfat-fuse"]),
        (&["mkfs.ntfs", "--force", "--fast", "--quiet"], &["ntfs-3g"]),
    ] {
        let Some(disk) = Disk::made(make, mount) else { continue };
        tried += 1;
        let store = disk.store("\tmountpoint no\n");
        let (one, two) = (id("pve1/2026-11-22T15:17:40Z"), id("pve1/2026-11-22T15:17:41Z"));
        let placed = store.put(spool("hello").path(), &one).unwrap();
        assert!(placed.problems.is_empty(), "{make:?}: {:?}", placed.problems);
        assert!(
            placed.medium.as_ref().is_some_and(|medium| medium.free > Some(1 << 20)),
            "{:?}",
            placed.medium
        );
        assert!(store.put(spool("other").path(), &one).is_err(), "{make:?}");
        store.put(spool("second").path(), &two).unwrap();
        assert_eq!(fs::read(store.get(&one).unwrap().path()).unwrap(), b"hello");
        store.remove(&two).unwrap();
        assert_eq!(store.list(None).unwrap().iter().map(|found| &found.id).collect::<Vec<_>>(), [&one]);
        let error = store.put(spool(&"x".repeat(20 << 20)).path(), &two).unwrap_err();
        assert!(format!("{error:#}").to_lowercase().contains("no space left"), "{make:?}: {error:#}");
        assert_eq!(fs::read_dir(disk.point.join("store/pve1")).unwrap().count(), 1, "{make:?}");
    }
    assert!(tried > 0, "neither of the file systems could be mounted");
}

#[test]
fn the_report_names_the_file_system_and_its_room() {
    let host = TestHost::empty();
    host.configure("dir: local\n\tpath /store\n");
    let report = host.run(&["backup", "--json"]).ok().json();
    let medium = &report["stores"][0]["medium"];
    assert!(medium["type"].as_str().is_some_and(|kind| !kind.is_empty()), "{report}");
    assert!(medium["free"].as_u64() > Some(0), "{report}");
    let text = host.run(&["backup"]).ok().out;
    let line = format!("{} on {}, ", medium["type"].as_str().unwrap(), medium["source"].as_str().unwrap());
    assert!(text.contains(&line) && text.contains(" free\n"), "{text}");
}

/// A real FUSE file system whose daemon can be stopped: it is made for /etc/pve, but a folder is a folder.
fn hanging() -> TestHost {
    let host = TestHost::empty();
    host.mount(&[]);
    host
}

#[test]
fn a_folder_that_hangs_is_left_at_its_limit_in_every_call() {
    let there = hanging();
    let place = there.mount_point().join("store");
    let one = id("pve1/2026-11-22T15:17:40Z");
    let text = "dir: nas\n\tpath /etc/pve/store\n\ttimeout 1\n".to_owned();
    let at = pbx_config::sys::host::Host::detect(
        there.root.clone(),
        jiff::Timestamp::default(),
        Box::new(pbx_config::sys::process::exec::NoTools),
    );
    let store = store::open(&section(&text, ""), &at).unwrap();
    store.put(spool("hello").path(), &one).unwrap();
    let found = store.list(None).unwrap();
    assert_eq!(found.len(), 1, "{}", place.display());
    assert_eq!(store.head(&one, 2).unwrap(), b"he");
    assert_eq!(store.heads(&found, 2).unwrap().remove(0).unwrap(), b"he");
    let fetched = store.get(&one).unwrap();
    assert!(!fetched.path().starts_with(there.mount_point()));
    there.signal_daemon(Signal::SIGSTOP);
    let begun = Instant::now();
    let two = id("pve1/2026-11-22T15:17:41Z");
    let content = spool("x");
    let errors = [
        store.list(None).map(drop),
        store.put(content.path(), &two).map(drop),
        store.head(&one, 2).map(drop),
        store.heads(&found, 2).unwrap().remove(0).map(drop),
        store.get(&one).map(drop),
        store.remove(&one),
    ];
    let took = begun.elapsed();
    there.signal_daemon(Signal::SIGCONT);
    for error in errors {
        let error = error.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("store 'nas'") && text.contains("does not answer within 1 s"), "{text}");
    }
    assert!(took < Duration::from_secs(30), "{took:?}");
    // What was read before is still there.
    assert_eq!(fs::read(fetched.path()).unwrap(), b"hello");
}

#[test]
fn a_second_store_that_hangs_costs_the_run_its_limit_and_the_first_has_the_snapshot() {
    let there = hanging();
    there.signal_daemon(Signal::SIGSTOP);
    let host = TestHost::empty();
    let link = host.root.join("nas");
    std::os::unix::fs::symlink(there.mount_point(), &link).unwrap();
    host.configure("dir: local\n\tpath /store\ndir: nas\n\tpath /nas/store\n\ttimeout 1\n\tkeep-last 1\n");
    let at = pbx_config::sys::host::Host::detect(
        host.root.clone(),
        jiff::Timestamp::default(),
        Box::new(pbx_config::sys::process::exec::NoTools),
    );
    let config = pbx_config::config::Config::load(&at, &store::kind_names(), &[]).unwrap();
    let stores: Vec<Box<dyn Store>> =
        config.stores.iter().map(|section| store::open(section, &at).unwrap()).collect();
    let request = pbx_config::task::backup::BackupRequest {
        selection: pbx_config::plan::select::Selection::default(),
        note: None,
        protect: false,
        trigger: pbx_config::model::snapshot::Trigger::Manual,
    };
    let begun = Instant::now();
    let report = pbx_config::task::backup::run(&at, &config, &stores, &request, &|_| {}).unwrap();
    let took = begun.elapsed();
    there.signal_daemon(Signal::SIGCONT);
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(report.stores[0].place.is_some() && report.stores[1].place.is_none());
    let problem = report.problems.iter().find(|problem| problem.what.contains("store 'nas'")).unwrap();
    assert!(problem.what.contains("does not answer"), "{problem:?}");
    assert!(problem.hint.as_ref().unwrap().contains("the snapshot is in the other stores"), "{problem:?}");
}

#[test]
fn a_path_where_nothing_is_mounted_is_refused_also_through_a_link() {
    let place = kinds::dir_in(&std::env::temp_dir());
    let root = place.dir.path().join("host");
    fs::create_dir_all(root.join("mnt/nas")).unwrap();
    std::os::unix::fs::symlink("mnt/nas", root.join("nas")).unwrap();
    let text = "dir: nas\n\tpath /nas\n\tmountpoint yes\n";
    let store = store::open(&section(text, ""), &host(place.dir.path())).unwrap();
    let error = store.put(spool("x").path(), &id("pve1/2026-11-22T15:17:40Z")).unwrap_err();
    assert!(format!("{error:#}").contains("nothing is mounted on"), "{error:#}");
    assert!(error.downcast_ref::<Fault>().unwrap().hint.is_some());
    let point = root.join("mnt/nas");
    let mounted = crate::common::tool("mount").args(["-t", "tmpfs", "none"]).arg(&point).status().unwrap();
    assert!(mounted.success());
    let placed = store.put(spool("x").path(), &id("pve1/2026-11-22T15:17:40Z"));
    crate::common::tool("umount").arg("-l").arg(Path::new(&point)).status().unwrap();
    assert_eq!(placed.unwrap().medium.unwrap().kind, "tmpfs");
}

#[test]
fn stores_are_written_side_by_side_and_each_keeps_its_own() {
    let host = TestHost::empty();
    host.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    host.configure("dir: a\n\tpath /a\ndir: b\n\tpath /b\n\tkeep-last 1\ndir: c\n\tpath /etc/hostname/c\n");
    host.run(&["backup"]).exits(Exit::Problems);
    let mut host = host;
    host.now = "2026-11-23T12:00:00Z".to_owned();
    let report = host.run(&["backup", "--json"]).exits(Exit::Problems).json();
    let names: Vec<_> =
        report["stores"].as_array().unwrap().iter().map(|one| one["store"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(report["stores"][1]["removed"].as_array().unwrap().len(), 1);
    assert!(report["stores"][2]["place"].is_null());
    let problems = report["problems"].as_array().unwrap();
    assert!(problems.iter().any(|one| one["what"].as_str().unwrap().contains("store 'c'")), "{problems:?}");
    assert_eq!(crate::common::snapshot_files(&host.root.join("a")).len(), 2);
    assert_eq!(crate::common::snapshot_files(&host.root.join("b")).len(), 1);
}

/// A host with a signed snapshot in a store into which every user may write.
fn shared() -> (TestHost, PathBuf, String) {
    let host = TestHost::golden("bare");
    let store = host.beside("share");
    fs::create_dir(&store).unwrap();
    fs::set_permissions(&store, fs::Permissions::from_mode(0o1777)).unwrap();
    host.run(&["backup", "--store", store.to_str().unwrap()]).ok();
    let name = crate::common::snapshot_files(&store)[0].file_name().unwrap().to_str().unwrap().to_owned();
    (host, store, name)
}

#[test]
fn what_others_put_into_a_store_never_stands_for_a_snapshot() {
    let (host, store, name) = shared();
    let shown = store.to_str().unwrap();
    let (node, bare) = (&name[..name.find('_').unwrap()], store.join(&name));
    let good = fs::read(store.join(node).join(&name)).unwrap();
    let verbs: [&[&str]; 4] =
        [&["verify", "latest"], &["cat", "latest", "etc/hostname"], &["verify", "--all"], &["list"]];
    let run = |verb: &[&str]| host.run(&[verb, &["--store", shown]].concat()).ok();
    let list = || host.run(&["list", "--store", shown]).exits(Exit::Problems).out;

    // Beside the directories of the hosts: junk, links, what blocks, what never ends.
    let put: [fn(&Path); 5] = [
        |path| fs::write(path, "junk").unwrap(),
        |path| symlink("/dev/zero", path).unwrap(),
        |path| symlink("/proc/kmsg", path).unwrap(),
        |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        |path| fs::create_dir(path).unwrap(),
    ];
    for put in put {
        put(&bare);
        verbs.iter().for_each(|verb| drop(run(verb)));
        let _ = fs::remove_file(&bare).or_else(|_| fs::remove_dir(&bare));
    }

    // A newer one, whoever it belongs to, is shown and not the latest.
    let newer = format!("{node}_20991231T235959Z.pbx.tar");
    fs::write(store.join(&newer), &good).unwrap();
    assert!(list().contains("[is not in the directory of its host]"));
    let only = host.run(&["cat", "other/latest", "etc/hostname", "--store", shown]).exits(Exit::NotFound);
    assert!(!only.err.contains("is there, but"), "{}", only.err);
    run(&["cat", "latest", "etc/hostname"]);
    run(&["verify", "latest"]);
    fs::remove_file(store.join(&newer)).unwrap();

    // In the directory of the host, but another user's.
    let theirs = store.join(node).join(&newer);
    fs::write(&theirs, &good).unwrap();
    chown(&theirs, Some(1000), Some(1000)).unwrap();
    run(&["cat", "latest", "etc/hostname"]);
    let named = host.run(&["cat", &newer[..newer.len() - 8], "etc/hostname", "--store", shown]);
    assert!(
        named
            .exits(Exit::Failed)
            .err
            .contains("belongs to a user who is neither root nor the owner of the store")
    );
}

#[test]
fn retention_counts_and_removes_only_what_is_the_stores_own() {
    let (host, store, name) = shared();
    let node = &name[..name.find('_').unwrap()];
    let own = store.join(node);
    let good = fs::read(own.join(&name)).unwrap();
    for second in 0..3 {
        let forged = store.join(format!("{node}_2099123{second}T000000Z.pbx.tar"));
        fs::write(&forged, &good).unwrap();
        chown(&forged, Some(1000), Some(1000)).unwrap();
    }
    host.configure("dir: share\n\tpath /share\n\tkeep-last 1\n");
    let inside = host.root.join("share");
    fs::rename(&store, &inside).unwrap();
    host.run(&["prune"]).exits(Exit::Problems);
    assert!(inside.join(node).join(&name).is_file());
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 4);

    // A directory of this host's name that somebody else made is not written into.
    fs::rename(inside.join(node), inside.join("gone")).unwrap();
    fs::create_dir(inside.join(node)).unwrap();
    chown(inside.join(node), Some(1000), Some(1000)).unwrap();
    let done = host.run(&["backup"]).exits(Exit::Failed);
    assert!(done.err.contains("the directory belongs to the user 1000"), "{}", done.err);
    assert_eq!(fs::read_dir(inside.join(node)).unwrap().count(), 0);
}

#[test]
fn a_name_is_given_once_whatever_the_clock_says() {
    let mut host = TestHost::golden("bare");
    host.configure("dir: local\n\tpath /store\n\tkeep-last 1\n");
    let mut names = Vec::new();
    for now in
        ["2026-11-22T15:17:40Z", "2026-11-22T15:17:40Z", "2026-11-22T15:17:41Z", "2026-11-22T15:00:00Z"]
    {
        host.now = now.into();
        let done = host.run(&["backup", "--json"]);
        names.push(done.json()["snapshot"]["id"].as_str().unwrap().to_owned());
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(names, sorted, "each is newer than the one before");

    // Also when all of them are gone.
    fs::remove_dir_all(host.root.join("store")).unwrap();
    let done = host.run(&["backup", "--json"]);
    assert!(done.json()["snapshot"]["id"].as_str() > names.last().map(String::as_str));
    host.run(&["verify", "--all"]).ok();
}

#[test]
fn machines_without_an_id_leave_each_others_snapshots_alone() {
    let (one, two) = (TestHost::golden("bare"), TestHost::golden("bare"));
    let shared = tempfile::tempdir().unwrap();
    for host in [&one, &two] {
        host.write("etc/machine-id", "uninitialized\n");
        host.configure("dir: nas\n\tpath /nas\n\tkeep-last 1\n");
    }
    let place = |host: &TestHost| host.root.join("nas");
    fs::create_dir(place(&one)).unwrap();
    one.run(&["backup"]);
    fs::rename(place(&one), shared.path().join("nas")).unwrap();
    fs::rename(shared.path().join("nas"), place(&two)).unwrap();
    let mut two = two;
    two.now = "2026-11-23T00:00:00Z".into();
    two.run(&["backup"]);
    assert_eq!(crate::common::snapshot_files(&place(&two)).len(), 2);

    // Its own are still its own.
    two.now = "2026-11-24T00:00:00Z".into();
    two.run(&["backup"]);
    assert_eq!(crate::common::snapshot_files(&place(&two)).len(), 2);
}

#[test]
fn a_folder_of_bare_files_says_why_none_is_the_latest() {
    let (host, store, name) = shared();
    let stick = host.beside("stick");
    fs::create_dir(&stick).unwrap();
    fs::copy(store.join(&name[..name.find('_').unwrap()]).join(&name), stick.join(&name)).unwrap();
    let run = |words: &[&str]| host.run(&[words, &["--store", stick.to_str().unwrap()]].concat());
    let listed = run(&["list", "--json"]).ok().json();
    assert_eq!(listed["snapshots"][0]["stray"], "is not in the directory of its host");
    let id = listed["snapshots"][0]["id"].as_str().unwrap();
    let said = run(&["cat", "latest", "etc/hostname"]).exits(Exit::NotFound).err;
    assert!(
        said.contains(&format!("hint: {id} is there, but is not in the directory of its host")),
        "{said}"
    );
    // Named, it opens.
    run(&["cat", id, "etc/hostname"]).ok();
}
