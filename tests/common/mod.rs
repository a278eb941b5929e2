//! A host to test on: a golden tree copied into a temporary root, its owners and modes applied, its
//! /etc/pve as a database or really mounted, its tools as shims.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

pub mod relics;
pub mod server;
pub mod tree;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use pbx_config::cli::{self, AppEnv};
use pbx_config::model::exposure::Listener;
use pbx_config::model::problem::Exit;
use pbx_config::sys::host::Host;
use pbx_config::sys::net::sockets;
use pbx_config::sys::process::exec::{self, Cmd, Exec, ProcessOutput};
use pbx_config::sys::process::lock::Lock;
use tempfile::TempDir;

/// The time of every test, unless it says another.
pub const NOW: &str = "2026-11-22T15:17:40Z";

pub struct TestHost {
    dir: TempDir,
    pub root: PathBuf,
    golden: PathBuf,
    mounted: Mutex<bool>,
    pub now: String,
}

/// What a command answered.
#[derive(Debug)]
pub struct Done {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.exit, Exit::Ok, "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn exits(self, exit: Exit) -> Self {
        assert_eq!(self.exit, exit, "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }
}

impl TestHost {
    /// A golden host of tests/hosts; /etc/pve is its database, as on a disk in a rescue system.
    pub fn golden(name: &str) -> Self {
        let golden = golden(name);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        copy_tree(&golden.join("root"), &root);
        apply_modes(&root, &fs::read_to_string(golden.join("modes")).unwrap());
        make_odd(&root, &fs::read_to_string(golden.join("made")).unwrap_or_default());
        let host = Self { dir, root, golden, mounted: Mutex::new(false), now: NOW.to_owned() };
        if host.golden.join("pve").is_dir() {
            fs::create_dir_all(host.root.join("etc/pve")).unwrap();
            fs::create_dir_all(host.root.join("var/lib/pve-cluster")).unwrap();
            make_database(&host.database(), &host.golden.join("pve"));
        }
        host
    }

    /// A root with nothing but a name.
    pub fn empty() -> Self {
        Self::empty_in(&std::env::temp_dir())
    }

    pub fn empty_in(place: &Path) -> Self {
        let dir = tempfile::tempdir_in(place).unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/hostname"), "tiny\n").unwrap();
        let golden = dir.path().join("no-golden");
        Self { dir, root, golden, mounted: Mutex::new(false), now: NOW.to_owned() }
    }

    pub fn database(&self) -> PathBuf {
        self.root.join("var/lib/pve-cluster/config.db")
    }

    pub fn mount_point(&self) -> PathBuf {
        self.root.join("etc/pve")
    }

    /// Gives a host without a golden tree a tool: this machine's own, or a double.
    pub fn tool(&self, name: &str, program: &Path) {
        let bin = self.golden.join("bin");
        assert!(bin.starts_with(self.dir.path()), "the golden hosts have their own tools");
        fs::create_dir_all(&bin).unwrap();
        symlink(program, bin.join(name)).unwrap();
    }

    /// A place beside the root.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn configure(&self, text: &str) {
        self.write("etc/proxmox-backup-extra/pbx-config.cfg", text);
    }

    /// Mounts /etc/pve with the double of pmxcfs, which imports the golden tree when its database is new.
    pub fn mount(&self, options: &[&str]) {
        let node = fs::read_to_string(self.root.join("etc/hostname")).unwrap();
        // Over a dead daemon's mount it fails, and the double takes that away.
        let _ = fs::create_dir_all(self.mount_point());
        fs::create_dir_all(self.database().parent().unwrap()).unwrap();
        let mut command = Command::new(double());
        command.arg("--mount").arg(self.mount_point()).arg("--db").arg(self.database());
        command.arg("--node").arg(node.trim()).arg("--pidfile").arg(self.pidfile());
        if !self.database().exists() && self.golden.join("pve").is_dir() {
            command.arg("--import").arg(self.golden.join("pve"));
        }
        let status = command.args(options).output().expect("the double starts");
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        *self.mounted.lock().unwrap() = true;
        self.write("run/pve-cluster.pid", format!("{}\n", self.daemon_pid()));
    }

    /// As `mount`, with a database that the double makes itself, in WAL mode with its log beside it.
    pub fn mount_fresh(&self, options: &[&str]) {
        let _ = fs::remove_file(self.database());
        self.mount(options);
    }

    fn pidfile(&self) -> PathBuf {
        self.beside("pmxcfs.pid")
    }

    pub fn daemon_pid(&self) -> i32 {
        fs::read_to_string(self.pidfile()).unwrap().trim().parse().unwrap()
    }

    /// Sends the daemon a signal, and waits until it has done what the signal asks for: on a busy machine a thread
    /// of the daemon may answer for some time after the signal was sent.
    pub fn signal_daemon(&self, signal: nix::sys::signal::Signal) {
        use nix::sys::signal::Signal;
        let pid = self.daemon_pid();
        let taken = self.beside(&format!("pmxcfs.pid.{}", signal.as_str()));
        let _ = fs::remove_file(&taken);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();

        let done = || match signal {
            Signal::SIGKILL | Signal::SIGTERM => !alive(pid),
            Signal::SIGSTOP => threads(pid).iter().all(|state| *state == 'T'),
            Signal::SIGCONT => threads(pid).iter().all(|state| *state != 'T'),
            // The double says so itself.
            _ => taken.exists(),
        };
        wait_until(&format!("the daemon takes {signal}"), done);
    }

    /// Runs the program on this host, in this process.
    pub fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, Box::new(Shims { bin: self.golden.join("bin") }))
    }

    pub fn run_with(&self, args: &[&str], exec: Box<dyn Exec>) -> Done {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let now = self.now.parse::<Timestamp>().unwrap();
        let head = ["pbx-config", "--root", self.root.to_str().unwrap()];
        let words = head.iter().chain(args).map(OsString::from);
        let exit = cli::run(words, AppEnv { exec: Some(exec), now, out: &mut out, err: &mut err });
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Done { exit, out: text(out), err: text(err) }
    }

    /// The one snapshot file of the default store.
    pub fn snapshot_file(&self) -> PathBuf {
        let mut found = snapshot_files(&self.root.join("var/lib/proxmox-backup-extra/store"));
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        // A panic in here would hide the test's own.
        if self.mounted.lock().is_ok_and(|mounted| *mounted) {
            // A daemon that ended well took its pid file along; a killed one's number may be another's by now.
            let pid =
                fs::read_to_string(self.pidfile()).ok().and_then(|text| text.trim().parse::<i32>().ok());
            if let Some(pid) = pid.filter(|pid| is_double(*pid, &self.mount_point())) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            let _ = Command::new("umount").arg("-l").arg(self.mount_point()).output();
        }
        // What is immutable would stay in the temporary folder for ever.
        if self.golden.join("made").is_file() {
            let _ = Command::new("chattr").args(["-R", "-f", "-i"]).arg(&self.root).output();
        }
        let run_dir =
            Host::detect(self.root.clone(), Timestamp::default(), Box::new(exec::NoTools)).run_dir();
        let _ = fs::remove_dir_all(run_dir);
    }
}

fn is_double(pid: i32, mount: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == mount.as_os_str().as_encoded_bytes())
}

fn alive(pid: i32) -> bool {
    // A zombie nobody reaps is dead all the same.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

/// The state of each thread of a process, as ps shows it.
fn threads(pid: i32) -> Vec<char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next()).collect()
}

/// Waits for an event that comes soon; the limit is generous, for a machine that is busy with something else.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "this did not come: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn snapshot_files(store: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for host in fs::read_dir(store).into_iter().flatten().flatten() {
        for file in fs::read_dir(host.path()).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().ends_with(".pbx.tar") {
                files.push(file.path());
            }
        }
    }
    files.sort();
    files
}

/// The host's tools are scripts in a folder; they check what they are asked.
pub struct Shims {
    pub bin: PathBuf,
}

impl Exec for Shims {
    fn run(&self, cmd: &Cmd) -> Result<Option<ProcessOutput>> {
        let tool = self.bin.join(&cmd.argv[0]);
        if !tool.is_file() {
            return Ok(None);
        }
        exec::run_at(&tool, &cmd.argv[1..], cmd).map(Some)
    }
}

/// Does what `systemd-run` does with the process that waits beside an armed restore: starts it, here from the program
/// that is tested.
pub fn start_unit(argv: &[String]) {
    let at = argv.iter().position(|word| word == "--root").unwrap();
    let mut child = Command::new(program()).args(&argv[at..]).spawn().unwrap();
    std::thread::spawn(move || child.wait());
}

/// Says that somebody waits beside the newest restore of this root, who then does nothing.
pub fn pretend_to_wait(root: &Path) -> Lock {
    let undo = fs::read_dir(root.join("var/lib/proxmox-backup-extra/undo")).unwrap();
    let restores = undo.map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let id = restores.map(|entry| entry.file_name().into_string().unwrap()).max().unwrap();
    let run_dir = Host::detect(root.to_owned(), Timestamp::default(), Box::new(exec::NoTools)).run_dir();
    Lock::acquire_named(&run_dir, &format!("waiting-{id}")).unwrap()
}

/// Which Debian package has a tool that the tests run, where it is not named like it.
const PACKAGES: [(&str, &[&str]); 18] = [
    ("acl", &["setfacl", "getfacl"]),
    ("age", &["age-keygen"]),
    ("attr", &["setfattr", "getfattr"]),
    ("bsdutils", &["script"]),
    ("coreutils", &["md5sum", "sha256sum", "mkfifo", "mknod", "truncate", "tee", "timeout", "chmod", "stat"]),
    ("dosfstools", &["mkfs.vfat", "mkfs.fat"]),
    ("e2fsprogs", &["chattr", "lsattr", "mkfs.ext4", "mke2fs"]),
    ("exfat-fuse", &["mount.exfat-fuse"]),
    ("exfatprogs", &["mkfs.exfat"]),
    ("iproute2", &["ip", "ss"]),
    ("libc-bin", &["ldd"]),
    ("libcap2-bin", &["setcap", "getcap"]),
    ("mount", &["umount", "losetup"]),
    ("nftables", &["nft"]),
    ("ntfs-3g", &["mkfs.ntfs", "mkntfs"]),
    ("openssh-client", &["ssh-keygen", "ssh-add", "ssh-agent"]),
    ("util-linux", &["flock", "setpriv", "setsid", "unshare"]),
    ("xz-utils", &["xz"]),
];

/// Returns a command that runs a tool of this machine, by its name or its path.
/// Panics: when it is not installed; the message names the Debian package that has it.
#[track_caller]
pub fn tool(name: &str) -> Command {
    require(&[name]);
    Command::new(name)
}

/// Makes a script that is run at once. Another process writes it: a child that a test forks meanwhile would hold it
/// open for writing, and it would be busy.
pub fn make_program(path: &Path, script: &str) {
    let text = path.with_extension("text");
    fs::write(&text, script).unwrap();
    let made = Command::new("install").arg("-m755").arg(&text).arg(path).status().unwrap();
    assert!(made.success());
    fs::remove_file(text).unwrap();
}

/// Panics unless these tools are installed; the message names the Debian package that has the missing one.
#[track_caller]
pub fn require(tools: &[&str]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if let Some(missing) = tools.iter().find(|tool| !is_there(tool)) {
        panic!("{missing} is not installed: apt install {} (`make deps` installs all)", package_of(missing));
    }
}

fn package_of(tool: &str) -> &str {
    let name = tool.rsplit('/').next().unwrap_or(tool);
    PACKAGES.iter().find(|(_, tools)| tools.contains(&name)).map_or(name, |(package, _)| package)
}

/// The folder of a golden host.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts").join(name)
}

/// Examples are built with the tests and lie beside them.
pub fn double() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/pmxcfs-double")
}

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pbx-config"))
}

/// Where this process listens. A server under test chooses its port: one that a test found free may be another's
/// before the server gets there.
pub fn port_of(pid: u32) -> Option<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let sockets: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let listeners = sockets::listeners(Path::new("/")).unwrap();
    let own = |listener: &&Listener| sockets.contains(&format!("socket:[{}]", listener.inode));
    listeners.iter().find(own).map(|listener| listener.port)
}

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_tree(&entry.path(), &target);
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), &target).unwrap();
            lchown(&target, Some(0), Some(0)).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
            // The checkout's umask and owner are not the host's.
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
            chown(&target, Some(0), Some(0)).unwrap();
        }
    }
}

/// Lines `MODE UID:GID PATH`.
fn apply_modes(root: &Path, text: &str) {
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.splitn(3, ' ');
        let mode = u32::from_str_radix(words.next().unwrap(), 8).unwrap();
        let (uid, gid) = words.next().unwrap().split_once(':').unwrap();
        let path = root.join(words.next().unwrap());
        chown(&path, Some(uid.parse().unwrap()), Some(gid.parse().unwrap()))
            .unwrap_or_else(|e| panic!("{line}: {e}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Lines `KIND [ARGUMENT] PATH`: what git cannot hold.
fn make_odd(root: &Path, text: &str) {
    let tool = |name: &str, before: &[&str], path: &Path, after: &[&str]| {
        let done = tool(name).args(before).arg(path).args(after).output().unwrap();
        assert!(
            done.status.success(),
            "{name} {}: {}",
            path.display(),
            String::from_utf8_lossy(&done.stderr)
        );
    };
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (kind, rest) = line.split_once(' ').unwrap();
        let (argument, path) = match kind {
            "sparse" | "xattr" => rest.split_once(' ').unwrap(),
            _ => ("", rest),
        };
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match kind {
            "fifo" => tool("mkfifo", &[], &path, &[]),
            // The kernel has room for 108 bytes of a socket's path.
            "socket" => {
                let short = root.join("socket");
                drop(std::os::unix::net::UnixListener::bind(&short).unwrap());
                fs::rename(short, path).unwrap();
            }
            "char" => tool("mknod", &[], &path, &["c", "1", "3"]),
            "block" => tool("mknod", &[], &path, &["b", "7", "0"]),
            "sparse" => tool("truncate", &["-s", argument], &path, &[]),
            "xattr" => {
                let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
                xattr::set(path, name, value.as_bytes()).unwrap();
            }
            "folder" => fs::create_dir(path).unwrap(),
            "immutable" => tool("chattr", &["+i"], &path, &[]),
            other => panic!("{line}: there is no {other}"),
        }
    }
}

/// A config.db with the tree of a folder, made as pmxcfs would.
pub fn make_database(path: &Path, tree: &Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(
        "CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL, version INTEGER NOT NULL, \
         writer INTEGER NOT NULL, mtime INTEGER NOT NULL, type INTEGER NOT NULL, name TEXT NOT NULL, data BLOB); \
         BEGIN",
    )
    .unwrap();
    let mut next = 1;
    insert_folder(&db, tree, 0, &mut next);
    db.execute("INSERT INTO tree VALUES (0, 0, ?1, 0, 1700000000, 8, '__version__', NULL)", [next]).unwrap();
    db.execute_batch("COMMIT").unwrap();
}

fn insert_folder(db: &rusqlite::Connection, folder: &Path, parent: i64, next: &mut i64) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let inode = *next;
        *next += 1;
        let name = entry.file_name().into_string().unwrap();
        let folder = entry.file_type().unwrap().is_dir();
        let (kind, data) = if folder { (4, None) } else { (8, Some(fs::read(entry.path()).unwrap())) };
        db.execute(
            "INSERT INTO tree VALUES (?1, ?2, ?1, 0, 1700000000, ?3, ?4, ?5)",
            (inode, parent, kind, name, data),
        )
        .unwrap();
        if kind == 4 {
            insert_folder(db, &entry.path(), inode, next);
        }
    }
}
