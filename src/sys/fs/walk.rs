//! What lies below a root, met by globs, no link followed. Not here: reading what is met (`files`).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::files::{FileNode, Stat, lstat};
use super::glob::{GlobPart, Pattern};
use crate::model::index::EntryKind;

/// What a walk meets. Paths are relative to the root.
#[derive(Debug)]
pub enum WalkedPath<'a> {
    Entry(&'a Path, &'a Stat),
    /// Cannot be looked at.
    Unreadable(&'a Path, io::Error),
    /// A folder on the pattern's way is a symbolic link: the link is met as an entry, its target is not entered.
    LinkOnTheWay(&'a Path),
}

/// Walks everything a pattern meets below `root`, folders before what is in them, names in byte order.
/// `enter` says whether a path is wanted; a folder that is not is not entered. A path that is not there is silent.
pub fn walk(
    root: &Path,
    pattern: &Pattern,
    enter: &dyn Fn(&Path) -> bool,
    visit: &mut dyn FnMut(WalkedPath) -> Result<()>,
) -> Result<()> {
    Walk { root, enter, visit }.step(&mut PathBuf::new(), pattern.parts())
}

struct Walk<'a> {
    root: &'a Path,
    enter: &'a dyn Fn(&Path) -> bool,
    visit: &'a mut dyn FnMut(WalkedPath) -> Result<()>,
}

impl Walk<'_> {
    fn step(&mut self, at: &mut PathBuf, parts: &[GlobPart]) -> Result<()> {
        let Some((part, rest)) = parts.split_first() else { return self.tree(at) };

        match part {
            GlobPart::Literal(name) => self.child(at, name, rest),
            GlobPart::Glob(_) => {
                for name in self.names(at)? {
                    if part.matches(&name) {
                        self.child(at, &name, rest)?;
                    }
                }
                Ok(())
            }
            GlobPart::Any if rest.is_empty() => {
                for name in self.names(at)? {
                    self.child(at, &name, &[])?;
                }
                Ok(())
            }
            GlobPart::Any => {
                self.step(at, rest)?;
                for name in self.names(at)? {
                    at.push(&name);
                    if (self.enter)(at) && lstat(&self.root.join(&*at)).is_ok_and(|stat| is_dir(&stat)) {
                        self.step(at, parts)?;
                    }
                    at.pop();
                }
                Ok(())
            }
        }
    }

    fn child(&mut self, at: &mut PathBuf, name: &OsString, rest: &[GlobPart]) -> Result<()> {
        at.push(name);
        if (self.enter)(at) {
            if rest.is_empty() {
                self.tree(at)?;
            } else {
                match lstat(&self.root.join(&*at)) {
                    Ok(stat) if is_dir(&stat) => self.step(at, rest)?,
                    Ok(stat) if stat.node == FileNode::Kept(EntryKind::Symlink) => {
                        (self.visit)(WalkedPath::LinkOnTheWay(at))?;
                    }
                    Ok(_) => {}
                    Err(error) => self.failed(at, error)?,
                }
            }
        }

        at.pop();
        Ok(())
    }

    fn tree(&mut self, at: &mut PathBuf) -> Result<()> {
        let stat = match lstat(&self.root.join(&*at)) {
            Ok(stat) => stat,
            Err(error) => return self.failed(at, error),
        };
        (self.visit)(WalkedPath::Entry(at, &stat))?;
        if !is_dir(&stat) {
            return Ok(());
        }
        for name in self.names(at)? {
            at.push(name);
            if (self.enter)(at) {
                self.tree(at)?;
            }
            at.pop();
        }

        Ok(())
    }

    fn names(&mut self, at: &Path) -> Result<Vec<OsString>> {
        let read = fs::read_dir(self.root.join(at))
            .and_then(|dir| dir.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>());
        match read {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(error) => {
                self.failed(at, error)?;
                Ok(Vec::new())
            }
        }
    }

    fn failed(&mut self, at: &Path, error: io::Error) -> Result<()> {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(()),
            _ => (self.visit)(WalkedPath::Unreadable(at, error)),
        }
    }
}

fn is_dir(stat: &Stat) -> bool {
    stat.node == FileNode::Kept(EntryKind::Dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::test_trees::tree;

    fn met(root: &Path, pattern: &str) -> Vec<String> {
        let mut found = Vec::new();
        walk(root, &Pattern::new(pattern).unwrap(), &|path| !path.ends_with("skip"), &mut |met| {
            if let WalkedPath::Entry(path, _) = met {
                found.push(path.display().to_string());
            }
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn a_walk_meets_what_the_pattern_names_in_order() {
        let dir = tree(&["etc/b.conf", "etc/a.conf", "etc/x/c.conf", "etc/skip/d.conf"]);
        assert_eq!(met(dir.path(), "/etc/*.conf"), ["etc/a.conf", "etc/b.conf"]);
        assert_eq!(met(dir.path(), "/etc/**/*.conf"), ["etc/a.conf", "etc/b.conf", "etc/x/c.conf"]);
        assert_eq!(met(dir.path(), "/etc/x"), ["etc/x", "etc/x/c.conf"]);
        assert!(met(dir.path(), "/nowhere/*").is_empty());
    }

    #[test]
    fn a_walk_never_follows_a_link() {
        let dir = tree(&["secret/a"]);
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("etc")).unwrap();
        assert_eq!(met(dir.path(), "/etc"), ["etc"]);
        assert!(met(dir.path(), "/etc/*").is_empty());
    }
}
