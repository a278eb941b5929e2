//! Readers that a payload passes through while it is taken for hostile: every byte hashed, no more than announced,
//! and a signal ends the reading between two blocks. Not here: what the bytes mean.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::sys::process::signals::check_stopped;

/// The size of the buffers between the stages of reading.
pub const READ_BYTES: usize = 256 * 1024;

/// Looks for a signal between two blocks, because one entry may be all of a snapshot.
fn go_on() -> io::Result<()> {
    check_stopped().map_err(io::Error::other)
}

/// Hashes and counts what is read through it.
pub struct Hashing<R> {
    inner: R,
    hash: Sha256,
    size: u64,
}

impl<R: Read> Hashing<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    /// Reads what is left. The size in bytes and the SHA-256 of all of it.
    pub fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.size, self.hash.finalize().into()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        go_on()?;
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

/// Fails when more comes than announced, so that a small file cannot unpack without end.
pub struct Bounded<R> {
    pub inner: R,
    /// Bytes that may still come.
    pub left: u64,
    /// The error for more.
    pub over: &'static str,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        go_on()?;
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::other(self.over))?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_not_read_is_hashed_too() {
        let mut hashing = Hashing::new(&b"0123456789"[..]);
        hashing.read_exact(&mut [0; 4]).unwrap();
        let (size, sha256) = hashing.finish().unwrap();
        assert_eq!((size, sha256), (10, Sha256::digest(b"0123456789").into()));
    }

    #[test]
    fn one_byte_more_than_announced_is_an_error() {
        for (left, whole) in [(10, true), (9, false)] {
            let mut bounded = Bounded { inner: &b"0123456789"[..], left, over: "too much" };
            assert_eq!(io::copy(&mut bounded, &mut io::sink()).is_ok(), whole, "{left}");
        }
    }
}
