//! What may cut the admin's own connection undoes itself unless a new session confirms it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::common::{TestHost, program, tree};
use super::{picture, saved};

pub fn start(host: &TestHost, words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(program()).arg("--root").arg(&host.root);
    command
}

pub fn run(host: &TestHost, words: &[&str], args: &[&str]) -> Output {
    start(host, words).args(args).output().unwrap()
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub fn network(host: &TestHost) -> Vec<u8> {
    fs::read(host.root.join("etc/network/interfaces")).unwrap()
}

pub fn armed_file(host: &TestHost) -> std::path::PathBuf {
    host.root.join("var/lib/proxmox-backup-extra/undo/armed.json")
}

pub fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub const RESTORE: [&str; 5] = ["restore", "latest", "--yes", "--only", "network"];

#[test]
fn nobody_confirms_and_it_is_undone() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let before = picture(&host);
    let done = run(&host, &["env"], &[&RESTORE[..], &["--confirm-within", "2s"]].concat());
    assert_eq!(done.status.code(), Some(5), "{}", text(&done));
    assert!(text(&done).contains("nobody confirmed it"), "{}", text(&done));
    tree::assert_same(&picture(&host), &before);
    assert!(!armed_file(&host).exists());
    let log = run(&host, &["env"], &["log", "--restores"]);
    assert!(text(&log).contains("undone by itself"), "{}", text(&log));
}

#[test]
fn the_one_who_waits_is_killed_and_it_is_undone_all_the_same() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let before = picture(&host);
    let args = [&RESTORE[..], &["--confirm-within", "2s"]].concat();
    let restore = start(&host, &["env"]).args(args).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("armed", || armed_file(&host).exists() && network(&host).len() > 10);
    let root = host.root.to_str().unwrap().to_owned();
    let is_waiting = |pid: &str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(&root) && line.contains("--wait")
    };
    let names =
        fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let waiting: Vec<String> = names.filter(|pid| is_waiting(pid)).collect();
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    let pid = nix::unistd::Pid::from_raw(waiting[0].parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let done = restore.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(5), "{}", text(&done));
    assert!(text(&done).contains("nobody confirmed it"), "{}", text(&done));
    tree::assert_same(&picture(&host), &before);
    assert!(!armed_file(&host).exists());
}

#[test]
fn a_new_session_confirms_and_the_one_that_applied_cannot() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let args = [&RESTORE[..], &["--confirm-within", "60s"]].concat();
    let mut restore = start(&host, &["env"]).args(args).spawn().unwrap();
    wait_for("armed", || armed_file(&host).exists() && network(&host).len() > 10);
    let same = run(&host, &["env"], &["confirm"]);
    assert_eq!(same.status.code(), Some(2), "{}", text(&same));
    let other = run(&host, &["setsid", "--wait"], &["confirm"]);
    // A host whose kernel counts logins knows that a new terminal is no new login.
    let audited =
        fs::read_to_string("/proc/self/sessionid").is_ok_and(|id| id.trim() != u32::MAX.to_string());
    if audited {
        run(&host, &["env"], &["undo"]);
        let _ = restore.wait();
        return;
    }
    assert_eq!(other.status.code(), Some(0), "{}", text(&other));
    assert_eq!(restore.wait().unwrap().code(), Some(0));
    assert!(!armed_file(&host).exists());
    assert!(network(&host).len() > 10);
    assert_eq!(run(&host, &["env"], &["undo"]).status.code(), Some(0));
    assert_eq!(network(&host), b"auto lo\n");
}

#[test]
fn a_power_cut_while_it_is_armed_is_undone_at_the_next_boot() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let before = picture(&host);
    let args = [&RESTORE[..], &["--confirm-within", "120s"]].concat();
    let mut restore = start(&host, &["env"]).args(args).spawn().unwrap();
    wait_for("armed", || armed_file(&host).exists() && network(&host).len() > 10);
    // The power cut takes all of them.
    let _ = restore.kill();
    let _ = restore.wait();
    for pid in waiters(&host.root) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    // What a boot runs does nothing while it is the same boot ...
    assert_eq!(run(&host, &["env"], &["undo", "--armed"]).status.code(), Some(0));
    assert!(network(&host).len() > 10);
    // ... and undoes in another one.
    let text = fs::read_to_string(armed_file(&host)).unwrap();
    let mut armed: serde_json::Value = serde_json::from_str(&text).unwrap();
    armed["boot"] = "another boot".into();
    fs::write(armed_file(&host), armed.to_string()).unwrap();
    assert_eq!(run(&host, &["env"], &["undo", "--armed"]).status.code(), Some(0));
    tree::assert_same(&picture(&host), &before);
    assert!(!armed_file(&host).exists());
}

/// Processes of the program that wait for this root.
fn waiters(root: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let ours = words.contains(&root.as_os_str().as_encoded_bytes()) && words.contains(&&b"--wait"[..]);
        if let (true, Ok(pid)) = (ours, entry.file_name().to_string_lossy().parse()) {
            found.push(pid);
        }
    }
    assert!(!found.is_empty(), "nobody waits");
    found
}
