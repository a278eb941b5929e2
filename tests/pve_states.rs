//! /etc/pve in every state: running, written, dead, frozen, gone, damaged. Each test has its own host and its
//! own daemon; a step that hangs on the mount is ended by killing that daemon (`within`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr)] // measured figures, for `--nocapture`

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Done, TestHost};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pbx_config::catalog::matcher::CatalogMatcher;
use pbx_config::model::facts::PmxcfsState;
use pbx_config::model::problem::{Exit, Severity};
use pbx_config::sys::host::Host;
use pbx_config::sys::pmxcfs::{self, PictureSource, PmxcfsPicture};
use pbx_config::sys::process::exec::{self, Cmd, NoTools, ToolStatus};
use rusqlite::Connection;
use serde_json::Value;

/// Longer than any step takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// What a run may take when /etc/pve does not answer.
const FROZEN_LIMIT: Duration = Duration::from_secs(40);

// ---- the host

fn running(options: &[&str]) -> TestHost {
    let host = TestHost::golden("pve-single");
    host.mount_fresh(options);
    host
}

/// As after months: the database is checkpointed, what is new is in the log.
fn settled() -> TestHost {
    let host = running(&[]);
    host.signal_daemon(Signal::SIGTERM);
    host.mount(&[]);
    host
}

/// With an unclean end behind it and a log beside the database, but no mount: the dead node's disk.
fn dead_disk() -> TestHost {
    let host = settled();
    write_mounted(&host, "only-in-the-log.cfg", "new\n");
    host.signal_daemon(Signal::SIGKILL);
    umount(&host, &["-l"]).unwrap();
    host
}

/// Kills the daemon when `work` takes too long: who waits on the mount gets an error then, and the test
/// fails instead of hanging.
#[track_caller]
fn within<T>(host: &TestHost, limit: Duration, work: impl FnOnce() -> T) -> T {
    // A daemon that ended well takes its pid file along.
    let pid = host.beside("pmxcfs.pid").exists().then(|| Pid::from_raw(host.daemon_pid()));
    let (done, waiting) = mpsc::channel::<()>();
    let dog = thread::spawn(move || {
        let late = waiting.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        if let (true, Some(pid)) = (late, pid) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        late
    });
    let value = work();
    drop(done);
    assert!(!dog.join().unwrap(), "took longer than {limit:?}");
    value
}

#[track_caller]
fn run(host: &TestHost, args: &[&str]) -> Done {
    within(host, LONG, || host.run(args))
}

fn library_host(host: &TestHost) -> Host {
    Host::detect(host.root.clone(), jiff::Timestamp::now(), Box::new(NoTools))
}

#[track_caller]
fn picture(host: &TestHost) -> PmxcfsPicture {
    within(host, LONG, || pmxcfs::read(&library_host(host)).unwrap())
}

fn write_mounted(host: &TestHost, path: &str, content: &str) {
    within(host, LONG, || {
        let path = host.mount_point().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    });
}

#[track_caller]
fn read_mounted(host: &TestHost, path: &str) -> String {
    within(host, LONG, || fs::read_to_string(host.mount_point().join(path)).unwrap())
}

/// The daemon answers, takes a write, and the write outlives its death: what the trap of pmxcfs.md 7.1 breaks.
#[track_caller]
fn assert_unharmed(host: &TestHost, mark: &str) {
    let name = format!("proof-{}.txt", mark.replace(' ', "-"));
    write_mounted(host, &name, mark);
    host.signal_daemon(Signal::SIGKILL);
    host.mount(&[]);
    assert_eq!(read_mounted(host, &name), mark);
}

fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

fn umount(host: &TestHost, options: &[&str]) -> Result<(), String> {
    let done = common::tool("umount").args(options).arg(host.mount_point()).output().unwrap();
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

fn beside_database(host: &TestHost, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", host.database().display()))
}

/// Name, size, time and content of everything in the database's folder.
fn database_folder(host: &TestHost) -> BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)> {
    let entries = fs::read_dir(host.database().parent().unwrap()).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let meta = fs::metadata(&path).unwrap();
            let content = fs::read(&path).unwrap();
            (path, (meta.size(), meta.mtime(), meta.mtime_nsec(), content))
        })
        .collect()
}

/// What careless tools do beside a running daemon: an ordinary open, whose close takes the log away.
fn careless_open(host: &TestHost) {
    let db = Connection::open(host.database()).unwrap();
    let rows: i64 = db.query_row("SELECT count(*) FROM tree", [], |row| row.get(0)).unwrap();
    assert!(rows > 0);
    db.close().unwrap();
    assert!(!beside_database(host, "-wal").exists(), "the trap has sprung");
}

// ---- what a tree holds

/// None for a folder.
type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn tree_of(folder: &Path) -> Tree {
    fn add(folder: &Path, at: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(folder.join(at)).unwrap() {
            let entry = entry.unwrap();
            let path = at.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                tree.insert(path.clone(), None);
                add(folder, &path, tree);
            } else {
                tree.insert(path, Some(fs::read(entry.path()).unwrap()));
            }
        }
    }
    let mut tree = Tree::new();
    add(folder, Path::new(""), &mut tree);
    tree
}

fn tree_of_picture(picture: &PmxcfsPicture) -> Tree {
    picture.nodes.iter().map(|node| (node.path.clone(), node.data.clone())).collect()
}

/// Inode, parent, type, name, data.
type Row = (i64, i64, i64, Vec<u8>, Option<Vec<u8>>);

/// Rows of a database that nobody runs on, as the tree they make.
fn tree_of_database(path: &Path) -> Tree {
    let db = Connection::open(path).unwrap();
    let mut query = db
        .prepare("SELECT inode, parent, type, CAST(name AS BLOB), data FROM tree WHERE inode != 0")
        .unwrap();
    let rows: Vec<Row> = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let parents: BTreeMap<i64, (i64, Vec<u8>)> =
        rows.iter().map(|row| (row.0, (row.1, row.3.clone()))).collect();
    let path_of = |mut inode: i64| {
        let mut names = Vec::new();
        while inode != 0 {
            let (parent, name) = &parents[&inode];
            names.push(name.clone());
            inode = *parent;
        }
        names.reverse();
        PathBuf::from(std::ffi::OsString::from_vec(names.join(&b'/')))
    };
    rows.iter().map(|row| (path_of(row.0), (row.2 != 4).then(|| row.4.clone().unwrap_or_default()))).collect()
}

/// Whether a path of /etc/pve is one that the catalogue collects.
fn is_collected(path: &Path) -> bool {
    CatalogMatcher::get().left_out(&Path::new("etc/pve").join(path)).is_none()
}

fn collected(tree: Tree) -> Tree {
    tree.into_iter().filter(|(path, _)| is_collected(path)).collect()
}

fn golden() -> Tree {
    tree_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts/pve-single/pve"))
}

/// A backup, and what came out of it again.
struct Taken {
    /// Above a notice: severity, what, hint.
    problems: Vec<(String, String, String)>,
    /// The extracted snapshot.
    dir: PathBuf,
    /// Its etc/pve.
    tree: Tree,
}

impl Taken {
    #[track_caller]
    fn from(host: &TestHost, exit: Exit) -> Self {
        Self::within(host, exit, LONG)
    }

    #[track_caller]
    fn within(host: &TestHost, exit: Exit, limit: Duration) -> Self {
        Self::extracted(host, &within(host, limit, || host.run(&["backup", "--json"])).exits(exit).json())
    }

    #[track_caller]
    fn extracted(host: &TestHost, report: &Value) -> Self {
        let id = report["snapshot"]["id"].as_str().unwrap();
        let dir = host.beside(&format!("out-{}", id.replace('/', "-")));
        host.run(&["restore", id, "--to", dir.to_str().unwrap()]).ok();
        let pve = dir.join("etc/pve");
        let tree = if pve.is_dir() { tree_of(&pve) } else { Tree::new() };
        Self { problems: worth(report), dir, tree }
    }

    fn database(&self) -> PathBuf {
        self.dir.join("var/lib/pve-cluster/config.db")
    }

    #[track_caller]
    fn only_problem(&self) -> (&str, &str, &str) {
        let [(severity, what, hint)] = &self.problems[..] else { panic!("{:#?}", self.problems) };
        (severity, what, hint)
    }

    /// All that the catalogue collects of the golden tree, byte for byte, and nothing that it leaves out.
    #[track_caller]
    fn assert_complete(&self) {
        for (path, content) in collected(golden()) {
            // A folder with nothing collected in it is nobody's.
            assert_eq!(self.tree.get(&path), Some(&content), "{}", path.display());
        }
        for path in self.tree.keys() {
            assert!(is_collected(path), "{}", path.display());
        }
    }

    /// The rest of the host: a file of the disk and a command's output.
    #[track_caller]
    fn assert_rest_is_saved(&self) {
        for path in ["etc/network/interfaces", "etc/fstab", "etc/shadow"] {
            assert!(self.dir.join(path).is_file(), "{path}");
        }
    }
}

/// Problems that an admin is to act on.
fn worth(report: &Value) -> Vec<(String, String, String)> {
    let text = |problem: &Value, key: &str| problem[key].as_str().unwrap_or_default().to_owned();
    let problems = report["problems"].as_array().unwrap().iter();
    problems
        .filter(|problem| problem["severity"] != "notice")
        .map(|problem| (text(problem, "severity"), text(problem, "what"), text(problem, "hint")))
        .collect()
}

// ---- running

#[test]
fn a_running_one_is_saved_from_its_database_as_it_shows_itself() {
    let host = running(&[]);
    let now = picture(&host);
    assert_eq!((now.how, now.state), (PictureSource::Database, PmxcfsState::Live { quorate: true }));
    assert!(now.problems.is_empty(), "{:?}", now.problems);
    let taken = Taken::from(&host, Exit::Ok);
    assert!(taken.problems.is_empty(), "{:?}", taken.problems);
    taken.assert_complete();
    for left_out in [".version", ".members", "local", "qemu-server", "priv/lock", "storage.cfg.tmp.4711"] {
        assert!(host.mount_point().join(left_out).symlink_metadata().is_ok(), "{left_out} is in the mount");
        assert!(taken.dir.join("etc/pve").join(left_out).symlink_metadata().is_err(), "{left_out}");
    }
    for path in taken.tree.keys().map(PathBuf::as_path).chain([Path::new("")]) {
        let shown = fs::metadata(host.mount_point().join(path)).unwrap();
        let saved = fs::metadata(taken.dir.join("etc/pve").join(path)).unwrap();
        assert_eq!((saved.mode(), saved.uid(), saved.gid()), (shown.mode(), 0, 33), "{}", path.display());
        assert_eq!(saved.mtime(), shown.mtime(), "{}", path.display());
    }
}

#[test]
fn the_saved_database_stands_alone_and_holds_the_tree_that_was_saved_with_it() {
    let host = running(&[]);
    let taken = Taken::from(&host, Exit::Ok);
    let folder: Vec<_> = fs::read_dir(taken.database().parent().unwrap()).unwrap().collect();
    assert_eq!(folder.len(), 1, "no log beside it: {folder:?}");
    let copy = host.beside("alone.db");
    fs::copy(taken.database(), &copy).unwrap();
    let db = Connection::open(&copy).unwrap();
    let answer = |pragma: &str| db.query_row(pragma, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(answer("PRAGMA integrity_check"), "ok");
    assert_eq!(answer("PRAGMA journal_mode"), "delete");
    drop(db);
    assert_eq!(collected(tree_of_database(&copy)), taken.tree);

    // And a daemon runs on it.
    let reborn = TestHost::golden("pve-single");
    fs::copy(taken.database(), reborn.database()).unwrap();
    reborn.mount(&[]);
    assert_eq!(tree_of_picture(&picture(&reborn)), tree_of_picture(&picture(&host)));
}

/// The numbers of the double's writer in a tree: never rising, falling by 1 at most, no file torn.
#[track_caller]
fn assert_one_moment(tree: &Tree) -> u64 {
    let number = |n: usize| -> u64 {
        let content = tree[Path::new(&format!("stress/{n:03}"))].as_ref().unwrap();
        let text = std::str::from_utf8(content).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 256, "file {n}");
        lines.dedup();
        assert_eq!(lines.len(), 1, "file {n} is of two moments");
        lines[0].parse().unwrap()
    };
    let numbers: Vec<u64> = (0..10).map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a >= b), "{numbers:?}");
    assert!(numbers[0] - numbers[9] <= 1, "{numbers:?}");
    numbers[0]
}

#[test]
fn one_written_at_full_speed_is_always_saved_as_of_one_moment_and_is_not_harmed() {
    let host = running(&["--writer"]);
    let pid = host.daemon_pid();
    let library = library_host(&host);
    let (mut last, mut first, mut count, mut slowest) = (0, None, 0, Duration::ZERO);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) || count < 200 {
        let before = Instant::now();
        let picture = within(&host, LONG, || pmxcfs::read(&library).unwrap());
        slowest = slowest.max(before.elapsed());
        assert_eq!(picture.how, PictureSource::Database);
        assert!(picture.problems.is_empty(), "{:?}", picture.problems);
        let tree = tree_of_picture(&picture);
        let number = assert_one_moment(&tree);
        assert!(number >= last, "{number} after {last}");
        (last, count) = (number, count + 1);
        first.get_or_insert(number);
        if count % 10 == 0 {
            let database = host.beside("picture.db");
            fs::write(&database, picture.database.unwrap()).unwrap();
            assert_eq!(tree_of_database(&database), tree, "the database is of the same moment");
        }
    }
    let took = start.elapsed().as_secs_f64();
    let rounds = last - first.unwrap();
    eprintln!(
        "{count} pictures in {took:.1} s ({:.0}/s, slowest {slowest:?}) against {rounds} rounds of ten writes \
         ({:.0} writes/s)",
        f64::from(count) / took,
        f64::from(u32::try_from(rounds).unwrap()) * 10.0 / took,
    );
    for _ in 0..3 {
        let taken = Taken::from(&host, Exit::Ok);
        assert!(taken.problems.is_empty(), "{:?}", taken.problems);
        last = assert_one_moment(&taken.tree).max(last);
        assert_eq!(collected(tree_of_database(&taken.database())), taken.tree);
        for verb in [&["list"][..], &["config", "show"], &["catalog"]] {
            run(&host, verb).ok();
        }
    }
    assert!(is_alive(pid), "the daemon lives");
    for suffix in ["-wal", "-shm"] {
        assert!(beside_database(&host, suffix).exists(), "{suffix} is in place");
    }
    // Whatever was shown must have been kept.
    let shown: u64 = read_mounted(&host, "stress/000")[..15].parse().unwrap();
    assert!(shown >= last);
    host.signal_daemon(Signal::SIGKILL);
    host.mount(&[]);
    let kept = assert_one_moment(&tree_of_picture(&picture(&host)));
    assert!(kept >= shown, "{kept} was kept, {shown} was shown");
}

#[test]
fn no_verb_that_reads_harms_a_running_one() {
    let host = running(&[]);
    write_mounted(&host, "pbx-config.cfg", "dir: shared\n\tpath /srv/x\n");
    let verbs = [
        &["list"][..],
        &["config", "show"],
        &["config", "check"],
        &["catalog"],
        &["catalog", "--all", "--json"],
        &["backup", "--dry-run"],
        &["backup"],
        &["show", "latest"],
        &["verify", "--all"],
    ];
    for verb in verbs {
        let pid = host.daemon_pid();
        run(&host, verb).ok();
        assert!(is_alive(pid), "{verb:?}");
        assert!(beside_database(&host, "-wal").metadata().is_ok_and(|meta| meta.len() > 0), "{verb:?}");
        assert_unharmed(&host, &verb.join(" "));
    }
}

#[test]
fn without_quorum_it_reads_like_any_other_and_that_is_a_notice() {
    let host = running(&["--no-quorum"]);
    let now = picture(&host);
    assert_eq!((now.how, now.state), (PictureSource::Database, PmxcfsState::Live { quorate: false }));
    let [problem] = &now.problems[..] else { panic!("{:?}", now.problems) };
    assert_eq!(problem.severity, Severity::Notice);
    assert!(problem.what.contains("no quorum") && problem.hint.is_some(), "{problem:?}");
    let taken = Taken::from(&host, Exit::Ok);
    assert!(taken.problems.is_empty(), "{:?}", taken.problems);
    taken.assert_complete();
    // The write bits that pmxcfs takes away for the time being are no configuration.
    let mode = fs::metadata(taken.dir.join("etc/pve/storage.cfg")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o640);
    host.signal_daemon(Signal::SIGUSR2);
    // The kernel remembers attributes for a while.
    common::wait_until("the quorum is seen", || picture(&host).state == PmxcfsState::Live { quorate: true });
    let now = picture(&host);
    assert_eq!(now.state, PmxcfsState::Live { quorate: true });
    assert!(now.problems.is_empty(), "{:?}", now.problems);
}

#[test]
fn nothing_of_ours_stays_in_the_mount() {
    let host = running(&[]);
    let _taken = Taken::from(&host, Exit::Ok);
    // Without its log it is read through the mount.
    careless_open(&host);
    assert_eq!(picture(&host).how, PictureSource::Mount);
    host.signal_daemon(Signal::SIGKILL);
    // A start takes the corpse away, which an open file or a working folder in it would not let it.
    host.mount(&[]);
    assert!(read_mounted(&host, "storage.cfg").contains("dir: local"));
    let pid = host.daemon_pid();
    umount(&host, &[]).expect("an ordinary umount finds nobody in it");
    let deadline = Instant::now() + LONG;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "the daemon ends with its mount");
        thread::sleep(Duration::from_millis(10));
    }
    host.mount(&[]);
    host.signal_daemon(Signal::SIGTERM);
}

// ---- dead, frozen, gone

#[test]
fn a_dead_one_is_called_dead_and_saved_from_its_database() {
    let host = settled();
    write_mounted(&host, "only-in-the-log.cfg", "new\n");
    host.signal_daemon(Signal::SIGKILL);
    let before = database_folder(&host);
    let taken = Taken::from(&host, Exit::Problems);
    let (severity, what, hint) = taken.only_problem();
    assert_eq!(severity, "warning");
    assert!(what.contains("/etc/pve") && what.contains("dead"), "{what}");
    assert!(hint.contains("systemctl restart pve-cluster"), "{hint}");
    taken.assert_complete();
    assert_eq!(taken.tree[Path::new("only-in-the-log.cfg")].as_deref(), Some(&b"new\n"[..]));
    assert!(taken.database().is_file());
    assert!(database_folder(&host) == before, "the database and its log are as they were");
    host.mount(&[]);
    assert_eq!(read_mounted(&host, "only-in-the-log.cfg"), "new\n");
}

#[test]
fn a_frozen_one_is_told_from_a_dead_one_and_does_not_hold_up_a_run() {
    let host = settled();
    write_mounted(&host, "only-in-the-log.cfg", "new\n");
    host.signal_daemon(Signal::SIGSTOP);
    for verb in [&["list"][..], &["config", "show"], &["config", "check"]] {
        within(&host, FROZEN_LIMIT, || host.run(verb)).ok();
    }
    let start = Instant::now();
    let taken = Taken::within(&host, Exit::Problems, FROZEN_LIMIT);
    eprintln!("a backup beside a frozen pmxcfs, and its extraction: {:?}", start.elapsed());
    let (severity, what, hint) = taken.only_problem();
    assert_eq!(severity, "warning");
    assert!(what.contains("/etc/pve does not answer") && !what.contains("dead"), "{what}");
    assert!(hint.contains("pve-cluster"), "{hint}");
    taken.assert_complete();
    assert!(taken.tree.contains_key(Path::new("only-in-the-log.cfg")));
    host.signal_daemon(Signal::SIGCONT);
    assert_eq!(picture(&host).state, PmxcfsState::Live { quorate: true });
    assert_unharmed(&host, "thawed");
}

/// Unlike a stopped one it takes the requests, and who waits for such an answer does not even die of SIGKILL.
#[test]
fn one_that_hangs_in_the_midst_of_a_request_does_not_hold_up_a_run() {
    let host = settled();
    let pid = host.daemon_pid();
    host.signal_daemon(Signal::SIGHUP);
    for verb in [&["list"][..], &["config", "show"]] {
        within(&host, FROZEN_LIMIT, || host.run(verb)).ok();
    }
    let report = within(&host, FROZEN_LIMIT, || host.run(&["backup", "--json"])).exits(Exit::Problems).json();
    assert!(is_alive(pid));
    // A command of the host that runs into it.
    let path = host.mount_point().join(".version");
    let cmd = Cmd::new(["cat", path.to_str().unwrap()], Duration::from_millis(200));
    let said = within(&host, FROZEN_LIMIT, || exec::run_at(Path::new("/bin/cat"), &cmd.argv[1..], &cmd));
    assert_eq!(said.unwrap().status, ToolStatus::TimedOut);
    host.signal_daemon(Signal::SIGKILL);
    let taken = Taken::extracted(&host, &report);
    assert!(taken.only_problem().1.contains("does not answer"));
    taken.assert_complete();
}

/// Whatever the admin or the host's files name in it: /etc/pve is never touched as a folder of the disk.
#[test]
fn a_frozen_one_does_not_hold_up_a_run_that_is_told_to_look_into_it() {
    let host = settled();
    let fstab = fs::read_to_string(host.root.join("etc/fstab")).unwrap();
    let share = "//nas/x /mnt/x cifs credentials=/etc/pve/priv/storage/nas.pw 0 0\n";
    host.write("etc/fstab", fstab + share);
    host.write("etc/custom/own.conf", "x");
    host.configure("backup: main\n\tinclude /etc/custom\n\tinclude /etc/**/*.cfg\n\tinclude /etc/pve\n");
    let alive = Taken::from(&host, Exit::Ok);
    alive.assert_complete();
    assert!(alive.dir.join("etc/custom/own.conf").is_file());
    host.signal_daemon(Signal::SIGSTOP);
    let taken = Taken::within(&host, Exit::Problems, FROZEN_LIMIT);
    assert!(taken.only_problem().1.contains("does not answer"));
    assert_eq!(taken.tree, alive.tree);
    assert!(taken.dir.join("etc/custom/own.conf").is_file());
}

#[test]
fn an_unmounted_one_in_a_rescue_system_is_saved_without_a_word_and_left_as_it_was() {
    let host = running(&[]);
    host.signal_daemon(Signal::SIGTERM);
    let before = database_folder(&host);
    let (db, lock) = (host.database(), host.database().with_file_name(".pmxcfs.lockfile"));
    assert_eq!(before.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&db, &lock]));
    let now = picture(&host);
    assert_eq!((now.how, now.state), (PictureSource::Copy, PmxcfsState::NotMounted));
    let taken = Taken::from(&host, Exit::Ok);
    assert!(taken.problems.is_empty(), "{:?}", taken.problems);
    taken.assert_complete();
    assert_eq!(collected(tree_of_database(&taken.database())), taken.tree);
    assert!(database_folder(&host) == before, "the database's folder is as it was");
}

#[test]
fn the_log_on_a_dead_nodes_disk_is_part_of_what_is_saved_and_left_as_it_was() {
    let host = dead_disk();
    let before = database_folder(&host);
    assert!(before[&beside_database(&host, "-wal")].0 > 0, "there is a log");
    assert_eq!(picture(&host).how, PictureSource::Copy);
    let taken = Taken::from(&host, Exit::Ok);
    assert!(taken.problems.is_empty(), "{:?}", taken.problems);
    taken.assert_complete();
    assert_eq!(taken.tree[Path::new("only-in-the-log.cfg")].as_deref(), Some(&b"new\n"[..]));
    assert_eq!(collected(tree_of_database(&taken.database())), taken.tree);
    assert!(database_folder(&host) == before, "database and log are as they were");
}

/// A copy holds all the keys of the cluster: who is killed over one leaves it, and the next run removes it.
#[test]
fn no_copy_of_the_database_stays_behind() {
    let host = dead_disk();
    let run_dir = library_host(&host).run_dir();
    // No pid is that large: the kernel's limit is 2^22.
    // Version 0.1.0 named them otherwise.
    let (old, dead) = (run_dir.join("pmxcfs-4194999"), run_dir.join(".pmxcfs.4194999.partial"));
    let living = run_dir.join(".pmxcfs.1.partial");
    for dir in [&old, &dead, &living] {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("config.db"), "keys").unwrap();
    }
    assert_eq!(picture(&host).how, PictureSource::Copy);
    assert!(!old.exists() && !dead.exists());
    assert!(living.join("config.db").exists(), "it may be read right now");
    fs::remove_dir_all(&living).unwrap();
    assert_eq!(picture(&host).how, PictureSource::Copy);
    assert!(!run_dir.exists());

    // Nor where no copy is needed any more.
    fs::create_dir_all(&dead).unwrap();
    host.mount(&[]);
    assert_eq!(picture(&host).how, PictureSource::Database);
    assert!(!dead.exists());
}

// ---- the database taken from under the daemon

/// And what the daemon was told last is in it, whatever the disk has.
#[track_caller]
fn assert_written_then_saved_through_the_mount(host: &TestHost) -> Taken {
    write_mounted(host, "after.cfg", "written after the damage\n");
    let taken = assert_saved_through_the_mount(host);
    assert!(taken.tree.contains_key(Path::new("after.cfg")));
    taken
}

#[track_caller]
fn assert_saved_through_the_mount(host: &TestHost) -> Taken {
    let before = Instant::now();
    assert_eq!(picture(host).how, PictureSource::Mount);
    assert!(before.elapsed() < LONG, "{:?}", before.elapsed());
    let taken = Taken::from(host, Exit::Problems);
    let (severity, what, hint) = taken.only_problem();
    assert_eq!(severity, "warning");
    assert!(what.contains("config.db") && what.contains("read from the mount"), "{what}");
    assert!(hint.contains("systemctl restart pve-cluster"), "{hint}");
    taken.assert_complete();
    assert!(!taken.database().exists(), "no database is better than one that is not the tree");
    for path in taken.tree.keys() {
        let shown = fs::metadata(host.mount_point().join(path)).unwrap();
        let saved = fs::metadata(taken.dir.join("etc/pve").join(path)).unwrap();
        assert_eq!((saved.mode(), saved.gid()), (shown.mode(), 33), "{}", path.display());
    }
    taken
}

#[test]
fn a_log_deleted_by_a_careless_tool_makes_the_mount_the_source() {
    let host = settled();
    careless_open(&host);
    assert_written_then_saved_through_the_mount(&host);
    // The advice that the hint gives is good: nothing is lost by a restart.
    host.signal_daemon(Signal::SIGTERM);
    host.mount(&[]);
    assert_eq!(read_mounted(&host, "after.cfg"), "written after the damage\n");
    let now = picture(&host);
    assert_eq!(now.how, PictureSource::Database);
    assert!(now.problems.is_empty(), "{:?}", now.problems);
}

#[test]
fn a_log_or_its_index_deleted_by_hand_makes_the_mount_the_source() {
    for gone in [&["-wal", "-shm"][..], &["-wal"], &["-shm"]] {
        let host = settled();
        write_mounted(&host, "in-the-log.cfg", "x");
        for suffix in gone {
            fs::remove_file(beside_database(&host, suffix)).unwrap();
        }
        assert_written_then_saved_through_the_mount(&host);
    }
}

/// File by file there is no one moment, but every file is whole.
#[test]
fn no_file_is_torn_when_one_is_read_through_the_mount_at_full_speed() {
    let host = running(&["--writer"]);
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside_database(&host, suffix)).unwrap();
    }
    let (mut count, start) = (0, Instant::now());
    while start.elapsed() < Duration::from_secs(1) {
        let picture = picture(&host);
        assert_eq!(picture.how, PictureSource::Mount);
        for (path, content) in tree_of_picture(&picture) {
            if let (true, Some(content)) = (path.starts_with("stress"), content) {
                let number = content.first_chunk::<16>().expect("a whole file");
                assert_eq!(content, number.repeat(256), "{}", path.display());
            }
        }
        count += 1;
    }
    eprintln!("{count} pictures through the mount in {:?}", start.elapsed());
}

/// Nobody can be asked and the disk may be behind: both are said.
#[test]
fn a_frozen_one_without_its_log_is_saved_as_far_as_the_disk_has_it() {
    let host = settled();
    write_mounted(&host, "pbx-config.cfg", "dir: shared\n\tpath /srv/x\n");
    careless_open(&host);
    host.signal_daemon(Signal::SIGSTOP);
    let start = Instant::now();
    within(&host, FROZEN_LIMIT, || host.run(&["config", "show"])).ok();
    assert!(start.elapsed() < Duration::from_secs(5), "both files are waited for together");
    let report = within(&host, FROZEN_LIMIT, || host.run(&["backup", "--json"])).exits(Exit::Problems).json();
    host.signal_daemon(Signal::SIGCONT);
    assert_eq!(report["stores"][0]["store"], "shared", "its configuration is read as far, too");
    let taken = Taken::extracted(&host, &report);
    let [(_, frozen, _), (_, behind, hint)] = &taken.problems[..] else { panic!("{:#?}", taken.problems) };
    assert!(frozen.contains("does not answer"), "{frozen}");
    assert!(behind.contains("config.db") && behind.contains("may be missing"), "{behind}");
    assert!(hint.contains("again"), "{hint}");
    taken.assert_complete();
}

/// The log is gone, and a second careless tool left a new one: it reads well and is not the daemon's.
#[test]
fn a_log_that_is_not_the_daemons_own_is_not_believed() {
    let host = settled();
    write_mounted(&host, "before.cfg", "x");
    careless_open(&host);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = Connection::open_with_flags(host.database(), flags).unwrap();
    db.query_row("SELECT count(*) FROM tree", [], |row| row.get::<_, i64>(0)).unwrap();
    drop(db);
    assert!(beside_database(&host, "-shm").exists(), "a new log");
    assert_written_then_saved_through_the_mount(&host);
}

#[test]
fn a_database_laid_over_the_running_one_is_not_believed() {
    let host = settled();
    let other = host.beside("other.db");
    common::make_database(&other, &host.root.join("etc/network"));
    fs::rename(&other, host.database()).unwrap();
    assert_written_then_saved_through_the_mount(&host);
}

#[test]
fn a_database_that_was_deleted_makes_the_mount_the_source() {
    let host = settled();
    fs::remove_file(host.database()).unwrap();
    assert_written_then_saved_through_the_mount(&host);
}

#[test]
fn without_a_mount_and_a_database_that_is_said_and_the_rest_is_saved() {
    let host = TestHost::golden("pve-single");
    fs::remove_file(host.database()).unwrap();
    let taken = Taken::from(&host, Exit::Problems);
    let (severity, what, hint) = taken.only_problem();
    assert_eq!(severity, "error");
    assert!(
        what.contains("/etc/pve") && what.contains("not mounted") && what.contains("config.db"),
        "{what}"
    );
    assert!(!hint.is_empty());
    assert_eq!(taken.tree, Tree::new());
    taken.assert_rest_is_saved();
    for verb in [&["list"][..], &["config", "show"], &["catalog"]] {
        host.run(verb).ok();
    }
    host.run(&["backup", "--dry-run"]).exits(Exit::Problems);
}

// ---- damage

fn damage(host: &TestHost, garbage: bool) {
    let file = File::options().write(true).open(host.database()).unwrap();
    let size = file.metadata().unwrap().len();
    if garbage {
        file.write_all_at(&vec![0xa5; usize::try_from(size).unwrap()], 0).unwrap();
    } else {
        file.set_len(size / 2).unwrap();
    }
}

#[test]
fn a_damaged_database_of_a_running_one_makes_the_mount_the_source() {
    for garbage in [true, false] {
        let host = settled();
        write_mounted(&host, "pbx-config.cfg", "dir: shared\n\tpath /srv/x\n");
        damage(&host, garbage);
        let taken = assert_saved_through_the_mount(&host);
        assert!(taken.tree.contains_key(Path::new("pbx-config.cfg")));
        let shown = run(&host, &["config", "show"]).ok().out;
        assert!(shown.contains("dir: shared"), "{shown}");
    }
}

#[test]
fn a_damaged_database_without_a_mount_is_an_error_and_the_rest_is_saved() {
    for garbage in [true, false] {
        let host = running(&[]);
        host.signal_daemon(Signal::SIGTERM);
        damage(&host, garbage);
        let before = database_folder(&host);
        // A problem each for the tree, and for the cluster's part of our own configuration.
        let taken = Taken::from(&host, Exit::Problems);
        let errors: Vec<_> = taken.problems.iter().filter(|(severity, ..)| severity == "error").collect();
        let [(_, what, hint)] = &errors[..] else { panic!("{:#?}", taken.problems) };
        assert!(what.contains("/etc/pve") && what.contains("config.db"), "{what}");
        assert!(!hint.is_empty());
        assert_eq!(taken.tree, Tree::new());
        assert!(!taken.database().exists());
        taken.assert_rest_is_saved();
        assert!(database_folder(&host) == before);
    }
}

/// Rows that pmxcfs would not start on: each is named, and everything else is saved.
#[test]
fn broken_rows_are_named_and_the_rest_is_complete() {
    let host = TestHost::golden("pve-single");
    let db = Connection::open(host.database()).unwrap();
    let put = |inode: i64, parent: i64, kind: i64, name: &str, data: Option<&str>| {
        let row = (inode, parent, inode, 1_700_000_000, kind, name, data.map(str::as_bytes));
        db.execute("INSERT INTO tree VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7)", row).unwrap();
    };
    let file = |name: &str| -> i64 {
        let query = "SELECT inode FROM tree WHERE parent = 0 AND name = ?1";
        db.query_row(query, [name], |row| row.get(0)).unwrap()
    };
    put(9001, 7777, 8, "orphan.cfg", Some("x"));
    put(9002, 9003, 4, "loop-a", None);
    put(9003, 9002, 4, "loop-b", None);
    put(9004, 9003, 8, "in-the-loop.cfg", Some("x"));
    put(9005, 0, 8, "a/b", Some("x"));
    put(9006, 0, 8, "..", Some("x"));
    put(9007, 0, 8, "datacenter.cfg", Some("the newer of two\n"));
    put(9008, 0, 4, "firewall", None);
    put(9009, 9008, 8, "999.fw", Some("in the second folder\n"));
    put(9010, file("storage.cfg"), 8, "in-a-file.cfg", Some("x"));
    put(9011, 0, 6, "of-no-kind.cfg", Some("x"));
    drop(db);

    let taken = Taken::from(&host, Exit::Problems);
    let said = taken.problems.iter().map(|(_, what, _)| what.as_str()).collect::<Vec<_>>().join("\n");
    let named =
        ["9001", "9002", "9003", "9004", "9005", "9006", "9010", "9011", "datacenter.cfg", "firewall"];
    for name in named {
        assert!(said.contains(name), "{name} in\n{said}");
    }
    assert_eq!(taken.problems.len(), named.len(), "{said}");
    for (severity, what, hint) in &taken.problems {
        assert_eq!(severity, "warning", "{what}");
        assert!(!hint.is_empty(), "{what}");
    }
    for (path, content) in collected(golden()) {
        if path != Path::new("datacenter.cfg") {
            assert_eq!(taken.tree.get(&path), Some(&content), "{}", path.display());
        }
    }
    let content = |path: &str| taken.tree.get(Path::new(path)).cloned().flatten();
    assert_eq!(content("datacenter.cfg").as_deref(), Some(&b"the newer of two\n"[..]));
    assert_eq!(content("firewall/999.fw").as_deref(), Some(&b"in the second folder\n"[..]));
    for gone in ["orphan.cfg", "in-the-loop.cfg", "a", "of-no-kind.cfg", "storage.cfg/in-a-file.cfg"] {
        assert_eq!(content(gone), None, "{gone}");
    }
}

fn put(db: &Connection, inode: i64, parent: i64, kind: i64, name: &str) {
    let sql = "INSERT INTO tree VALUES (?1, ?2, ?1, 0, 1700000000, ?3, ?4, NULL)";
    db.execute(sql, (inode, parent, kind, name)).unwrap();
}

/// A schema is a program, and a rescue disk's may be anybody's.
#[test]
fn a_tree_that_is_computed_is_not_read() {
    const COLUMNS: &str =
        "parent INTEGER, version INTEGER, writer INTEGER, mtime INTEGER, type INTEGER, name TEXT";
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT i AS inode, 0 AS parent, 1 AS version, 0 AS writer, 0 AS mtime, 8 AS type, \
                   'x' AS name, NULL AS data FROM n";
    let schemas = [
        (format!("CREATE VIEW tree AS {endless}"), "view"),
        (format!("CREATE VIEW \"TREE\" AS {endless}"), "view"),
        (format!("CREATE TABLE tree (inode INTEGER, {COLUMNS}, data AS (zeroblob(1000000)))"), "computed"),
        ("CREATE TABLE other (x)".to_owned(), "no table"),
    ];
    for (schema, word) in schemas {
        let host = TestHost::golden("pve-single");
        fs::remove_file(host.database()).unwrap();
        Connection::open(host.database()).unwrap().execute_batch(&schema).unwrap();
        let start = Instant::now();
        let error = format!("{:#}", pmxcfs::read(&library_host(&host)).unwrap_err());
        assert!(error.contains("config.db") && error.contains(word), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20), "ended by its limit");
        let taken = Taken::from(&host, Exit::Problems);
        assert!(taken.problems.iter().any(|(severity, what, _)| severity == "error" && what.contains(word)));
        taken.assert_rest_is_saved();
    }
}

#[test]
fn long_paths_are_left_out_and_named_before_they_take_memory() {
    let host = TestHost::golden("pve-single");
    let db = Connection::open(host.database()).unwrap();
    let name = "d".repeat(250);
    db.execute_batch("BEGIN").unwrap();
    for depth in 0..900 {
        put(&db, 100_000 + depth, if depth == 0 { 0 } else { 100_000 + depth - 1 }, 4, &name);
    }
    for leaf in 0..40_000 {
        put(&db, 200_000 + leaf, 100_899, 8, &leaf.to_string());
    }
    db.execute_batch("COMMIT").unwrap();
    drop(db);
    let start = Instant::now();
    let now = picture(&host);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let deep: Vec<_> = now.nodes.iter().filter(|node| node.path.starts_with(&name)).collect();
    // 16 of 251 bytes, and /etc/pve before them.
    assert_eq!(deep.len(), 16);
    let said: Vec<_> = now.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert!(said[0].contains("entry 100016 has a path longer than Linux allows"), "{}", said[0]);
    assert_eq!(said.len(), 101, "not one for each of 40000");
    assert!(said[100].contains("more of its entries"), "{}", said[100]);
    let mut rest = tree_of_picture(&now);
    rest.retain(|path, _| !path.starts_with(&name));
    assert_eq!(rest, golden(), "and the rest is complete");
}

/// Neither is in any cluster: who made it wants the memory of this host.
#[test]
fn a_database_without_measure_is_refused_before_it_is_copied_or_read() {
    let host = TestHost::golden("pve-single");
    File::options().write(true).open(host.database()).unwrap().set_len(2 << 30).unwrap();
    let error = format!("{:#}", pmxcfs::read(&library_host(&host)).unwrap_err());
    assert!(error.contains("2147483648 bytes"), "{error}");

    let host = TestHost::golden("pve-single");
    let db = Connection::open(host.database()).unwrap();
    let many = "WITH RECURSIVE n(i) AS (SELECT 10000 UNION ALL SELECT i + 1 FROM n LIMIT 1000001) \
                INSERT INTO tree SELECT i, 0, 1, 0, 0, 8, 'x', NULL FROM n";
    db.execute_batch(many).unwrap();
    drop(db);
    let error = format!("{:#}", pmxcfs::read(&library_host(&host)).unwrap_err());
    assert!(error.contains("more than 1000000 entries"), "{error}");
}

/// pmxcfs starts on such a one, too.
#[test]
fn a_dead_nodes_tree_without_its_version_is_read() {
    let host = TestHost::golden("pve-single");
    let db = Connection::open(host.database()).unwrap();
    assert_eq!(db.execute("DELETE FROM tree WHERE inode = 0", []).unwrap(), 1);
    drop(db);
    let now = picture(&host);
    assert_eq!(now.how, PictureSource::Copy);
    assert!(now.problems.is_empty(), "{:?}", now.problems);
    assert_eq!(tree_of_picture(&now), golden());
    let taken = Taken::from(&host, Exit::Ok);
    taken.assert_complete();
}

// ---- names

#[test]
fn a_name_that_no_disk_takes_is_saved_and_its_extraction_is_a_named_problem() {
    let host = running(&[]);
    let (file, folder) = ("f".repeat(300), "d".repeat(280));
    write_mounted(&host, &file, "long\n");
    write_mounted(&host, &format!("{folder}/inside.cfg"), "below long\n");
    write_mounted(&host, "zz-after.cfg", "after them\n");
    run(&host, &["backup"]).ok();
    let long = format!("etc/pve/{file}");
    assert_eq!(run(&host, &["cat", "latest", &long]).ok().out, "long\n");
    let inside = format!("etc/pve/{folder}/inside.cfg");
    assert_eq!(run(&host, &["cat", "latest", &inside]).ok().out, "below long\n");

    let to = host.beside("out");
    let done = run(&host, &["restore", "latest", "--to", to.to_str().unwrap(), "--json"]);
    let report = done.exits(Exit::Problems).json();
    let problems = worth(&report);
    assert_eq!(problems.len(), 3, "{problems:#?}");
    for (path, (severity, what, hint)) in [&long, &format!("etc/pve/{folder}"), &inside].iter().zip({
        let mut problems = problems.clone();
        problems.sort_by_key(|(_, what, _)| (!what.contains("fff"), what.contains("inside"), what.len()));
        problems
    }) {
        assert_eq!(severity, "error");
        assert!(what.contains(path.as_str()) && what.contains("too long"), "{what}");
        assert!(hint.contains("pbx-config cat"), "{hint}");
    }
    let tree = tree_of(&to.join("etc/pve"));
    assert_eq!(tree[Path::new("zz-after.cfg")].as_deref(), Some(&b"after them\n"[..]));
    for (path, content) in collected(golden()) {
        assert_eq!(tree.get(&path), Some(&content), "{}", path.display());
    }
    let entries = report["entries"].as_u64().unwrap();
    let shown = host.run(&["show", "latest", "--files", "--json"]).ok().json();
    assert_eq!(entries + 3, shown["entries"].as_array().unwrap().len() as u64, "what was made is counted");
}

#[test]
fn names_of_any_bytes_come_back() {
    let host = running(&[]);
    let names = [&b"with space and \n newline"[..], b"latin1-\xe4\xf6", b"back\\slash", b"-rf", b"*"];
    for name in names {
        let path = host.mount_point().join(OsStr::from_bytes(name));
        within(&host, LONG, || fs::write(path, name).unwrap());
    }
    let taken = Taken::from(&host, Exit::Ok);
    for name in names {
        assert_eq!(taken.tree[Path::new(OsStr::from_bytes(name))].as_deref(), Some(name));
    }
    careless_open(&host);
    let through_mount = Taken::from(&host, Exit::Problems);
    assert_eq!(through_mount.tree, taken.tree, "the mount and the database show the same");
}

// ---- the cluster's part of our own configuration

#[track_caller]
fn assert_layers(host: &TestHost) {
    let shown = within(host, FROZEN_LIMIT, || host.run(&["config", "show"])).ok().out;
    let local = host.root.join("etc/proxmox-backup-extra/pbx-config.cfg");
    let local = local.to_str().unwrap();
    for part in [
        "dir: shared    # /etc/pve/pbx-config.cfg:1\n\tpath /srv/x    # /etc/pve/pbx-config.cfg:2",
        &format!("dir: both    # {local}:1\n\tpath /srv/of-this-node    # {local}:2"),
    ] {
        assert!(shown.contains(part), "{part}\nin\n{shown}");
    }
    assert!(!shown.contains("/srv/of-the-cluster"), "{shown}");
}

#[test]
fn the_clusters_configuration_is_read_in_every_state_and_the_nodes_own_stands_above_it() {
    let host = running(&[]);
    write_mounted(
        &host,
        "pbx-config.cfg",
        "dir: shared\n\tpath /srv/x\n\ndir: both\n\tpath /srv/of-the-cluster\n",
    );
    host.configure("dir: both\n\tpath /srv/of-this-node\n");
    assert_layers(&host);
    let report = run(&host, &["backup", "--json"]).ok().json();
    let stores: Vec<_> = report["stores"].as_array().unwrap().iter().map(|s| s["store"].clone()).collect();
    assert_eq!(stores, ["shared", "both"]);
    assert!(!common::snapshot_files(&host.root.join("srv/x")).is_empty());
    assert!(!common::snapshot_files(&host.root.join("srv/of-this-node")).is_empty());

    host.signal_daemon(Signal::SIGSTOP);
    assert_layers(&host);
    host.signal_daemon(Signal::SIGCONT);
    host.signal_daemon(Signal::SIGKILL);
    assert_layers(&host);
    umount(&host, &["-l"]).unwrap();
    assert_layers(&host);
    host.mount(&[]);
    careless_open(&host);
    assert_layers(&host);
    let checked = run(&host, &["config", "check", "--json"]).ok().json();
    let local = host.root.join("etc/proxmox-backup-extra/pbx-config.cfg");
    assert_eq!(checked["files"], serde_json::json!(["/etc/pve/pbx-config.cfg", local]));
    // No log and no daemon: what the database alone says is better than no configuration.
    host.signal_daemon(Signal::SIGKILL);
    assert_layers(&host);
}

#[test]
fn secrets_of_the_clusters_configuration_are_read_and_masked() {
    let host = running(&[]);
    write_mounted(&host, "pbx-config.cfg", "dir: shared\n\tpath /srv/x\n");
    write_mounted(&host, "priv/pbx-config-secrets.cfg", "dir: shared\n\tmountpoint 0\n");
    let shown = run(&host, &["config", "show"]).ok().out;
    assert!(shown.contains("\tmountpoint ***    # /etc/pve/priv/pbx-config-secrets.cfg:2"), "{shown}");
}
