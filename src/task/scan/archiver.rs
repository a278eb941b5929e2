//! Turns what the walk finds into entries of a snapshot: reads contents, notices what changes during the run, and
//! makes every file that cannot be taken a problem of that file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;

use super::commands::Inquiry;
use super::walk::{Found, cause, shown};
use crate::archive::writer::{Fit, Members};
use crate::catalog::{self, Item};
use crate::model::index::{CommandOutput, Entry, EntryKind, Mtime, Name, STATE_DIR, Xattr};
use crate::model::problem::{NOT_SAVED, Problem};
use crate::sys::fs::contained_dir::ContainedDir;
use crate::sys::fs::files::{self, Stat};
use crate::sys::fs::owners::Owners;
use crate::sys::host::Host;
use crate::sys::process::signals::check_stopped;

/// The size limit of a file that is read whole before it is written, so that a change during the run is noticed and
/// the file is read again.
const SMALL_BYTES: u64 = 1 << 20;
const XATTRS_MAX_BYTES: usize = 512 << 10;
/// The size limit of the extended attributes of all files together: they are in the index too, and in JSON four times
/// as long.
const ALL_XATTRS_MAX_BYTES: usize = 4 << 20;
const READ_TRIES: usize = 3;

/// Turns what a walk finds into entries of a snapshot.
pub struct Archiver<W> {
    /// Through it all is read: what the walk has met may be a link by now.
    root: ContainedDir,
    owners: Owners,
    pub writer: W,
    /// First name of every file that has several.
    linked: HashMap<(u64, u64), Name>,
    buffer: Vec<u8>,
    /// A file was met that the kernel did not have in memory.
    pub is_cold: bool,
    /// Room that is left for attributes.
    xattrs: usize,
    pub problems: Vec<Problem>,
}

impl<W: Members> Archiver<W> {
    /// Errors: the root cannot be opened.
    pub fn new(host: &Host, writer: W, problems: Vec<Problem>) -> Result<Self> {
        Ok(Self {
            root: ContainedDir::open(host.root())?,
            owners: Owners::of(host.root()),
            writer,
            linked: HashMap::new(),
            buffer: Vec::new(),
            is_cold: false,
            xattrs: ALL_XATTRS_MAX_BYTES,
            problems,
        })
    }

    pub fn take(&mut self, item: &'static Item, found: &Found) -> Result<()> {
        match found {
            Found::File { path, stat } => self.disk(item, path, stat),
            Found::Pve { path, node } => {
                let kind = if node.data.is_some() { EntryKind::File } else { EntryKind::Dir };
                let entry = self.pve_entry(item, path, kind, node.mode(), node.mtime);
                self.bytes(entry, node.data.as_deref().unwrap_or_default())
            }
            Found::Database { path, data } => {
                let mut entry = self.pve_entry(item, path, EntryKind::File, 0o600, 0);
                (entry.gid, entry.group) = (0, self.owners.group(0));
                if let Ok(stat) = self.root.lstat(path) {
                    entry.mtime = stat.mtime;
                }
                self.bytes(entry, data)
            }
        }
    }

    /// Adds what the host says of itself.
    pub fn outputs(&mut self, inquiry: Inquiry, now: i64) -> Result<Vec<CommandOutput>> {
        let answers = inquiry.answers(&mut self.problems);
        let mut outputs = Vec::with_capacity(answers.len());
        for (output, stdout) in answers {
            let item = catalog::items().find(|item| item.id == output.item);
            if let (Some(item), false) = (item, stdout.is_empty()) {
                let path = Path::new(STATE_DIR).join(&output.name);
                let mut entry = self.pve_entry(item, &path, EntryKind::File, 0o600, now);
                (entry.gid, entry.group) = (0, String::new());
                self.bytes(entry, &stdout)?;
            }
            outputs.push(output);
        }
        Ok(outputs)
    }

    fn bytes(&mut self, mut entry: Entry, data: &[u8]) -> Result<()> {
        self.limit_xattrs(&mut entry);
        entry.size = data.len() as u64;
        self.writer.append(entry, &mut &*data)?;
        Ok(())
    }

    /// Builds an entry of /etc/pve as pmxcfs shows it: root, group www-data.
    fn pve_entry(&self, item: &Item, path: &Path, kind: EntryKind, mode: u32, mtime: i64) -> Entry {
        const WWW_DATA: &str = "www-data";
        const WWW_DATA_GID: u32 = 33;

        let gid = self.owners.gid(WWW_DATA).unwrap_or(WWW_DATA_GID);
        Entry {
            item: item.id.to_owned(),
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid,
            owner: self.owners.user(0),
            group: WWW_DATA.to_owned(),
            mtime: Mtime(mtime, 0),
            size: 0,
            sha256: String::new(),
            link: None,
            secret: item.secret && kind != EntryKind::Dir,
            xattrs: Vec::new(),
        }
    }

    fn disk_entry(&self, item: &Item, path: &Path, kind: EntryKind, stat: &Stat) -> Entry {
        Entry {
            item: item.id.to_owned(),
            path: path.into(),
            kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            owner: self.owners.user(stat.uid),
            group: self.owners.group(stat.gid),
            mtime: stat.mtime,
            size: 0,
            sha256: String::new(),
            link: None,
            secret: item.secret && kind != EntryKind::Dir,
            xattrs: Vec::new(),
        }
    }

    fn disk(&mut self, item: &'static Item, path: &Path, stat: &Stat) -> Result<()> {
        let files::FileNode::Kept(kind) = stat.node else { return Ok(()) };
        let mut entry = self.disk_entry(item, path, kind, stat);
        match kind {
            EntryKind::File => return self.file(item, path),
            EntryKind::Symlink => match self.root.read_link(path) {
                Ok(target) => entry.link = Some(Name::new(target.as_os_str().as_bytes())),
                Err(error) => return self.lost(path, &error),
            },
            EntryKind::Dir => match self.root.xattrs(path) {
                Ok(xattrs) => entry.xattrs = xattrs,
                Err(error) => self.without_xattrs(path, &error),
            },
            EntryKind::Hardlink => {}
        }

        self.bytes(entry, &[])
    }

    fn file(&mut self, item: &'static Item, path: &Path) -> Result<()> {
        let (mut file, mut stat) = match self.root.open_read(path) {
            Ok(opened) => opened,
            Err(error) => return self.lost(path, &error),
        };
        if let Some(first) = self.linked.get(&(stat.dev, stat.ino)) {
            let mut entry = self.disk_entry(item, path, EntryKind::Hardlink, &stat);
            entry.link = Some(first.clone());
            return self.bytes(entry, &[]);
        }

        let xattrs = files::file_xattrs(&file).unwrap_or_else(|error| {
            self.without_xattrs(path, &error);
            Vec::new()
        });
        self.is_cold = self.is_cold || !files::is_cached(&file);
        if stat.size > SMALL_BYTES {
            return self.large(item, path, file, &stat, xattrs);
        }

        let mut tries = 1;
        loop {
            self.buffer.clear();
            let read = read_all(&mut file, stat.size, &mut self.buffer);
            let after = file.metadata().map(|meta| Stat::from(&meta));
            let (Ok(()), Ok(after)) = (&read, &after) else {
                let error = read.err().or(after.err()).unwrap_or_else(|| std::io::Error::other("unreadable"));
                return self.lost(path, &error);
            };
            let stable =
                (after.mtime, after.size) == (stat.mtime, stat.size) && self.buffer.len() as u64 == stat.size;
            if stable {
                break;
            }
            if tries == READ_TRIES {
                self.changed(path);
                break;
            }
            tries += 1;
            match self.root.open_read(path) {
                Ok(opened) => (file, stat) = opened,
                Err(error) => return self.lost(path, &error),
            }
        }

        let mut entry = self.disk_entry(item, path, EntryKind::File, &stat);
        entry.xattrs = xattrs;
        self.remember_links(&stat, &entry.path);
        let data = std::mem::take(&mut self.buffer);
        let written = self.bytes(entry, &data);
        self.buffer = data;
        written
    }

    fn large(
        &mut self,
        item: &Item,
        path: &Path,
        mut file: File,
        stat: &Stat,
        xattrs: Vec<Xattr>,
    ) -> Result<()> {
        let mut entry = self.disk_entry(item, path, EntryKind::File, stat);
        entry.size = stat.size;
        entry.xattrs = xattrs;
        self.limit_xattrs(&mut entry);
        self.remember_links(stat, &entry.path);
        let fit = self.writer.append(entry, &mut file)?;
        let after = file.metadata().map(|meta| Stat::from(&meta));
        let unchanged = after.is_ok_and(|after| (after.mtime, after.size) == (stat.mtime, stat.size));
        if fit == Fit::Short {
            let what = format!("/{}: could not be read to its end; the rest is zeros", shown(path));
            self.problems.push(Problem::error(what).hint("check the disk, then run the backup again"));
        } else if !unchanged {
            self.changed(path);
        }
        Ok(())
    }

    /// A header has room for so much; some file systems give more.
    fn limit_xattrs(&mut self, entry: &mut Entry) {
        let size = entry.xattrs.iter().map(Xattr::memory).sum::<usize>();
        if size <= XATTRS_MAX_BYTES.min(self.xattrs) {
            self.xattrs -= size;
            return;
        }
        entry.xattrs.clear();
        let error = std::io::Error::other(if size > XATTRS_MAX_BYTES {
            "they are too large"
        } else {
            "those of all files together are too large"
        });
        self.without_xattrs(entry.path.as_path(), &error);
    }

    fn remember_links(&mut self, stat: &Stat, path: &Name) {
        if stat.nlink > 1 {
            self.linked.insert((stat.dev, stat.ino), path.clone());
        }
    }

    /// A file that cannot be taken is a problem of that file, never the end of the run.
    fn lost(&mut self, path: &Path, error: &std::io::Error) -> Result<()> {
        let what = format!("/{}: {}", shown(path), cause(error));
        self.problems.push(match error.kind() {
            std::io::ErrorKind::NotFound => {
                Problem::notice(format!("/{}: disappeared before it was read", shown(path)))
            }
            _ => Problem::warning(what).hint(NOT_SAVED),
        });
        check_stopped()
    }

    fn changed(&mut self, path: &Path) {
        let what = format!("/{}: changed while it was read", shown(path));
        self.problems.push(Problem::warning(what).hint("the snapshot holds a mix of two states of it"));
    }

    fn without_xattrs(&mut self, path: &Path, error: &std::io::Error) {
        let what = format!("/{}: its extended attributes cannot be read: {}", shown(path), cause(error));
        self.problems.push(Problem::warning(what).hint("it is saved without ACLs and capabilities"));
    }
}

/// Reads to the end: one call for a file of the announced size.
fn read_all(file: &mut File, size: u64, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    // One byte more than announced: a short count tells the end without a second call.
    let want = usize::try_from(size).unwrap_or(usize::MAX - 1) + 1;
    buffer.resize(want, 0);

    let mut filled = 0;
    loop {
        match file.read(&mut buffer[filled..]) {
            Ok(n) => {
                filled += n;
                if n == 0 || filled < want {
                    break;
                }
                // It grew: more than twice a small file is not worth chasing, the caller tries again.
                if filled as u64 > SMALL_BYTES * 2 {
                    break;
                }
                buffer.resize(filled + 64 * 1024, 0);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }

    buffer.truncate(filled);
    Ok(())
}
