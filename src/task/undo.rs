//! `undo`: puts back what a restore touched, from its copies: bytes, owner, mode, attributes and times; and removes
//! what it made. It looks at what is there now, so it may be run twice, after a kill, and on a restore that is half
//! done. What somebody changed since is left and told, unless it is forced.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::apply::{below, hold_guest, meta};
use super::journal::{Journal, Phase};
use super::observe;
use crate::model::index::{Kind, Name};
use crate::model::report::Problem;
use crate::model::snapshot::SnapshotId;
use crate::plan::restore::{Fingerprint, Live, PVE, Via};
use crate::sys::beneath::Beneath;
use crate::sys::host::Host;
use crate::sys::pmxcfs;
use crate::sys::pmxcfs::offline;
use crate::sys::pmxcfs_put::{self, LOCK_OUTLIVED, Put, To};
use crate::sys::put;

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Undone {
    pub id: String,
    pub snapshot: SnapshotId,
    /// Paths that are again what they were.
    pub put_back: usize,
    /// Paths that still are not.
    pub left: usize,
    /// Of those: paths that somebody changed since, which no later undo puts back unless it is forced.
    pub changed: usize,
    pub problems: Vec<Problem>,
    /// Which were put back just now.
    #[serde(skip)]
    pub again: Vec<Name>,
}

/// What became of one step.
enum Back {
    /// It was another never, or no more.
    AsBefore,
    /// It is again what it was.
    Again,
    /// Somebody changed it after us.
    Changed,
}

/// Files only; services are seen to by the caller. Goes on past what cannot be put back.
pub fn files(host: &Host, journal: &mut Journal, force: bool) -> Result<Undone> {
    let mut undone = Undone {
        id: journal.record.id.clone(),
        snapshot: journal.record.snapshot.clone(),
        put_back: 0,
        left: 0,
        changed: 0,
        problems: Vec::new(),
        again: Vec::new(),
    };
    let mut begun: Vec<usize> = journal.begun.iter().copied().collect();
    begun.sort_unstable_by(|a, b| b.cmp(a));
    if journal.phase == Phase::Undone && !force {
        return Ok(undone);
    }
    if begun.is_empty() {
        journal.write("undone\n")?;
        return Ok(undone);
    }
    journal.write("undoing\n")?;
    let root = Beneath::open(host.root())?;
    let tree = tree(host, journal, &begun);
    for n in begun {
        let step = &journal.record.steps[n];
        let shown = format!("/{}", step.path);
        let back = match (step.via, &tree) {
            (Via::Disk, _) => disk(host, &root, journal, n, force),
            (Via::Pmxcfs, Ok(tree)) => node(host, tree.get(&step.path), journal, n, force),
            (Via::Pmxcfs, Err(why)) => Err(anyhow::anyhow!("{why}")),
        };
        match back {
            Ok(Back::AsBefore) => {}
            Ok(Back::Again) => {
                undone.put_back += 1;
                undone.again.push(journal.record.steps[n].path.clone());
            }
            Ok(Back::Changed) => {
                undone.left += 1;
                undone.changed += 1;
                let problem =
                    Problem::warning(format!("{shown}: was changed after the restore, and is left"));
                undone.problems.push(problem.hint("look at it; --force puts back what was there before"));
            }
            Err(error) => {
                undone.left += 1;
                let problem = Problem::error(format!("{shown}: cannot be put back: {error:#}"));
                undone.problems.push(problem.hint("mend that, then run the same undo again"));
            }
        }
    }
    times(host, &root, journal, tree.is_ok(), &mut undone.problems);
    root.sync()?;
    if undone.left == 0 {
        journal.write("undone\n")?;
    }
    Ok(undone)
}

fn disk(host: &Host, root: &Beneath, journal: &mut Journal, n: usize, force: bool) -> Result<Back> {
    let step = &journal.record.steps[n];
    let path = step.path.as_path();
    // pmxcfs writes into it as soon as it starts: that is no change of anybody's.
    let force = force || offline::is_database(path);
    if offline::is_database(path) {
        offline::wait_stopped(host)?;
    }
    // What a killed run wrote beside it.
    let _ = root.remove(&path.with_file_name(journal.temp(n)));
    let live = match observe::look(&host.path(Path::new("/").join(path)))? {
        Live::Absent => None,
        Live::There { print, .. } => Some(print),
        Live::Blocked(why) => anyhow::bail!("{why}"),
    };
    if live == step.before {
        return Ok(Back::AsBefore);
    }
    let is_dir = step.after.kind == Kind::Dir && live.as_ref().is_some_and(|live| live.kind == Kind::Dir);
    // A folder may be between two modes; a file is the old or the new one.
    let is_half = is_dir && !journal.finished.contains(&n);
    let is_ours = live.as_ref().is_some_and(|live| live.same(&step.after));
    let is_old = match (&live, &step.before) {
        (Some(live), Some(before)) => live.same(before),
        _ => false,
    };
    if !(is_ours || is_old || is_half || force) {
        return Ok(Back::Changed);
    }
    let Some(before) = step.before.clone() else {
        let kind = live.map_or(step.after.kind, |live| live.kind);
        anyhow::ensure!(put::remove(root, path, kind)?, "something else was put into it since");
        return Ok(Back::Again);
    };
    journal.write(&format!("begin {n}\nundoing\n"))?;
    let temp = journal.temp(n);
    let path = journal.record.steps[n].path.as_path();
    // The log of the new database must not be beside the old one, not even at a power cut; its own comes later.
    for log in offline::logs(path) {
        put::remove(root, &log, Kind::File)?;
        root.sync()?;
    }
    match (before.kind, &before.link) {
        (Kind::Symlink, Some(link)) => put::symlink(root, path, &temp, link, &meta(&before))?,
        (Kind::Dir, _) => drop(put::dir(root, path, &meta(&before))?),
        _ => {
            put::file(root, path, &temp, &mut File::open(journal.before(n))?, &meta(&before))?;
        }
    }
    Ok(Back::Again)
}

type Tree = HashMap<Name, pmxcfs::Node>;

/// What /etc/pve has now; only asked when something of it was touched.
fn tree(host: &Host, journal: &Journal, begun: &[usize]) -> Result<Tree, String> {
    if !begun.iter().any(|n| journal.record.steps[*n].via == Via::Pmxcfs) {
        return Ok(Tree::new());
    }
    match pmxcfs::state(host) {
        pmxcfs::State::Live { quorate: true } => {}
        pmxcfs::State::Live { quorate: false } => return Err("the cluster has no quorum".to_owned()),
        pmxcfs::State::NotMounted => return Err("the cluster file system is not mounted".to_owned()),
        pmxcfs::State::Dead => return Err("pmxcfs is dead".to_owned()),
        pmxcfs::State::Frozen => return Err("the cluster file system does not answer".to_owned()),
    }
    let nodes = pmxcfs::read(host).map_err(|error| format!("{error:#}"))?.nodes;
    Ok(nodes.into_iter().map(|node| (Name::from(&*Path::new(PVE).join(&node.path)), node)).collect())
}

fn node(host: &Host, live: Option<&pmxcfs::Node>, journal: &Journal, n: usize, force: bool) -> Result<Back> {
    let step = &journal.record.steps[n];
    let print = |print: &Fingerprint| (print.kind == Kind::Dir, print.sha256.clone());
    let data = |node: &pmxcfs::Node| {
        (node.data.is_none(), node.data.as_deref().map(crate::sys::hash::sha256).unwrap_or_default())
    };
    let (live, before) = (live.map(data), step.before.as_ref().map(print));
    let is_ours = live.as_ref() == Some(&print(&step.after));
    let temp = journal.temp(n);
    let content = if before.as_ref().is_some_and(|(is_dir, _)| !is_dir) {
        fs::read(journal.before(n))?
    } else {
        Vec::new()
    };
    let hash = live.as_ref().map(|(_, sha256)| sha256.as_str());
    let change = Put {
        path: below(step),
        temp: &temp,
        // Nothing is changed of what is as it was.
        lock: step.lock.as_deref().filter(|_| live != before),
        lock_wait: LOCK_OUTLIVED,
        expect: &[hash],
        to: match &before {
            _ if live == before => To::AsItIs,
            None => To::Absent,
            Some((true, _)) => To::Dir,
            Some((false, _)) => To::File(&content),
        },
        mtime: step.before.as_ref().map(|before| before.mtime.0),
    };
    if live == before {
        // What a killed run wrote beside it goes, and its time is what it was.
        if !journal.finished.contains(&n) {
            pmxcfs_put::put(host, &change)?;
        }
        return Ok(Back::AsBefore);
    }
    if !(is_ours || force) {
        return Ok(Back::Changed);
    }
    let _guest = hold_guest(host, step)?;
    pmxcfs_put::put(host, &change)?;
    Ok(Back::Again)
}

/// Folders get the times back that they had before anything was put into them.
fn times(host: &Host, root: &Beneath, journal: &Journal, has_tree: bool, problems: &mut Vec<Problem>) {
    for (name, mtime) in journal.record.folders.iter().rev() {
        let path = name.as_path();
        let set = if let Ok(below) = path.strip_prefix(PVE) {
            if !has_tree {
                continue;
            }
            pmxcfs_put::put(
                host,
                &Put {
                    path: below,
                    temp: &journal.temp(0),
                    lock: None,
                    lock_wait: std::time::Duration::ZERO,
                    expect: &[],
                    to: To::AsItIs,
                    mtime: Some(mtime.0),
                },
            )
        } else {
            put::set_time(root, path, *mtime).map_err(Into::into)
        };
        if let Err(error) = set {
            problems.push(Problem::notice(format!("/{name}: its time cannot be put back: {error:#}")));
        }
    }
}
