//! Where a codec writes to: the snapshot file, hashed and counted on the way, through a seal when there is one.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use age::stream::StreamWriter;
use sha2::{Digest, Sha256};

use super::seal::Seal;

const BUFFER_BYTES: usize = 256 * 1024;
/// Blocks that may wait for whoever reads along.
const TEE_BLOCKS: usize = 16;

/// The bytes as they are stored.
pub struct WrittenPayload {
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for WrittenPayload {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.file.write(data)?;
        self.hash.update(&data[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

enum Out {
    Clear(WrittenPayload),
    Sealed(Box<StreamWriter<WrittenPayload>>),
}

pub struct Sink {
    out: Out,
    tee: Option<SyncSender<Vec<u8>>>,
}

impl Sink {
    pub fn new(file: File, seal: Option<Seal>) -> io::Result<Self> {
        let stored = WrittenPayload {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            hash: Sha256::new(),
            size: 0,
        };
        let out = match seal {
            None => Out::Clear(stored),
            Some(seal) => Out::Sealed(Box::new(seal.begin(stored)?)),
        };
        Ok(Self { out, tee: None })
    }

    /// Returns a reader for another thread: all that is written from now on, before encryption.
    pub fn tee(&mut self) -> Along {
        let (sender, receiver) = sync_channel(TEE_BLOCKS);
        self.tee = Some(sender);
        Along { receiver, block: io::Cursor::default() }
    }

    /// The file, how much was written to it, and the SHA-256 over that.
    pub fn finish(self) -> io::Result<(File, u64, [u8; 32])> {
        let stored = match self.out {
            Out::Clear(stored) => stored,
            Out::Sealed(stream) => stream.finish()?,
        };
        let file = stored.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, stored.size, stored.hash.finalize().into()))
    }
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = match &mut self.out {
            Out::Clear(stored) => stored.write(data)?,
            Out::Sealed(stream) => stream.write(data)?,
        };
        if let Some(tee) = &self.tee
            && tee.send(data[..n].to_vec()).is_err()
        {
            // Whoever read along has met an error and ended; it is told when it is asked.
            self.tee = None;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Clear(stored) => stored.flush(),
            Out::Sealed(stream) => stream.flush(),
        }
    }
}

/// Reads along with what is written into a sink; ends when the sink does.
pub struct Along {
    receiver: Receiver<Vec<u8>>,
    block: io::Cursor<Vec<u8>>,
}

impl Read for Along {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.block.read(buffer)? {
                0 if !buffer.is_empty() => match self.receiver.recv() {
                    Ok(block) => self.block = io::Cursor::new(block),
                    Err(_) => return Ok(0),
                },
                n => return Ok(n),
            }
        }
    }
}
