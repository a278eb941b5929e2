//! The FUSE side, with libfuse2's habits: numbers become paths first, then the tree is asked, and
//! nothing is locked in between; an open file that goes is renamed to `.fuse_hidden...` first.

use crate::nodes::{Nodes, ROOT};
use crate::tree::{BLOCK, Kind, List, Res, Tree, is_private, seconds, unix};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno as Code;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel may answer stat and names by itself (measured: 1.0 s).
const CACHED: Duration = Duration::from_secs(1);
const MAX_REQUEST: u32 = 128 << 10;

pub struct Fs {
    pub tree: Arc<Mutex<Tree>>,
    pub gid: u32,
    nodes: Mutex<Nodes>,
    /// A directory is listed whole when its reading starts, as libfuse does.
    listings: Mutex<HashMap<u64, List>>,
    handles: AtomicU64,
}

macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $ok:expr) => {
        match $result {
            Ok($value) => $ok,
            Err(code) => $reply.error(Errno::from_i32(code as i32)),
        }
    };
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Dir => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Link => FileType::Symlink,
    }
}

/// What does not fit is beyond every limit anyway.
fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX / 2)
}

impl Fs {
    pub fn new(tree: Arc<Mutex<Tree>>, gid: u32) -> Self {
        let (nodes, listings) = (Mutex::default(), Mutex::default());
        Self { tree, gid, nodes, listings, handles: AtomicU64::new(1) }
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap()
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap()
    }

    fn path(&self, ino: INodeNo) -> Res<Vec<u8>> {
        self.nodes().path(ino.0)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Res<Vec<u8>> {
        self.nodes().child(parent.0, name.as_bytes())
    }

    fn attr(&self, ino: u64, path: &[u8]) -> Res<FileAttr> {
        let stat = self.tree().stat(path)?;
        let time = UNIX_EPOCH + Duration::from_secs(stat.mtime.into());
        Ok(FileAttr {
            ino: INodeNo(ino),
            size: stat.size,
            // In 4 KiB units, not 512 bytes: `du` is 8 times too small.
            blocks: stat.size.div_ceil(BLOCK),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: file_type(stat.kind),
            perm: stat.perm,
            nlink: if stat.kind == Kind::Dir { 2 } else { 1 },
            uid: 0,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn entry(&self, parent: INodeNo, name: &OsStr) -> Res<FileAttr> {
        let mut attr = self.attr(ROOT, &self.child(parent, name)?)?;
        attr.ino.0 = self.nodes().lookup(parent.0, name.as_bytes());
        Ok(attr)
    }

    /// Renames an open file out of the way; the step before the rename or unlink that was asked for.
    fn hide(&self, parent: INodeNo, name: &OsStr) -> Res<bool> {
        let Some((number, hidden)) = self.nodes().hide(parent.0, name.as_bytes()) else {
            return Ok(false);
        };
        let rename = || {
            let (from, to) = (self.child(parent, name)?, self.child(parent, OsStr::from_bytes(&hidden))?);
            self.tree().rename(&from, &to)?;
            self.nodes().rename(parent.0, name.as_bytes(), parent.0, &hidden, true);
            Ok(true)
        };
        let done = rename();
        self.closed(number);
        done
    }

    fn closed(&self, number: u64) {
        let gone = self.nodes().release(number);
        if let Some(path) = gone
            && self.tree().remove(&path).is_ok()
        {
            self.nodes().unname(number);
        }
    }

    fn remove(&self, parent: INodeNo, name: &OsStr) -> Res<()> {
        let path = self.child(parent, name)?;
        self.tree().remove(&path)?;
        self.nodes().unlink(parent.0, name.as_bytes());
        Ok(())
    }

    fn opened(&self, ino: INodeNo) -> Res<()> {
        let path = self.path(ino)?;
        // The stat makes the content of a virtual file.
        self.tree().stat(&path)?;
        self.nodes().open(ino.0);
        Ok(())
    }

    fn listing(&self, ino: INodeNo, handle: u64) -> Res<()> {
        let path = self.path(ino)?;
        let list = self.tree().list(&path)?;
        self.listings.lock().unwrap().insert(handle, list);
        Ok(())
    }
}

impl Filesystem for Fs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // libfuse2 takes and gives 128 KiB at a time: a bigger write is several transactions.
        config.set_max_write(MAX_REQUEST).ok();
        config.set_max_readahead(MAX_REQUEST).ok();
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.entry(parent, name), a => reply.entry(&CACHED, &a, Generation(0)));
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.nodes().forget(ino.0, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let attr = self.path(ino).and_then(|path| self.attr(ino.0, &path));
        answer!(reply, attr, a => reply.attr(&CACHED, &a));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        length: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = || {
            let path = self.path(ino)?;
            // Only the value a file has anyway, and that for directories too; no quorum needed.
            let allowed = if is_private(&path) { 0o600 } else { 0o640 };
            let chown = uid.is_some_and(|u| u != 0) || gid.is_some_and(|g| g != self.gid);
            if mode.is_some_and(|m| m & 0o7777 != allowed) || chown {
                return Err(Code::EPERM);
            }
            if let Some(length) = length {
                self.tree().truncate(&path, size(length))?;
            }
            // libfuse2 acts on both times or on none.
            if let (Some(_), Some(time)) = (atime, mtime) {
                let time = match time {
                    TimeOrNow::SpecificTime(time) => time,
                    TimeOrNow::Now => SystemTime::now(),
                };
                self.tree().utime(&path, seconds(unix(time)))?;
            }
            // After an unlock request this is the ENOENT that means success.
            self.attr(ino.0, &path)
        };
        answer!(reply, set(), a => reply.attr(&CACHED, &a));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let link = self.path(ino).and_then(|p| self.tree().status.link(&p).ok_or(Code::EINVAL));
        answer!(reply, link, target => reply.data(target.as_bytes()));
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        // Pipes, devices and sockets are not implemented, a regular file is created.
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::ENOSYS);
        }
        let done = self.child(parent, name).and_then(|path| self.tree().create(&path));
        let entry = done.and_then(|()| self.entry(parent, name));
        answer!(reply, entry, a => reply.entry(&CACHED, &a, Generation(0)));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let done = self.child(parent, name).and_then(|path| self.tree().mkdir(&path));
        let entry = done.and_then(|()| self.entry(parent, name));
        answer!(reply, entry, a => reply.entry(&CACHED, &a, Generation(0)));
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::ENOSYS);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.hide(parent, name);
        let done = done.and_then(|hidden| if hidden { Ok(()) } else { self.remove(parent, name) });
        answer!(reply, done, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        from: INodeNo,
        old: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let rename = || {
            if !flags.is_empty() {
                return Err(Code::EINVAL);
            }
            let (source, target) = (self.child(from, old)?, self.child(to, new)?);
            self.hide(to, new)?;
            self.tree().rename(&source, &target)?;
            self.nodes().rename(from.0, old.as_bytes(), to.0, new.as_bytes(), false);
            Ok(())
        };
        answer!(reply, rename(), () => reply.ok());
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let direct = FopenFlags::FOPEN_DIRECT_IO;
        answer!(reply, self.opened(ino), () => reply.opened(FileHandle(0), direct));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let create = || -> Res<FileAttr> {
            let path = self.child(parent, name)?;
            self.tree().create(&path)?;
            let attr = self.entry(parent, name)?;
            self.nodes().open(attr.ino.0);
            Ok(attr)
        };
        let direct = FopenFlags::FOPEN_DIRECT_IO;
        answer!(reply, create(), a => reply.created(&CACHED, &a, Generation(0), FileHandle(0), direct));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let path = self.path(ino);
        let data = path.and_then(|p| self.tree().read(&p, size(offset), size(length.into())));
        answer!(reply, data, data => reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.path(ino).and_then(|p| self.tree().write(&p, size(offset), data));
        answer!(reply, done, () => reply.written(u32::try_from(data.len()).unwrap()));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.closed(ino.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = FileHandle(self.handles.fetch_add(1, Ordering::Relaxed));
        reply.opened(handle, FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if offset == 0
            && let Err(code) = self.listing(ino, fh.0)
        {
            return reply.error(Errno::from_i32(code as i32));
        }
        let listings = self.listings.lock().unwrap();
        for (i, (name, kind)) in (1..).zip(listings.get(&fh.0).into_iter().flatten()) {
            // libfuse2 does not know the numbers here and says so with this one.
            let unknown = INodeNo(0xffff_ffff);
            if i > offset && reply.add(unknown, i, file_type(*kind), OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().unwrap().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (blocks, free, files, free_files) = self.tree().statfs();
        reply.statfs(blocks, free, free, files, free_files, 4096, 256, 4096);
    }
}
