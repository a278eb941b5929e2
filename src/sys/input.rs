//! Input that a person named: a file, or a pipe of another program. Nobody is waited for who does not come, and a
//! signal ends the waiting.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

use super::fs::files;
use super::process::signals::check_stopped;

/// Time in which another program has to write into a pipe that was named.
const PIPE_LIMIT: Duration = Duration::from_secs(5);
/// Interval at which a signal is looked for.
const POLL_MS: u16 = 200;
/// Limit of a list of keys.
pub const TEXT_MAX_BYTES: u64 = 1 << 20;
const BUFFER_BYTES: usize = 64 * 1024;

/// Reads a file or a pipe whole; links are followed.
/// Errors: `NotFound` as any open; a device or directory; nothing comes in time; more than `max` bytes; a signal.
pub fn read(path: &Path, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return read_all(&file, max, |_| Ok(()));
    }
    if !kind.is_fifo() {
        return Err(io::Error::other("not a regular file or a pipe"));
    }
    let deadline = Instant::now() + PIPE_LIMIT;
    read_all(&file, max, |read| wait(file.as_fd(), (read == 0).then_some(deadline)))
}

/// Reads standard input to its end, however long that takes. Errors: more than `max` bytes; a signal.
pub fn read_stdin(max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let stdin = io::stdin();
    read_all(&File::from(stdin.as_fd().try_clone_to_owned()?), max, |_| wait(stdin.as_fd(), None))
}

/// `wait` is told how many bytes have come, and returns when there is more or the end.
fn read_all(
    mut file: &File,
    max: u64,
    wait: impl Fn(usize) -> io::Result<()>,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let mut buffer = Zeroizing::new(vec![0; BUFFER_BYTES]);
    loop {
        wait(bytes.len())?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > max {
            return Err(files::too_large(max));
        }
    }
}

/// Waits until something can be read, or the other side has closed.
fn wait(input: BorrowedFd, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        check_stopped().map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(input, PollFlags::POLLIN)], PollTimeout::from(POLL_MS)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Err(io::Error::new(ErrorKind::TimedOut, "nobody writes into this pipe"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_pipe_is_read_to_its_end_and_no_more_than_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (max, fits) in [(400_000, true), (399_999, false)] {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut to = OpenOptions::new().write(true).open(&pipe).unwrap();
                    std::thread::sleep(Duration::from_millis(300));
                    let _ = to.write_all(&vec![7; 400_000]);
                });
                let read = read(&pipe, max);
                assert_eq!(read.is_ok_and(|bytes| bytes.len() == 400_000), fits);
            });
        }
    }

    #[test]
    fn what_is_no_input_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        assert_eq!(read(&link, 1).unwrap().as_slice(), b"x");
        for path in [dir.path(), Path::new("/dev/zero"), Path::new("/proc/self/fd")] {
            assert!(read(path, 10).is_err(), "{path:?}");
        }
        assert_eq!(read(&dir.path().join("none"), 1).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
