//! One run at a time: a lock that dies with its holder, and signals that end a run cleanly.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::model::report::{Fault, FaultKind};

/// Held while a run writes; the kernel releases it however the process ends.
pub struct Lock {
    file: Flock<File>,
    path: PathBuf,
}

impl Lock {
    /// Errors: `Locked` when another run holds it, with that run's pid.
    pub fn acquire(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join("lock");
        loop {
            private_dir(run_dir)?;
            let mut lock = Self { file: Self::flock(&path)?, path: path.clone() };
            // The run before us may have removed the file between our opening and our locking it.
            if !lock.is_current() {
                continue;
            }
            lock.file.set_len(0)?;
            lock.file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
            return Ok(lock);
        }
    }

    fn flock(path: &Path) -> Result<Flock<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(file),
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let message = format!("another run (pid {}) holds the lock", pid.trim());
                let fault = Fault::new(FaultKind::Locked, message);
                Err(fault.hint("wait for it to end, then try again").into())
            }
            Err((_, error)) => Err(error).context(format!("cannot lock {}", path.display())),
        }
    }

    fn is_current(&self) -> bool {
        match (self.file.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
            _ => false,
        }
    }
}

impl Drop for Lock {
    /// Nothing stays in /run, where every root has a folder of its own.
    fn drop(&mut self) {
        if self.is_current() {
            let _ = fs::remove_file(&self.path);
            let _ = self.path.parent().map(fs::remove_dir);
        }
    }
}

/// Makes a folder that only its owner reads, parents included.
pub fn private_dir(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

// A signal handler can reach nothing but a static; it is only ever set.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP ask the run to stop instead of ending the process.
pub fn catch_signals() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn stop(_: libc::c_int) {
        STOPPED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(stop), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        #[allow(unsafe_code)]
        // SAFETY: the handler only stores to an atomic.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// An error once a signal asked to stop; long loops call it between two steps.
pub fn check_stopped() -> Result<()> {
    if STOPPED.load(Ordering::Relaxed) {
        return Err(Fault::new(FaultKind::Failed, "stopped by a signal").into());
    }
    Ok(())
}
