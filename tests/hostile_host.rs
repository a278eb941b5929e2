//! The host is whatever it is: files that change while they are read, permissions that root does not have,
//! folders without measure, commands that do not end, no name, no clock, no room to write. A run ends with one
//! line for each, the documented exit code, and a host that is as it was.
//! Needs root, and the Debian packages util-linux and e2fsprogs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "hostile/own_paths.rs"]
mod own_paths;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Done, Shims, TestHost, program, snapshot_files};
use pbx_config::archive::writer::{Protection, Writer};
use pbx_config::catalog;
use pbx_config::model::problem::Exit;
use pbx_config::model::snapshot::Snapshot;
use pbx_config::sys::fs::files;
use pbx_config::sys::host::Host;
use pbx_config::sys::process::exec::NoTools;
use pbx_config::task::scan::archiver::Archiver;
use pbx_config::task::scan::walk::Found;

/// What no verb may take, on the busiest machine.
const HANG: Duration = Duration::from_secs(120);

/// A host that collects /srv.
fn host() -> TestHost {
    let host = TestHost::empty();
    host.configure("backup: main\n\tcompression none\n\tinclude /srv\n");
    host.write("etc/hosts", "127.0.0.1 localhost\n");
    fs::create_dir_all(host.root.join("srv")).unwrap();
    host
}

/// The problems of a run: how bad, what, and what to do.
fn problems(done: &Done) -> Vec<(String, String, String)> {
    let report = done.json();
    let text = |problem: &serde_json::Value, key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    let all = report["problems"].as_array().unwrap().iter();
    let worth = all.filter(|problem| !text(problem, "what").starts_with("no Proxmox product"));
    worth.map(|one| (text(one, "severity"), text(one, "what"), text(one, "hint"))).collect()
}

fn whats(done: &Done) -> Vec<String> {
    problems(done).into_iter().map(|(_, what, _)| what).collect()
}

/// The real program on this host, through `before` (a command and its arguments).
fn real(host: &TestHost, before: &[&str], args: &[&str]) -> Output {
    let seconds = HANG.as_secs().to_string();
    let mut command = common::tool("timeout");
    command.arg(&seconds).args(before).arg(program()).arg("--root").arg(&host.root).args(args);
    let done = command.output().unwrap();
    assert_ne!(done.status.code(), Some(124), "{args:?} hangs");
    done
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn chattr(flag: &str, path: &Path) {
    let done = common::tool("chattr").arg(flag).arg(path).output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
}

/// Does something again and again beside the test, until it is dropped.
struct Beside<'a>(&'a AtomicBool);

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn beside<T>(each: impl Fn(usize) + Sync, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                each(n);
            }
        });
        let _end = Beside(&stop);
        work()
    })
}

// Files that do not hold still

#[test]
fn a_file_that_grows_or_shrinks_while_it_is_read_is_told() {
    const SIZE: u64 = 24 << 20;
    let host = host();
    let path = host.root.join("srv/log");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let store = host.root.join("var/lib/proxmox-backup-extra/store");
    // When a run meets a change is chance; that one of them does is not.
    let is_told = |should: &str| {
        (0..50).any(|_| {
            let done = host.run(&["backup", "--json"]);
            assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}", done.err);
            host.run(&["verify", "latest"]).ok();
            snapshot_files(&store).iter().for_each(|file| fs::remove_file(file).unwrap());
            whats(&done).iter().any(|what| what == should)
        })
    };
    let resize = |size: u64| {
        file.set_len(size).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    };
    let grows = "/srv/log: changed while it was read";
    assert!(beside(|n| resize(SIZE + n as u64 % 1000), || is_told(grows)), "{grows}");
    let shrinks = "/srv/log: could not be read to its end; the rest is zeros";
    assert!(beside(|n| resize([1 << 20, SIZE][n % 2]), || is_told(shrinks)), "{shrinks}");
}

#[test]
fn a_file_that_is_another_thing_when_its_turn_comes_is_told_or_read_as_it_is_now() {
    type Turn = fn(&Path);
    let cases: [(&str, Turn, Option<&str>); 6] = [
        ("vanished", |path| fs::remove_file(path).unwrap(), Some("notice: disappeared before it was read")),
        (
            "pipe",
            |path| {
                fs::remove_file(path).unwrap();
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            },
            Some("warning: not a regular file"),
        ),
        (
            "folder",
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            Some("warning: not a regular file"),
        ),
        (
            "link",
            |path| {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("/etc/shadow", path).unwrap();
            },
            Some("warning: too many levels of symbolic links"),
        ),
        ("longer", |path| fs::write(path, "now longer than before").unwrap(), None),
        ("empty", |path| fs::write(path, "").unwrap(), None),
    ];
    let host = host();
    let library = Host::detect(host.root.clone(), jiff::Timestamp::default(), Box::new(NoTools));
    let draft: Snapshot = serde_json::from_value(serde_json::json!({
        "format": 1, "id": "tiny/2026-11-22T15:17:40Z", "node": "tiny", "tool": "0", "outcome": "ok",
        "codec": { "name": "none", "level": 0, "threads": 1 }, "trigger": "manual",
        "payload": { "name": "", "size": 0, "sha256": "" },
        "counts": { "entries": 0, "files": 0, "bytes": 0, "absent": 0, "problems": 0 },
    }))
    .unwrap();
    let file = File::create_new(host.beside("spool")).unwrap();
    let mut intake =
        Archiver::new(&library, Writer::new(file, draft, Protection::default()).unwrap(), Vec::new())
            .unwrap();
    let item = catalog::items().next().unwrap();
    for (name, turn, should) in cases {
        host.write(&format!("srv/{name}"), "before");
        let full = host.root.join("srv").join(name);
        let stat = files::lstat(&full).unwrap();
        turn(&full);
        let path = Path::new("srv").join(name);
        intake.take(item, &Found::File { path: &path, stat: &stat }).unwrap();
        let told: Vec<String> =
            intake.problems.drain(..).map(|one| format!("{}: {}", one.severity, one.what)).collect();
        let should = should.map(|words| words.replacen(": ", &format!(": /srv/{name}: "), 1));
        assert_eq!(told, should.into_iter().collect::<Vec<_>>());
    }
    assert_eq!(intake.writer.entries(), 2);
}

#[test]
fn files_that_come_go_and_turn_into_something_else_cost_only_themselves() {
    let host = host();
    host.write("srv/still", "here");
    let path = |n: usize| host.root.join(format!("srv/{:03}", n % 150));
    let each = |n: usize| {
        let path = path(n * 7);
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir_all(&path);
        // Any of these may fail: another turn made something there.
        match n % 8 {
            0 => drop(fs::create_dir_all(path.join("a/b"))),
            1 => drop(std::os::unix::fs::symlink("/etc/shadow", &path)),
            2 => drop(nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)),
            3 => drop(std::os::unix::net::UnixListener::bind(&path)),
            4 => drop(fs::write(&path, vec![b'x'; 3 << 20])),
            5 => drop(fs::hard_link(host.root.join("srv/still"), &path)),
            _ => drop(fs::write(&path, format!("{n}"))),
        }
    };
    beside(each, || {
        for _ in 0..20 {
            let done = host.run(&["backup", "--json"]);
            assert!(matches!(done.exit, Exit::Ok | Exit::Problems), "{}", done.err);
            for (_, what, _) in problems(&done) {
                assert!(what.starts_with("/srv/") || what.starts_with("the clock"), "{what}");
            }
            host.run(&["verify", "latest"]).ok();
            assert_eq!(host.run(&["cat", "latest", "srv/still"]).ok().out, "here");
        }
    });
}

// What even root may not

#[test]
fn what_cannot_be_read_is_a_line_of_its_own_and_the_rest_is_saved() {
    let host = host();
    for (path, bits) in [("srv/secret", 0o000), ("srv/open", 0o644), ("srv/locked/inside", 0o644)] {
        host.write(path, path);
        mode(&host.root.join(path), bits);
    }
    mode(&host.root.join("srv/locked"), 0o000);
    // A root that is not above permissions, as a unit's CapabilityBoundingSet makes it, or an NFS server.
    let humble = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"];
    let done = real(&host, &humble, &["backup", "--json"]);
    let done = Done { exit: Exit::Problems, out: text(&done.stdout), err: text(&done.stderr) };
    let denied = |path: &str| {
        let hint = "it is not in the snapshot".to_owned();
        ("warning".to_owned(), format!("{path}: permission denied"), hint)
    };
    let told: Vec<_> = problems(&done).into_iter().filter(|(_, what, _)| !what.contains("clock")).collect();
    assert_eq!(told, [denied("/srv/secret"), denied("/srv/locked")]);
    let shown = host.run(&["show", "latest", "--files"]).ok().out;
    assert!(
        shown.contains("srv/open") && shown.contains("srv/locked") && !shown.contains("inside"),
        "{shown}"
    );

    // One that comes and goes is told or saved, whatever the moment.
    let path = host.root.join("srv/open");
    beside(
        |n| mode(&path, if n % 2 == 0 { 0o000 } else { 0o644 }),
        || {
            for _ in 0..5 {
                let done = real(&host, &humble, &["backup", "--json"]);
                assert_eq!(done.status.code(), Some(3), "{}", text(&done.stderr));
            }
        },
    );
    host.run(&["verify", "--all"]).ok();
}

#[test]
fn an_immutable_file_is_saved_and_an_immutable_store_is_told() {
    let host = host();
    host.write("srv/fixed", "for ever");
    host.configure("backup: main\n\tinclude /srv\n\ndir: stick\n\tpath /stick\n");
    fs::create_dir(host.root.join("stick")).unwrap();
    chattr("+i", &host.root.join("srv/fixed"));
    chattr("+i", &host.root.join("stick"));
    let done = host.run(&["backup"]);
    chattr("-i", &host.root.join("stick"));
    let saved = host.run(&["backup"]);
    chattr("-i", &host.root.join("srv/fixed"));
    assert_eq!(done.exit, Exit::Failed, "{}", done.out);
    let root = host.root.display().to_string();
    let err = done.err.replace(&root, "");
    assert!(
        err.starts_with("error: store 'stick': cannot make /stick/tiny: Operation not permitted\n"),
        "{err}"
    );
    assert!(err.contains("hint: ") && err.contains("`lsattr -d`"), "{err}");
    assert_eq!(fs::read_dir(host.root.join("stick")).unwrap().count(), 1);
    saved.ok();
    assert_eq!(host.run(&["cat", "latest", "srv/fixed"]).ok().out, "for ever");
}

// Too much of it

/// strace answers EAGAIN to the start of every thread from the n-th on; processes start as ever.
#[test]
fn a_thread_that_cannot_be_started_costs_time_and_no_more() {
    for n in 1..=12 {
        let host = host();
        host.write("srv/a", "some text");
        host.configure("backup: main\n\tinclude /srv\n\tcompression zstd\n\tcompression-threads 2\n");
        let inject = format!("inject=clone3:error=EAGAIN:when={n}+");
        let without = ["strace", "-qq", "-f", "-o", "/dev/null", "-e", "trace=clone3", "-e", &inject];
        for args in [&["backup"][..], &["verify", "latest"], &["list"], &["restore", "latest", "--dry-run"]] {
            let done = real(&host, &without, args);
            let (code, err) = (done.status.code(), text(&done.stderr));
            assert!(matches!(code, Some(0 | 3)), "{args:?} without thread {n}: {code:?} {err}");
            assert!(!err.contains("panicked"), "{args:?} without thread {n}: {err}");
        }
        let work = host.root.join("var/lib/proxmox-backup-extra/work");
        assert!(fs::read_dir(work).into_iter().flatten().next().is_none(), "without thread {n}");
    }
}

#[test]
fn a_folder_without_measure_takes_neither_the_memory_nor_the_place_of_the_others() {
    const FILES: usize = 60_000;
    let host = host();
    // Long names, so that fewer of them are too many.
    let many = host.root.join("srv/many");
    fs::create_dir(&many).unwrap();
    let tail = "n".repeat(240);
    for n in 0..FILES {
        File::create(many.join(format!("{n:05}-{tail}"))).unwrap();
    }
    host.write("root/.profile", "saved before it");
    host.write("etc/ssh/sshd_config", "saved after it");
    host.configure("backup: main\n\tinclude /srv\n\tinclude /var/log/x\n");
    // What is really taken: threads also reserve room, more or less of it as they meet.
    let limit = ["sh", "-c", "ulimit -d 300000; exec \"$@\"", "sh"];
    let done = real(&host, &limit, &["backup", "--json"]);
    let done = Done { exit: Exit::Problems, out: text(&done.stdout), err: text(&done.stderr) };
    let told: Vec<_> = problems(&done).into_iter().filter(|(_, what, _)| what.contains("/srv")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let (severity, what, hint) = &told[0];
    assert!(what.starts_with("/srv: has too many files; "), "{what}");
    assert!(
        what.ends_with(&format!("-{tail} on are not")) && what.contains(" are saved, those from /srv/many/")
    );
    assert_eq!(
        (severity.as_str(), hint.ends_with("for example with `exclude /srv/many`")),
        ("warning", true),
        "{hint}"
    );
    let shown = host.run(&["show", "latest", "--json"]).ok().json();
    let files = shown["counts"]["files"].as_u64().or(shown["snapshot"]["counts"]["files"].as_u64()).unwrap();
    assert!((30_000..FILES as u64).contains(&files), "{files}");
    for path in ["root/.profile", "etc/ssh/sshd_config"] {
        host.run(&["cat", "latest", path]).ok();
    }
    assert_eq!(real(&host, &limit, &["verify", "latest"]).status.code(), Some(0));
}

#[test]
fn problems_without_measure_are_counted() {
    let host = host();
    for n in 0..1200 {
        let path = host.root.join(format!("srv/{n:04}"));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    for args in [&["backup", "--json"][..], &["backup", "--dry-run", "--json"]] {
        let done = host.run(args).ok();
        let told = whats(&done);
        assert!(told.len() <= 1001 && told.contains(&"/srv/0000: is a FIFO, not saved".to_owned()));
        assert_eq!(told[told.len() - 1], "201 more problems are not listed");
    }
}

#[test]
fn attributes_of_all_files_together_are_bounded() {
    const FILES: usize = 200;
    let host = host();
    // Where a file has room for more of them than ext4 gives it.
    let srv = host.root.join("srv");
    let mount = |args: &[&str]| {
        let done = common::tool(args[0]).args(&args[1..]).arg(&srv).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    mount(&["mount", "-t", "tmpfs", "tmpfs"]);
    for n in 0..FILES {
        host.write(&format!("srv/{n:03}"), "x");
        xattr::set(srv.join(format!("{n:03}")), "trusted.x", &vec![7; 60_000]).unwrap();
    }
    let done = host.run(&["backup", "--json"]);
    mount(&["umount", "-l"]);
    assert_eq!(done.exit, Exit::Problems, "{}", done.err);
    let told = whats(&done);
    let words = ": its extended attributes cannot be read: those of all files together are too large";
    assert!((1..FILES).contains(&told.len()) && told.iter().all(|what| what.ends_with(words)), "{told:?}");
    assert!(told[told.len() - 1].starts_with(&format!("/srv/{}", FILES - 1)), "{told:?}");
    host.run(&["verify", "latest"]).ok();
}

// Commands

/// A folder of tools.
fn tools(host: &TestHost, tools: &[(&str, &str)]) -> PathBuf {
    let bin = host.beside("tools");
    fs::create_dir(&bin).unwrap();
    for (name, script) in tools {
        // Written by another process: a descriptor of ours, open while another test forks, would be "text busy".
        let path = bin.join(name);
        let text = format!("#!/bin/sh\n{script}\n");
        let mut child =
            common::tool("tee").arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        mode(&path, 0o755);
    }
    bin
}

#[test]
fn commands_that_print_without_end_ignore_signals_or_leave_children_hold_nothing_up() {
    let host = TestHost::golden("pve-single");
    let mark = format!("{}", 100_000 + std::process::id());
    let children =
        format!("for n in 1 2 3 4 5 6 7 8; do (trap '' TERM HUP INT; exec sleep {mark}) & done; echo parent");
    let bin = tools(
        &host,
        &[
            ("pveversion", "head -c 1000000000 /dev/zero"),
            ("pvesm", &format!("trap '' TERM HUP INT; echo begun; while :; do sleep {mark} & wait; done")),
            ("pvecm", &children),
            ("ip", "echo said; kill -SEGV $$"),
        ],
    );
    let start = Instant::now();
    let done = host.run_with(&["backup", "--json"], Box::new(Shims { bin })).exits(Exit::Problems);
    assert!(start.elapsed() < HANG);
    let told = whats(&done).join("\n");
    assert!(told.contains("`pveversion -v`: its output was cut at 16777216 bytes"), "{told}");
    assert!(told.contains("`pvesm status`: did not finish within 20 s"), "{told}");
    let shown = host.run(&["show", "latest", "--json", "--files"]).ok().json();
    let status = |name: &str| {
        let outputs = shown["outputs"].as_array().unwrap();
        let output = outputs.iter().find(|output| output["name"].as_str().unwrap().starts_with(name));
        output.unwrap_or_else(|| panic!("{name}: {outputs:?}"))["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status("pvesm"), "timed out");
    assert_eq!((status("pvecm"), status("ip-")), ("exit 0".into(), "signal 11".into()));
    // What they left behind is gone: the host is as it was.
    let deadline = Instant::now() + Duration::from_secs(10);
    while left_behind(&mark) > 0 {
        assert!(Instant::now() < deadline, "{} children are left", left_behind(&mark));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes with this word in their arguments.
fn left_behind(word: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|arg| arg == word.as_bytes())).count()
}

// Where it writes

/// Waits until the program waits for the reader of a pipe that is full.
fn until_it_waits(child: &mut Child) {
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    let deadline = Instant::now() + HANG;
    while !stat(child.id()).contains("pipe") {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        assert!(Instant::now() < deadline, "it does not come to its end: {}", stat(child.id()));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_the_report_and_not_the_snapshot() {
    let host = host();
    let (reader, mut writer) = std::io::pipe().unwrap();
    // Full to the last byte.
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let mut command = Command::new(program());
    command.arg("--root").arg(&host.root).arg("backup").stdout(writer).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(command);
    until_it_waits(&mut child);
    // All is done but the telling, and nothing is held.
    let store = host.root.join("var/lib/proxmox-backup-extra/store");
    assert_eq!(snapshot_files(&store).len(), 1);
    assert!(!host.root.join("var/lib/proxmox-backup-extra/work").exists());
    assert_eq!(real(&host, &[], &["verify", "latest"]).status.code(), Some(0));
    assert_eq!(real(&host, &[], &["backup"]).status.code(), Some(0));
    let mut said = Vec::new();
    let read = std::thread::spawn(move || {
        let mut reader = reader;
        reader.read_to_end(&mut said).unwrap();
        said
    });
    assert!(child.wait().unwrap().success());
    assert!(text(&read.join().unwrap()).ends_with("result    ok\n"));
}

#[test]
fn an_output_that_takes_nothing_is_told_and_the_snapshot_is_there() {
    let host = host();
    let line = format!("exec {} --root {} backup > /dev/full", program().display(), host.root.display());
    let done = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let err = text(&done.stderr);
    assert!(err.contains("error: cannot write to standard output: No space left on device\n"), "{err}");
    assert!(
        err.ends_with("\nhint: its target is full or closed; the command itself was completed\n"),
        "{err}"
    );
    host.run(&["verify", "latest"]).ok();
}

#[test]
fn a_root_that_is_read_only_is_saved_elsewhere_and_says_so_here() {
    let host = host();
    let mount = |args: &[&str]| {
        let done = common::tool(args[0]).args(&args[1..]).arg(&host.root).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    mount(&["mount", "--bind", host.root.to_str().unwrap()]);
    mount(&["mount", "-o", "remount,bind,ro"]);
    let stick = host.beside("stick");
    let here = host.run(&["backup"]);
    let elsewhere = host.run(&["backup", "--store", stick.to_str().unwrap()]);
    mount(&["umount", "-l"]);
    assert_eq!(here.exit, Exit::Failed, "{}", here.out);
    assert!(
        here.err.contains("Read-only file system\nhint: see `dmesg` for the cause and mount it writable, or use another place\n"),
        "{}",
        here.err
    );
    assert_eq!(here.err.lines().count(), 2, "{}", here.err);
    elsewhere.ok();
    assert_eq!(snapshot_files(&stick).len(), 1);
    assert!(!host.root.join("var").exists());
}

// Who it is

#[test]
fn a_host_without_a_usable_name_or_machine_id_is_saved_and_told() {
    for name in ["", "\n", "/", "../..", "....", "-", "\x1b", "\u{202e}", "localhost"] {
        let host = TestHost::empty();
        host.write("etc/hostname", name);
        host.write("etc/os-release", "PRETTY_NAME=Debian\n");
        let done = host.run(&["backup", "--json"]).exits(Exit::Problems);
        assert_eq!(done.json()["snapshot"]["id"], "localhost/2026-11-22T15:17:40Z", "{name:?}");
        assert_eq!(done.json()["snapshot"]["machine-id"], serde_json::Value::Null);
        let told = problems(&done);
        let (severity, what, hint) = &told[0];
        assert_eq!(what, "/etc/hostname contains no name; the snapshot is saved as one of 'localhost'");
        assert_eq!((severity.as_str(), told.len()), ("warning", 1), "{told:?}");
        assert_eq!(hint, "set one with `hostnamectl set-hostname NAME`");
        assert!(host.snapshot_file().ends_with("localhost/localhost_20261122T151740Z.pbx.tar"));
    }
    for (name, node) in [("a/b/../c", "ab"), ("pve1.example.org", "pve1"), ("p\u{e9}ve\x071", "pve1")] {
        let host = TestHost::empty();
        host.write("etc/hostname", name);
        let done = host.run(&["backup", "--json"]).ok();
        assert_eq!(done.json()["host"], node, "{name:?}");
    }
}

#[test]
fn no_fact_of_a_host_is_too_large_for_a_manifest() {
    let host = host();
    let long = "9".repeat(200_000);
    host.write("etc/machine-id", &long);
    host.write("etc/os-release", format!("PRETTY_NAME=\"{long}\x1b[2J\"\n"));
    let paragraph = format!("Package: pve-manager\nStatus: install ok installed\nVersion: {long}\n\n");
    host.write("var/lib/dpkg/status", paragraph);
    let node = |n: usize| format!("name: n{n}\x1b{}\n", &long[..90]);
    let nodes = (0..5000).map(node).collect::<Vec<_>>().concat();
    host.write("etc/corosync/corosync.conf", format!("cluster_name: {long}\n{nodes}"));
    let done = host.run(&["backup", "--json"]).exits(Exit::Problems);
    let snapshot = &done.json()["snapshot"];
    assert_eq!(snapshot["machine-id"], serde_json::Value::Null);
    assert!(snapshot.to_string().len() < 64 << 10);
    assert!(!snapshot.to_string().contains("u001b"));
    host.run(&["verify", "latest"]).ok();
    assert!(host.run(&["show", "latest"]).ok().out.lines().all(|line| line.len() < 60_000));
}

#[test]
fn a_clock_at_1970_is_told_at_the_first_snapshot_already() {
    let mut host = host();
    for now in ["1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "2000-01-01T00:00:00Z"] {
        host.now = now.into();
        let host = &host;
        let done = host.run(&["backup", "--json"]).exits(Exit::Problems);
        assert_eq!(done.json()["snapshot"]["id"], format!("tiny/{now}"));
        let told = problems(&done);
        assert_eq!(told[0].1, format!("the clock says {now}"));
        assert_eq!(told[0].2, "set the clock; snapshots are named and sorted by it");
    }
    host.run(&["verify", "--all"]).ok();
}

/// A FIFO that nobody writes into stands where each verb reads something.
#[test]
fn no_verb_waits_for_a_pipe_that_nobody_writes_into() {
    let host = host();
    host.run(&["backup"]);
    let pipe = host.beside("pipe.pbx.tar");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let pipe = pipe.to_str().unwrap();
    let verbs: [&[&str]; 12] = [
        &["show", pipe],
        &["cat", pipe, "etc/hostname"],
        &["verify", pipe],
        &["restore", pipe, "--dry-run"],
        &["restore", "--apply", pipe, "--yes"],
        &["restore", "latest", "--to", pipe],
        &["decrypt", pipe, "--to", pipe],
        &["verify", "latest", "--signer", pipe],
        &["cat", "latest", "etc/hostname", "--identity", pipe],
        &["list", "--store", pipe],
        &["backup", "--store", pipe],
        &["config", "import", pipe],
    ];
    std::thread::scope(|scope| {
        for verb in verbs {
            let host = &host;
            scope.spawn(move || {
                let start = Instant::now();
                let done = host.run(verb);
                assert!(start.elapsed() < Duration::from_secs(20), "{verb:?}");
                assert!(done.exit != Exit::Ok || verb.contains(&"--identity"), "{verb:?}: {}", done.out);
            });
        }
    });
}

/// A section of every kind, each of which would run something or connect to PORT.
const COMMANDING: &str = "\
backup: main
	sign yes

dir: own
	path /srv/own

rclone: evil
	remote evil:x
	retries 1

rclone: worse
	remote :webdav,url='http://127.0.0.1:PORT/',bearer_token_command='touch /pwned':x
	retries 1

pbs: server
	repository pbx@pbs!host@127.0.0.1:PORT:store
	timeout 3

api: pve
	token pbx@pve!state
	port PORT

prometheus: node
	path /srv/metrics

hook: vzdump
	debounce 0

check: main
	port-allow 22

sendmail: root
	to root@example.org

smtp: mail
	server 127.0.0.1
	port PORT
	mode insecure
	from a@example.org
	to b@example.org

proxmox: system
	via direct

relay: mail
	url http://127.0.0.1:PORT/
	allow-http yes
	to root@example.org

gotify: phone
	url http://127.0.0.1:PORT/
	allow-http yes

ntfy: phone
	url http://127.0.0.1:PORT/
	allow-http yes
	topic x

telegram: chat
	chat 1
	url http://127.0.0.1:PORT/
	allow-http yes

webhook: any
	url http://127.0.0.1:PORT/
	allow-http yes

healthchecks: nightly
	allow-http yes
";
const COMMANDING_SECRETS: &str = "\
api: pve
	secret 0

pbs: server
	password 0

relay: mail
	token 0
	hmac-key 0

gotify: phone
	token 0

telegram: chat
	token 123456:AA-0000000000000000000000000000000

healthchecks: nightly
	url http://127.0.0.1:PORT/
";
/// A recipient whose plugin would run.
const PLUGIN: &str = "age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt";
/// Every verb that reads something of the host, of its stores or of its memory.
const ALL_VERBS: [&str; 37] = [
    "list",
    "list --host *",
    "status",
    "status --fleet",
    "show latest",
    "cat latest etc/hostname",
    "verify",
    "verify --all",
    "backup",
    "backup --dry-run",
    "prune",
    "prune --dry-run",
    "prune --legacy keep-last=1",
    "restore latest --dry-run",
    "restore latest --yes",
    "restore latest --yes --skip network,ssh",
    "undo --dry-run",
    "undo",
    "undo --armed",
    "confirm",
    "log",
    "log --restores",
    "key show",
    "key prove",
    "store list",
    "store test",
    "store adopt",
    "catalog",
    "hook status",
    "hook run job-end",
    "hook run backup-start snapshot 100",
    "check",
    "check --fix",
    "check --complete",
    "check --network",
    "notify test",
    "config check",
];

/// A mounted disk that has a section of every kind, hooks and remotes.
fn commanding(server: &std::net::TcpListener) -> TestHost {
    let host = TestHost::golden("pve-single");
    let port = server.local_addr().unwrap().port().to_string();
    host.configure("dir: own\n\tpath /srv/own\n");
    host.run(&["backup"]);
    let config = COMMANDING.replace("PORT", &port);
    let kinds = pbx_config::store::kind_names().into_iter().chain(pbx_config::notify::kind_names());
    for kind in kinds.chain(["backup", "api", "prometheus", "hook", "check"]) {
        assert!(config.contains(&format!("{kind}: ")), "no section of kind {kind}");
    }
    host.configure(&config);
    let secrets = "etc/proxmox-backup-extra/secrets.cfg";
    host.write(secrets, COMMANDING_SECRETS.replace("PORT", &port));
    mode(&host.root.join(secrets), 0o600);
    fs::create_dir_all(host.root.join("srv/metrics")).unwrap();
    // It is sound: on that system itself every channel could be used.
    let listed = host.run(&["notify", "list", "--json"]).ok().json();
    assert_eq!(listed["channels"].as_array().unwrap().len(), pbx_config::notify::KINDS.len());

    host.write(
        "root/.config/rclone/rclone.conf",
        "[evil]\ntype = webdav\nurl = http://127.0.0.1:1/\nbearer_token_command = touch /pwned\n",
    );
    let hook = "usr/share/proxmox-backup-extra/hooks/vzdump-hook";
    for script in [hook, "root/old-hook"] {
        host.write(script, "#!/bin/sh\ntouch /pwned\n");
        mode(&host.root.join(script), 0o755);
    }
    host.write("etc/vzdump.conf", "script: /root/old-hook\n");
    host.run(&["hook", "enable", "vzdump"]).ok();
    host
}

/// The programs that a verb runs beside itself, and what it connects to.
fn reached(host: &TestHost, verb: &str, bin: &Path) -> (String, Vec<String>) {
    let log = host.beside(&format!("calls {verb}").replace('/', "-"));
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let mut command = common::tool("timeout");
    command.args([
        "60",
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=execve,execveat,connect,sendto,sendmsg,sendmmsg",
    ]);
    command.arg("-o").arg(&log).arg("-E").arg(format!("PATH={path}"));
    command.arg(program()).arg("--root").arg(&host.root).args(verb.split(' ')).stdin(Stdio::null());
    let done = command.output().unwrap();
    assert_ne!(done.status.code(), Some(124), "{verb} hangs");
    let calls = fs::read_to_string(&log).unwrap();
    let own = format!("execve(\"{}\"", program().display());
    let is_one = |line: &&str| {
        line.contains("AF_INET")
            || line.contains("execve") && !line.contains(&own) && !line.contains("resumed")
    };
    (text(&done.stderr) + &text(&done.stdout), calls.lines().filter(is_one).map(str::to_owned).collect())
}

#[test]
fn a_system_that_is_only_mounted_commands_nothing_on_this_machine() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bin = tempfile::tempdir().unwrap();
    for name in ["age-plugin-yubikey", "rclone", "proxmox-backup-client", "sendmail"] {
        fs::write(bin.path().join(name), "#!/bin/sh\nexit 0\n").unwrap();
        mode(&bin.path().join(name), 0o755);
    }
    let sweep = |host: &TestHost, verbs: &[&str]| {
        for verb in verbs {
            let (said, calls) = reached(host, verb, bin.path());
            assert!(calls.is_empty(), "{verb}: {calls:#?}\n{said}");
            let told = said.matches("only mounted here: rclone 'evil', rclone 'worse', pbs 'server'").count();
            assert!(told <= 1, "{verb}: told {told} times\n{said}");
        }
    };
    std::thread::scope(|scope| {
        for verbs in ALL_VERBS.chunks(ALL_VERBS.len() / 2) {
            let (server, sweep) = (&server, &sweep);
            scope.spawn(move || sweep(&commanding(server), verbs));
        }
    });

    let host = commanding(&server);
    let (said, _) = reached(&host, "list", bin.path());
    assert!(
        said.contains("rclone 'evil', rclone 'worse', pbs 'server'") && said.contains("--store"),
        "{said}"
    );
    assert!(said.contains("pve1/2026-11-22T15:17:40Z"), "its folders are listed: {said}");
    for store in ["evil", "server"] {
        let (said, calls) = reached(&host, &format!("list --store {store}"), bin.path());
        assert!(calls.is_empty() && said.contains(&format!("store '{store}' does not exist")), "{said}");
    }
    assert!(fs::read_dir(host.root.join("srv/metrics")).unwrap().next().is_none());

    // Where what it saves is sealed by a plugin, nothing is saved rather than in the clear.
    let snapshots = || snapshot_files(&host.root.join("srv/own")).len();
    let before = snapshots();
    host.configure(&format!("backup: main\n\trecipient {PLUGIN}\n\ndir: own\n\tpath /srv/own\n"));
    fs::remove_file(host.root.join("etc/proxmox-backup-extra/secrets.cfg")).unwrap();
    sweep(&host, &["backup", "key prove", "key show", "status", "check", "config check"]);
    let (said, _) = reached(&host, "backup", bin.path());
    assert!(said.contains("its plugin does not run for a system that is only mounted here"), "{said}");
    assert_eq!(snapshots(), before);
    // Nobody knocked.
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err());
}

#[test]
fn a_store_of_this_machines_own_configuration_takes_what_a_mounted_system_has() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = commanding(&server);
    let store = host.beside("mine");
    let config = format!("dir: mine\n\tpath {}\n\ndir: own\n\tpath /nowhere\n", store.display());
    let script = format!(
        "mount -t tmpfs tmpfs /etc && mkdir /etc/proxmox-backup-extra && printf '%s' '{config}' > \
         /etc/proxmox-backup-extra/pbx-config.cfg && exec \"$@\""
    );
    let here = |args: &[&str]| real(&host, &["unshare", "--mount", "sh", "-c", &script, "sh"], args);
    let done = here(&["backup", "--quiet", "--store", "mine"]);
    assert!(matches!(done.status.code(), Some(0 | 3)), "{}", text(&done.stderr));
    assert_eq!(snapshot_files(&store).len(), 1);
    let done = here(&["list", "--store", "mine"]);
    assert!(text(&done.stdout).contains("pve1/"), "{}{}", text(&done.stdout), text(&done.stderr));
    // What both have is the mounted system's own folder.
    let done = here(&["list", "--store", "own"]);
    assert!(text(&done.stdout).contains("pve1/2026-11-22T15:17:40Z"), "{}", text(&done.stdout));
}
