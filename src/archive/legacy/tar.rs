//! Entries of a legacy archive: PAX as Go wrote it, GNU as the Bash version's tar did, sorted out and bounded.

use std::io::{self, Read};

use anyhow::{Context, Result, ensure};
use tar::EntryType;

use crate::archive::pax;
use crate::archive::tar::{TarMember, check_path, check_target, id};
use crate::model::index::{EntryKind, Name};

/// The size limit of one header of names: far longer than a path may be.
const NAMES_MAX_BYTES: u64 = 64 * 1024;

/// A header, and what is to be done with it.
pub enum TarEvent {
    Member(TarMember),
    /// A device, a pipe or the like, which nothing restores.
    Odd(Name),
}

#[derive(Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    mtime: Option<i64>,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Reads to the end. Errors: damaged headers, names that leave the archive.
pub fn read(input: impl Read, visit: &mut dyn FnMut(TarEvent, &mut dyn Read) -> Result<()>) -> Result<()> {
    let mut archive = tar::Archive::new(input);
    let mut ahead = Ahead::default();

    for raw in archive.entries()?.raw(true) {
        let mut raw = raw.context("damaged archive")?;
        let kind = raw.header().entry_type();
        match kind {
            EntryType::XGlobalHeader => {}
            EntryType::XHeader => ahead.pax(&names(&mut raw)?).context("damaged PAX header")?,
            EntryType::GNULongName => ahead.path = Some(until_nul(names(&mut raw)?)),
            EntryType::GNULongLink => ahead.link = Some(until_nul(names(&mut raw)?)),
            _ => {
                if let Some(met) = entry(&raw, std::mem::take(&mut ahead))? {
                    visit(met, &mut raw)?;
                }
            }
        }
        // A short stream must not pass for a whole one.
        io::copy(&mut raw, &mut io::sink())?;
    }
    Ok(())
}

fn names(raw: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    raw.take(NAMES_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= NAMES_MAX_BYTES, "a header of names is too large");
    Ok(bytes)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    bytes
}

/// None: the archive's own root.
fn entry(raw: &tar::Entry<impl Read>, ahead: Ahead) -> Result<Option<TarEvent>> {
    let header = raw.header();
    let path = ahead.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let Some(path) = clean(&path) else { return Ok(None) };
    let shown = path.clone();
    check_path(&path)?;

    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => EntryKind::File,
        EntryType::Directory => EntryKind::Dir,
        EntryType::Symlink => EntryKind::Symlink,
        EntryType::Link => EntryKind::Hardlink,
        EntryType::Char | EntryType::Block | EntryType::Fifo => return Ok(Some(TarEvent::Odd(path))),
        other => anyhow::bail!(
            "{shown}: is of type {:?}, which the legacy program never wrote",
            char::from(other.as_byte())
        ),
    };
    let link = ahead.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
    let link = link.filter(|_| matches!(kind, EntryKind::Symlink | EntryKind::Hardlink));
    let link = match kind {
        EntryKind::Hardlink => link.as_deref().and_then(clean),
        _ => link.map(Name::new),
    };
    ensure!(
        link.is_some() == matches!(kind, EntryKind::Symlink | EntryKind::Hardlink),
        "{shown}: a link without a target"
    );
    check_target(&path, link.as_ref())?;

    let size = if kind == EntryKind::File { header.entry_size().context("damaged header")? } else { 0 };
    Ok(Some(TarEvent::Member(TarMember {
        kind,
        mode: header.mode().with_context(|| format!("{shown}: mode"))? & 0o7777,
        uid: ahead.uid.map_or_else(|| id(header.uid()), Ok).with_context(|| format!("{shown}: uid"))?,
        gid: ahead.gid.map_or_else(|| id(header.gid()), Ok).with_context(|| format!("{shown}: gid"))?,
        mtime: match ahead.mtime {
            Some(seconds) => seconds,
            None => i64::try_from(header.mtime()?)?,
        },
        size,
        link,
        xattrs: Vec::new(),
        path,
    })))
}

/// Without the `./` in front and the `/` behind. None: nothing is left.
fn clean(path: &[u8]) -> Option<Name> {
    let mut path = path;
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    (!path.is_empty() && path != b".").then(|| Name::new(path))
}

impl Ahead {
    fn pax(&mut self, data: &[u8]) -> Result<()> {
        pax::read(data, |key, value| {
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                // Go writes fractions of a second.
                b"mtime" => {
                    let text = std::str::from_utf8(value)?;
                    self.mtime = Some(text.split('.').next().unwrap_or(text).parse()?);
                }
                b"uid" => self.uid = Some(std::str::from_utf8(value)?.parse()?),
                b"gid" => self.gid = Some(std::str::from_utf8(value)?.parse()?),
                b"atime" | b"ctime" | b"uname" | b"gname" | b"comment" => {}
                // Two readers must not see two archives.
                other => ensure!(!hides(other), "a record '{}' that overrides the header", Name::new(other)),
            }
            Ok(())
        })
    }
}

fn hides(key: &[u8]) -> bool {
    [&b"size"[..], b"charset", b"hdrcharset"].contains(&key) || key.starts_with(b"GNU.sparse")
}

#[cfg(test)]
mod tests {
    proptest::proptest! {
        #[test]
        fn no_input_makes_the_reader_panic(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4096)) {
            let _ = super::read(data.as_slice(), &mut |_, _| Ok(()));
        }
    }
}
