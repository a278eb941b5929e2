//! Keys: made, added, shown, printed, proven; and the person at the terminal, played on a real one (`script`).

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pbx_config::model::problem::Exit;

use crate::common::{TestHost, program};
use crate::{Keyring, PLANTED, backup, refused, sealing_host, tool};

const PASSPHRASE: &str = "gable thirsty omen lantern squash";

fn configuration(host: &TestHost) -> String {
    fs::read_to_string(host.root.join("etc/proxmox-backup-extra/pbx-config.cfg")).unwrap()
}

/// Waits until the program sleeps each time one looks: after its question it throws away what was typed ahead.
fn until_it_reads(host: &TestHost) {
    const LOOKS: usize = 4;
    let root = host.root.as_os_str().as_encoded_bytes();
    let is_ours = |pid: &Path| {
        let line = fs::read(pid.join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words[0] == program().as_os_str().as_encoded_bytes() && words.contains(&root)
    };
    let sleeps = |pid: &Path| fs::read_to_string(pid.join("stat")).is_ok_and(|stat| stat.contains(") S "));
    let pids = || fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let mut seen = 0;
    for _ in 0..600 {
        seen = if pids().filter(|pid| is_ours(pid)).all(|pid| sleeps(&pid)) { seen + 1 } else { 0 };
        if seen == LOOKS {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the program on a terminal of its own, and types each answer when its question is there.
/// What the terminal showed, and the exit code.
fn typed(host: &TestHost, args: &[&str], talk: &[(&str, &str)]) -> (String, i32) {
    // Without `exec` a shell that stays between them answers Ctrl-C with its own code, as dash does.
    let line = format!("exec {} --root {} {}", program().display(), host.root.display(), args.join(" "));
    let shown = host.beside("terminal");
    let _ = fs::remove_file(&shown);
    let mut child = crate::common::tool("setsid")
        .args(["-w", "script", "-qefc", &line, shown.to_str().unwrap()])
        .env("HOME", host.beside("home"))
        .env_remove("PBX_IDENTITY_FILE")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("installed");
    let mut input = child.stdin.take().unwrap();
    let read = || String::from_utf8_lossy(&fs::read(&shown).unwrap_or_default()).into_owned();
    let mut seen = 0;
    for (question, answer) in talk {
        // Answered when it is asked: a password typed ahead is thrown away, as `sudo` does.
        for n in 0.. {
            if let Some(at) = read()[seen..].find(question) {
                seen += at + question.len();
                break;
            }
            assert!(n < 600, "it never asked {question}: {}", read());
            std::thread::sleep(Duration::from_millis(50));
        }
        until_it_reads(host);
        input.write_all(answer.as_bytes()).unwrap();
        input.flush().unwrap();
    }
    let status = child.wait().unwrap();
    drop(input);
    (read(), status.code().unwrap())
}

#[test]
fn a_new_key_goes_where_it_is_told_and_stays_nowhere_else() {
    let host = TestHost::golden("bare");
    host.configure(
        "# mine\nbackup: main\n\tskip state\n\ndir: local\n\tpath /var/lib/proxmox-backup-extra/store\n",
    );
    let file = host.beside("key.txt");
    let words = ["key", "generate", "--output", file.to_str().unwrap(), "--add"];
    let done = host.run(&words).ok();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let secret = text.lines().last().unwrap();
    assert!(secret.starts_with("AGE-SECRET-KEY-1") && !done.out.contains(secret), "{}", done.out);
    let recipient = tool(host.beside("").as_path(), &["age-keygen", "-y", "key.txt"]);
    let expected = format!(
        "# mine\nbackup: main\n\tskip state\n\trecipient {}\n\ndir: local\n\tpath /var/lib/proxmox-backup-extra/store\n",
        recipient.trim()
    );
    assert_eq!(configuration(&host), expected);
    refused(&host.run(&words), Exit::Failed, "cannot write");
    let ours = host.root.join("etc/proxmox-backup-extra/key.txt");
    let beside = host.run(&["key", "generate", "--output", ours.to_str().unwrap()]);
    refused(&beside, Exit::Usage, "the key would be on the same disk as what it opens");
    assert_eq!(configuration(&host), expected);

    let printed = host.run(&["key", "generate", "--json"]).ok().json();
    assert!(printed["identity"].as_str().unwrap().starts_with("AGE-SECRET-KEY-1"));
    let all = tool(host.beside("").as_path(), &["grep", "-rl", "AGE-SECRET-KEY-1", "."]);
    assert_eq!(all, "./key.txt\n", "the only place that was named");
}

#[test]
fn a_secret_key_is_never_taken_for_a_recipient() {
    let ring = Keyring::new();
    ring.age("age.txt");
    let secret = fs::read_to_string(ring.path("age.txt")).unwrap();
    let secret = secret.lines().last().unwrap().to_owned();
    let host = TestHost::golden("bare");
    let ring_file = ring.path("age.txt");
    for words in [
        vec!["key", "add", &secret],
        vec!["key", "add", &secret, "--json"],
        vec!["key", "add", "recipient", &secret],
        vec!["key", "add", ring_file.to_str().unwrap()],
        vec!["key", "generate", "--add", "--output", "/nowhere/at/all"],
    ] {
        let done = host.run(&words);
        assert!(matches!(done.exit, Exit::Usage | Exit::Failed), "{words:?}");
        assert!(
            !(done.out.clone() + &done.err).contains(&secret[..24]),
            "{words:?}: {}{}",
            done.out,
            done.err
        );
        assert!(!host.root.join("etc/proxmox-backup-extra/pbx-config.cfg").exists(), "{words:?}");
    }
}

#[test]
fn recipients_are_added_once_as_words_or_as_a_file() {
    let ring = Keyring::new();
    let (age, ssh) = (ring.age("age.txt"), ring.ssh("ssh", "ed25519", ""));
    let host = TestHost::golden("bare");
    let words: Vec<&str> = ["key", "add"].into_iter().chain(ssh.split(' ')).collect();
    host.run(&words).ok();
    assert!(host.run(&words).ok().out.contains("it was there already"));
    let file = ring.path("ssh.pub");
    assert!(host.run(&["key", "add", file.to_str().unwrap()]).ok().out.contains("already"));
    let identity = ring.path("age.txt");
    let done = host.run(&["key", "from-identity", identity.to_str().unwrap(), "--add"]).ok();
    assert!(done.out.starts_with(&age), "{}", done.out);
    let ssh = ssh.rsplit_once(' ').unwrap().0;
    assert_eq!(configuration(&host), format!("backup: main\n\trecipient {ssh}\n\trecipient {age}\n"));
    let shown = host.run(&["key", "show", "--json"]).exits(Exit::Problems).json();
    assert_eq!(shown["recipients"].as_array().unwrap().len(), 2);
    let done = host.run(&["key", "add", "./nowhere.pub"]);
    refused(&done, Exit::Usage, "cannot read ./nowhere.pub: No such file");
    refused(
        &host.run(&["key", "add", "/dev/zero"]),
        Exit::Usage,
        "cannot read /dev/zero: not a regular file",
    );
    // What is the cluster's stays the cluster's.
    let host = TestHost::golden("pve-single");
    host.mount(&[]);
    fs::write(host.mount_point().join("pbx-config.cfg"), "backup: main\n\tskip state\n").unwrap();
    refused(&host.run(&["key", "add", &age]), Exit::Usage, "for all nodes");
}

#[test]
fn a_key_that_was_not_in_hand_for_long_is_missed() {
    let ring = Keyring::new();
    let mut host = sealing_host(&[&format!("recipient {}", ring.age("age.txt"))]);
    ring.age("other.txt");
    let (key, other) = (ring.path("age.txt"), ring.path("other.txt"));
    backup(&host);
    refused(
        &host.run(&["key", "prove", "--identity", other.to_str().unwrap()]),
        Exit::Unseal,
        "none of the identities",
    );
    host.run(&["key", "show"]).exits(Exit::Problems);
    host.run(&["key", "prove", "--identity", key.to_str().unwrap()]).ok();
    let shown = host.run(&["key", "show"]).ok().out;
    assert!(shown.contains("\nchecked 2026-11-22T15:17:40Z: SHA256:"), "{shown}");
    host.run(&["key", "show"]).ok();
    host.run(&["backup"]).ok();
    host.now = "2027-02-20T00:00:00Z".into();
    host.run(&["backup"]).ok();
    host.now = "2027-02-24T00:00:00Z".into();
    let late = host.run(&["backup"]).exits(Exit::Problems);
    assert!(late.out.contains("was last checked 93 days ago"), "{}", late.out);
    // Another recipient: that the old key is there says nothing of it.
    host.run(&["key", "prove", "--identity", key.to_str().unwrap()]).ok();
    host.configure(&format!("backup: main\n\trecipient {}\n", ring.age("new.txt")));
    let shown = host.run(&["key", "show"]).exits(Exit::Problems);
    assert!(shown.out.contains("the keys of the current recipients"), "{}", shown.out);
    refused(&TestHost::golden("bare").run(&["key", "prove"]), Exit::Usage, "does not encrypt");
}

/// The program, in a session of its own and with a home.
fn at_home(host: &TestHost, home: &std::path::Path, words: &[&str]) -> (Option<i32>, String) {
    let mut command = crate::common::tool("setsid");
    command.arg("-w").arg(program()).arg("--root").arg(&host.root).args(words);
    let done =
        command.env("HOME", home).env_remove("PBX_IDENTITY_FILE").stdin(Stdio::null()).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_proof_is_of_the_key_that_was_named_and_not_of_one_that_lies_here() {
    let ring = Keyring::new();
    let recipient = ring.ssh("id_ed25519", "ed25519", "");
    ring.age("other.txt");
    let host = sealing_host(&[&format!("recipient {recipient}")]);
    let home = host.beside("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    fs::copy(ring.path("id_ed25519"), home.join(".ssh/id_ed25519")).unwrap();
    let (own, other) = (ring.path("id_ed25519"), ring.path("other.txt"));
    let (exit, err) = at_home(&host, &home, &["key", "prove", "--identity", other.to_str().unwrap()]);
    assert_eq!(exit, Some(12), "{err}");
    assert_eq!(at_home(&host, &home, &["key", "prove", "--identity", own.to_str().unwrap()]).0, Some(0));
    // To open a snapshot any key will do.
    host.run(&["backup"]).ok();
    let opened =
        at_home(&host, &home, &["cat", "latest", "etc/hostname", "--identity", other.to_str().unwrap()]);
    assert_eq!(opened.0, Some(0), "{}", opened.1);
}

#[test]
fn what_a_passphrase_opens_asks_for_it_and_for_no_file() {
    let host = sealing_host(&[
        "recipient age143k6883aqj376yctwpnaewvw9aw397f7mt722lvsjz9kd4xzcd6szpytr0 $scrypt$ln=18,r=8,p=1$nqxXeSr4IhB1RHIflR7Ulw",
    ]);
    let shown = host.run(&["key", "show"]).exits(Exit::Problems).out;
    assert!(shown.contains("hint: on a terminal: `pbx-config key prove` asks for the passphrase"), "{shown}");
    backup(&host);
    let home = host.beside("");
    let (exit, err) = at_home(&host, &home, &["cat", "latest", "etc/hostname"]);
    assert!(
        exit == Some(12) && err.contains("hint: run it on a terminal to be asked for the passphrase"),
        "{err}"
    );
    let (exit, deep) = at_home(&host, &home, &["verify", "--deep"]);
    assert!(
        exit == Some(12) && deep.contains("FAILED") && deep.contains("hint: run it on a terminal"),
        "{deep}"
    );
}

#[test]
fn a_sheet_of_paper_has_the_key_as_text_and_as_a_code() {
    let ring = Keyring::new();
    let recipient = ring.age("age.txt");
    let secret = fs::read_to_string(ring.path("age.txt")).unwrap();
    let host = TestHost::golden("bare");
    let file = ring.path("age.txt");
    let sheet = host.run(&["key", "paper", file.to_str().unwrap()]).ok().out;
    assert!(sheet.contains(secret.lines().last().unwrap()) && sheet.contains(&recipient), "{sheet}");
    assert!(sheet.lines().filter(|line| line.contains("█")).count() > 15, "{sheet}");
    ring.ssh("ssh", "ed25519", "");
    let ssh = ring.path("ssh");
    refused(&host.run(&["key", "paper", ssh.to_str().unwrap()]), Exit::Usage, "too long");
}

#[test]
fn without_a_terminal_what_asks_says_what_to_do_instead() {
    // In a session of its own: no terminal of whoever runs the tests.
    let host = TestHost::golden("bare");
    for (words, said) in [
        (&["key", "setup"][..], "key generate --output FILE --add"),
        (&["key", "generate", "--passphrase"], "ssh -t"),
        (&["key", "paper"], "ssh -t"),
    ] {
        let root = host.root.to_str().unwrap();
        let mut command = crate::common::tool("setsid");
        command.arg("-w").arg(program()).args(["--root", root]).args(words).stdin(Stdio::null());
        let done = command.output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{err}");
        assert!(err.contains("no terminal") && err.contains(said), "{err}");
    }
}

#[test]
fn a_passphrase_makes_the_key_and_opens_the_file_on_any_machine() {
    let host = sealing_host(&[]);
    let twice = [
        ("cancels): ", "short\n"),
        ("too weak", ""),
        ("cancels): ", &format!("{PASSPHRASE}\n")),
        ("Repeat the passphrase: ", &format!("{PASSPHRASE}x\n")),
        ("not the same", ""),
        ("cancels): ", &format!("{PASSPHRASE}\n")),
        ("Repeat the passphrase: ", &format!("{PASSPHRASE}\n")),
    ];
    let (shown, exit) = typed(&host, &["key", "generate", "--passphrase", "--add"], &twice);
    assert_eq!(exit, 0, "{shown}");
    assert!(!shown.contains(PASSPHRASE) && !shown.contains("short"), "it is not shown: {shown}");
    assert!(configuration(&host).contains(" $scrypt$ln=18,r=8,p=1$"), "{}", configuration(&host));
    backup(&host);
    let snap = host.snapshot_file();
    // A machine that has nothing but the file.
    let away = TestHost::golden("bare");
    let file = away.beside("away.pbx.tar");
    fs::copy(snap, &file).unwrap();
    let words = ["cat", file.to_str().unwrap(), "etc/planted"];
    let talk = [
        ("Passphrase or identity of away.pbx.tar", "wrong\n"),
        ("this passphrase does not open it", ""),
        ("cancels): ", &format!("  {PASSPHRASE} \n")),
    ];
    let (shown, exit) = typed(&away, &words, &talk);
    assert_eq!(exit, 0, "{shown}");
    assert!(shown.contains(PLANTED) && !shown.contains(PASSPHRASE), "{shown}");
    for (key, exit) in [("\x04", 12), ("\x03", 1)] {
        let (shown, code) = typed(&away, &words, &[("cancels): ", key)]);
        assert_eq!(code, exit, "{shown}");
        assert!(!shown.contains(PLANTED), "{shown}");
    }
}

#[test]
fn an_identity_or_what_unlocks_one_is_asked_for() {
    let ring = Keyring::new();
    let (age, ssh) = (ring.age("age.txt"), ring.ssh("ssh", "ed25519", "of the ssh key"));
    ring.age("other.txt");
    let last = |name: &str| fs::read_to_string(ring.path(name)).unwrap().lines().last().unwrap().to_owned();
    let host = sealing_host(&[&format!("recipient {age}"), &format!("recipient {ssh}")]);
    backup(&host);
    let words = ["cat", "latest", "etc/planted"];
    let talk = [
        ("Identity (AGE-SECRET-KEY-1...) of ", "nonsense\n"),
        ("this is not an identity", ""),
        ("cancels): ", &format!("{}\n", last("other.txt"))),
        ("this key does not open it", ""),
        ("cancels): ", &format!("{}\n", last("age.txt"))),
    ];
    let (shown, exit) = typed(&host, &words, &talk);
    assert!(exit == 0 && shown.contains(PLANTED) && !shown.contains("SECRET-KEY-1Q"), "{shown}");

    let locked = ring.path("ssh");
    let with = [&words[..], &["--identity", locked.to_str().unwrap()]].concat();
    let talk =
        [("Passphrase of ssh", "wrong\n"), ("does not unlock it", ""), ("cancels): ", "of the ssh key\n")];
    let (shown, exit) = typed(&host, &with, &talk);
    assert!(exit == 0 && shown.contains(PLANTED), "{shown}");

    // The person's own SSH key, where it fits, without a word.
    let home = host.beside("home/.ssh");
    fs::create_dir_all(&home).unwrap();
    fs::copy(&locked, home.join("id_ed25519")).unwrap();
    let (shown, exit) = typed(&host, &words, &[("Passphrase of id_ed25519", "of the ssh key\n")]);
    assert!(exit == 0 && shown.contains(PLANTED), "{shown}");
}

#[test]
fn the_guided_way_ends_with_a_proof() {
    let host = sealing_host(&[]);
    let stick = host.beside("stick.txt");
    let file = stick.to_str().unwrap().to_owned();
    let root = host.root.clone();
    // The key is read from the stick when the proof asks for it.
    let read = move || fs::read_to_string(&stick).unwrap().lines().last().unwrap().to_owned();
    let (shown, exit) = typed(
        &host,
        &["key", "setup"],
        &[("1, 2 or 3", "1\n"), ("file on a USB stick", &format!("{file}\n")), ("cancels): ", "\x04")],
    );
    assert_eq!(exit, 12, "{shown}");
    assert!(
        shown.contains("the key was not checked") && shown.contains("key prove --identity FILE"),
        "{shown}"
    );
    assert!(configuration(&host).contains("\trecipient age1"));
    let key = fs::read_to_string(host.beside("stick.txt")).unwrap();
    assert!(key.contains(&read()) && root.exists());
    let (shown, exit) = typed(
        &host,
        &["key", "setup"],
        &[
            ("1, 2 or 3", "3\n"),
            ("public key: ", "junk\n"),
            ("is not a recipient", ""),
            ("1, 2 or 3", "3\n"),
            (
                "public key: ",
                &format!("{}\n", configuration(&host).split("recipient ").nth(1).unwrap().trim()),
            ),
            ("cancels): ", &format!("{}\n", read())),
        ],
    );
    assert_eq!(exit, 0, "{shown}");
    host.run(&["backup"]).ok();
}
