//! The tar members of a payload: headers out and in, bounded and byte-exact. The `tar` crate gives the blocks.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use tar::{EntryType, Header};

use super::pax;
use crate::model::index::{Entry, EntryKind, Mtime, Name, Xattr};

pub const BLOCK: usize = 512;
const ZEROS: [u8; BLOCK * 2] = [0; BLOCK * 2];
/// The size limit of one PAX header; names, links and attributes together.
const PAX_MAX_BYTES: u64 = 1 << 20;
/// Linux takes no longer path and no longer target of a link; the end's NUL counts.
const PATH_MAX_BYTES: usize = 4096;
const XATTR: &str = "SCHILY.xattr.";

/// The header blocks of an entry, with a PAX header before it when ustar cannot hold something.
pub fn header(entry: &Entry) -> Result<Vec<u8>> {
    let mut path = entry.path.as_bytes().to_vec();
    if entry.kind == EntryKind::Dir {
        path.push(b'/');
    }

    let mut records = Vec::new();
    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        EntryKind::File => EntryType::Regular,
        EntryKind::Dir => EntryType::Directory,
        EntryKind::Symlink => EntryType::Symlink,
        EntryKind::Hardlink => EntryType::Link,
    });
    if !set_path(&mut header, &path) {
        pax::write(&mut records, "path", &path);
        set_path(&mut header, b"long-name");
    }

    if let Some(link) = &entry.link
        && header.set_link_name_literal(link.as_bytes()).is_err()
    {
        pax::write(&mut records, "linkpath", link.as_bytes());
    }

    header.set_size(entry.size);
    header.set_mode(entry.mode);
    header.set_uid(u64::from(entry.uid));
    header.set_gid(u64::from(entry.gid));
    if let Ok(seconds) = u64::try_from(entry.mtime.0) {
        header.set_mtime(seconds);
    } else {
        header.set_mtime(0);
        pax::write(&mut records, "mtime", entry.mtime.0.to_string().as_bytes());
    }

    // Names that do not fit are left to the numbers.
    let _ = header.set_username(&entry.owner);
    let _ = header.set_groupname(&entry.group);
    for xattr in &entry.xattrs {
        pax::write(&mut records, &format!("{XATTR}{}", escape(&xattr.name)), &xattr.value);
    }
    header.set_cksum();

    let mut blocks = if records.is_empty() { Vec::new() } else { pax_blocks(&records)? };
    blocks.extend_from_slice(header.as_bytes());
    Ok(blocks)
}

/// The blocks of a PAX header with these records.
fn pax_blocks(records: &[u8]) -> Result<Vec<u8>> {
    ensure!(
        records.len() as u64 <= PAX_MAX_BYTES,
        "its name and attributes are larger than {PAX_MAX_BYTES} bytes"
    );
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_path("pax-header")?;
    header.set_size(records.len() as u64);
    header.set_mode(0o600);
    header.set_cksum();
    Ok([header.as_bytes(), records, padding(records.len() as u64)].concat())
}

fn set_path(header: &mut Header, path: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt;
    // The crate would quietly tidy other spellings.
    header.set_path(std::ffi::OsStr::from_bytes(path)).is_ok() && *header.path_bytes() == *path
}

/// A key ends at its first '='. GNU tar writes one inside a name in this way, and reads it back.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('=', "%3D")
}

fn unescape(name: &str) -> String {
    name.replace("%3D", "=").replace("%25", "%")
}

/// Zeros up to the next block.
pub fn padding(size: u64) -> &'static [u8] {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { &[] } else { &ZEROS[..BLOCK - over] }
}

/// The two zero blocks that end an archive.
pub fn end() -> &'static [u8] {
    &ZEROS
}

/// A member as its headers tell it. The item, the secret flag and the hash are in the index only.
#[derive(Debug, Clone)]
pub struct TarMember {
    pub path: Name,
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    pub size: u64,
    pub link: Option<Name>,
    pub xattrs: Vec<Xattr>,
}

/// Kind, mode with owner and group, seconds, size, link, attributes.
type HeaderFields<'a> = (EntryKind, (u32, u32, u32), i64, u64, Option<&'a Name>, &'a [Xattr]);

impl TarMember {
    pub fn fields(&self) -> HeaderFields<'_> {
        let ids = (self.mode, self.uid, self.gid);
        (self.kind, ids, self.mtime, self.size, self.link.as_ref(), &self.xattrs)
    }

    /// Bytes that its name, link and attributes take.
    pub fn memory(&self) -> usize {
        let xattrs =
            self.xattrs.iter().map(|xattr| size_of::<Xattr>() + xattr.name.len() + xattr.value.len());
        let link = self.link.as_ref().map_or(0, |link| link.as_bytes().len());
        self.path.as_bytes().len() + link + xattrs.sum::<usize>()
    }
}

/// Reads an archive to its end, member by member. What `visit` does not read is skipped.
/// Errors: damaged headers, kinds that a snapshot never holds, unsafe names.
pub fn read(input: impl Read, visit: &mut dyn FnMut(&TarMember, &mut dyn Read) -> Result<()>) -> Result<()> {
    let mut archive = tar::Archive::new(input);
    let mut pax: Option<Pax> = None;
    for raw in archive.entries()?.raw(true) {
        let mut raw = raw.context("damaged archive")?;
        let kind = raw.header().entry_type();
        if kind == EntryType::XHeader {
            let mut records = Vec::new();
            raw.by_ref().take(PAX_MAX_BYTES + 1).read_to_end(&mut records)?;
            ensure!(records.len() as u64 <= PAX_MAX_BYTES, "a PAX header is too large");
            ensure!(pax.is_none(), "two PAX headers for one entry");
            pax = Some(Pax::parse(&records).context("damaged PAX header")?);
            continue;
        }
        let member = member(&raw, pax.take().unwrap_or_default())?;
        visit(&member, &mut raw)?;
        // The crate skips what was left unread only when it can; a short stream must not pass for a whole one.
        io::copy(&mut raw, &mut io::sink())?;
    }

    ensure!(pax.is_none(), "a PAX header without an entry");
    Ok(())
}

fn member(raw: &tar::Entry<impl Read>, pax: Pax) -> Result<TarMember> {
    let header = raw.header();
    let mut path = pax.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let shown = Name::new(path.clone());
    let kind = match header.entry_type() {
        EntryType::Regular => EntryKind::File,
        EntryType::Directory => EntryKind::Dir,
        EntryType::Symlink => EntryKind::Symlink,
        EntryType::Link => EntryKind::Hardlink,
        other => {
            bail!("{shown}: is of type {:?}, which a snapshot cannot contain", char::from(other.as_byte()))
        }
    };
    if kind == EntryKind::Dir && path.last() == Some(&b'/') {
        path.pop();
    }

    let path = Name::new(path);
    check_path(&path)?;
    let link = pax.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)).map(Name::new);
    ensure!(
        link.is_some() == matches!(kind, EntryKind::Symlink | EntryKind::Hardlink),
        "{shown}: a link without a target, or a target without a link"
    );
    check_target(&path, link.as_ref())?;

    let size = header.entry_size().context("damaged header")?;
    ensure!(kind == EntryKind::File || size == 0, "{shown}: only files have contents");
    Ok(TarMember {
        kind,
        mode: header.mode().with_context(|| format!("{shown}: mode"))? & 0o7777,
        uid: id(header.uid()).with_context(|| format!("{shown}: uid"))?,
        gid: id(header.gid()).with_context(|| format!("{shown}: gid"))?,
        mtime: match pax.mtime {
            Some(seconds) => seconds,
            None => i64::try_from(header.mtime()?)?,
        },
        size,
        link,
        xattrs: pax.xattrs,
        path,
    })
}

/// Errors: a name that no file below a root can have.
pub(super) fn check_path(path: &Name) -> Result<()> {
    ensure!(path.as_bytes().len() < PATH_MAX_BYTES, "a name is longer than any path");
    ensure!(path.is_safe(), "{path}: absolute paths and '..' are not allowed in an archive");
    Ok(())
}

/// Errors: a target that the kernel would not take.
pub(super) fn check_target(path: &Name, target: Option<&Name>) -> Result<()> {
    let possible = |target: &Name| {
        let bytes = target.as_bytes();
        !bytes.is_empty() && !bytes.contains(&0) && bytes.len() < PATH_MAX_BYTES
    };
    ensure!(target.is_none_or(possible), "{path}: its link target is not valid");
    Ok(())
}

/// Checks the number of a user or a group.
pub(super) fn id(field: io::Result<u64>) -> Result<u32> {
    Ok(u32::try_from(field?)?)
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    mtime: Option<i64>,
    xattrs: Vec<Xattr>,
}

impl Pax {
    fn parse(data: &[u8]) -> Result<Self> {
        let mut found = Self::default();
        pax::read(data, |key, value| found.take(std::str::from_utf8(key)?, value))?;
        Ok(found)
    }

    fn take(&mut self, key: &str, value: &[u8]) -> Result<()> {
        match key {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "mtime" => self.mtime = Some(std::str::from_utf8(value)?.parse()?),
            _ => match key.strip_prefix(XATTR) {
                Some(name) => self.xattrs.push(Xattr { name: unescape(name), value: value.to_vec() }),
                None => ensure!(!hides(key), "a record '{}' that overrides the header", Name::new(key)),
            },
        }
        Ok(())
    }
}

/// Records that other readers take for a field of the header, or for another form of the contents:
/// two readers must not see two archives.
fn hides(key: &str) -> bool {
    const FIELDS: [&str; 7] = ["size", "uid", "gid", "uname", "gname", "charset", "hdrcharset"];
    const VENDORS: [&str; 3] = ["GNU.", "SCHILY.", "LIBARCHIVE."];
    FIELDS.contains(&key) || VENDORS.iter().any(|vendor| key.starts_with(vendor))
}

/// The bytes that a plain member of the bundle takes: header, content, padding.
pub fn plain(name: &str, content: &[u8], mtime: i64, out: &mut impl Write) -> Result<()> {
    out.write_all(&plain_header(name, content.len() as u64, mtime)?)?;
    out.write_all(content)?;
    out.write_all(padding(content.len() as u64))?;
    Ok(())
}

/// One header block of a clear member.
pub fn plain_header(name: &str, size: u64, mtime: i64) -> Result<[u8; BLOCK]> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Returns the fields of an entry that the headers carry: both must tell the same.
pub fn fields(entry: &Entry) -> HeaderFields<'_> {
    let Mtime(seconds, _) = entry.mtime;
    let ids = (entry.mode, entry.uid, entry.gid);
    (entry.kind, ids, seconds, entry.size, entry.link.as_ref(), &entry.xattrs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn entry(path: Vec<u8>, link: Option<Vec<u8>>, xattr: Vec<u8>, mtime: i64, ids: (u32, u32)) -> Entry {
        Entry {
            item: "x".into(),
            path: Name::new(path),
            kind: if link.is_some() { EntryKind::Symlink } else { EntryKind::Dir },
            mode: 0o4755,
            uid: ids.0,
            gid: ids.1,
            owner: "root".into(),
            group: "root".into(),
            mtime: Mtime(mtime, 5),
            size: 0,
            sha256: String::new(),
            link: link.map(Name::new),
            secret: false,
            xattrs: vec![Xattr { name: "user.x".into(), value: xattr }],
        }
    }

    fn round_trip(entry: &Entry) -> TarMember {
        let mut data = header(entry).unwrap();
        data.extend_from_slice(end());
        let mut found = Vec::new();
        read(data.as_slice(), &mut |member, _| {
            found.push(member.clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    proptest! {
        #[test]
        fn every_name_link_and_attribute_comes_back(
            path in proptest::collection::vec(1_u8..=255, 1..300),
            link in proptest::option::of(proptest::collection::vec(1_u8..=255, 1..300)),
            xattr in proptest::collection::vec(any::<u8>(), 0..50),
            mtime in -5_000_000_000_i64..5_000_000_000,
            ids: (u32, u32),
        ) {
            let name = Name::new(path.clone());
            prop_assume!(name.is_safe());
            let entry = entry(path, link, xattr, mtime, ids);
            let member = round_trip(&entry);
            prop_assert_eq!(&member.path, &name);
            prop_assert_eq!(fields(&entry), member.fields());
        }

        #[test]
        fn no_input_makes_the_reader_panic(data in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = read(data.as_slice(), &mut |_, _| Ok(()));
        }
    }

    #[test]
    fn devices_and_names_that_leave_are_refused() {
        for (path, kind) in [("../x", EntryType::Regular), ("/x", EntryType::Regular), ("x", EntryType::Char)]
        {
            let mut header = Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_cksum();
            let mut data = header.as_bytes().to_vec();
            data.extend_from_slice(end());
            assert!(read(data.as_slice(), &mut |_, _| Ok(())).is_err(), "{path}");
        }
    }
}
