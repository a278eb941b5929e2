//! What is particular to Proxmox Backup Server: owners, protection, times, secrets, keys.

use std::fs;
use std::path::Path;

use crate::common::TestHost;
use crate::contract::{id, spool};
use crate::kinds::{self, Place, host, section};
use pbx_config::model::problem::{Exit, Fault};
use pbx_config::store::{self, Store};

fn told(error: &anyhow::Error) -> (String, String) {
    let hint = error.downcast_ref::<Fault>().and_then(|fault| fault.hint.clone()).unwrap_or_default();
    (format!("{error:#}"), hint)
}

fn asked(place: &Place) -> String {
    fs::read_to_string(place.dir.path().join("pbs/asked")).unwrap()
}

fn put(store: &dyn Store, at: &str) {
    store.put(spool("content").path(), &id(&format!("pve1/{at}"))).unwrap();
}

#[test]
fn a_snapshot_is_a_backup_of_type_host_with_its_own_time_that_a_browser_can_download() {
    let place = kinds::pbs();
    let store = place.open();
    let placed = store.put(spool("content").path(), &id("pve1/2026-11-22T15:17:40Z")).unwrap();
    assert_eq!(placed.place, "pbx@pbs!host@10.0.0.5:store:hosts/host/pve1/2026-11-22T15:17:40Z");
    let folder = place.root.join("pve1/2026-11-22T15:17:40Z");
    let inside = crate::common::tool("tar").arg("-tf").arg(folder.join("pbx-config.pxar.didx")).output();
    assert_eq!(String::from_utf8(inside.unwrap().stdout).unwrap(), "./\n./pve1_20261122T151740Z.pbx.tar\n");
    assert!(!asked(&place).contains("--keyfile") && asked(&place).contains("--crypt-mode none"));
    assert_eq!(store.head(&id("pve1/2026-11-22T15:17:40Z"), 3).unwrap(), b"con");
    assert!(
        asked(&place).lines().all(|line| !line.starts_with("restore") || line.contains(" pbx-head.conf - "))
    );
}

#[test]
fn other_backups_of_the_same_host_and_half_done_ones_are_not_told() {
    let place = kinds::pbs();
    let store = place.open();
    put(store.as_ref(), "2026-11-22T15:17:40Z");
    let group = place.root.join("pve1");
    let other = group.join("2026-11-23T00:00:00Z");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("index.json.blob"), "[{\"filename\":\"root.pxar.didx\",\"size\":5}]").unwrap();
    let half = group.join("2026-11-24T00:00:00Z");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("pbx-config.pxar.didx"), "x").unwrap();
    assert_eq!(store.list(None).unwrap().len(), 1);
    // Nor are they removed.
    store.remove(&id("pve1/2026-11-23T00:00:00Z")).unwrap();
    assert!(other.exists() && half.exists());
}

#[test]
fn what_the_server_protects_or_another_owner_has_is_told_and_never_removed() {
    let place = kinds::pbs();
    let store = place.open();
    put(store.as_ref(), "2026-11-22T15:17:40Z");
    fs::write(place.root.join("pve1/2026-11-22T15:17:40Z/.protected"), "").unwrap();
    assert_eq!(store.list(None).unwrap()[0].held, Some("protected on the server"));
    let error = store.remove(&id("pve1/2026-11-22T15:17:40Z")).unwrap_err();
    assert!(format!("{error:#}").contains("protected on the server"), "{error:#}");
    fs::remove_file(place.root.join("pve1/2026-11-22T15:17:40Z/.protected")).unwrap();
    fs::write(place.root.join("pve1/owner"), "other@pbs").unwrap();
    assert_eq!(store.list(None).unwrap()[0].held, Some("of another owner on the server"));
    store.remove(&id("pve1/2026-11-22T15:17:40Z")).unwrap_err();
    assert!(place.root.join("pve1/2026-11-22T15:17:40Z").exists());
    assert!(!asked(&place).contains("forget"));
}

#[test]
fn a_clock_that_jumped_back_is_told_with_what_to_do() {
    let place = kinds::pbs();
    let store = place.open();
    put(store.as_ref(), "2026-11-22T15:17:40Z");
    let error = store.put(spool("x").path(), &id("pve1/2026-11-21T00:00:00Z")).unwrap_err();
    let (error, hint) = told(&error);
    assert!(error.contains("older than last backup") && hint.contains("clock"), "{error}: {hint}");
}

#[test]
fn a_full_server_and_one_that_dies_leave_nothing_that_looks_whole() {
    let place = kinds::pbs();
    let store = place.open();
    let pass = place.section.get("password").unwrap().to_owned();
    put(store.as_ref(), "2026-11-22T15:17:40Z");
    kinds::server_says(place.dir.path(), &pass, ", \"room\": 10");
    let (error, hint) = told(&store.put(spool("x").path(), &id("pve1/2026-11-23T00:00:00Z")).unwrap_err());
    assert!(error.contains("No space left") && hint.contains("garbage collection"), "{error}: {hint}");
    kinds::server_says(place.dir.path(), &pass, ", \"dies\": true");
    let error = store.put(spool("x").path(), &id("pve1/2026-11-24T00:00:00Z")).unwrap_err();
    assert!(format!("{error:#}").contains("signal 9"), "{error:#}");
    kinds::server_says(place.dir.path(), &pass, "");
    assert_eq!(store.list(None).unwrap().len(), 1);
}

#[test]
fn a_wrong_secret_fingerprint_or_namespace_is_told_with_what_to_do() {
    for (key, value, message, help) in [
        ("password", "wrong-secret", "permission check failed", "DatastoreBackup"),
        ("fingerprint", "cc:dd", "fingerprint", "cert info"),
        ("namespace", "nowhere", "namespace not found", "names right"),
    ] {
        let mut place = kinds::pbs();
        let entry = place.section.entries.iter_mut().find(|entry| entry.key == key).unwrap();
        value.clone_into(&mut entry.value);
        let (error, hint) = told(&place.open().list(None).unwrap_err());
        assert!(error.contains(message) && hint.contains(help), "{error}: {hint}");
        assert!(!error.contains("wrong-secret"), "{error}");
    }
}

#[test]
fn a_secret_in_the_public_file_a_missing_one_and_a_key_nobody_asked_for_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "pbs: it\n\tpassword hidden-word\n";
    for (public, secret, message) in [
        (
            "\trepository a@pbs@h:s\n\tpassword hidden-word\n",
            "",
            "'password' is a secret, and others can read this file",
        ),
        ("\trepository a@pbs@h:s\n", "", "is missing"),
        ("\trepository a@pbs@h:s\n\tkeyfile /k\n", secret, "is not enabled"),
        ("\trepository a@pbs@h:s\n\tencrypt yes\n", secret, "needs a keyfile"),
        ("\trepository a@h:s\n", secret, "USER@REALM!TOKEN@SERVER"),
        ("\trepository --dry-run\n", secret, "USER@REALM!TOKEN@SERVER"),
        ("\trepository a@pbs@h:s\n\ttimeout 0\n", secret, "without a limit"),
        ("\trepository a@pbs@h:s\n", "pbs: it\n\tpassword x\n\ttoken y\n", "unknown key 'token'"),
    ] {
        let section = section(&format!("pbs: it\n{public}"), secret);
        let error = store::open(&section, &host(dir.path())).err().unwrap();
        let (error, hint) = told(&error);
        assert!(error.contains(message) && !hint.is_empty(), "{error}: {hint}");
        assert!(!format!("{error}{hint}").contains("hidden-word"), "{error}: {hint}");
    }
}

#[test]
fn a_key_that_was_asked_for_is_given_to_every_transfer() {
    let mut place = kinds::pbs();
    let more = section("pbs: it\n\tencrypt yes\n\tkeyfile /etc/key.json\n", "");
    place.section.entries.extend(more.entries);
    let store = place.open();
    put(store.as_ref(), "2026-11-22T15:17:40Z");
    store.head(&id("pve1/2026-11-22T15:17:40Z"), 3).unwrap();
    let transfers: Vec<String> =
        asked(&place).lines().filter(|line| !line.starts_with("snapshot")).map(str::to_owned).collect();
    assert_eq!(transfers.len(), 2);
    assert!(transfers.iter().all(|line| line.contains("--crypt-mode encrypt --keyfile /")), "{transfers:?}");
}

#[test]
fn a_whole_week_with_a_server_as_second_store_keeps_what_it_should() {
    let mut host = TestHost::empty();
    host.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    let pass = kinds::word();
    kinds::make_server(&host.beside("server"), &pass);
    host.tool("proxmox-backup-client", &host.beside("server/bin/proxmox-backup-client"));
    host.configure(
        "dir: local\n\tpath /store\npbs: far\n\trepository pbx@pbs!host@h:store\n\tnamespace hosts\n\
         \tfingerprint aa:bb\n\tkeep-last 2\n",
    );
    host.write("etc/proxmox-backup-extra/secrets.cfg", format!("pbs: far\n\tpassword {pass}\n"));
    let secrets = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    fs::set_permissions(secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for day in 14..20 {
        host.now = format!("2026-11-{day}T12:00:00Z");
        let report = host.run(&["backup", "--json"]).ok();
        assert!(!report.out.contains(&pass));
    }
    let listing = host.run(&["list", "--store", "far", "--json"]).ok().json();
    assert_eq!(listing["snapshots"].as_array().unwrap().len(), 2);
    host.run(&["verify", "--all"]).ok();
    assert_eq!(host.run(&["cat", "latest", "etc/hostname", "--store", "far"]).ok().out, "tiny\n");
    // The name of the host stands on the server, and so does its other owner.
    fs::write(host.beside("server/pbs/data/ns/hosts/host/tiny/owner"), "other@pbs").unwrap();
    host.now = "2026-11-21T12:00:00Z".to_owned();
    let done = host.run(&["backup"]).exits(Exit::Problems);
    assert!(done.out.contains("owner check failed") && done.out.contains("store 'far'"), "{}", done.out);
    let plan = host.run(&["prune", "--dry-run", "--store", "far"]);
    assert!(plan.out.contains("of another owner on the server"), "{}{}", plan.out, plan.err);
}

#[test]
fn a_store_that_is_tried_shows_each_step_and_keeps_nothing_of_it() {
    let mut host = TestHost::empty();
    let pass = kinds::word();
    kinds::make_server(&host.beside("server"), &pass);
    host.tool("proxmox-backup-client", &host.beside("server/bin/proxmox-backup-client"));
    host.tool("rclone", Path::new("/usr/bin/rclone"));
    let remote = host.beside("remote");
    fs::create_dir(&remote).unwrap();
    host.write(
        "root/.config/rclone/rclone.conf",
        format!("[away]\ntype = alias\nremote = {}\n", remote.display()),
    );
    host.configure(
        "dir: local\n\tpath /store\nrclone: away\n\tremote away:x\npbs: far\n\trepository pbx@pbs!host@h:store\n\
         \tnamespace hosts\n\tfingerprint aa:bb\ndir: gone\n\tpath /etc/hostname/x\n",
    );
    host.write("etc/proxmox-backup-extra/secrets.cfg", format!("pbs: far\n\tpassword {pass}\n"));
    let secrets = host.root.join("etc/proxmox-backup-extra/secrets.cfg");
    fs::set_permissions(secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let tried = host.run(&["store", "test", "--json"]).exits(Exit::Failed).json();
    for one in &tried.as_array().unwrap()[..3] {
        let steps: Vec<_> =
            one["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
        assert_eq!(steps, ["reach", "write", "read", "remove"], "{one}");
        assert!(one["steps"].as_array().unwrap().iter().all(|step| step["error"].is_null()), "{one}");
    }
    assert!(!tried[3]["steps"][0]["error"].is_null(), "{tried}");
    assert_eq!(fs::read_dir(host.root.join("store")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(remote.join("x")).unwrap().count(), 0);
    let groups = host.beside("server/pbs/data/ns/hosts/host");
    assert_eq!(fs::read_dir(groups).unwrap().count(), 0);
    // What a killed one left is no obstacle, also when the clock jumped back.
    fs::create_dir(host.root.join("store/tiny.probe")).unwrap();
    fs::write(host.root.join("store/tiny.probe/tiny.probe_20261122T151740Z.pbx.tar"), "x").unwrap();
    host.now = "2026-11-22T15:17:40Z".to_owned();
    let text = host.run(&["store", "test", "local"]).ok().out;
    assert!(text.contains("ok      write") && text.contains("is on "), "{text}");
    host.run(&["store", "test", "nosuch"]).exits(Exit::NotFound);
}
