//! The predecessor's archives, read as if they were snapshots: its bundles, and its loose archives with their
//! sidecars, packed and encrypted in any way it knew. They are never written, and believed as little as ours are.
//!
//! `open` finds the parts and the manifest, `contents` reads the tar, `tar` its headers, `places` says where its
//! paths belong.

mod contents;
mod manifest;
mod places;
mod tar;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use jiff::tz::TimeZone;

pub use contents::{ITEM, read};
pub use manifest::Manifest;

use super::tar::BLOCK;
use crate::model::legacy::{LegacyName, MANIFEST, METADATA, SHA256, SIDECARS};
use crate::model::snapshot::Snapshot;
use crate::sys::fs::files;

/// The size limit of a manifest or a checksum file; theirs have less than a KiB.
const SIDECAR_MAX_BYTES: u64 = 64 * 1024;
/// Entries of a bundle; more is none.
const BUNDLE_ENTRIES_MAX: usize = 8;
/// The length of a bundle's head that holds its manifest nearly always.
pub const HEAD_BYTES: usize = 4096;

/// An archive whose parts were found and agree with each other.
pub struct LegacyArchive {
    pub file: File,
    pub manifest: Manifest,
    pub snapshot: Snapshot,
    /// The place in the file where the archive begins.
    pub payload_at: u64,
}

/// True for a file that is the predecessor's by its name or by how it begins.
pub fn is_one(path: &Path, head: &[u8]) -> bool {
    name_of(path).is_some() || first_member(head).is_some_and(|(name, _)| name.ends_with(METADATA))
}

fn name_of(path: &Path) -> Option<LegacyName> {
    LegacyName::parse(path.file_name()?.to_str()?)
}

/// Name and size of the first entry, from the first block.
fn first_member(head: &[u8]) -> Option<(String, u64)> {
    let header = ::tar::Header::from_byte_slice(head.first_chunk::<BLOCK>()?);
    let sum: u32 = head[..BLOCK]
        .iter()
        .enumerate()
        .map(|(n, b)| if (148..156).contains(&n) { 32 } else { u32::from(*b) })
        .sum();
    let name = String::from_utf8(header.path_bytes().into_owned()).ok()?;
    (header.cksum().ok()? == sum).then_some((base(&name).to_owned(), header.entry_size().ok()?))
}

/// Names in a bundle are taken without their folders.
fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The manifest from the first bytes of a bundle: that much lists it. None: they are too few, or it is none.
pub fn head(bytes: &[u8]) -> Option<Result<Manifest>> {
    let (name, size) = first_member(bytes)?;
    if !(name.ends_with(METADATA) || name.ends_with(MANIFEST)) || size > SIDECAR_MAX_BYTES {
        return None;
    }
    let size = usize::try_from(size).ok()?;
    Some(Manifest::parse(bytes.get(BLOCK..BLOCK + size)?))
}

/// A snapshot as its manifest tells it, without a look at the rest.
pub fn told(name: &LegacyName, manifest: &Manifest, size: u64, zone: &TimeZone) -> Result<Snapshot> {
    manifest.snapshot(name, size, zone)
}

/// The parts of one archive.
#[derive(Default)]
struct Parts {
    manifest: Option<Vec<u8>>,
    checksum: Option<Vec<u8>>,
}

/// Finds all parts, in the bundle or beside the archive, and holds them against each other.
pub fn open(path: &Path, mut file: File) -> Result<LegacyArchive> {
    let mut block = [0; BLOCK];
    let begins_as_bundle = file.read_exact(&mut block).is_ok()
        && first_member(&block).is_some_and(|(name, _)| SIDECARS.iter().any(|ending| name.ends_with(ending)));
    file.seek(SeekFrom::Start(0))?;

    let name = name_of(path);
    if begins_as_bundle || name.as_ref().is_some_and(|name| name.bundle) {
        return bundle(file);
    }

    let name = name.context("its name is not the name of a legacy archive")?;
    let size = file.metadata()?.len();
    let beside = |ending: &str| -> Result<Option<Vec<u8>>> {
        let mut sidecar = path.as_os_str().to_owned();
        sidecar.push(ending);
        match files::open_read(Path::new(&sidecar)) {
            Ok((file, _)) => small(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| Path::new(&sidecar).display().to_string()),
        }
    };
    let manifest = match beside(METADATA)? {
        Some(text) => Some(text),
        None => beside(MANIFEST)?,
    };
    let parts = Parts { manifest, checksum: beside(SHA256)? };
    let (manifest, snapshot) = agree(&name, &parts, size)?;
    Ok(LegacyArchive { file, manifest, snapshot, payload_at: 0 })
}

fn small(file: impl Read) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(SIDECAR_MAX_BYTES + 1).read_to_end(&mut text)?;
    ensure!(
        text.len() as u64 <= SIDECAR_MAX_BYTES,
        "its manifest or checksum is larger than {SIDECAR_MAX_BYTES} bytes"
    );
    Ok(text)
}

/// A plain tar of the manifest, the checksum and the archive.
fn bundle(file: File) -> Result<LegacyArchive> {
    let mut parts = Parts::default();
    let mut archive: Option<(String, u64, u64)> = None;
    let end = file.metadata()?.len();
    {
        let mut reader = ::tar::Archive::new(&file);
        for (n, entry) in reader.entries_with_seek()?.enumerate() {
            ensure!(n < BUNDLE_ENTRIES_MAX, "has more entries than a legacy bundle");
            let mut entry = entry.context("the bundle is damaged")?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = base(&name).to_owned();
            ensure!(entry.header().entry_type().is_file(), "{name}: is not a regular file");
            let twice = |what: &str| format!("has two {what}");
            if name.ends_with(".metadata.sha256") {
                continue;
            }
            if name.ends_with(METADATA) || name.ends_with(MANIFEST) {
                ensure!(parts.manifest.replace(small(&mut entry)?).is_none(), twice("manifests"));
            } else if name.ends_with(SHA256) {
                ensure!(parts.checksum.replace(small(&mut entry)?).is_none(), twice("checksums"));
            } else {
                let (at, size) = (entry.raw_file_position(), entry.size());
                ensure!(at.checked_add(size).is_some_and(|last| last <= end), "it ends within {name}");
                ensure!(archive.replace((name, at, size)).is_none(), twice("archives"));
            }
        }
    }

    let (name, payload_at, size) = archive.context("the bundle contains no archive")?;
    let mut parsed = LegacyName::parse(&name).with_context(|| format!("{name}: is not a legacy archive"))?;
    ensure!(!parsed.bundle, "{name}: a bundle in a bundle");
    parsed.bundle = true;

    let (manifest, snapshot) = agree(&parsed, &parts, size)?;
    Ok(LegacyArchive { file, manifest, snapshot, payload_at })
}

/// Errors: a part is missing, or two of them contradict each other.
fn agree(name: &LegacyName, parts: &Parts, size: u64) -> Result<(Manifest, Snapshot)> {
    let archive = &name.archive;
    let Some(text) = &parts.manifest else {
        bail!("{archive}: its {METADATA} is missing; all three files must be in the same directory")
    };
    let manifest = Manifest::parse(text)?;
    let mut expected = manifest.sha256.clone();
    if let Some(text) = &parts.checksum {
        let (sum, of) = checksum(text)?;
        if let Some(of) = of.filter(|of| of != archive) {
            bail!("its checksum belongs to {of}, not to {archive}");
        }
        ensure!(
            expected.as_ref().is_none_or(|told| *told == sum),
            "its manifest and its checksum do not agree"
        );
        expected = Some(sum);
    }

    let Some(sha256) = expected else {
        bail!("{archive}: it has no checksum file, and no checksum in its manifest")
    };
    manifest.check(name, size)?;

    let mut snapshot = manifest.snapshot(name, size, &TimeZone::system())?;
    snapshot.payload.sha256 = sha256;
    Ok((manifest, snapshot))
}

/// `SHA256  NAME`; the name is not always there.
fn checksum(text: &[u8]) -> Result<(String, Option<String>)> {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split_whitespace();
    let sum = words.next().unwrap_or_default().to_ascii_lowercase();
    ensure!(
        sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit()),
        "its checksum file holds no SHA-256"
    );
    let name = words.next().map(|name| base(name.trim_start_matches('*')).to_owned());
    Ok((sum, name))
}
