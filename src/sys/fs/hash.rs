//! SHA-256, as indexes and plans spell it: lower-case hex.

use std::io::{self, Write};

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
