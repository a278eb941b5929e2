//! The terminal of the person at it: questions whose answers nobody else sees.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::process::signals::check_stopped;

/// Longer than any key or passphrase.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// Interval at which a signal is looked for while nobody types.
const STOP_POLL_MS: u16 = 100;

/// Echo is off while it lives.
struct Hidden<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(tty: &'a File) -> io::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut silent = before.clone();
        silent.local_flags &= !LocalFlags::ECHO;
        // The line's end is shown, so that the next line is one.
        silent.local_flags |= LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG;
        tcsetattr(tty, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.tty, SetArg::TCSAFLUSH, &self.before);
    }
}

/// The controlling terminal, when there is a person at it.
pub fn open() -> Option<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}

/// Asks on the terminal, without showing what is typed. None: Ctrl-D.
/// Errors: a signal (Ctrl-C), the terminal went away.
pub fn ask_hidden(tty: &File, prompt: &str) -> Result<Option<Zeroizing<String>>> {
    let mut out = tty;
    let hidden = Hidden::new(tty)?;
    // A line of progress may stand there.
    out.write_all(b"\r\x1b[K")?;
    out.write_all(prompt.as_bytes())?;
    let line = read_line(tty);
    drop(hidden);
    if !matches!(&line, Ok(Some(_))) {
        // Neither Ctrl-C nor Ctrl-D ends the line.
        out.write_all(b"\n")?;
    }
    line
}

/// The same, shown.
pub fn ask(tty: &File, prompt: &str) -> Result<Option<Zeroizing<String>>> {
    let mut out = tty;
    out.write_all(prompt.as_bytes())?;
    read_line(tty)
}

fn read_line(tty: &File) -> Result<Option<Zeroizing<String>>> {
    // As large as it gets, so that no copy of it stays behind when it grows.
    let mut line = Zeroizing::new(Vec::with_capacity(ANSWER_MAX_BYTES));
    let mut byte = Zeroizing::new([0]);
    let mut input = tty;
    loop {
        let mut fds = [PollFd::new(tty.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::from(STOP_POLL_MS));
        check_stopped()?;
        if !matches!(ready, Ok(n) if n > 0) {
            continue;
        }
        match input.read(&mut *byte) {
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() < ANSWER_MAX_BYTES => line.push(byte[0]),
            Ok(_) => return Err(io::Error::other("the answer is too long").into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }

    let text = std::str::from_utf8(&line).map_err(|_| io::Error::other("the answer is not text"))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}
