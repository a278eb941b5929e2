//! The codecs of a payload: one row each. Everything above sees `Write` and `Read`.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::model::report::{Fault, FaultKind};

/// What a codec writes into: the snapshot file, hashed and counted on the way.
pub struct Sink {
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

const BUFFER_BYTES: usize = 256 * 1024;

impl Sink {
    pub fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(BUFFER_BYTES, file), hash: Sha256::new(), size: 0 }
    }

    /// The file, how much was written to it, and the SHA-256 over that.
    pub fn finish(self) -> io::Result<(File, u64, [u8; 32])> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, self.size, self.hash.finalize().into()))
    }
}

impl Write for Sink {
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

/// A running encoder. `finish` writes what is left and gives the sink back.
pub trait Encode: Write {
    fn finish(self: Box<Self>) -> io::Result<Sink>;
}

/// Wraps a reader of the stored bytes into one of the tar.
type Decode = for<'a> fn(Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>>;

pub struct Codec {
    pub name: &'static str,
    /// Ending after `payload.tar`.
    pub ext: &'static str,
    pub levels: RangeInclusive<i32>,
    pub default_level: i32,
    /// True when `threads` means something.
    pub threaded: bool,
    /// The command that turns the payload back into a tar, for HOWTO.txt.
    pub by_hand: &'static str,
    pub encode: fn(Sink, level: i32, threads: u32) -> io::Result<Box<dyn Encode>>,
    pub decode: Decode,
}

pub const CODECS: &[Codec] = &[
    Codec {
        name: "zstd",
        ext: ".zst",
        levels: 1..=19,
        default_level: 3,
        threaded: true,
        by_hand: "zstd -d",
        encode: |sink, level, threads| Ok(Box::new(Zstd::new(sink, level, threads)?)),
        decode: |input| Ok(Box::new(zstd::Decoder::new(input)?)),
    },
    Codec {
        name: "none",
        ext: "",
        levels: 0..=0,
        default_level: 0,
        threaded: false,
        by_hand: "",
        encode: |sink, _, _| Ok(Box::new(Plain(sink))),
        decode: |input| Ok(input),
    },
];

/// Errors: no such codec, with the known ones.
pub fn by_name(name: &str) -> Result<&'static Codec> {
    CODECS.iter().find(|codec| codec.name == name).with_context(|| {
        let known: Vec<_> = CODECS.iter().map(|codec| codec.name).collect();
        Fault::new(FaultKind::Failed, format!("this version has no compression '{name}'"))
            .hint(format!("it has {}", known.join(", ")))
    })
}

struct Plain(Sink);

impl Write for Plain {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Encode for Plain {
    fn finish(self: Box<Self>) -> io::Result<Sink> {
        Ok(self.0)
    }
}

struct Zstd(zstd::Encoder<'static, Sink>);

/// Small jobs keep all workers busy on a tree of a few MB and bound the memory (measured).
const ZSTD_JOB_BYTES: u32 = 1 << 20;

impl Zstd {
    fn new(sink: Sink, level: i32, threads: u32) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(sink, level)?;
        encoder.include_checksum(true)?;
        if threads > 1 {
            encoder.multithread(threads)?;
            encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB_BYTES))?;
        }
        Ok(Self(encoder))
    }
}

impl Write for Zstd {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Encode for Zstd {
    fn finish(self: Box<Self>) -> io::Result<Sink> {
        self.0.finish()
    }
}
