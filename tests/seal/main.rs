//! Sealed snapshots, beside the real `age` and `ssh-keygen`: what we seal they open, what they seal we open, and
//! nothing of the host's secrets is ever in the clear on a disk.
//! Needs the Debian packages age, openssh-client, zstd and tar.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod keys;
mod sign;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{Done, TestHost};
use pbx_config::archive::writer::MANIFEST_NAME;
use pbx_config::model::problem::Exit;
use serde_json::Value;

/// Planted on the host; must never be found in the clear.
const PLANTED: &str = "planted-secret-7f3a9c";

/// A folder with keys as their own tools make them.
struct Keyring {
    dir: tempfile::TempDir,
}

impl Keyring {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `age-keygen`; the recipient.
    fn age(&self, name: &str) -> String {
        tool(self.dir.path(), &["age-keygen", "-o", name]);
        tool(self.dir.path(), &["age-keygen", "-y", name]).trim().to_owned()
    }

    /// `ssh-keygen`; the public key.
    fn ssh(&self, name: &str, kind: &str, passphrase: &str) -> String {
        tool(
            self.dir.path(),
            &["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "someone@desk", "-f", name],
        );
        fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }
}

#[track_caller]
fn tool(dir: &Path, argv: &[&str]) -> String {
    let done = crate::common::tool(argv[0]).args(&argv[1..]).current_dir(dir).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{argv:?}: {}\n{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

/// A host with a planted secret, configured with these keys of `backup: main`.
fn sealing_host(keys: &[&str]) -> TestHost {
    let host = TestHost::golden("bare");
    host.write("etc/planted", PLANTED);
    let keys: Vec<String> = keys.iter().map(|key| format!("\t{key}\n")).collect();
    host.configure(&format!("backup: main\n\tinclude /etc/planted\n{}", keys.concat()));
    host
}

fn manifest(snap: &Path) -> Value {
    let text = tool(Path::new("/"), &["tar", "-xOf", snap.to_str().unwrap(), MANIFEST_NAME]);
    serde_json::from_str(&text).unwrap()
}

/// Every file below these folders that holds the planted secret, in the clear or as zstd would leave it.
fn leaks(folders: &[&Path]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = folders.iter().map(|folder| folder.to_path_buf()).collect();
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            let bytes = fs::read(&path).unwrap();
            if bytes.windows(PLANTED.len()).any(|window| window == PLANTED.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

/// A backup whose only problem is that nobody has proven a key yet.
#[track_caller]
fn backup(host: &TestHost) -> Done {
    let done = host.run(&["backup", "--json"]).exits(Exit::Problems);
    let problems = done.json()["problems"].as_array().unwrap().clone();
    let worth: Vec<_> = problems.iter().filter(|one| one["severity"] != "notice").collect();
    assert_eq!(worth.len(), 1, "{problems:#?}");
    assert!(worth[0]["what"].as_str().unwrap().contains("was never checked"), "{problems:#?}");
    done
}

fn cat(host: &TestHost, more: &[&str]) -> Done {
    host.run(&[&["cat", "latest", "etc/planted"], more].concat())
}

#[track_caller]
fn refused(done: &Done, exit: Exit, words: &str) {
    assert_eq!(done.exit, exit, "{}\n{}", done.out, done.err);
    assert!(done.err.contains(words) && done.err.contains("hint: "), "{words}: {}", done.err);
}

#[test]
fn what_is_sealed_opens_with_each_of_its_keys_and_with_no_other() {
    let ring = Keyring::new();
    let (age, ed25519) = (ring.age("age.txt"), ring.ssh("ed25519", "ed25519", ""));
    let rsa = ring.ssh("rsa", "rsa", "");
    ring.age("other.txt");
    let host = sealing_host(&[
        "compression none",
        &format!("recipient {age}"),
        &format!("recipient {ed25519}"),
        &format!("recipient-file {}", "/etc/pbx-recipients"),
    ]);
    host.write("etc/pbx-recipients", format!("# of the desk\n\n{rsa}\n{age}\n"));
    let report = backup(&host);
    assert_eq!(report.json()["snapshot"]["sealed"]["recipients"], 3);
    let snap = host.snapshot_file();
    assert_eq!(leaks(&[&snap]), Vec::<PathBuf>::new());

    // The fingerprints are those that ssh-keygen prints.
    let prints = manifest(&snap)["sealed"]["fingerprints"].clone();
    let printed = tool(ring.dir.path(), &["ssh-keygen", "-l", "-f", "ed25519.pub"]);
    assert_eq!(printed.split(' ').nth(1), prints[1].as_str());

    for key in ["age.txt", "ed25519", "rsa"] {
        let path = ring.path(key);
        let done = cat(&host, &["--identity", path.to_str().unwrap()]).ok();
        assert_eq!(done.out, PLANTED, "{key}");
        // The real tool opens it, too.
        let by_age = format!(
            "tar -xOf {} payload.tar.age | age -d -i {} | tar -xO etc/planted",
            snap.display(),
            path.display()
        );
        assert_eq!(tool(Path::new("/"), &["sh", "-c", &by_age]), PLANTED, "{key}");
    }
    let other = ring.path("other.txt");
    refused(
        &cat(&host, &["--identity", other.to_str().unwrap()]),
        Exit::Unseal,
        "none of the identities can open it",
    );
}

#[test]
fn without_a_key_all_that_can_be_proven_is_proven_and_the_rest_refused() {
    let ring = Keyring::new();
    let host = sealing_host(&[&format!("recipient {}", ring.age("age.txt"))]);
    backup(&host);
    let verified = host.run(&["verify"]).ok();
    assert!(verified.out.contains("(encrypted: contents not verified)"), "{}", verified.out);
    assert_eq!(host.run(&["verify", "--json"]).ok().json()[0]["contents"], false);
    let shown = host.run(&["show", "latest"]).ok();
    assert!(shown.out.contains("encrypted  to 1 recipient: SHA256:"), "{}", shown.out);
    let to = host.beside("to");
    let to = to.to_str().unwrap();
    for words in [
        &["verify", "--deep"][..],
        &["show", "latest", "--files"],
        &["cat", "latest", "etc/planted"],
        &["restore", "latest", "--to", to],
        &["restore", "latest", "--to", to, "--dry-run"],
        &["decrypt", "latest", "--to", to],
    ] {
        let done = host.run(words);
        assert_eq!(done.exit, Exit::Unseal, "{words:?}: {}", done.err);
        assert!(!Path::new(to).exists(), "{words:?}");
    }
    let key = ring.path("age.txt");
    let with = ["--identity", key.to_str().unwrap()];
    for words in
        [&["verify", "--deep"][..], &["show", "latest", "--files"], &["restore", "latest", "--to", to]]
    {
        host.run(&[words, &with].concat()).ok();
    }
    assert_eq!(fs::read_to_string(Path::new(to).join("etc/planted")).unwrap(), PLANTED);
    assert_eq!(host.run(&[&["verify", "--json"], &with[..]].concat()).ok().json()[0]["contents"], true);
}

#[test]
fn a_damaged_file_and_a_wrong_key_are_told_apart() {
    let ring = Keyring::new();
    let host = sealing_host(&[&format!("recipient {}", ring.age("age.txt"))]);
    ring.age("other.txt");
    backup(&host);
    let snap = host.snapshot_file();
    let good = fs::read(&snap).unwrap();
    let at = good.windows(22).position(|window| window == b"age-encryption.org/v1\n").unwrap();
    let (key, other) = (ring.path("age.txt"), ring.path("other.txt"));
    // In the first stanza, behind the header, in the last bytes.
    let end = good.iter().rposition(|byte| *byte != 0).unwrap();
    for place in [at + 40, at + 400, end - 3] {
        let mut bad = good.clone();
        bad[place] ^= 1;
        fs::write(&snap, bad).unwrap();
        for identity in
            [&["--identity", key.to_str().unwrap()][..], &["--identity", other.to_str().unwrap()], &[]]
        {
            let done = cat(&host, identity);
            refused(&done, Exit::Verification, "pbx.tar");
            assert_eq!(done.out, "", "nothing of a damaged snapshot is shown");
            assert_eq!(host.run(&[&["verify"], identity].concat()).exit, Exit::Verification, "{place}");
        }
    }
}

#[test]
fn no_run_reads_anything_when_it_cannot_seal() {
    let host = sealing_host(&["seal yes"]);
    refused(&host.run(&["backup"]), Exit::Usage, "encryption is on, but there is not a recipient");
    let ring = Keyring::new();
    let secret = fs::read_to_string({
        ring.age("age.txt");
        ring.path("age.txt")
    });
    let secret = secret.unwrap().lines().last().unwrap().to_owned();
    for (line, words) in [
        (format!("recipient {secret}"), "pbx-config.cfg:3: backup 'main': recipient: is a secret key"),
        (format!("recipient {}", secret.to_lowercase()), "is a secret key"),
        ("recipient hunter2".to_owned(), "pbx-config.cfg:3: backup 'main': recipient: is not a recipient"),
        (
            "recipient-file /etc/none".to_owned(),
            "recipient-file: cannot read /etc/none: No such file or directory",
        ),
        ("recipient-file /etc/junk".to_owned(), "/etc/junk:2: is not a recipient"),
        ("recipient-file /etc/empty".to_owned(), "there is not a recipient: /etc/empty has none"),
        ("recipient age1nobody1qqqqqqqq".to_owned(), "its checksum is wrong"),
    ] {
        let host = sealing_host(&[&line]);
        host.write("etc/junk", "# x\n\x01\x02hunter2\n");
        host.write("etc/empty", "# nobody\n");
        for verb in [&["backup"][..], &["backup", "--dry-run"], &["config", "show"]] {
            let done = host.run(verb);
            let said = done.out.clone() + &done.err;
            assert!(
                !said.to_uppercase().contains(&secret[..30]) && !said.contains("hunter2")
                    || verb[0] == "config",
                "{said}"
            );
            if verb[0] == "backup" {
                refused(&done, Exit::Usage, words);
            }
        }
        assert!(!host.root.join("var/lib/proxmox-backup-extra/store").exists());
    }
}

#[test]
fn a_plugin_that_is_not_installed_ends_the_run_before_it_begins() {
    let host =
        sealing_host(&["recipient age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt"]);
    refused(&host.run(&["backup"]), Exit::Failed, "age-plugin-yubikey: is not installed");
}

#[test]
fn a_run_that_keeps_no_key_proves_the_stream_and_the_file() {
    let ring = Keyring::new();
    for compression in ["zstd", "none"] {
        let recipient = format!("recipient {}", ring.age(&format!("{compression}.txt")));
        let host = sealing_host(&[&recipient, "readback-key no", &format!("compression {compression}")]);
        backup(&host);
        let key = ring.path(&format!("{compression}.txt"));
        assert_eq!(cat(&host, &["--identity", key.to_str().unwrap()]).ok().out, PLANTED);
    }
}

#[test]
fn locked_keys_are_not_taken_for_wrong_ones() {
    let ring = Keyring::new();
    let host = sealing_host(&[&format!("recipient {}", ring.ssh("locked", "ed25519", "a passphrase"))]);
    backup(&host);
    let key = ring.path("locked");
    refused(
        &cat(&host, &["--identity", key.to_str().unwrap()]),
        Exit::Unseal,
        "locked: is protected by a passphrase",
    );
}

#[test]
fn a_clear_copy_is_three_files_that_only_their_owner_reads() {
    let ring = Keyring::new();
    let host = sealing_host(&[&format!("recipient {}", ring.age("age.txt"))]);
    backup(&host);
    let (to, key) = (host.beside("clear"), ring.path("age.txt"));
    let words = ["decrypt", "latest", "--to", to.to_str().unwrap(), "--identity", key.to_str().unwrap()];
    let done = host.run(&words).ok();
    assert!(done.out.contains("payload.tar.zst") && done.out.contains("all verified"), "{}", done.out);
    let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["HOWTO.txt", "MANIFEST.json", "payload.tar.zst"]);
    for name in &names {
        assert_eq!(fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name:?}");
    }
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700);
    // What HOWTO.txt says works, and the sum is the manifest's.
    let howto = fs::read_to_string(to.join("HOWTO.txt")).unwrap();
    let lines: Vec<&str> = howto.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let printed = tool(&to, &["sh", "-ec", &lines.join("\n")]);
    let manifest: Value = serde_json::from_slice(&fs::read(to.join("MANIFEST.json")).unwrap()).unwrap();
    assert!(printed.contains(manifest["payload"]["sha256"].as_str().unwrap()), "{printed}");
    assert_eq!(fs::read_to_string(to.join("files/etc/planted")).unwrap(), PLANTED);
    refused(&host.run(&words), Exit::Usage, "is not empty");
}

#[test]
fn what_age_sealed_is_opened() {
    let ring = Keyring::new();
    let mine = ring.age("mine.txt");
    let host = sealing_host(&[&format!("recipient {mine}"), "compression none"]);
    backup(&host);
    let snap = host.snapshot_file();
    let (other, ssh) = (ring.age("other.txt"), ring.ssh("ssh", "ed25519", ""));
    // The same payload, sealed by age for others; the manifest is told.
    let again = format!(
        "mkdir box && cd box && tar -xf {snap} && age -d -i {key} payload.tar.age > clear && rm payload.tar.age && \
         age -e -r {other} -r '{ssh}' -o payload.tar.age clear && rm clear && sha256sum payload.tar.age && stat -c %s payload.tar.age",
        snap = snap.display(),
        key = ring.path("mine.txt").display(),
        ssh = ssh.rsplit_once(' ').unwrap().0,
    );
    let printed = tool(ring.dir.path(), &["sh", "-ec", &again]);
    let words: Vec<&str> = printed.split_whitespace().collect();
    let path = ring.path("box/MANIFEST.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["payload"]["sha256"] = words[0].into();
    manifest["payload"]["size"] = words[2].parse::<u64>().unwrap().into();
    manifest["sealed"] = serde_json::json!({ "recipients": 2 });
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    let remade = ring.path(snap.file_name().unwrap().to_str().unwrap());
    let pack = ["tar", "--format=ustar", "-C", "box", "-cf", remade.to_str().unwrap()];
    tool(ring.dir.path(), &[&pack[..], &["MANIFEST.json", "HOWTO.txt", "payload.tar.age"]].concat());
    for key in ["other.txt", "ssh"] {
        let key = ring.path(key);
        let words = ["cat", remade.to_str().unwrap(), "etc/planted", "--identity", key.to_str().unwrap()];
        assert_eq!(host.run(&words).ok().out, PLANTED);
    }
    let words = ["verify", "--deep", remade.to_str().unwrap(), "--identity"];
    host.run(&[&words[..], &[ring.path("other.txt").to_str().unwrap()]].concat()).ok();
    let wrong = host.run(&[&words[..], &[ring.path("mine.txt").to_str().unwrap()]].concat());
    assert!(wrong.exits(Exit::Unseal).out.contains("none of the identities can open it"));
}
