//! Reads a snapshot file and treats it as hostile: every size is bounded by the manifest, every byte is hashed,
//! nothing is believed before it is checked. Memory does not grow with the contents of files.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ::tar::EntryType;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::codec::{self, Codec};
use super::contents::{Limits, counted, read_stream};
use super::guard::{Hashing, READ_BYTES};
use super::keys::Keys;
use super::legacy;
use super::seal::{self, HeldFileKey, Opening, SEALED_EXT};
use super::sign::{self, SIGNATURE_MAX_BYTES, SIGNATURE_NAME};
use super::tar::{self, BLOCK, TarMember};
use super::writer::{HOWTO_NAME, MANIFEST_NAME, is_own_howto};
use crate::model::index::{Index, Name};
use crate::model::problem::{Fault, FaultKind};
use crate::model::snapshot::{Counts, FORMAT, MANIFEST_MAX_BYTES, Snapshot};
use crate::sys::fs::files;
use crate::sys::hex;
use crate::sys::process::signals::check_stopped;

/// The length of a file's head that always holds the manifest.
pub const HEAD_BYTES: usize = BLOCK + MANIFEST_MAX_BYTES;
/// Entries before the payload, each once; more is no snapshot.
const CLEAR_NAMES: [&str; 3] = [MANIFEST_NAME, SIGNATURE_NAME, HOWTO_NAME];
const HOWTO_MAX_BYTES: u64 = 16 << 10;
/// A tar ends with zeros up to the size of its records, and the payload with those up to a block.
const TAIL_MAX_BYTES: u64 = 10 * 1024 + BLOCK as u64;
const UPGRADE: &str = "upgrade proxmox-backup-extra";

/// The clear manifest, without a look at the payload.
#[derive(Debug, Clone)]
pub struct Head {
    pub snapshot: Snapshot,
    /// SHA-256 of the whole MANIFEST.json entry, lower-case hex.
    pub manifest_sha256: String,
}

impl Head {
    /// Parses the first bytes of a file, as few as reach over the manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let block: &[u8; BLOCK] = bytes.first_chunk().context("shorter than a header")?;
        let header = ::tar::Header::from_byte_slice(block);
        ensure!(
            *header.path_bytes() == *MANIFEST_NAME.as_bytes(),
            "does not begin with {MANIFEST_NAME}: not a snapshot of pbx-config"
        );
        let size = usize::try_from(header.entry_size()?)?;
        ensure!(size <= MANIFEST_MAX_BYTES, "its manifest is larger than {MANIFEST_MAX_BYTES} bytes");
        let manifest = bytes.get(BLOCK..BLOCK + size).context("ends within the manifest")?;
        Ok(Self { snapshot: parse_manifest(manifest)?, manifest_sha256: hex(&Sha256::digest(manifest)) })
    }

    /// Returns how many bytes of the head `parse` needs, read from the first block. None: there is no header.
    pub fn needed(bytes: &[u8]) -> Option<usize> {
        let header = ::tar::Header::from_byte_slice(bytes.first_chunk::<BLOCK>()?);
        let size = usize::try_from(header.entry_size().ok()?).ok()?;
        Some(BLOCK + size.min(MANIFEST_MAX_BYTES))
    }
}

/// The most bytes of a file that reach over its signature.
pub const SIGNED_HEAD_BYTES: usize = HEAD_BYTES + CLEAR_NAMES.len() * 2 * BLOCK + CLEAR_TEXTS_MAX_BYTES;
/// Bytes of the signature and HOWTO.txt at most.
const CLEAR_TEXTS_MAX_BYTES: usize = 32 << 10;

/// Returns the fingerprint of the key that signed a manifest, from the first bytes of a file. None: it is not signed.
/// Errors: its signature does not hold.
pub fn signer(bytes: &[u8]) -> Result<Option<String>> {
    let manifest =
        Head::needed(bytes).and_then(|needed| bytes.get(BLOCK..needed)).context("is no snapshot")?;
    let mut archive = ::tar::Archive::new(bytes);
    for entry in archive.entries()?.raw(true).take(CLEAR_NAMES.len()) {
        let mut entry = entry?;
        if *entry.path_bytes() == *SIGNATURE_NAME.as_bytes() {
            let mut signature = Vec::new();
            entry.by_ref().take(SIGNATURE_MAX_BYTES).read_to_end(&mut signature)?;
            return sign::check(&signature, manifest).map(Some);
        }
    }
    Ok(None)
}

fn parse_manifest(text: &[u8]) -> Result<Snapshot> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(text).context("its manifest is damaged")?;
    ensure!(format >= 1, "its manifest is damaged: unknown format {format}");
    if format > FORMAT {
        let fault =
            Fault::failed(format!("was written in format {format}; this version reads up to {FORMAT}"));
        return Err(fault.hint(UPGRADE).into());
    }
    serde_json::from_slice(text).context("its manifest is damaged")
}

/// An open snapshot file whose manifest was read and whose payload was found.
pub struct Archive {
    file: File,
    pub head: Head,
    payload_at: u64,
    /// The fingerprint of the key that signed the manifest, when it is signed; the signature holds.
    pub signed_by: Option<String>,
    keys: Keys,
    /// The manifest of a legacy archive.
    pub old: Option<legacy::Manifest>,
    item_of: ItemLookup,
}

/// Finds the catalogue's item of a path, and whether it is secret: only old archives do not tell it themselves.
pub type ItemLookup = fn(&Name) -> (&'static str, bool);

impl Archive {
    /// Opens a snapshot file; a link is not followed, and what is no regular file is not waited for.
    /// Errors: `Verification` when the file is damaged, with its path.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, _) = files::open_read(path).with_context(|| format!("cannot open {}", path.display()))?;
        Self::of(path, file).map_err(|error| damaged(&error, path))
    }

    fn of(path: &Path, mut file: File) -> Result<Self> {
        let mut block = Vec::new();
        file.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        file.seek(SeekFrom::Start(0))?;
        if block.starts_with(MANIFEST_NAME.as_bytes()) || !legacy::is_one(path, &block) {
            return Self::from_file(file);
        }
        let legacy::LegacyArchive { file, manifest, snapshot, payload_at } = legacy::open(path, file)?;
        let head = Head { snapshot, manifest_sha256: String::new() };
        let (keys, old) = (Keys::default(), Some(manifest));
        Ok(Self { file, head, payload_at, signed_by: None, keys, old, item_of: |_| (legacy::ITEM, true) })
    }

    /// Sets the lookup of items for the paths of legacy archives.
    #[must_use]
    pub fn with_item_lookup(mut self, item_of: ItemLookup) -> Self {
        self.item_of = item_of;
        self
    }

    fn from_file(mut file: File) -> Result<Self> {
        let mut bytes = Vec::new();
        file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut bytes)?;
        let head = Head::parse(&bytes)?;
        file.seek(SeekFrom::Start(0))?;
        let (payload_at, signature) = find_payload(&file, &head.snapshot)?;
        // A signature that does not hold is no signature that is missing: somebody changed the manifest.
        let manifest = || bytes.get(BLOCK..Head::needed(&bytes)?);
        let signed_by = signature.zip(manifest()).map(|(signature, text)| sign::check(&signature, text));
        let signed_by = signed_by.transpose()?;
        let keys = Keys::default();
        Ok(Self { file, head, payload_at, signed_by, keys, old: None, item_of: |_| (legacy::ITEM, true) })
    }

    /// Sets the keys that open an encrypted payload.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.head.snapshot
    }

    /// Reads all of it: the payload's hash, every entry's hash, the index against the entries.
    /// `visit` sees each entry once, the index not; it may read from it or not.
    /// Errors: `Verification` for every difference, `Unseal` when nothing opens it, what `visit` says, a signal.
    pub fn read(
        &mut self,
        path: &Path,
        visit: &mut dyn FnMut(&TarMember, &mut dyn Read) -> Result<()>,
    ) -> Result<Index> {
        let held = self.key(path).map_err(|error| not_opened(&error, path))?;
        self.file.seek(SeekFrom::Start(self.payload_at))?;

        let mut visit_error = None;
        let mut visit = |entry: &TarMember, content: &mut dyn Read| {
            visit(entry, content).map_err(|error| {
                visit_error = Some(error);
                anyhow::anyhow!("stopped")
            })
        };
        let snapshot = &self.head.snapshot;
        let index = if snapshot.legacy.is_some() {
            let read =
                legacy::read(&self.file, self.payload_at, snapshot, held.as_ref(), &self.item_of, &mut visit);
            read.inspect(|index| {
                let bytes = index.entries.iter().map(|entry| entry.size).sum();
                self.head.snapshot.counts = counted(index, Counts { bytes, ..Counts::default() });
            })
        } else {
            read_payload(&self.file, snapshot, held.as_ref(), &mut visit)
        };
        if index.is_err() {
            // A stop comes as an error of the reading or of `visit`: it is neither damage nor the visitor's.
            check_stopped()?;
        }

        match (visit_error, index) {
            (Some(error), _) => Err(error),
            (None, index) => index.map_err(|error| damaged(&error, path)),
        }
    }

    /// Proves the payload as it is stored, by its hash alone: that much can be said without a key.
    pub fn check_payload(&mut self, path: &Path) -> Result<()> {
        let checked = self.hash_payload();
        check_stopped()?;
        checked.map_err(|error| damaged(&error, path))
    }

    /// True when `read` would ask nobody: it is not sealed, or one of the keys opens it.
    pub fn is_open(&mut self, path: &Path) -> Result<bool> {
        let Some(header) = self.seal().map_err(|error| damaged(&error, path))? else { return Ok(true) };
        match self.keys.find(&header, self.head.snapshot.sealed.as_ref()) {
            Ok(found) => Ok(found.is_some()),
            Err(error) => Err(not_opened(&error, path)),
        }
    }

    /// Writes the payload without its seal, still compressed. Its size and SHA-256 as written.
    /// Errors: `Unseal`, `Verification`: what was written by then is worth nothing.
    pub fn unseal(&mut self, path: &Path, out: &mut dyn io::Write) -> Result<(u64, String)> {
        let held = self.key(path).map_err(|error| not_opened(&error, path))?;
        self.file.seek(SeekFrom::Start(self.payload_at))?;
        let mut stored = Hashing::new((&self.file).take(self.head.snapshot.payload.size));
        let input = BufReader::with_capacity(READ_BYTES, &mut stored);
        let copied = match &held {
            None => copy_hashed(input, out),
            Some(held) => Opening::new(input).and_then(|opening| copy_hashed(opening.open(held)?, out)),
        };
        let copied = copied.and_then(|copied| expect(stored, &self.head.snapshot).map(|()| copied));
        check_stopped()?;
        copied.map_err(|error| match error.downcast_ref::<NotWritten>() {
            Some(_) => error,
            None => damaged(&error, path),
        })
    }

    /// Damage is told as such before anybody is asked for a key: a wrong key and a damaged file look alike.
    fn key(&mut self, path: &Path) -> Result<Option<HeldFileKey>> {
        let Some(header) = self.seal()? else { return Ok(None) };
        let sealed = self.head.snapshot.sealed.clone();
        if let Some(held) = self.keys.find(&header, sealed.as_ref())? {
            return Ok(Some(held));
        }
        self.hash_payload()?;
        self.keys.find_or_ask(&header, sealed.as_ref(), &path.display().to_string()).map(Some)
    }

    /// The header of a sealed payload, by which keys are tried.
    fn seal(&mut self) -> Result<Option<Vec<u8>>> {
        let snapshot = &self.head.snapshot;
        if snapshot.sealed.is_none() {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(self.payload_at))?;
        let input = BufReader::new((&self.file).take(snapshot.payload.size));
        Ok(Some(Opening::new(input)?.header))
    }

    fn hash_payload(&mut self) -> Result<()> {
        self.file.seek(SeekFrom::Start(self.payload_at))?;
        expect(Hashing::new((&self.file).take(self.head.snapshot.payload.size)), &self.head.snapshot)
    }
}

/// `Unseal` stays what it is; everything else is damage.
fn not_opened(error: &anyhow::Error, path: &Path) -> anyhow::Error {
    match (check_stopped(), error.downcast_ref::<Fault>()) {
        (Err(stopped), _) => stopped,
        (Ok(()), Some(fault)) => fault.clone().into(),
        (Ok(()), None) => damaged(error, path),
    }
}

/// The output's refusal, which says nothing of the snapshot.
#[derive(Debug)]
struct NotWritten;

impl std::fmt::Display for NotWritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot write the decrypted payload")
    }
}

fn copy_hashed(from: impl Read, to: &mut dyn io::Write) -> Result<(u64, String)> {
    let mut from = Hashing::new(from);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => to.write_all(&buffer[..n]).context(NotWritten)?,
        }
    }
    let (size, sha256) = from.finish()?;
    Ok((size, hex(&sha256)))
}

/// Reads what is left of a payload; all of it must be what the manifest says.
fn expect(stored: Hashing<impl Read>, snapshot: &Snapshot) -> Result<()> {
    let (_, sha256) = stored.finish()?;
    ensure!(hex(&sha256) == snapshot.payload.sha256, "the SHA-256 of its payload differs from its manifest");
    Ok(())
}

/// Finds the offset of the payload, and the signature before it.
/// What stands before the payload is bounded and ours; the payload must have the manifest's name and size, and nothing
/// stands behind it.
fn find_payload(file: &File, snapshot: &Snapshot) -> Result<(u64, Option<Vec<u8>>)> {
    let payload = &snapshot.payload;
    let mut archive = ::tar::Archive::new(file);
    let mut before: Vec<(Name, Vec<u8>)> = Vec::new();

    for entry in archive.entries_with_seek()?.raw(true) {
        let mut entry = entry.context("damaged header")?;
        let name = Name::new(entry.path_bytes());
        let header = entry.header();
        // tar takes the last of two, and follows headers that rename or link: it must see what we see.
        ensure!(header.entry_type() == EntryType::Regular, "{name}: is not a regular file");
        let is_plain = header.as_ustar().is_some_and(|header| header.prefix[0] == 0);
        ensure!(is_plain, "{name}: has a header of another program");
        ensure!(before.iter().all(|(other, _)| *other != name), "{name}: is in it twice");

        if name.as_bytes() == payload.name.as_bytes() {
            ensure!(
                entry.size() == payload.size,
                "its payload has {} bytes, its manifest says {}",
                entry.size(),
                payload.size
            );
            let at = entry.raw_file_position();
            let end = at.checked_add(payload.size).context("its payload has no end")?;
            check_end(file, end)?;
            let signature = check_clear(before, snapshot)?;
            return Ok((at, signature));
        }

        let known = CLEAR_NAMES.iter().any(|clear| name.as_bytes() == clear.as_bytes());
        ensure!(known, "has an entry {name} that does not belong in a snapshot");
        let end = entry.raw_file_position().checked_add(entry.size()).context("damaged header")?;
        check_zeros(file, end, tar::padding(entry.size()).len() as u64)
            .with_context(|| format!("{name}: there is something after it"))?;

        let mut text = Vec::new();
        if name.as_bytes() != MANIFEST_NAME.as_bytes() {
            ensure!(entry.size() <= SIGNATURE_MAX_BYTES.max(HOWTO_MAX_BYTES), "{name}: is too large");
            entry.read_to_end(&mut text).with_context(|| format!("{name}: is damaged"))?;
        }
        before.push((name, text));
    }
    bail!("has no payload")
}

/// Behind the payload there are zeros: anything else, tar might take for more of the snapshot.
fn check_end(file: &File, end: u64) -> Result<()> {
    let len = file.metadata()?.len();
    ensure!(len >= end, "it ends within the payload");
    ensure!(len - end <= TAIL_MAX_BYTES, "there is something after its payload");

    check_zeros(file, end, len - end).context("there is something after its payload")
}

/// Errors: there is something else.
fn check_zeros(file: &File, from: u64, len: u64) -> Result<()> {
    let mut bytes = vec![0; usize::try_from(len)?];
    file.read_exact_at(&mut bytes, from)?;
    ensure!(bytes.iter().all(|byte| *byte == 0), "there are other bytes than zeros");
    Ok(())
}

/// Checks the texts beside the payload, and returns the signature.
fn check_clear(texts: Vec<(Name, Vec<u8>)>, snapshot: &Snapshot) -> Result<Option<Vec<u8>>> {
    let mut signature = None;
    let mut howto = None;
    for (name, text) in texts {
        match name.as_bytes() {
            name if name == SIGNATURE_NAME.as_bytes() => signature = Some(text),
            name if name == HOWTO_NAME.as_bytes() => howto = Some(text),
            _ => {}
        }
    }

    match howto {
        Some(text) => ensure!(
            is_own_howto(snapshot, &text, signature.is_some()),
            "{HOWTO_NAME} is not the text that it was written with: do not follow it"
        ),
        None => ensure!(snapshot.howto.is_none(), "{HOWTO_NAME} is missing"),
    }
    Ok(signature)
}

fn damaged(error: &anyhow::Error, path: &Path) -> anyhow::Error {
    if let Some(fault) = error.downcast_ref::<Fault>() {
        return fault.clone().at(path.display()).into();
    }
    let fault = Fault::new(FaultKind::Verification, format!("{}: {error:#}", path.display()));
    fault.hint("the snapshot is damaged or was changed; use another one, see `pbx-config list`").into()
}

fn read_payload(
    file: &File,
    snapshot: &Snapshot,
    held: Option<&HeldFileKey>,
    visit: &mut dyn FnMut(&TarMember, &mut dyn Read) -> Result<()>,
) -> Result<Index> {
    let codec = codec_of(snapshot)?;
    let mut stored = Hashing::new(file.take(snapshot.payload.size));
    let input = BufReader::with_capacity(READ_BYTES, &mut stored);
    let limits = Limits { entries: snapshot.counts.entries, bytes: snapshot.counts.bytes };
    let stream = match held {
        None => read_stream(input, codec, limits, visit)?,
        Some(held) => {
            let mut clear = Opening::new(input)?.open(held)?;
            let stream = read_stream(BufReader::with_capacity(READ_BYTES, &mut clear), codec, limits, visit)?;
            seal::end(&mut clear)?;
            stream
        }
    };
    expect(stored, snapshot)?;
    stream.compare(snapshot)
}

/// Tells the codec by the payload's name, which also shows whether it is encrypted.
fn codec_of(snapshot: &Snapshot) -> Result<&'static Codec> {
    let name = &snapshot.payload.name;
    let ext = name.strip_prefix("payload.tar").map(|ext| ext.strip_suffix(SEALED_EXT).unwrap_or(ext));
    let codec = codec::CODECS.iter().find(|codec| ext == Some(codec.ext)).with_context(|| {
        let name = Name::new(name.as_str());
        Fault::failed(format!("this version cannot read {name}")).hint(UPGRADE)
    })?;
    ensure!(
        name.ends_with(SEALED_EXT) == snapshot.sealed.is_some(),
        "its payload's name and its manifest do not agree on whether it is encrypted"
    );
    Ok(codec)
}
