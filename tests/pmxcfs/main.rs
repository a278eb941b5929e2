//! Test double of pmxcfs: a FUSE daemon with the real one's rules over a real `config.db` in WAL
//! mode, opened before the fork into the background, so that no POSIX lock is held on it after.
#![allow(unsafe_code)]
// A test double: a broken assumption is to end it loudly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod db;
mod dotfiles;
mod fs;
mod nodes;
mod tree;

use anyhow::{Context, Result, bail};
use fuser::{Config, MountOption, Session, SessionACL};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{ForkResult, Group, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use std::ffi::CString;
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tree::{Body, Tree};

const USAGE: &str = "usage: pmxcfs-double --mount DIR --db FILE --node NAME [--no-quorum] \
    [--foreground] [--import DIR] [--pidfile FILE] [--writer] [--lock-seconds N]
Signals: TERM unmounts and ends, USR1 takes the quorum away, USR2 gives it back, HUP makes it hang:
from then on it takes requests and answers none. PIDFILE.SIGUSR1 and so on say that it took effect.";

#[derive(Default)]
struct Args {
    mount: PathBuf,
    db: PathBuf,
    node: String,
    import: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    lock_seconds: Option<u64>,
    no_quorum: bool,
    foreground: bool,
    writer: bool,
}

fn arguments() -> Result<Args> {
    let mut args = Args::default();
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().context(USAGE);
        // The daemon's working directory is the root.
        let path = |value| absolute(PathBuf::from(value));
        match word.to_str().unwrap_or_default() {
            "--mount" => args.mount = path(value()?)?,
            "--db" => args.db = path(value()?)?,
            "--node" => args.node = value()?.to_string_lossy().into_owned(),
            "--import" => args.import = Some(path(value()?)?),
            "--pidfile" => args.pidfile = Some(path(value()?)?),
            "--lock-seconds" => args.lock_seconds = Some(value()?.to_string_lossy().parse()?),
            "--no-quorum" => args.no_quorum = true,
            "--foreground" => args.foreground = true,
            "--writer" => args.writer = true,
            _ => bail!("{USAGE}"),
        }
    }
    let missing = args.mount.as_os_str().is_empty() || args.db.as_os_str().is_empty();
    if missing || args.node.is_empty() {
        bail!("{USAGE}")
    }
    Ok(args)
}

fn main() {
    // As the real daemon's, every failure to start is 255.
    if let Err(error) = arguments().and_then(|args| run(&args)) {
        eprintln!("{error:#}");
        std::process::exit(255);
    }
}

fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(args.db.parent().context(USAGE)?)?;
    let _lock = lock(&args.db)?;
    let (db, new) = db::Db::open(&args.db)?;
    let status = dotfiles::Status::new(&args.node, u64::from(tree::now()));
    let mut tree = Tree::load(db, status)?;
    if let Some(dir) = args.import.as_ref().filter(|_| new) {
        import(&mut tree, dir, b"").with_context(|| format!("import {}", dir.display()))?;
    }
    if args.writer {
        rewrite(&mut tree, None).context("stress files")?;
    }
    tree.quorate = !args.no_quorum;
    tree.lock_time = args.lock_seconds.map_or(tree.lock_time, Duration::from_secs);
    if args.foreground {
        return serve(tree, args, &mut None);
    }
    let (mut answer, report) = std::io::pipe()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: no thread runs yet. The POSIX locks of the database stay with the parent and end
    // with it; that is the point (pmxcfs.md 7.1).
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        drop(report);
        let mut said = String::new();
        answer.read_to_string(&mut said)?;
        if said == "mounted" {
            // Not by a return: closing the database here would take it from the child.
            std::process::exit(0);
        }
        eprintln!("{}", if said.is_empty() { "the daemon died" } else { &said });
        std::process::exit(255);
    }
    let mut report = Some(report);
    if let (Err(error), Some(mut report)) = (daemon(tree, args, &null, &mut report), report) {
        write!(report, "{error:#}")?;
    }
    std::process::exit(255);
}

/// Away from the caller's terminal, directory and pipes.
fn daemon(tree: Tree, args: &Args, null: &File, report: &mut Option<PipeWriter>) -> Result<()> {
    setsid()?;
    std::env::set_current_dir("/")?;
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    dup2_stderr(null)?;
    serve(tree, args, report)
}

/// One daemon per database; a start waits 10 s for the end of the one before.
fn lock(db: &Path) -> Result<Flock<File>> {
    let started = Instant::now();
    loop {
        let file = File::create(db.with_file_name(".pmxcfs.lockfile"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if started.elapsed() < Duration::from_secs(10) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err((_, code)) => bail!("unable to acquire pmxcfs lock: {code}"),
        }
    }
}

fn import(tree: &mut Tree, dir: &Path, at: &[u8]) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(dir)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let path = [at, name.as_bytes()].join(if at.is_empty() { &b""[..] } else { b"/" });
        let kind = entry.file_type()?;
        if dotfiles::is_virtual(&path) || !(kind.is_dir() || kind.is_file()) {
            continue;
        }
        let time = tree::seconds(tree::unix(entry.metadata()?.modified()?));
        if kind.is_dir() {
            tree.add(&path, Body::Dir, time)?;
            import(tree, &entry.path(), &path)?;
        } else {
            tree.add(&path, Body::File(std::fs::read(entry.path())?), time)?;
        }
    }
    Ok(())
}

/// One round of the stress files: number n goes to 000, then to 001 ... 009, each in one
/// transaction. A consistent snapshot so never rises from 000 to 009, and drops by 1 at most.
fn rewrite(tree: &mut Tree, n: Option<u64>) -> Result<u64, nix::errno::Errno> {
    let first = tree.read(b"stress/000", 0, 15).ok();
    // After a kill -9 in mid-round: the same number again, to the end.
    let n = n.or(first.and_then(|old| str::from_utf8(&old).ok()?.parse().ok())).unwrap_or(1);
    tree.mkdir(b"stress").ok();
    for i in 0..10 {
        stress(tree, i, n)?;
    }
    Ok(n)
}

fn stress(tree: &mut Tree, i: u32, n: u64) -> Result<(), nix::errno::Errno> {
    let path = format!("stress/{i:03}").into_bytes();
    tree.create(&path).ok();
    tree.write(&path, 0, format!("{n:015}\n").repeat(256).as_bytes())
}

fn serve(tree: Tree, args: &Args, report: &mut Option<PipeWriter>) -> Result<()> {
    let mount = CString::new(args.mount.as_os_str().as_bytes())?;
    // SAFETY: a system call with a valid C string. It takes a dead daemon's mount away, which fails
    // while somebody holds a file or directory in it (pmxcfs.md 6).
    unsafe { libc::umount2(mount.as_ptr(), libc::MNT_FORCE) };
    std::fs::create_dir_all(&args.mount).ok();
    if std::fs::read_dir(&args.mount).context("fuse_mount error")?.next().is_some() {
        bail!("fuse_mount error: mountpoint is not empty");
    }
    // Before the first thread, so that none of them takes the signals.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2]
        .into_iter()
        .collect();
    signals.thread_block()?;
    let gid = Group::from_name("www-data").ok().flatten().map_or(33, |group| group.gid.as_raw());
    let tree = Arc::new(Mutex::new(tree));
    // No subtype: the type shown is plain `fuse`.
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("/dev/fuse".into()), MountOption::DefaultPermissions];
    config.acl = SessionACL::All;
    config.n_threads = Some(4);
    let session = Session::new(fs::Fs::new(Arc::clone(&tree), gid), &args.mount, &config)
        .context("fuse_mount error")?;
    // Its other part would unmount when dropped; it lives until the exit below.
    let session = session.spawn()?;
    let threads = session.guard;
    let gone = Arc::new(AtomicBool::new(false));
    let unmounted = Arc::clone(&gone);
    std::thread::spawn(move || {
        threads.join().ok();
        unmounted.store(true, Ordering::SeqCst);
        kill(Pid::this(), Signal::SIGTERM).ok();
    });
    if args.writer {
        let tree = Arc::clone(&tree);
        std::thread::spawn(move || write_on(&tree));
    }
    if let Some(pidfile) = &args.pidfile {
        std::fs::write(pidfile, format!("{}\n", Pid::this()))?;
    }
    if let Some(mut report) = report.take() {
        report.write_all(b"mounted")?;
    }
    loop {
        match signals.wait()? {
            signal @ (Signal::SIGUSR1 | Signal::SIGUSR2) => {
                tree.lock().unwrap().quorate = signal == Signal::SIGUSR2;
                taken(args, signal);
            }
            Signal::SIGHUP => {
                let _held = tree.lock().unwrap();
                taken(args, Signal::SIGHUP);
                loop {
                    std::thread::park();
                }
            }
            _ => break,
        }
    }
    if !gone.load(Ordering::SeqCst) {
        // SAFETY: as above. Lazily, so that it goes even with files open in it.
        unsafe { libc::umount2(mount.as_ptr(), libc::MNT_DETACH) };
    }
    tree.lock().unwrap().close();
    args.pidfile.as_ref().map(std::fs::remove_file);
    std::process::exit(0);
}

/// Leaves a file beside the pid file, for who waits until the signal has its effect.
fn taken(args: &Args, signal: Signal) {
    if let Some(pidfile) = &args.pidfile {
        let mut name = pidfile.clone().into_os_string();
        name.push(format!(".{}", signal.as_str()));
        std::fs::write(name, "").ok();
    }
}

/// As changes from another node come: past the kernel, one transaction each, at full speed.
fn write_on(tree: &Mutex<Tree>) {
    let mut n = rewrite(&mut tree.lock().unwrap(), None).unwrap_or(0);
    loop {
        n += 1;
        for i in 0..10 {
            if stress(&mut tree.lock().unwrap(), i, n) == Err(nix::errno::Errno::EIO) {
                return;
            }
            // The lock is not fair; without a pause nobody else would get it.
            std::thread::sleep(Duration::from_micros(10));
        }
    }
}
