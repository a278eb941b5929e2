//! The places that steps write to, the disk and /etc/pve: their present state, what is put there, and their locks.
//! Not here: the order of steps and what is to become of each (`apply`, `undo`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::journal::{RestoreRecord, SavedCopy};
use super::observe;
use crate::catalog::guests::GuestPath;
use crate::model::facts::PmxcfsState;
use crate::model::index::{EntryKind, Mtime, Name};
use crate::plan::restore::{FileState, LivePath, PVE, RestoreStep, TargetKind};
use crate::sys::fs::contained_dir::ContainedDir;
use crate::sys::fs::files;
use crate::sys::fs::hash::Verifying;
use crate::sys::fs::replace::{self, Meta};
use crate::sys::guests;
use crate::sys::host::Host;
use crate::sys::pmxcfs::write::{self, Change, Desired};
use crate::sys::pmxcfs::{self, offline};

/// Present content of /etc/pve by path.
type PmxcfsTree = HashMap<Name, pmxcfs::PmxcfsNode>;

pub struct Targets<'a> {
    host: &'a Host,
    root: ContainedDir,
    /// Empty when no step lies in it. Err: why it takes nothing.
    tree: Result<PmxcfsTree, String>,
}

/// A write of one step: what it is to be, and what it may be until then.
pub struct StepWrite<'a> {
    pub step: &'a RestoreStep,
    pub to: &'a FileState,
    /// The content, when it is to be a file.
    pub copy: SavedCopy,
    /// The name beside it that it is written under first.
    pub temp: String,
    /// Hashes of what may be in /etc/pve now, None for nothing there: compared while its lock is held.
    pub expect: &'a [Option<&'a str>],
    pub lock_wait: Duration,
    /// Sets its time in /etc/pve, too; on a disk it always does.
    pub keeps_time: bool,
}

impl StepWrite<'_> {
    /// Opens the copy. Errors, at its end too: it is not what was recorded of it.
    fn content(&self) -> Result<Verifying<'_, &File>> {
        let mut file = self.copy.file.as_ref().map_err(|error| anyhow!("{}: {error}", self.damaged()))?;
        file.rewind()?;
        Ok(Verifying::new(file, &self.to.sha256))
    }

    /// Reads the whole copy, before what cannot be taken back is done for it.
    pub fn check_copy(&self) -> Result<()> {
        io::copy(&mut self.content()?, &mut io::sink()).with_context(|| self.damaged()).map(drop)
    }

    fn damaged(&self) -> String {
        format!("the copy {}", self.copy.path.display())
    }
}

impl<'a> Targets<'a> {
    /// Opens the disk, and reads /etc/pve when one of these steps lies in it.
    pub fn open<'s>(host: &'a Host, mut steps: impl Iterator<Item = &'s RestoreStep>) -> Result<Self> {
        let has_pmxcfs = steps.any(|step| step.via == TargetKind::Pmxcfs);
        let tree = if has_pmxcfs { read_tree(host) } else { Ok(PmxcfsTree::new()) };
        Ok(Self { host, root: ContainedDir::open(host.root())?, tree })
    }

    /// Errors: /etc/pve is needed, and takes nothing.
    pub fn check(&self) -> Result<()> {
        self.tree().map(drop)
    }

    fn tree(&self) -> Result<&PmxcfsTree> {
        self.tree.as_ref().map_err(|why| anyhow!("{why}"))
    }

    /// Returns the present state of the path of a step, without its content.
    pub fn state(&self, step: &RestoreStep) -> Result<LivePath> {
        match step.via {
            TargetKind::Disk => Ok(observe::look(self.host, step.path.as_path())?),
            TargetKind::Pmxcfs => Ok(self.tree()?.get(&step.path).map_or(LivePath::Absent, |node| {
                LivePath::There { print: observe::node_state(node), content: None, is_linked: false }
            })),
        }
    }

    /// Opens the present content of a file.
    pub fn read(&self, step: &RestoreStep) -> io::Result<Box<dyn Read + '_>> {
        match step.via {
            TargetKind::Disk => Ok(Box::new(self.root.reopen(step.path.as_path())?)),
            TargetKind::Pmxcfs => {
                let node = self.tree.as_ref().ok().and_then(|tree| tree.get(&step.path));
                Ok(Box::new(node.and_then(|node| node.data.as_deref()).unwrap_or_default()))
            }
        }
    }

    /// Returns the time of a directory. None: it is not there.
    pub fn mtime(&self, directory: &Name) -> Result<Option<Mtime>> {
        match TargetKind::of(directory.as_path()) {
            TargetKind::Pmxcfs => Ok(self.tree()?.get(directory).map(|node| Mtime(node.mtime, 0))),
            TargetKind::Disk => match self.host.dir(directory.as_path()) {
                Ok(dir) => Ok(Some(files::lstat(&dir.here())?.mtime)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Waits for pmxcfs to end before its database is touched.
    pub fn wait_free(&self, step: &RestoreStep) -> Result<()> {
        if offline::is_database(step.path.as_path()) {
            offline::wait_stopped(self.host)?;
        }
        Ok(())
    }

    /// Writes; attributes that cannot be kept come back.
    pub fn write(&self, write: &StepWrite) -> Result<Vec<String>> {
        let StepWrite { step, to, temp, .. } = write;
        let path = step.path.as_path();
        match (step.via, to.kind, &to.link) {
            (TargetKind::Pmxcfs, EntryKind::File, _) => {
                let mut content = Vec::new();
                write.content()?.read_to_end(&mut content).with_context(|| write.damaged())?;
                self.change(write, Desired::File(&content)).map(|()| Vec::new())
            }
            (TargetKind::Pmxcfs, ..) => self.change(write, Desired::Dir).map(|()| Vec::new()),
            (_, EntryKind::Symlink, Some(link)) => {
                replace::symlink(&self.root, path, temp, link, &meta(to))?;
                Ok(Vec::new())
            }
            (_, EntryKind::Dir, _) => Ok(replace::dir(&self.root, path, &meta(to))?),
            _ => {
                let placed = replace::file(&self.root, path, temp, &mut write.content()?, &meta(to));
                placed.map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData => anyhow::Error::from(error).context(write.damaged()),
                    _ => error.into(),
                })
            }
        }
    }

    /// Removes what is there, of the kind that `write` says. False: a directory with something in it stays.
    pub fn remove(&self, write: &StepWrite) -> Result<bool> {
        match write.step.via {
            TargetKind::Disk => Ok(replace::remove(&self.root, write.step.path.as_path(), write.to.kind)?),
            TargetKind::Pmxcfs => self.change(write, Desired::Absent).map(|()| true),
        }
    }

    /// Removes a file of a disk for good: no power cut brings it back beside what is written next.
    pub fn remove_for_good(&self, path: &Path) -> Result<()> {
        replace::remove(&self.root, path, EntryKind::File)?;
        Ok(self.root.sync_around([path].into_iter())?)
    }

    /// Removes what a killed run wrote beside a file of a disk; in /etc/pve each change does.
    pub fn remove_temp(&self, step: &RestoreStep, temp: &str) {
        if step.via == TargetKind::Disk {
            let _ = self.root.remove(&step.path.as_path().with_file_name(temp));
        }
    }

    /// Lists the paths in a directory of /etc/pve; none for a disk, which tells when it removes.
    pub fn below<'s>(&'s self, step: &'s RestoreStep) -> impl Iterator<Item = &'s Name> {
        let tree = self.tree.as_ref().ok().filter(|_| step.via == TargetKind::Pmxcfs);
        let paths = tree.into_iter().flat_map(HashMap::keys);
        paths.filter(|path| **path != step.path && path.as_path().starts_with(step.path.as_path()))
    }

    /// Sets the time of a directory that is still there.
    pub fn set_mtime(&self, path: &Name, mtime: Mtime, temp: &str) -> Result<()> {
        match TargetKind::of(path.as_path()) {
            TargetKind::Disk => Ok(replace::set_time(&self.root, path.as_path(), mtime)?),
            TargetKind::Pmxcfs => self.touch(path, &[], Some(mtime), temp),
        }
    }

    /// Sets the time in /etc/pve of what is as it was before its step, and removes what a killed run wrote beside it.
    pub fn finish_as_before(&self, step: &RestoreStep, temp: &str) -> Result<()> {
        let before = step.before.as_ref();
        match step.via {
            TargetKind::Disk => Ok(()),
            TargetKind::Pmxcfs => {
                let expect = [before.map(|before| before.sha256.as_str())];
                self.touch(&step.path, &expect, before.map(|before| before.mtime), temp)
            }
        }
    }

    fn touch(&self, path: &Name, expect: &[Option<&str>], mtime: Option<Mtime>, temp: &str) -> Result<()> {
        let change = Change {
            path: below_pve(path),
            temp,
            lock: None,
            lock_wait: Duration::ZERO,
            expect,
            to: Desired::AsItIs,
            mtime: mtime.map(|mtime| mtime.0),
        };
        write::put(self.host, &change)
    }

    /// Has all that steps did on disks survive a power cut; pmxcfs sees to its own.
    pub fn sync(&self, record: &RestoreRecord) -> io::Result<()> {
        let on_disk = record.steps.iter().filter(|step| step.via == TargetKind::Disk);
        self.root.sync_around(on_disk.map(|step| step.path.as_path()))
    }

    /// Changes /etc/pve. While the configuration of a guest of this node is changed, nothing else of this node
    /// changes it. Errors: `Locked`.
    fn change(&self, write: &StepWrite, to: Desired) -> Result<()> {
        let path = &write.step.path;
        let change = Change {
            path: below_pve(path),
            temp: &write.temp,
            lock: write.step.lock.as_deref(),
            lock_wait: write.lock_wait,
            expect: write.expect,
            mtime: write.keeps_time.then_some(write.to.mtime.0),
            to,
        };
        let guest = GuestPath::of(path.as_path()).filter(|guest| guest.node == self.host.facts.node);
        let lock = guest.map(|guest| guests::lock(self.host.root(), &guest.lock(), write::LOCK_WAIT));
        let _held = lock.transpose()?.flatten();
        write::put(self.host, &change)
    }
}

fn below_pve(path: &Name) -> &Path {
    path.as_path().strip_prefix(PVE).unwrap_or(path.as_path())
}

fn meta(to: &FileState) -> Meta<'_> {
    Meta { owner: (to.uid, to.gid), mode: to.mode, xattrs: &to.xattrs, mtime: to.mtime }
}

fn read_tree(host: &Host) -> Result<PmxcfsTree, String> {
    let state = pmxcfs::state(host);
    if state != (PmxcfsState::Live { quorate: true }) {
        return Err(state.to_string());
    }
    let nodes = pmxcfs::read(host).map_err(|error| format!("{error:#}"))?.nodes;
    Ok(nodes.into_iter().map(|node| (Name::from(&*Path::new(PVE).join(&node.path)), node)).collect())
}
