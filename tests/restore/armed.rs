//! What may cut the admin's own connection undoes itself unless a new session confirms it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::common::{TestHost, program, tree};
use super::{picture, saved};

pub fn start(host: &TestHost, words: &[&str]) -> Command {
    let mut command = crate::common::tool(words[0]);
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
    crate::common::wait_until(what, is_so);
}

pub const RESTORE: [&str; 5] = ["restore", "latest", "--yes", "--only", "network"];

#[test]
fn nobody_confirms_and_it_is_undone() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let before = picture(&host);
    let done = run(&host, &["env"], &[&RESTORE[..], &["--confirm-within", "2s"]].concat());
    assert_eq!(done.status.code(), Some(5), "{}", text(&done));
    assert!(text(&done).contains("it was not confirmed"), "{}", text(&done));
    tree::assert_same(&picture(&host), &before);
    assert!(!armed_file(&host).exists());
    let log = run(&host, &["env"], &["log", "--restores"]);
    assert!(text(&log).contains("rolled back automatically"), "{}", text(&log));
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
    assert!(text(&done).contains("it was not confirmed"), "{}", text(&done));
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
    kill_waiters(&host);
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

#[test]
fn a_folder_that_holds_something_of_others_by_now_does_not_keep_it_armed() {
    let host = saved("pbs");
    fs::remove_dir_all(host.root.join("etc/network")).unwrap();
    let args = [&RESTORE[..], &["--confirm-within", "1s"]].concat();
    let restore = start(&host, &["env"]).args(args).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("armed", || armed_file(&host).exists() && host.root.join("etc/network/interfaces").exists());
    host.write("etc/network/ifstate", "lo=lo\n");
    let done = restore.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(5), "{}", text(&done));
    assert!(!armed_file(&host).exists());
    assert!(!host.root.join("etc/network/interfaces").exists());
    assert_eq!(fs::read(host.root.join("etc/network/ifstate")).unwrap(), b"lo=lo\n");
    // The next one is not kept out.
    host.write("etc/hosts", "changed\n");
    let again = run(&host, &["env"], &["restore", "latest", "--yes", "--only", "hosts"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
}

#[test]
fn what_was_changed_while_it_was_armed_is_put_back_and_a_copy_is_kept() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let before = picture(&host);
    let args = [&RESTORE[..], &["--confirm-within", "1s"]].concat();
    let mut restore = start(&host, &["env"]).args(args).spawn().unwrap();
    wait_for("armed", || armed_file(&host).exists() && network(&host).len() > 10);
    let mine = [network(&host), b"# mine\n".to_vec()].concat();
    host.write("etc/network/interfaces", &mine);
    assert_eq!(restore.wait().unwrap().code(), Some(5));
    tree::assert_same(&picture(&host), &before);
    assert!(!armed_file(&host).exists());
    let id = armed_file(&host).with_file_name("");
    let mut ids = fs::read_dir(id).unwrap().flatten();
    let found = ids.next().unwrap().path().join("found");
    let copy = fs::read_dir(found).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read(copy).unwrap(), mine);
    let log = run(&host, &["env"], &["log", "--restores"]);
    assert!(text(&log).contains("of 1 path that had changed since there are copies"), "{}", text(&log));
}

#[test]
fn when_the_one_who_waits_is_killed_the_one_who_watches_undoes() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let before = picture(&host);
    let args = [&RESTORE[..], &["--confirm-within", "2s"]].concat();
    let mut restore = start(&host, &["env"]).args(args).spawn().unwrap();
    wait_for("armed", || armed_file(&host).exists() && network(&host).len() > 10);
    kill_waiters(&host);
    assert_eq!(restore.wait().unwrap().code(), Some(5));
    tree::assert_same(&picture(&host), &before);
    assert!(!armed_file(&host).exists());
}

#[test]
fn who_stops_watching_hears_that_it_is_still_armed() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let args = [&RESTORE[..], &["--confirm-within", "60s"]].concat();
    let mut command = start(&host, &["env"]);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut restore = command.spawn().unwrap();
    first_lines(&mut restore);
    let pid = nix::unistd::Pid::from_raw(restore.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let done = restore.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    assert!(text(&done).contains("is still armed, and is rolled back in "), "{}", text(&done));
    assert!(text(&done).contains("`pbx-config confirm` in a new session keeps it"), "{}", text(&done));
    assert!(armed_file(&host).exists());
    assert_eq!(run(&host, &["env"], &["undo"]).status.code(), Some(0));
}

/// A host on which two files of the network differ, and a restore of them that is killed before the second.
fn killed_half_way() -> (TestHost, String) {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    host.write("etc/resolv.conf", "nameserver 198.51.100.7\n");
    // The record and the file of the arming come first.
    let strace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=renameat:signal=KILL:when=4"];
    let killed = run(&host, &strace, &[&RESTORE[..], &["--confirm-within", "60s"]].concat());
    assert_eq!(killed.status.code(), None, "{}", text(&killed));
    let line = text(&killed);
    let id =
        line.lines().find_map(|line| line.strip_prefix("to undo it: pbx-config undo ")).unwrap().to_owned();
    (host, id)
}

#[test]
fn what_is_half_done_cannot_be_kept_but_goes_on_and_is_armed_anew() {
    let (host, id) = killed_half_way();
    let kept = run(&host, &["setsid", "--wait"], &["confirm"]);
    assert_eq!(kept.status.code(), Some(5), "{}", text(&kept));
    assert!(text(&kept).contains("it is half done"), "{}", text(&kept));
    assert!(
        text(&kept).contains(&format!("`pbx-config restore --resume {id}` resumes it")),
        "{}",
        text(&kept)
    );
    assert!(armed_file(&host).exists());
    // Another one is still kept out.
    assert_eq!(run(&host, &["env"], &RESTORE).status.code(), Some(11));
    let args = ["restore", "--resume", &id, "--confirm-within", "60s"];
    let mut resume = start(&host, &["env"]).args(args).stdout(Stdio::piped()).spawn().unwrap();
    let said = first_lines(&mut resume);
    assert!(said.contains("armed "), "{said}");
    let kept = run(&host, &["setsid", "--wait"], &["confirm"]);
    assert_eq!(kept.status.code(), Some(0), "{}", text(&kept));
    assert_eq!(resume.wait().unwrap().code(), Some(0));
    let resolv = fs::read_to_string(host.root.join("etc/resolv.conf")).unwrap();
    assert!(network(&host).len() > 10 && !resolv.contains("198.51.100.7"), "{resolv}");
}

#[test]
fn a_dry_run_of_going_on_shows_what_is_left_and_writes_nothing() {
    let (host, id) = killed_half_way();
    let before = tree::picture(&host.root, "");
    let shown = run(&host, &["env"], &["restore", "--resume", &id, "--dry-run"]);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown));
    let (done, left) = ("/etc/network/interfaces", "/etc/resolv.conf");
    assert!(text(&shown).contains("half done"), "{}", text(&shown));
    let named = |path: &str| text(&shown).contains(path);
    assert!(named(done) != named(left), "one of them was written: {}", text(&shown));
    let back = run(&host, &["env"], &["undo", "--dry-run"]);
    assert!(text(&back).contains("put back") && text(&back).contains("/etc/"), "{}", text(&back));
    tree::assert_same(&tree::picture(&host.root, ""), &before);
    for more in [
        "--mode=full",
        "--as=7",
        "--node=a=b",
        "--cluster-wide",
        "--recover",
        "--storage=a=b",
        "--bridge=a=b",
    ] {
        let refused = run(&host, &["env"], &["restore", "--resume", &id, more]);
        assert_eq!(refused.status.code(), Some(2), "{more}: {}", text(&refused));
    }
    tree::assert_same(&tree::picture(&host.root, ""), &before);
    assert_eq!(run(&host, &["env"], &["undo"]).status.code(), Some(0));
}

#[test]
fn a_confirmation_waits_for_an_undo_and_is_told_of_it() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let args = [&RESTORE[..], &["--confirm-within", "60s"]].concat();
    let mut restore = start(&host, &["env"]).args(args).stdout(Stdio::piped()).spawn().unwrap();
    first_lines(&mut restore);
    let strace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=renameat:delay_enter=2000000"];
    let mut undo = start(&host, &strace).arg("undo").spawn().unwrap();
    let journals = armed_file(&host).with_file_name("");
    wait_for("undoing", || {
        let mut dirs = fs::read_dir(&journals).unwrap().flatten();
        dirs.any(|dir| {
            fs::read_to_string(dir.path().join("journal")).is_ok_and(|text| text.contains("undoing"))
        })
    });
    let kept = run(&host, &["setsid", "--wait"], &["confirm"]);
    assert_eq!(undo.wait().unwrap().code(), Some(0));
    assert_eq!(kept.status.code(), Some(5), "{}", text(&kept));
    let said = text(&kept);
    assert!(said.contains("it is undone, by `pbx-config undo`") && !said.contains("time"), "{said}");
    assert_eq!(network(&host), b"auto lo\n");
    restore.wait().unwrap();
}

#[test]
fn the_time_to_confirm_begins_when_all_is_done() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    // Longer than the time to confirm.
    let strace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=renameat:delay_enter=5000000:when=3"];
    let args = [&RESTORE[..], &["--confirm-within", "4s"]].concat();
    let mut restore = start(&host, &strace).args(args).stdout(Stdio::piped()).spawn().unwrap();
    first_lines(&mut restore);
    let kept = run(&host, &["setsid", "--wait"], &["confirm"]);
    assert_eq!(kept.status.code(), Some(0), "{}", text(&kept));
    assert_eq!(restore.wait().unwrap().code(), Some(0));
    assert!(network(&host).len() > 10);
}

#[test]
fn one_that_hangs_while_it_is_applied_is_ended_and_undone() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    host.write("etc/resolv.conf", "nameserver 198.51.100.7\n");
    let before = picture(&host);
    let strace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=renameat:signal=STOP:when=4"];
    let args = [&RESTORE[..], &["--confirm-within", "1h"]].concat();
    let mut restore = start(&host, &strace).args(args).stderr(Stdio::null()).spawn().unwrap();
    let journals = armed_file(&host).with_file_name("");
    wait_for("the second step", || {
        let mut dirs = fs::read_dir(&journals).into_iter().flatten().flatten();
        dirs.any(|dir| {
            fs::read_to_string(dir.path().join("journal")).is_ok_and(|text| text.contains("begin 1"))
        })
    });
    // The time of all of it is over.
    let text = fs::read_to_string(armed_file(&host)).unwrap();
    let mut armed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let waits = armed["deadline"].as_f64().unwrap() - armed["at"].as_f64().unwrap();
    assert!((301.0..600.0).contains(&waits), "not for an hour: {waits}");
    for key in ["at", "deadline"] {
        armed[key] = (armed[key].as_f64().unwrap() - 1000.0).into();
    }
    let new = armed_file(&host).with_extension("new");
    fs::write(&new, armed.to_string()).unwrap();
    fs::rename(&new, armed_file(&host)).unwrap();
    assert!(!restore.wait().unwrap().success());
    wait_for("undone", || !armed_file(&host).exists());
    tree::assert_same(&picture(&host), &before);
    let log = run(&host, &["env"], &["log", "--restores"]);
    assert!(self::text(&log).contains("rolled back automatically"), "{}", self::text(&log));
}

#[test]
fn a_file_that_cannot_be_read_any_more_counts_as_due() {
    let host = saved("pbs");
    host.write("etc/network/interfaces", "auto lo\n");
    let before = picture(&host);
    let args = [&RESTORE[..], &["--confirm-within", "60s"]].concat();
    let mut restore = start(&host, &["env"]).args(args).stdout(Stdio::piped()).spawn().unwrap();
    first_lines(&mut restore);
    fs::write(armed_file(&host), "").unwrap();
    assert_eq!(restore.wait().unwrap().code(), Some(5));
    tree::assert_same(&picture(&host), &before);
    assert!(!armed_file(&host).exists());
}

#[test]
fn who_is_not_root_is_told_so_and_not_that_nothing_waits() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    // Where nobody else may look, too.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = dir.path().join("pbx-config");
    fs::hard_link(program(), &own).or_else(|_| fs::copy(program(), &own).map(drop)).unwrap();
    let done =
        Command::new(&own).args(["--root"]).arg(dir.path()).arg("confirm").uid(65534).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    assert!(text(&done).contains("only root"), "{}", text(&done));
}

/// What it says until it waits to be confirmed.
fn first_lines(restore: &mut Child) -> String {
    let mut out = BufReader::new(restore.stdout.as_mut().unwrap());
    let mut said = String::new();
    while !said.contains("\narmed ") {
        assert!(out.read_line(&mut said).unwrap() > 0, "{said}");
    }
    said
}

fn kill_waiters(host: &TestHost) {
    for pid in waiters(&host.root) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
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

#[test]
fn nothing_is_cut_before_the_one_who_undoes_it_says_that_he_lives() {
    // A `setsid` that starts nothing and says that it did; one that starts something else; none.
    for (n, setsid) in
        ["#!/bin/sh\n", "#!/bin/sh\nsleep 60 &\n", "#!/bin/sh\nexit 1\n"].into_iter().enumerate()
    {
        let host = saved("pbs");
        host.write("etc/network/interfaces", "auto lo\n");
        let before = picture(&host);
        let shim = host.beside("setsid");
        fs::write(&shim, setsid).unwrap();
        fs::set_permissions(&shim, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let script = format!("mount --bind '{}' /usr/bin/setsid; exec \"$@\"", shim.display());
        let args = [&RESTORE[..], &["--confirm-within", "60s"]].concat();
        let done = run(&host, &["unshare", "--mount", "sh", "-c", &script, "sh"], &args);
        assert_eq!(done.status.code(), Some(1), "{n}: {}", text(&done));
        assert!(text(&done).contains("rollback could not be started"), "{n}: {}", text(&done));
        tree::assert_same(&picture(&host), &before);
        assert!(!armed_file(&host).exists());
    }
}

#[test]
fn a_program_that_is_replaced_while_it_restores_still_undoes_it() {
    for other in [Some("#!/bin/sh\nexit 0\n"), None] {
        let host = saved("pbs");
        host.write("etc/network/interfaces", "auto lo\n");
        let before = picture(&host);
        let own = host.beside("pbx-config");
        fs::copy(program(), &own).unwrap();
        let args = [&RESTORE[..], &["--confirm-within", "3s"]].concat();
        // Slow enough that another one is in its place when it arms.
        let mut command = crate::common::tool("strace");
        command.args(["-qq", "-o", "/dev/null", "-e", "inject=flock:delay_enter=1500000:when=1"]);
        command.arg(&own).arg("--root").arg(&host.root).args(&args);
        let mut restore = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("it runs", || {
            let children = format!("/proc/{0}/task/{0}/children", restore.id());
            let child = fs::read_to_string(children).unwrap_or_default();
            fs::read_link(format!("/proc/{}/exe", child.trim())).is_ok_and(|exe| exe == own)
        });
        fs::remove_file(&own).unwrap();
        if let Some(other) = other {
            fs::write(&own, other).unwrap();
            fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        wait_for("armed", || armed_file(&host).exists() && network(&host).len() > 10);
        // The one who applied it goes with his connection.
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", restore.id())).unwrap();
        let child = nix::unistd::Pid::from_raw(children.trim().parse().unwrap());
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        let _ = restore.wait();
        wait_for("undone", || !armed_file(&host).exists());
        tree::assert_same(&picture(&host), &before);
    }
}
