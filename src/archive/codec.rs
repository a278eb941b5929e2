//! The codecs of a payload: one entry each. Everything above sees `Write` and `Read`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use liblzma::stream::{CONCATENATED, LzmaOptions, MtStreamBuilder, PRESET_EXTREME, Stream};
use zstd::stream::raw;
use zstd::stream::zio;
use zstd::zstd_safe::CParameter;

use super::sink::Sink;
use crate::model::problem::Fault;
use crate::model::snapshot::Compression;
use crate::sys::process::threads::are_available;

/// A running encoder. `finish` writes what is left and gives the sink back.
pub trait Encode: Write {
    fn finish(self: Box<Self>) -> io::Result<Sink>;
}

/// Wraps a reader of the stored bytes into one of the tar. It reads to the very end, stream after stream as the
/// tools do, and what is no stream is an error: nothing is there that it does not see.
type Decode = for<'a> fn(Box<dyn Read + 'a>) -> io::Result<Box<dyn Read + 'a>>;

pub struct Codec {
    pub name: &'static str,
    /// Another name that the predecessor's users know.
    alias: &'static str,
    /// Ending after `payload.tar`.
    pub ext: &'static str,
    pub levels: RangeInclusive<i32>,
    /// The levels of `MODES`.
    modes: [i32; 4],
    /// The threads that it can use at a level and mode of this many asked for; fewer where memory would grow.
    threads: fn(&Compression) -> u32,
    /// The command that turns the payload back into a tar, for HOWTO.txt.
    pub by_hand: &'static str,
    pub encode: fn(Sink, &Compression) -> Result<Box<dyn Encode>>,
    pub decode: Decode,
}

/// The names of the legacy program for the compression effort; the second one is the default.
pub const MODES: [&str; 4] = ["fast", "standard", "maximum", "ultra"];
const STANDARD: usize = 1;

pub const CODECS: &[Codec] = &[
    Codec {
        name: "zstd",
        alias: "zst",
        ext: ".zst",
        levels: 1..=22,
        modes: [1, 3, 19, 22],
        // A worker of the highest levels takes hundreds of MiB.
        threads: |asked| if asked.level > 19 { 1 } else { asked.threads },
        by_hand: "zstd -d",
        encode: |sink, with| Ok(Box::new(zstd_encoder(sink, with)?)),
        decode: |input| Ok(Box::new(zstd::Decoder::new(input)?)),
    },
    Codec {
        name: "xz",
        alias: "",
        ext: ".xz",
        levels: 0..=9,
        modes: [1, 6, 9, 9],
        threads: xz_threads,
        by_hand: "xz -d",
        encode: |sink, with| {
            let threads = if with.threads > 1 && are_available(with.threads) { with.threads } else { 1 };
            let stream = xz_builder(with, threads).encoder()?;
            Ok(Box::new(liblzma::write::XzEncoder::new_stream(sink, stream)))
        },
        decode: |input| {
            let stream = Stream::new_stream_decoder(XZ_READ_BYTES, CONCATENATED)?;
            Ok(Box::new(liblzma::read::XzDecoder::new_stream(input, stream)))
        },
    },
    Codec {
        name: "lzma",
        alias: "",
        ext: ".lzma",
        levels: 0..=9,
        modes: [1, 6, 9, 9],
        threads: |_| 1,
        by_hand: "lzma -d",
        encode: |sink, with| {
            let stream = Stream::new_lzma_encoder(&LzmaOptions::new_preset(xz_preset(with))?)?;
            Ok(Box::new(liblzma::write::XzEncoder::new_stream(sink, stream)))
        },
        decode: |input| Ok(Box::new(LzmaDecoder::new(input)?)),
    },
    Codec {
        name: "gzip",
        alias: "pigz",
        ext: ".gz",
        levels: 1..=9,
        modes: [1, 6, 9, 9],
        threads: |_| 1,
        by_hand: "gzip -d",
        encode: |sink, with| {
            let level = flate2::Compression::new(with.level.unsigned_abs());
            Ok(Box::new(flate2::write::GzEncoder::new(sink, level)))
        },
        decode: |input| Ok(Box::new(flate2::read::MultiGzDecoder::new(input))),
    },
    Codec {
        name: "bzip2",
        alias: "bz2",
        ext: ".bz2",
        levels: 1..=9,
        modes: [1, 9, 9, 9],
        threads: |_| 1,
        by_hand: "bzip2 -d",
        encode: |sink, with| {
            let level = bzip2::Compression::new(with.level.unsigned_abs());
            Ok(Box::new(bzip2::write::BzEncoder::new(sink, level)))
        },
        decode: |input| Ok(Box::new(bzip2::read::MultiBzDecoder::new(input))),
    },
    Codec {
        name: "none",
        alias: "",
        ext: "",
        levels: 0..=0,
        modes: [0; 4],
        threads: |_| 1,
        by_hand: "",
        encode: |sink, _| Ok(Box::new(Plain(sink))),
        decode: |input| Ok(input),
    },
];

/// Errors: no such codec, with the known ones.
pub fn by_name(name: &str) -> Result<&'static Codec> {
    let name = if name == "gz" { "gzip" } else { name };
    CODECS.iter().find(|codec| codec.name == name || !name.is_empty() && codec.alias == name).with_context(
        || {
            let known: Vec<_> = CODECS.iter().map(|codec| codec.name).collect();
            Fault::usage(format!("unknown compression '{name}'"))
                .hint(format!("there is {}", known.join(", ")))
        },
    )
}

/// The codec, level, mode and threads as they will really run.
/// Errors: `Usage` for a name, mode or level that is not there, or for a level beside a mode.
pub fn settle(name: &str, mode: Option<&str>, level: Option<i32>, threads: u32) -> Result<Compression> {
    let codec = by_name(name)?;
    let usage = |message: String, hint: &str| Fault::usage(message).hint(hint);
    let at = match mode {
        None => STANDARD,
        Some(_) if level.is_some() => {
            return Err(usage(
                "compression-mode and compression-level cannot be used together".into(),
                "remove one of them",
            )
            .into());
        }
        Some(word) => MODES.iter().position(|mode| *mode == word).with_context(|| {
            usage(
                format!("unknown compression-mode '{word}'"),
                "valid values are: fast, standard, maximum, ultra",
            )
        })?,
    };
    let level = level.unwrap_or(codec.modes[at]);
    if !codec.levels.contains(&level) {
        let (low, high) = (codec.levels.start(), codec.levels.end());
        let message = format!("compression-level {level} is not between {low} and {high} for {}", codec.name);
        return Err(usage(message, "remove it to use the default").into());
    }

    let mut settled = Compression {
        name: codec.name.to_owned(),
        level,
        mode: mode.map(str::to_owned),
        threads: threads.max(1),
    };
    settled.threads = (codec.threads)(&settled);
    Ok(settled)
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

/// Small jobs keep all workers busy on a tree of a few MB and bound the memory (measured).
const ZSTD_JOB_BYTES: u32 = 1 << 20;
/// The first level that is worth its time only when a job is larger than the window.
const ZSTD_LARGE_WINDOW_LEVEL: i32 = 10;

type ZstdWriter = zio::Writer<Sink, raw::Encoder<'static>>;

/// An encoder whose threads start with the first bytes; without them it goes on alone.
struct ZstdEncoder {
    writer: Option<ZstdWriter>,
    /// How to go on alone, as long as nothing was written.
    alone: Option<Compression>,
}

fn zstd_encoder(sink: Sink, with: &Compression) -> io::Result<ZstdEncoder> {
    let writer = Some(zio::Writer::new(sink, zstd_raw(with, with.threads)?));
    Ok(ZstdEncoder { writer, alone: Some(with.clone()).filter(|with| with.threads > 1) })
}

fn zstd_raw(with: &Compression, threads: u32) -> io::Result<raw::Encoder<'static>> {
    let mut encoder = raw::Encoder::new(with.level)?;
    encoder.set_parameter(CParameter::ChecksumFlag(true))?;
    if threads > 1 {
        encoder.set_parameter(CParameter::NbWorkers(threads))?;
        if with.level < ZSTD_LARGE_WINDOW_LEVEL {
            encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES))?;
        }
    }
    Ok(encoder)
}

impl ZstdEncoder {
    fn writer(&mut self) -> io::Result<&mut ZstdWriter> {
        self.writer.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for ZstdEncoder {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.writer()?.write(data);
        let Some(alone) = self.alone.take_if(|_| !data.is_empty()) else { return written };
        if written.is_err()
            && let Some(writer) = self.writer.take()
        {
            let (sink, _) = writer.into_inner();
            self.writer = Some(zio::Writer::new(sink, zstd_raw(&alone, 1)?));
            return self.writer()?.write(data);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer()?.flush()
    }
}

impl Encode for ZstdEncoder {
    fn finish(mut self: Box<Self>) -> io::Result<Sink> {
        self.writer()?.finish()?;
        let writer = self.writer.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(writer.into_inner().0)
    }
}

/// The memory that xz may take with all its threads; on a host with many processors it would take tens of GiB.
const XZ_WRITE_BYTES: u64 = 512 << 20;
/// Level 9 is read back in 65 MiB; a stream that wants much more is not ours.
const XZ_READ_BYTES: u64 = 256 << 20;

fn xz_preset(with: &Compression) -> u32 {
    let extreme = matches!(with.mode.as_deref(), Some("maximum" | "ultra"));
    with.level.unsigned_abs() | if extreme { PRESET_EXTREME } else { 0 }
}

fn xz_builder(with: &Compression, threads: u32) -> MtStreamBuilder {
    let mut builder = MtStreamBuilder::new();
    builder.preset(xz_preset(with)).threads(threads).check(liblzma::stream::Check::Crc64);
    builder
}

fn xz_threads(asked: &Compression) -> u32 {
    let fits = |threads: &u32| xz_builder(asked, *threads).memusage() <= XZ_WRITE_BYTES;
    (1..=asked.threads).rev().find(fits).unwrap_or(1)
}

/// A stream of this kind ends without a look at what follows. `lzma -d` takes that for damage, and so do we.
struct LzmaDecoder<R: Read>(liblzma::bufread::XzDecoder<BufReader<R>>);

impl<R: Read> LzmaDecoder<R> {
    fn new(input: R) -> io::Result<Self> {
        let stream = Stream::new_lzma_decoder(XZ_READ_BYTES)?;
        Ok(Self(liblzma::bufread::XzDecoder::new_stream(BufReader::new(input), stream)))
    }
}

impl<R: Read> Read for LzmaDecoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        if n == 0 && !buffer.is_empty() && !self.0.get_mut().fill_buf()?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "there is data after the end of its stream",
            ));
        }
        Ok(n)
    }
}

impl Encode for liblzma::write::XzEncoder<Sink> {
    fn finish(self: Box<Self>) -> io::Result<Sink> {
        (*self).finish()
    }
}

impl Encode for flate2::write::GzEncoder<Sink> {
    fn finish(self: Box<Self>) -> io::Result<Sink> {
        (*self).finish()
    }
}

impl Encode for bzip2::write::BzEncoder<Sink> {
    fn finish(self: Box<Self>) -> io::Result<Sink> {
        (*self).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(name: &str, mode: Option<&str>, level: Option<i32>) -> String {
        settle(name, mode, level, 2)
            .map_or_else(|error| error.to_string(), |c| format!("{} {} {}", c.name, c.level, c.threads))
    }

    #[test]
    fn the_words_of_the_predecessor_become_levels() {
        assert_eq!(told("zst", Some("ultra"), None), "zstd 22 1");
        assert_eq!(told("pigz", Some("fast"), None), "gzip 1 1");
        assert_eq!(told("gz", None, None), "gzip 6 1");
        assert_eq!(told("bz2", None, Some(4)), "bzip2 4 1");
        assert_eq!(told("xz", Some("maximum"), None), "xz 9 1");
    }

    #[test]
    fn what_cannot_be_is_told() {
        assert_eq!(told("lz4", None, None), "unknown compression 'lz4'");
        assert_eq!(told("xz", None, Some(10)), "compression-level 10 is not between 0 and 9 for xz");
        assert_eq!(
            told("xz", Some("fast"), Some(1)),
            "compression-mode and compression-level cannot be used together"
        );
        assert_eq!(told("xz", Some("best"), None), "unknown compression-mode 'best'");
    }

    #[test]
    fn xz_takes_fewer_threads_before_it_takes_too_much_memory() {
        let threads = |level| settle("xz", None, Some(level), 64).unwrap().threads;
        assert!((1..=64).contains(&threads(9)) && threads(9) < threads(1), "{} {}", threads(9), threads(1));
    }

    #[test]
    fn every_codec_reads_back_what_it_wrote_at_every_end_of_its_levels() {
        let data: Vec<u8> = (0..200_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for codec in CODECS {
            for level in [*codec.levels.start(), *codec.levels.end()] {
                let file = tempfile::NamedTempFile::new().unwrap();
                let with = settle(codec.name, None, Some(level), 2).unwrap();
                let mut encoder =
                    (codec.encode)(Sink::new(file.reopen().unwrap(), None).unwrap(), &with).unwrap();
                encoder.write_all(&data).unwrap();
                let (_, size, _) = encoder.finish().unwrap().finish().unwrap();
                assert_eq!(size, file.as_file().metadata().unwrap().len());
                let mut back = Vec::new();
                (codec.decode)(Box::new(file.reopen().unwrap())).unwrap().read_to_end(&mut back).unwrap();
                assert!(back == data, "{} {level}", codec.name);
            }
        }
    }
}
