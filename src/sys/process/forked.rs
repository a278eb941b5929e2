//! Work that may block for ever (a frozen pmxcfs, a dead NFS) runs in a forked child that is killed at its limit.
//! No signal handler and no thread can do this: a blocked reader returns only to SIGKILL (measured), and not even
//! to that while its request is in the hands of a daemon that hangs; then it is left behind.
#![allow(unsafe_code)] // fork, close_range and _exit

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use crate::sys::fs::files;

/// How long a killed child is waited for.
const REAP_LIMIT: Duration = Duration::from_millis(500);

/// How the child ended.
#[derive(Debug)]
pub enum ChildResult {
    /// What it wrote.
    Finished(Vec<u8>),
    /// It did not finish within the limit and was killed; or it died.
    TimedOut,
}

/// Runs `work` in a forked child; what it writes comes back. `work` must do nothing but read and write files:
/// other threads do not exist in the child, and destructors of the parent's values do not run.
pub fn run(limit: Duration, work: impl FnOnce(&mut File)) -> Result<ChildResult> {
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

    let answer = run(limit, |pipe| {
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
        let answer = run(Duration::from_secs(10), |pipe| pipe.write_all(&big).unwrap()).unwrap();
        assert!(matches!(answer, ChildResult::Finished(data) if data == big));
    }

    #[test]
    fn a_child_that_blocks_holds_no_descriptor_of_its_parent() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| run(Duration::from_secs(5), |_| std::thread::sleep(Duration::from_secs(60))));
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
        let answer = run(Duration::from_millis(200), |_| {
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        });
        assert!(matches!(answer.unwrap(), ChildResult::TimedOut));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
