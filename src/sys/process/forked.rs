//! Work that may block for ever (a frozen pmxcfs, a dead NFS) runs in a forked child that is killed at its limit.
//! No signal handler and no thread can do this: a blocked reader returns only to SIGKILL (measured), and not even
//! to that while its request is in the hands of a daemon that hangs; then it is left behind.
#![allow(unsafe_code)] // fork, close_range and _exit

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, fork, pipe2};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::problem::Fault;
use crate::sys::error_hint;
use crate::sys::fs::files;

const PAGE_BYTES: u64 = 4096;
/// How long a killed child is waited for.
const REAP_LIMIT: Duration = Duration::from_millis(500);

/// How a child ended. `T` is what it returned, or the bytes that it wrote.
#[derive(Debug)]
pub enum ChildResult<T> {
    Finished(T),
    /// It did not finish within the limit and was killed.
    TimedOut,
}

/// An error on its way from a child: its chain, outermost first.
#[derive(Serialize, Deserialize)]
pub struct CarriedError {
    chain: Vec<String>,
    hint: Option<String>,
    /// Of the system's error at its root.
    errno: Option<i32>,
}

impl From<anyhow::Error> for CarriedError {
    fn from(error: anyhow::Error) -> Self {
        let root = error.root_cause().downcast_ref::<io::Error>();
        Self {
            chain: error.chain().map(ToString::to_string).collect(),
            hint: error_hint::own(&error),
            errno: root.and_then(io::Error::raw_os_error),
        }
    }
}

impl From<CarriedError> for anyhow::Error {
    fn from(mut carried: CarriedError) -> Self {
        let root = carried.chain.pop().unwrap_or_default();
        let error = match carried.errno {
            Some(errno) => Self::from(io::Error::from_raw_os_error(errno)),
            None => anyhow!(root.clone()),
        };
        let error = carried.chain.into_iter().rev().fold(error, Self::context);
        match carried.hint {
            // The outermost words once more, now with what to do.
            Some(hint) => Fault::failed(format!("{error:#}")).hint(hint).into(),
            None => error,
        }
    }
}

/// Runs `work` in a forked child and returns its value, sent as JSON. Errors: no child could be made, it died, a signal.
/// `work` must do nothing but read and write files: other threads do not exist in the child, and destructors of the
/// parent's values do not run.
pub fn run<T: Serialize + DeserializeOwned>(
    limit: Duration,
    work: impl FnOnce() -> T,
) -> Result<ChildResult<T>> {
    let answer = run_raw(limit, |pipe| {
        let _ = serde_json::to_vec(&work()).map(|bytes| pipe.write_all(&bytes));
    })?;
    Ok(match answer {
        ChildResult::Finished(bytes) => {
            ChildResult::Finished(serde_json::from_slice(&bytes).ok().context("its process ended early")?)
        }
        ChildResult::TimedOut => ChildResult::TimedOut,
    })
}

/// The same for bytes that `work` writes itself; of a child that died these are a part.
pub fn run_raw(limit: Duration, work: impl FnOnce(&mut File)) -> Result<ChildResult<Vec<u8>>> {
    let (reader, writer) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("pipe")?;

    // SAFETY: the child calls only `work`, which is held to plain file operations, and then _exit.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Child => {
            drop(reader);
            let mut pipe = File::from(writer);
            close_all_but(&pipe);
            work(&mut pipe);
            let status = i32::from(pipe.flush().is_err());
            // SAFETY: ends the child at once, without the parent's exit handlers.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let answer = collect(reader, Instant::now() + limit);
            reap(child, !matches!(answer, Ok(Some(_))));
            Ok(answer?.map_or(ChildResult::TimedOut, ChildResult::Finished))
        }
    }
}

/// Limits what this process, a forked child, may allocate beyond what it has. One that wants more is ended: a library
/// that keeps all of an endless answer ends nothing else, and says nothing of it.
pub fn limit_memory(more_bytes: u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(5).and_then(|pages| pages.parse().ok());
    if let Some(pages) = pages {
        let limit = pages * PAGE_BYTES + more_bytes;
        let _ = setrlimit(Resource::RLIMIT_DATA, limit, limit);
    }
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = dup2_stderr(null);
    }
}

/// A child that is stuck must hold nothing of its parent's: not the lock of the run, no other child's pipe.
fn close_all_but(pipe: &File) {
    const FIRST: u32 = 3;
    let Ok(kept) = u32::try_from(pipe.as_raw_fd()) else { return };
    // SAFETY: the child leaves by _exit, so that nobody closes these again.
    unsafe {
        if kept > FIRST {
            libc::close_range(FIRST, kept - 1, 0);
        }
        libc::close_range(kept + 1, u32::MAX, 0);
    }
}

/// None when the deadline came before the end of the stream. Errors: a signal, too: it interrupts the waiting.
fn collect(reader: OwnedFd, deadline: Instant) -> Result<Option<Vec<u8>>> {
    let mut file = File::from(reader);
    let mut data = Vec::new();
    let mut buffer = vec![0; 128 * 1024];

    loop {
        super::signals::check_stopped()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(&file), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error).context("poll"),
        }
        match file.read(&mut buffer)? {
            0 => return Ok(Some(data)),
            n => data.extend_from_slice(&buffer[..n]),
        }
    }
}

fn reap(child: Pid, stuck: bool) {
    if !stuck {
        let _ = waitpid(child, None);
        return;
    }
    let _ = kill(child, Signal::SIGKILL);
    let deadline = Instant::now() + REAP_LIMIT;
    while waitpid(child, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A small file of the host, as `files::read_small`, that may lie or lead where nothing answers.
/// Errors: as there, and `TimedOut`.
pub fn read_small(limit: Duration, root: &Path, path: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
    const READ: u8 = b'r';
    const ABSENT: u8 = b'a';
    const REFUSED: u8 = b'x';

    let answer = run_raw(limit, |pipe| {
        let (how, rest) = match files::read_small(root, path, max) {
            Ok(content) => (READ, content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (ABSENT, Vec::new()),
            Err(error) => (REFUSED, error.to_string().into_bytes()),
        };
        // A parent that does not get all of it takes none of it.
        let _ = pipe.write_all(&[how]).and_then(|()| pipe.write_all(&rest));
    });
    let data = match answer.map_err(io::Error::other)? {
        ChildResult::Finished(data) => data,
        ChildResult::TimedOut => return Err(io::Error::new(io::ErrorKind::TimedOut, "does not answer")),
    };

    match data.split_first() {
        Some((&READ, content)) => Ok(content.to_vec()),
        // With the words of the system, not those of a kind of errors.
        Some((&ABSENT, _)) => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        Some((_, text)) => Err(io::Error::other(String::from_utf8_lossy(text).into_owned())),
        None => Err(io::Error::other("cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_child_writes_comes_back() {
        let big = vec![7_u8; 3_000_000];
        let answer = run_raw(Duration::from_secs(10), |pipe| pipe.write_all(&big).unwrap()).unwrap();
        assert!(matches!(answer, ChildResult::Finished(data) if data == big));
    }

    #[test]
    fn a_child_that_blocks_holds_no_descriptor_of_its_parent() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| run_raw(Duration::from_secs(5), |_| std::thread::sleep(Duration::from_secs(60))));
            std::thread::sleep(Duration::from_millis(500));
            drop(writer);
            let start = Instant::now();
            // The end comes only when nobody has the other side open.
            reader.read_to_end(&mut Vec::new()).unwrap();
            assert!(start.elapsed() < Duration::from_secs(2));
        });
    }

    #[test]
    fn a_child_that_blocks_is_killed_at_its_limit() {
        let start = Instant::now();
        let answer = run_raw(Duration::from_millis(200), |_| {
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        });
        assert!(matches!(answer.unwrap(), ChildResult::TimedOut));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
