//! Signed manifests, beside the real `ssh-keygen -Y verify`, and chains of parents that were tampered with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pbx_config::archive::sign::NAMESPACE;
use pbx_config::model::problem::Exit;

use crate::common::{TestHost, snapshot_files};
use crate::{Keyring, backup, manifest, refused, sealing_host, tool};

fn bare() -> TestHost {
    let host = TestHost::golden("bare");
    host.configure("");
    host
}

/// Of the golden host's own key, as ssh-keygen prints it.
fn print_of(host: &TestHost) -> String {
    let printed = tool(&host.root, &["ssh-keygen", "-l", "-f", "etc/ssh/ssh_host_ed25519_key.pub"]);
    printed.split(' ').nth(1).unwrap().to_owned()
}

/// What `ssh-keygen -Y verify` says of a snapshot file, with the host's public key as the only signer.
fn checked_by_ssh(host: &TestHost, snap: &Path) -> bool {
    let dir = tempfile::tempdir_in(host.beside("")).unwrap();
    tool(dir.path(), &["tar", "-xf", snap.to_str().unwrap(), "MANIFEST.json", "MANIFEST.sig"]);
    let public = fs::read_to_string(host.root.join("etc/ssh/ssh_host_ed25519_key.pub")).unwrap();
    fs::write(dir.path().join("allowed"), format!("pve namespaces=\"{NAMESPACE}\" {public}")).unwrap();
    let line =
        format!("ssh-keygen -Y verify -f allowed -I pve -n {NAMESPACE} -s MANIFEST.sig < MANIFEST.json");
    crate::common::require(&["ssh-keygen"]);
    Command::new("sh").args(["-c", &line]).current_dir(dir.path()).output().unwrap().status.success()
}

/// Changes bytes of a file in place, as many as there were.
fn change(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
    let mut bytes = bytes;
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_a_person_is_told_to_type_is_signed_too() {
    let host = bare();
    host.run(&["backup"]).ok();
    let snap = host.snapshot_file();
    change(&snap, "    sha256sum", "    reboot ##");
    let word = snap.to_str().unwrap();
    for words in [&["verify", word][..], &["show", word], &["cat", word, "etc/hostname"]] {
        let done = host.run(words).exits(Exit::Verification);
        assert!((done.out + &done.err).contains("HOWTO.txt is not the text"), "{words:?}");
    }
}

#[test]
fn the_host_signs_and_ssh_keygen_agrees_until_somebody_changes_it() {
    let host = bare();
    host.run(&["backup", "--note", "as it was"]).ok();
    let snap = host.snapshot_file();
    let print = print_of(&host);
    assert!(checked_by_ssh(&host, &snap));
    let verified = host.run(&["verify"]).ok();
    assert!(verified.out.contains(&format!("signed by {print}")), "{}", verified.out);
    assert!(host.run(&["show", "latest"]).ok().out.contains(&format!("signed by  {print}")));
    // Before the payload, one file after the other, as format 1 has it.
    let names = tool(Path::new("/"), &["tar", "-tf", snap.to_str().unwrap()]);
    assert_eq!(names, "MANIFEST.json\nMANIFEST.sig\nHOWTO.txt\npayload.tar.zst\n");
    // What HOWTO.txt says of it works, too.
    let howto = tool(Path::new("/"), &["tar", "-xOf", snap.to_str().unwrap(), "HOWTO.txt"]);
    let line = howto.lines().find(|line| line.trim().starts_with("ssh-keygen -Y check-novalidate")).unwrap();
    let dir = host.beside("by-hand");
    fs::create_dir(&dir).unwrap();
    tool(&dir, &["tar", "-xf", snap.to_str().unwrap()]);
    assert!(tool(&dir, &["sh", "-c", line]).contains(&print));

    change(&snap, "as it was", "not so..!");
    assert!(!checked_by_ssh(&host, &snap));
    let word = snap.to_str().unwrap();
    for words in [&["verify", word][..], &["show", word], &["cat", word, "etc/hostname"]] {
        let done = host.run(words).exits(Exit::Verification);
        assert!((done.out + &done.err).contains("its signature is not valid"), "{words:?}");
    }
    change(&snap, "not so..!", "as it was");
    host.run(&["verify"]).ok();
    // A signature of something else, and one that is none.
    change(&snap, "BEGIN SSH SIGNATURE", "BEGIN SSH SAGNITURE");
    host.run(&["verify"]).exits(Exit::Verification);
}

#[test]
fn who_must_have_signed_can_be_said() {
    let host = bare();
    host.run(&["backup"]).ok();
    let ring = Keyring::new();
    ring.ssh("other", "ed25519", "");
    ring.ssh("rsa", "rsa", "");
    let own = host.root.join("etc/ssh/ssh_host_ed25519_key.pub");
    let known = host.beside("known_hosts");
    fs::write(&known, format!("# mine\npve1 {}", fs::read_to_string(&own).unwrap())).unwrap();
    for signer in [own.to_str().unwrap(), known.to_str().unwrap(), &print_of(&host)] {
        host.run(&["verify", "--signer", signer]).ok();
        host.run(&["verify", "--all", "--signer", signer]).ok();
    }
    let other = ring.path("other.pub");
    let done = host.run(&["verify", "--signer", other.to_str().unwrap()]).exits(Exit::Verification);
    assert!(done.out.contains("who is not one of the signers"), "{}", done.out);
    assert!(done.out.contains("hint: the signer is the SSH host key"), "{}", done.out);
    // That somebody named another signer is no damage: it is not held against the snapshot.
    host.run(&["verify", "--all", "--signer", other.to_str().unwrap()]).exits(Exit::Verification);
    let status = host.run(&["status", "--json"]).json();
    assert_eq!(status["stores"][0]["damaged"], serde_json::json!([]));
    for (signer, words) in [
        (ring.path("rsa.pub").to_str().unwrap(), "contains no ed25519 key"),
        ("/nowhere", "No such file"),
        ("SHA256:short", "No such file"),
    ] {
        refused(&host.run(&["verify", "--signer", signer]), Exit::Usage, words);
    }
}

#[test]
fn a_host_that_does_not_sign_says_nothing_unless_it_is_asked() {
    let host = bare();
    host.configure("backup: main\n\tsign no\n");
    host.run(&["backup"]).ok();
    assert!(!host.run(&["verify"]).ok().out.contains("signed"));
    let print = print_of(&host);
    let done = host.run(&["verify", "--signer", &print]).exits(Exit::Verification);
    assert!(done.out.contains("is not signed"), "{}", done.out);

    let host = bare();
    fs::remove_file(host.root.join("etc/ssh/ssh_host_ed25519_key")).unwrap();
    host.run(&["backup"]).ok();
    assert!(!host.run(&["verify"]).ok().out.contains("signed"));

    // A key that is there and cannot be used is something to act on.
    host.write("etc/ssh/ssh_host_ed25519_key", "junk");
    let mut host = host;
    host.now = "2026-11-23T00:00:00Z".into();
    let done = host.run(&["backup"]).exits(Exit::Problems);
    assert!(done.out.contains("the snapshot is not signed"), "{}", done.out);
}

#[test]
fn a_sealed_snapshot_is_signed_too_and_a_locked_key_signs_nothing() {
    let ring = Keyring::new();
    let host = sealing_host(&[&format!("recipient {}", ring.age("age.txt"))]);
    backup(&host);
    assert!(checked_by_ssh(&host, &host.snapshot_file()));
    let key = ring.path("age.txt");
    let done = host.run(&["verify", "--deep", "--identity", key.to_str().unwrap()]).ok();
    assert!(done.out.contains("signed by"), "{}", done.out);

    let host = bare();
    ring.ssh("locked", "ed25519", "a passphrase");
    host.write("etc/ssh/ssh_host_ed25519_key", fs::read(ring.path("locked")).unwrap());
    let done = host.run(&["backup"]).exits(Exit::Problems);
    assert!(done.out.contains("is protected by a passphrase"), "{}", done.out);
}

/// Four days in the store of a host that keeps all.
fn four_days() -> (TestHost, Vec<PathBuf>) {
    let mut host = bare();
    for day in 1..=4 {
        host.now = format!("2026-11-0{day}T00:00:00Z");
        host.run(&["backup"]).ok();
    }
    let files = snapshot_files(&host.root.join("var/lib/proxmox-backup-extra/store"));
    assert_eq!(files.len(), 4);
    (host, files)
}

#[test]
fn a_link_that_was_replaced_or_is_gone_shows() {
    let (host, files) = four_days();
    host.run(&["verify", "--all"]).ok();
    for pair in files.windows(2) {
        let sum = tool(
            Path::new("/"),
            &["sh", "-c", &format!("tar -xOf {} MANIFEST.json | sha256sum", pair[0].display())],
        );
        assert_eq!(manifest(&pair[1])["parent"]["sha256"], sum.split(' ').next().unwrap());
    }
    // Another snapshot under the second one's name, sound in itself and signed by the same host.
    let mut other = bare();
    other.now = "2026-11-02T00:00:00Z".into();
    other.run(&["backup", "--note", "another"]).ok();
    let kept = fs::read(&files[1]).unwrap();
    fs::copy(other.snapshot_file(), &files[1]).unwrap();
    let done = host.run(&["verify", "--all"]).exits(Exit::Verification);
    assert!(done.out.contains("it was replaced") && done.out.contains("2026-11-02"), "{}", done.out);
    fs::write(&files[1], kept).unwrap();
    host.run(&["verify", "--all"]).ok();

    fs::remove_file(&files[0]).unwrap();
    host.run(&["verify", "--all"]).ok();
    fs::remove_file(&files[2]).unwrap();
    let done = host.run(&["verify", "--all"]).exits(Exit::Verification);
    assert!(done.out.contains("2026-11-03T00:00:00Z: is missing"), "{}", done.out);
    // Where retention may take them, a gap says nothing.
    host.configure("dir: local\n\tpath /var/lib/proxmox-backup-extra/store\n\tkeep-last 10\n");
    host.run(&["verify", "--all"]).ok();
}

#[test]
fn a_snapshot_that_this_host_did_not_sign_is_never_taken_without_a_word() {
    let mut host = bare();
    host.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    let warns = |host: &TestHost, word: &str, what: &str| {
        let plan = host.run(&["restore", word, "--dry-run", "--json"]).ok().json();
        let problems = plan["problems"].to_string();
        let text = host.run(&["restore", word, "--dry-run"]).ok().out;
        let to = host.beside("out");
        let out = host.run(&["restore", word, "--to", to.to_str().unwrap(), "--json"]).json();
        fs::remove_dir_all(&to).unwrap();
        if what.is_empty() {
            assert!(problems == "null" && !text.contains("warning:"), "{text}");
            assert_eq!(out["problems"], serde_json::json!([]));
        } else {
            assert!(problems.contains(what) && text.contains(what), "{what}: {problems} {text}");
            assert!(out["problems"].to_string().contains(what), "{out}");
        }
    };
    let key = host.root.join("etc/ssh/ssh_host_ed25519_key");
    let (own, away) = (print_of(&host), host.beside("away"));
    host.run(&["backup"]).ok();
    warns(&host, "latest", "");
    // Made elsewhere, with the machine id of this host and without its key.
    fs::rename(&key, &away).unwrap();
    host.now = "2026-11-22T15:17:50Z".to_owned();
    host.run(&["backup"]).ok();
    warns(&host, "latest", &format!("is not signed; 1 neighbour of it in the store signed by {own}"));
    fs::rename(&away, &key).unwrap();
    warns(&host, "latest", &format!("is not signed; this host signs with {own}; 1 neighbour"));
    warns(&host, "latest~1", "");
    // By another key.
    let ring = Keyring::new();
    ring.ssh("other", "ed25519", "");
    fs::rename(&key, &away).unwrap();
    fs::copy(ring.path("other"), &key).unwrap();
    host.now = "2026-11-22T15:17:59Z".to_owned();
    host.run(&["backup"]).ok();
    fs::rename(&away, &key).unwrap();
    warns(&host, "latest", "is signed by SHA256:");
    host.write("etc/hosts", "127.0.0.1 other\n");
    let done = host.run(&["restore", "latest", "--yes", "--only", "hosts", "--json"]).exits(Exit::Problems);
    assert!(done.json()["problems"].to_string().contains("is signed by SHA256:"), "{}", done.out);
    // The files themselves, without a store beside them.
    let files = snapshot_files(&host.root.join("var/lib/proxmox-backup-extra/store"));
    warns(&host, files[0].to_str().unwrap(), "");
    warns(&host, files[1].to_str().unwrap(), "is not signed; this host signs with");
    warns(&host, files[2].to_str().unwrap(), "this host signs with");
    // A host that does not sign, and another installation: what they take is theirs to know.
    host.configure("backup: main\n\tsign no\n");
    warns(&host, files[1].to_str().unwrap(), "");
    host.configure("");
    host.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n");
    warns(&host, files[2].to_str().unwrap(), "");
    warns(&host, "latest", "1 neighbour of it in the store signed by");
}
