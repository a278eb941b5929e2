//! A tiny host with a store, the real program on it, and what must hold after whatever happened.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use pbx_config::model::problem::Exit;
use pbx_config::sys::host::Host;
use pbx_config::sys::process::exec::NoTools;

use crate::common::tree::{Tree, picture};
use crate::common::{TestHost, program};
use crate::strace::{Call, calls, strace};

pub const REMOVED: &str = ": removed what an interrupted run left";

/// A file system of its own, gone with its owner.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn mount(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = crate::common::tool("mount");
        let done = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self(at.to_owned())
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(crate::common::tool("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }
}

impl Disk {
    pub fn unmount(&self) {
        assert!(crate::common::tool("umount").arg("-l").arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// What the real program answered.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
    /// What it asked of the kernel, if that was watched.
    pub calls: Vec<Call>,
}

impl Done {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code(), Some(0), "{}\n{}", self.out, self.err);
        self
    }

    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    /// What the problems of a report say, their hints left out.
    #[track_caller]
    pub fn problems(&self) -> Vec<String> {
        let report = self.json();
        let problems = report["problems"].as_array().unwrap();
        problems.iter().map(|problem| problem["what"].as_str().unwrap().to_owned()).collect()
    }

    /// One line that names a thing and its cause, and one with what to do.
    #[track_caller]
    pub fn is_told_well(&self, cause: &str, when: &str) {
        let lines: Vec<&str> = self.err.lines().collect();
        let [error, hint] = lines.as_slice() else { panic!("{when}: not two lines: {:?}", self.err) };
        assert!(error.starts_with("error: ") && error.contains('/'), "{when}: names nothing: {error}");
        assert!(error.to_lowercase().contains(&cause.to_lowercase()), "{when}: no {cause}: {error}");
        assert!(!error.contains("os error"), "{when}: {error}");
        assert!(hint.starts_with("hint: "), "{when}: {hint}");
        assert_eq!(self.out, "", "{when}");
    }
}

pub struct Bench {
    pub host: TestHost,
    /// A store on another file system than the work folder; None: the default one.
    pub disk: Option<Disk>,
    /// What is in the store before each run.
    old: Vec<(PathBuf, Vec<u8>)>,
}

impl Bench {
    /// The store and the work folder share a file system: a snapshot is put there by a second name. Nothing is
    /// there yet, not even the folders.
    pub fn first_run() -> Self {
        let host = TestHost::empty();
        host.write("etc/fstab", "# nothing\n");
        host.write("srv/dir/file", "content");
        host.write("srv/first", "two names");
        fs::hard_link(host.root.join("srv/first"), host.root.join("srv/second")).unwrap();
        symlink("nowhere", host.root.join("srv/link")).unwrap();
        xattr::set(host.root.join("srv/dir/file"), "user.note", b"kept").unwrap();
        fs::set_permissions(host.root.join("srv/dir"), fs::Permissions::from_mode(0o750)).unwrap();
        host.configure("backup: main\n\tinclude /srv\n");
        Self::of(host)
    }

    pub fn of(host: TestHost) -> Self {
        Self { host, disk: None, old: Vec::new() }
    }

    /// The store is another disk, with a snapshot in it: the next one is copied.
    pub fn other_disk() -> Self {
        Self::with_disk("size=64M")
    }

    pub fn with_disk(options: &str) -> Self {
        Self::empty_disk(options).with_old_snapshot()
    }

    pub fn empty_disk(options: &str) -> Self {
        let mut bench = Self::first_run();
        bench.disk = Some(Disk::mount(&bench.host.beside("disk"), options));
        bench
    }

    pub fn with_old_snapshot(mut self) -> Self {
        self.run(&["backup"]).ok();
        let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
        self.old = self.files_in_store().into_iter().map(read).collect();
        assert_eq!(self.old.len(), 1);
        self
    }

    pub fn store(&self) -> PathBuf {
        match &self.disk {
            Some(disk) => disk.0.join("store"),
            None => self.state_dir().join("store"),
        }
    }

    /// Where the host's snapshots lie.
    pub fn folder(&self) -> PathBuf {
        self.store().join("tiny")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.host.root.join("var/lib/proxmox-backup-extra")
    }

    pub fn work(&self) -> PathBuf {
        self.state_dir().join("work")
    }

    pub fn run_dir(&self) -> PathBuf {
        let root = fs::canonicalize(&self.host.root).unwrap();
        Host::detect(root, Timestamp::default(), Box::new(NoTools)).run_dir()
    }

    /// The program's words for a verb on this host and its store.
    fn words(&self, verb: &[&str]) -> Vec<OsString> {
        let mut words = vec!["--root".into(), self.host.root.clone().into_os_string()];
        words.extend(verb.iter().map(OsString::from));
        if self.disk.is_some() && !verb.contains(&"--store") {
            words.extend(["--store".into(), self.store().into_os_string()]);
        }
        words
    }

    pub fn run(&self, verb: &[&str]) -> Done {
        let mut command = Command::new(program());
        finish(command.args(self.words(verb)))
    }

    /// Kills a run after a while, wherever it is.
    pub fn killed_after(&self, while_: Duration, verb: &[&str]) {
        let mut child = spawn(Command::new(program()).args(self.words(verb)));
        std::thread::sleep(while_);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs under strace. Only the first thread is watched: the others compress and ask nothing of the disk.
    pub fn watched(&self, options: &[&str], verb: &[&str]) -> Done {
        let log = self.host.beside("strace.log");
        let mut command = strace(&log);
        let mut done = finish(command.args(options).arg(program()).args(self.words(verb)));
        done.calls = calls(&fs::read_to_string(log).unwrap());
        done
    }

    /// What the other threads ask of the kernel.
    pub fn calls_of_other_threads(&self, verb: &[&str]) -> Vec<Call> {
        let dir = self.host.beside("threads");
        fs::create_dir(&dir).unwrap();
        let mut command = strace(&dir.join("log"));
        finish(command.arg("-ff").arg(program()).args(self.words(verb))).ok();
        let logs = fs::read_dir(&dir).unwrap().map(|log| fs::read_to_string(log.unwrap().path()).unwrap());
        logs.filter(|log| !log.starts_with("execve")).flat_map(|log| calls(&log)).collect()
    }

    /// Runs it and does something to its call `at`: `signal=KILL`, `error=EIO`.
    pub fn tampered(&self, at: &Call, what: &str, verb: &[&str]) -> Done {
        let name = &at.name;
        let inject = format!("inject={name}:{what}:when={}", at.nth);
        self.watched(&["-e", &format!("trace={name}"), "-e", &inject], verb)
    }

    /// Stops it right after its call `at`, does something, and lets it go on.
    pub fn stopped(&self, at: &Call, meanwhile: impl FnOnce(), verb: &[&str]) -> Done {
        let log = self.host.beside("strace.log");
        // The one of the run before says that it was stopped.
        let _ = fs::remove_file(&log);
        let inject = format!("inject={}:signal=STOP:when={}", at.name, at.nth);
        let mut command = crate::strace::strace(&log);
        command.args(["-e", &format!("trace={}", at.name), "-e", &inject]).arg(program());
        let mut child = spawn(command.args(self.words(verb)));
        let is_stopped =
            || fs::read_to_string(&log).is_ok_and(|text| text.contains("--- stopped by SIGSTOP"));
        while !is_stopped() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {at}");
            std::thread::sleep(Duration::from_millis(2));
        }
        meanwhile();
        let strace = child.id();
        let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap();
        let pid = nix::unistd::Pid::from_raw(children.trim().parse().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        let done = child.wait_with_output().unwrap();
        collect(&done)
    }

    /// The calls of an undisturbed backup that change something, in order.
    pub fn changes_of_a_backup(&self) -> Vec<Call> {
        self.reset();
        let done = self.watched(&[], &["backup"]).ok();
        crate::strace::changes(&done.calls, &[&self.host.root, &self.store(), &self.run_dir()])
    }

    /// As it was before the first run, but for the old snapshot.
    pub fn reset(&self) {
        let made = if self.host.database().exists() { self.state_dir() } else { self.host.root.join("var") };
        let _ = fs::remove_dir_all(made);
        let _ = fs::remove_dir_all(self.store());
        for (path, content) in &self.old {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    pub fn files_in_store(&self) -> Vec<PathBuf> {
        crate::common::snapshot_files(&self.store())
    }

    /// What is no snapshot in the store, and everything in the work folder.
    pub fn leftovers(&self) -> BTreeSet<PathBuf> {
        let files = |dir: &Path| -> Vec<PathBuf> {
            fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
        };
        let is_snapshot = |path: &PathBuf| self.files_in_store().contains(path);
        files(&self.folder())
            .into_iter()
            .filter(|path| !is_snapshot(path))
            .chain(files(&self.work()))
            .collect()
    }

    /// All that a backup must leave alone.
    pub fn picture(&self) -> Vec<Tree> {
        ["etc", "srv"].iter().map(|top| picture(&self.host.root, top)).collect()
    }

    /// The old snapshot is there byte for byte, with at most one more; each is listed and whole. Tells how many
    /// there are more.
    #[track_caller]
    pub fn is_old_or_whole(&self, when: &str) -> usize {
        let files = self.files_in_store();
        for (path, content) in &self.old {
            assert!(fs::read(path).unwrap() == *content, "{when}: {} is another one", path.display());
        }
        let new = files.len() - self.old.len();
        assert!(new <= 1, "{when}: {files:?}");
        let listing = self.run(&["list", "--json"]);
        assert_eq!(listing.code(), Some(0), "{when}: {}\n{}", listing.out, listing.err);
        assert_eq!(listing.json()["snapshots"].as_array().unwrap().len(), files.len(), "{when}");
        let verified = self.run(&["verify", "--all"]);
        let expected = if files.is_empty() { Exit::NotFound } else { Exit::Ok };
        assert_eq!(verified.code(), Some(expected as i32), "{when}: {}\n{}", verified.out, verified.err);
        new
    }

    /// The next backup succeeds, says what it removed and nothing else, and leaves nothing half.
    #[track_caller]
    pub fn next_run_cleans_up(&self, when: &str) {
        let before = self.files_in_store().len();
        let left = self.leftovers();
        let next = self.run(&["backup", "--json"]);
        assert_eq!(next.code(), Some(0), "{when}: {}\n{}", next.out, next.err);
        let said: BTreeSet<_> =
            next.problems().iter().filter_map(|what| what.strip_suffix(REMOVED).map(PathBuf::from)).collect();
        // An empty probe holds nothing that anyone could miss.
        let worth: BTreeSet<_> = left.into_iter().filter(|path| !path.ends_with(".probe")).collect();
        assert_eq!(said, worth, "{when}");
        assert_eq!(self.files_in_store().len(), before + 1, "{when}");
        self.nothing_is_left(when);
    }

    /// No half file, no work folder, no lock.
    #[track_caller]
    pub fn nothing_is_left(&self, when: &str) {
        assert_eq!(self.leftovers(), BTreeSet::new(), "{when}");
        assert!(!self.work().exists(), "{when}");
        assert!(!self.run_dir().exists(), "{when}");
    }
}

fn spawn(command: &mut Command) -> std::process::Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finish(command: &mut Command) -> Done {
    collect(&spawn(command).wait_with_output().unwrap())
}

fn collect(output: &std::process::Output) -> Done {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { status: output.status, out: text(&output.stdout), err: text(&output.stderr), calls: Vec::new() }
}
