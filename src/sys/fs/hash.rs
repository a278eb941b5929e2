//! SHA-256, as indexes and plans spell it: lower-case hex.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

pub fn sha256(bytes: &[u8]) -> String {
    crate::sys::hex(&Sha256::digest(bytes))
}

/// Of what is written to it.
#[derive(Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn hex(self) -> String {
        crate::sys::hex(&self.0.finalize())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads through. At the end it is an error when what came has another hash than it should.
pub struct Verifying<'a, R> {
    from: R,
    sha256: &'a str,
    hasher: Hasher,
}

impl<'a, R: Read> Verifying<'a, R> {
    pub fn new(from: R, sha256: &'a str) -> Self {
        Self { from, sha256, hasher: Hasher::default() }
    }
}

impl<R: Read> Read for Verifying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.hasher.write_all(&buffer[..n])?;
        if n == 0 && !buffer.is_empty() && std::mem::take(&mut self.hasher).hex() != self.sha256 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "is damaged: its SHA-256 is another"));
        }
        Ok(n)
    }
}
