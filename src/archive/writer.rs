//! Writes a snapshot file in one pass: room for the manifest at the head, the payload streaming behind it,
//! sizes and manifest written back before the fsync. Nothing of the payload is held or read twice.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::codec::{self, Encode};
use super::contents::{Limits, Stream, read_stream};
use super::seal::{SEALED_EXT, Seal};
use super::sign::{NAMESPACE, SIGNATURE_NAME, Signer};
use super::sink::Sink;
use super::tar::{self, BLOCK};
use crate::model::index::{Entry, EntryKind, INDEX_PATH, Index, Mtime, Name};
use crate::model::problem::Outcome;
use crate::model::snapshot::{Counts, MANIFEST_MAX_BYTES, Payload, Snapshot};

pub const MANIFEST_NAME: &str = "MANIFEST.json";
pub const HOWTO_NAME: &str = "HOWTO.txt";
/// Beyond the draft: digits of sizes and counts, the outcome.
const MANIFEST_SLACK_BYTES: usize = 512;
const COPY_BYTES: usize = 256 * 1024;

/// The result of comparing a file's contents with the size it was announced with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Whole,
    /// Ended early; the rest of the entry is zeros.
    Short,
}

/// Takes entries one after the other.
pub trait Members {
    /// A file's content is exactly `entry.size` bytes of `content`; its hash is filled in here.
    fn append(&mut self, entry: Entry, content: &mut dyn Read) -> Result<Fit>;
}

/// The encryption and the signature of a snapshot.
#[derive(Default)]
pub struct Protection {
    pub seal: Option<Seal>,
    pub signer: Option<Signer>,
}

pub struct Writer {
    draft: Snapshot,
    signer: Option<Signer>,
    reserved: usize,
    payload_at: u64,
    /// Small headers and files reach the encoder in large blocks: a call into it costs more than a copy.
    encoder: BufWriter<Box<dyn Encode>>,
    /// The payload before compression, so far.
    bytes: u64,
    entries: Vec<Entry>,
    buffer: Vec<u8>,
    /// Reads along what nobody can read back.
    proof: Option<JoinHandle<Result<Stream>>>,
}

/// A snapshot that was written, but not put anywhere.
pub struct Written {
    pub snapshot: Snapshot,
    /// Its index or what is wrong with it, when it was read while it was written.
    pub read: Option<Result<Index>>,
}

impl Writer {
    /// Starts a snapshot at the beginning of `file`. `draft` has all that is known before reading the host;
    /// its seal, payload, counts and outcome are filled in here and by `finish`. A seal whose key the run does not
    /// hold cannot be read back: what goes into it is read along, by a thread, as it would be read later.
    pub fn new(mut file: File, mut draft: Snapshot, protection: Protection) -> Result<Self> {
        let Protection { seal, signer } = protection;
        let codec = codec::by_name(&draft.codec.name)?;
        let sealed_ext = if seal.is_some() { SEALED_EXT } else { "" };
        draft.payload.name = format!("payload.tar{}{sealed_ext}", codec.ext);
        draft.sealed = seal.as_ref().map(|seal| seal.sealed.clone());
        draft.payload.sha256 = "0".repeat(64);

        let howto = howto(&draft, codec.by_hand, true, signer.is_some());
        draft.howto = Some(crate::sys::hex(&Sha256::digest(&howto)));

        let reserved = serde_json::to_vec_pretty(&draft)?.len() + MANIFEST_SLACK_BYTES;
        let reserved = reserved.next_multiple_of(BLOCK);
        ensure!(
            reserved <= MANIFEST_MAX_BYTES,
            "the manifest would be larger than {MANIFEST_MAX_BYTES} bytes; use a shorter note"
        );

        let mtime = draft.id.at().as_second();
        let mut head = Vec::new();
        let blank = vec![b' '; reserved];
        tar::plain(MANIFEST_NAME, &blank, mtime, &mut head)?;
        if let Some(signer) = &signer {
            // Room for it: a signature over another manifest is as long.
            tar::plain(SIGNATURE_NAME, &signer.sign(&blank), mtime, &mut head)?;
        }

        tar::plain(HOWTO_NAME, howto.as_bytes(), mtime, &mut head)?;
        let payload_at = head.len() as u64;
        head.extend_from_slice(&tar::plain_header(&draft.payload.name, 0, mtime)?);
        file.write_all(&head)?;

        let read_along = seal.as_ref().is_some_and(|seal| seal.held.is_none());
        let mut sink = Sink::new(file, seal)?;
        let proof = read_along.then(|| {
            let along = sink.tee();
            thread::Builder::new().spawn(move || read_stream(along, codec, Limits::NONE, &mut |_, _| Ok(())))
        });
        let proof = proof.transpose().context("cannot read along what is written")?;
        let encoder = (codec.encode)(sink, &draft.codec)?;
        let encoder = BufWriter::with_capacity(COPY_BYTES, encoder);
        Ok(Self {
            draft,
            signer,
            reserved,
            payload_at,
            encoder,
            bytes: 0,
            entries: Vec::new(),
            buffer: vec![0; COPY_BYTES],
            proof,
        })
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.bytes += data.len() as u64;
        Ok(self.encoder.write_all(data)?)
    }

    /// Returns the number of entries added so far.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Sets the number of unexplained files: see [`Counts::unexplained`].
    pub fn unexplained(&mut self, files: Option<u64>) {
        self.draft.counts.unexplained = files;
    }

    /// Writes the index (whose entries are those appended), then manifest and sizes, and fsyncs.
    pub fn finish(mut self, mut index: Index) -> Result<Written> {
        index.entries = std::mem::take(&mut self.entries);
        let files = index.entries.iter().filter(|entry| entry.kind == EntryKind::File).count();
        let mut counts = Counts {
            entries: index.entries.len() as u64,
            files: files as u64,
            bytes: 0,
            absent: index.absent.len() as u64,
            problems: index.problems.len() as u64,
            pmxcfs: self.draft.counts.pmxcfs,
            unexplained: self.draft.counts.unexplained,
        };
        self.draft.outcome = Outcome::of(&index.problems);
        let text = serde_json::to_vec(&index)?;
        drop(index);
        let entry = index_entry(text.len() as u64, self.draft.id.at().as_second());
        self.append(entry, &mut text.as_slice())?;
        self.write(tar::end())?;
        counts.bytes = self.bytes;

        let (file, size, sha256) =
            self.encoder.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()?.finish()?;
        let payload_name = self.draft.payload.name.clone();
        let mtime = self.draft.id.at().as_second();
        let mut tail = tar::padding(size).to_vec();
        tail.extend_from_slice(tar::end());
        let data_at = self.payload_at + BLOCK as u64;
        file.write_all_at(&tail, data_at + size)?;
        file.write_all_at(&tar::plain_header(&payload_name, size, mtime)?, self.payload_at)?;

        let mut snapshot = self.draft;
        snapshot.payload = Payload { name: payload_name, size, sha256: crate::sys::hex(&sha256) };
        snapshot.counts = counts;
        let mut manifest = serde_json::to_vec_pretty(&snapshot)?;
        ensure!(manifest.len() < self.reserved, "the manifest is larger than its reserved space");
        manifest.resize(self.reserved - 1, b' ');
        manifest.push(b'\n');
        file.write_all_at(&manifest, BLOCK as u64)?;
        if let Some(signer) = &self.signer {
            // Behind the manifest, which ends with a block, and a header of its own.
            file.write_all_at(&signer.sign(&manifest), (2 * BLOCK + self.reserved) as u64)?;
        }
        file.sync_all()?;
        let read = self.proof.map(|proof| match proof.join() {
            Ok(stream) => stream.and_then(|stream| stream.compare(&snapshot)),
            Err(panic) => std::panic::resume_unwind(panic),
        });
        Ok(Written { snapshot, read })
    }
}

impl Members for Writer {
    fn append(&mut self, mut entry: Entry, content: &mut dyn Read) -> Result<Fit> {
        self.write(&tar::header(&entry)?)?;
        let mut fit = Fit::Whole;
        if entry.kind == EntryKind::File {
            let mut hash = Sha256::new();
            let mut left = entry.size;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(COPY_BYTES).min(COPY_BYTES);
                let n = match fit {
                    Fit::Whole => read_some(content, &mut self.buffer[..want]),
                    Fit::Short => 0,
                };
                // The size is announced already; what is missing is filled so that the archive stays whole.
                let n = if n == 0 {
                    fit = Fit::Short;
                    self.buffer[..want].fill(0);
                    want
                } else {
                    n
                };
                hash.update(&self.buffer[..n]);
                self.encoder.write_all(&self.buffer[..n])?;
                left -= n as u64;
            }
            self.bytes += entry.size;
            self.write(tar::padding(entry.size))?;
            entry.sha256 = crate::sys::hex(&hash.finalize());
        }

        self.entries.push(entry);
        Ok(fit)
    }
}

/// 0 at the end and on an error: both leave the file shorter than announced.
fn read_some(content: &mut dyn Read, buffer: &mut [u8]) -> usize {
    loop {
        match content.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(n) => return n,
            Err(_) => return 0,
        }
    }
}

fn index_entry(size: u64, mtime: i64) -> Entry {
    Entry {
        item: String::new(),
        path: Name::new(INDEX_PATH),
        kind: EntryKind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        owner: String::new(),
        group: String::new(),
        mtime: Mtime(mtime, 0),
        size,
        sha256: String::new(),
        link: None,
        secret: false,
        xattrs: Vec::new(),
    }
}

/// The same for a payload that lies beside it, taken out of its file.
pub fn howto_beside(snapshot: &Snapshot) -> Result<String> {
    Ok(howto(snapshot, codec::by_name(&snapshot.codec.name)?.by_hand, false, false))
}

/// Reports whether a HOWTO.txt is the one that this snapshot was written with. The manifest of an old snapshot has no
/// hash of it: then, where it is signed, it must be the text that was written at that time, which has not changed since.
/// Nothing is to be proven of a file that is not signed: its manifest is anybody's, too.
pub fn is_own_howto(snapshot: &Snapshot, text: &[u8], is_signed: bool) -> bool {
    match &snapshot.howto {
        Some(sha256) => crate::sys::hex(&Sha256::digest(text)) == *sha256,
        None if !is_signed => true,
        None => codec::by_name(&snapshot.codec.name)
            .is_ok_and(|codec| howto(snapshot, codec.by_hand, true, is_signed).as_bytes() == text),
    }
}

/// Writes how a person opens this file without the program. `tests/howto.rs` runs the indented lines literally.
fn howto(draft: &Snapshot, by_hand: &str, packed: bool, is_signed: bool) -> String {
    let file = draft.id.file_name();
    let payload = &draft.payload.name;
    let unsealed = payload.strip_suffix(SEALED_EXT).unwrap_or(payload);
    let unbundle = if packed { format!("    tar -xf {file}\n") } else { String::new() };
    let (what, place) = if packed { ("file", "an empty folder") } else { ("folder", "it") };
    let unseal = match &draft.sealed {
        Some(_) => format!("    age -d -i key.txt -o {unsealed} {payload}\n"),
        None => String::new(),
    };
    let unpack = if by_hand.is_empty() { String::new() } else { format!("    {by_hand} {unsealed}\n") };
    let mut tools = vec!["tar"];
    tools.extend(draft.sealed.is_some().then_some("age"));
    tools.extend(by_hand.split(' ').next().filter(|tool| !tool.is_empty()));
    let tools = match tools.as_slice() {
        [one] => (*one).to_owned(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
        [] => String::new(),
    };
    format!(
        "This {what} holds the configuration of the host {host}, saved at {at}.
Any Linux opens it, with {tools} and nothing else, as root in {place}{key}:

{unbundle}    sha256sum {payload}
{unseal}{unpack}    mkdir files
    tar --xattrs --xattrs-include='*' --numeric-owner --delay-directory-restore -xpf payload.tar -C files

sha256sum must print the \"sha256\" that MANIFEST.json names.
{signed}files/ then holds the host's files at their places (etc/, root/, ...). /etc/pve, the cluster
file system, is in files/etc/pve; its database is files/var/lib/pve-cluster/config.db.
What commands said of the host is in files/.pbx/state; files/.pbx/index.json lists every file
with its hash, and what could not be read.
{passphrase}
Never copy files/etc/pve over a running node's /etc/pve as a whole.{ours}
",
        host = draft.id.host(),
        at = draft.id.at(),
        ours = if packed {
            format!(
                " With the package
proxmox-backup-extra installed, `pbx-config show {file}` and
`pbx-config restore {file} --to DIR` do all of the above, and check it."
            )
        } else {
            String::new()
        },
        signed = if is_signed { howto_signed() } else { String::new() },
        key = if draft.sealed.is_some() { HOWTO_KEY } else { "" },
        passphrase = match &draft.sealed {
            Some(sealed) if !sealed.passphrases.is_empty() => HOWTO_PASSPHRASE,
            _ => "",
        },
    )
}

fn howto_signed() -> String {
    format!(
        "MANIFEST.sig is signed by the host's SSH key; this prints whose it is:
  ssh-keygen -Y check-novalidate -n {NAMESPACE} -s MANIFEST.sig < MANIFEST.json
"
    )
}

const HOWTO_KEY: &str = ".
It is sealed: the key that opens it must be there as key.txt, a file with a line
AGE-SECRET-KEY-1..., or a private SSH key that it was sealed to. MANIFEST.json names the
fingerprints of the keys that open it. In that folder";

const HOWTO_PASSPHRASE: &str = "
A passphrase opens it, too: `pbx-config decrypt` asks for it, on any machine with that package.
";
