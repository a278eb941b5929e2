//! libfuse2's table of nodes: which path a number of the kernel's stands for, and who has it open.
//! It is why `st_ino` is a counter, and why an open file that goes becomes `.fuse_hidden...`.

use crate::tree::Res;
use nix::errno::Errno;
use std::collections::HashMap;

pub const ROOT: u64 = 1;

struct Node {
    parent: u64,
    /// None once unlinked.
    name: Option<Vec<u8>>,
    lookups: u64,
    open: u32,
    hidden: bool,
}

#[derive(Default)]
pub struct Nodes {
    table: HashMap<u64, Node>,
    names: HashMap<(u64, Vec<u8>), u64>,
    last: u64,
    hides: u32,
}

impl Nodes {
    pub fn path(&self, node: u64) -> Res<Vec<u8>> {
        let (mut names, mut at) = (Vec::new(), node);
        while at != ROOT {
            let node = self.table.get(&at).ok_or(Errno::ENOENT)?;
            names.push(node.name.as_deref().ok_or(Errno::ENOENT)?);
            at = node.parent;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    pub fn child(&self, parent: u64, name: &[u8]) -> Res<Vec<u8>> {
        let mut path = self.path(parent)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        Ok(path)
    }

    pub fn lookup(&mut self, parent: u64, name: &[u8]) -> u64 {
        let key = (parent, name.to_vec());
        let number = *self.names.entry(key).or_insert_with(|| {
            self.last = self.last.max(ROOT) + 1;
            let name = Some(name.to_vec());
            let node = Node { parent, name, lookups: 0, open: 0, hidden: false };
            self.table.insert(self.last, node);
            self.last
        });
        self.table.entry(number).and_modify(|n| n.lookups += 1);
        number
    }

    pub fn forget(&mut self, number: u64, lookups: u64) {
        let Some(node) = self.table.get_mut(&number) else { return };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups == 0 {
            self.unname(number);
            self.table.remove(&number);
        }
    }

    pub fn open(&mut self, number: u64) {
        self.table.entry(number).and_modify(|n| n.open += 1);
    }

    /// The last close of a hidden file gives the path that is to be removed.
    pub fn release(&mut self, number: u64) -> Option<Vec<u8>> {
        let node = self.table.get_mut(&number)?;
        node.open = node.open.saturating_sub(1);
        let gone = node.hidden && node.open == 0;
        node.hidden &= !gone;
        if gone { self.path(number).ok() } else { None }
    }

    /// Number and new name of a file that is open, so that it has to be hidden. It stays open until
    /// a `release` more, or its last close in between would go unnoticed.
    pub fn hide(&mut self, parent: u64, name: &[u8]) -> Option<(u64, Vec<u8>)> {
        let number = *self.names.get(&(parent, name.to_vec()))?;
        self.table.get_mut(&number).filter(|node| node.open > 0)?.open += 1;
        self.hides += 1;
        Some((number, format!(".fuse_hidden{number:08x}{:08x}", self.hides).into_bytes()))
    }

    pub fn rename(&mut self, parent: u64, name: &[u8], to: u64, new: &[u8], hidden: bool) {
        if let Some(old) = self.names.get(&(to, new.to_vec())).copied() {
            self.unname(old);
        }
        let Some(number) = self.names.remove(&(parent, name.to_vec())) else { return };
        self.names.insert((to, new.to_vec()), number);
        self.table.entry(number).and_modify(|n| {
            (n.parent, n.name) = (to, Some(new.to_vec()));
            n.hidden |= hidden;
        });
    }

    pub fn unlink(&mut self, parent: u64, name: &[u8]) {
        if let Some(number) = self.names.get(&(parent, name.to_vec())).copied() {
            self.unname(number);
        }
    }

    pub fn unname(&mut self, number: u64) {
        let Some(node) = self.table.get_mut(&number) else { return };
        if let Some(name) = node.name.take() {
            self.names.remove(&(node.parent, name));
        }
    }
}
