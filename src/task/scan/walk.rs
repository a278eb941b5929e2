//! Walks the catalogue over a host: the item that finds each path, each path once, what is left out and what went
//! wrong.
//! Not here: reading contents and writing them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use super::referenced_files;
use crate::catalog::{self, Category, Item, Source};
use crate::model::facts::Product;
use crate::model::index::{Absence, EntryKind, Name};
use crate::model::problem::{NOT_SAVED, Problem};
use crate::sys::fs::files::{self, FileNode, Stat};
use crate::sys::fs::glob::Pattern;
use crate::sys::fs::mounts;
use crate::sys::fs::walk::{self, WalkedPath};
use crate::sys::host::Host;
use crate::sys::pmxcfs::{self, PmxcfsPicture};
use crate::sys::process::signals::check_stopped;

/// No configuration is larger; a disk image or a sparse file that strayed into a collected directory is.
const LARGE_BYTES: u64 = 512 << 20;

/// The room of the items' entries in the index, as `room_for` reckons: some 300 000 files with names as usual, a
/// hundred times what a host has. A file takes about 1 KiB of memory until the snapshot is read back.
const ROOM_BYTES: u64 = 192 << 20;
/// One row's part of it, so that a directory of a million files leaves room for all the others.
const ROW_ROOM_BYTES: u64 = 64 << 20;
/// Problems are for a person to read.
const PROBLEMS_MAX: usize = 1000;

/// pmxcfs takes longer ones.
const PATH_MAX_BYTES: usize = 4096;

/// Something a row found. Paths are relative to the root.
#[derive(Debug)]
pub enum FoundPiece<'a> {
    /// On the disk.
    File { path: &'a Path, stat: &'a Stat },
    /// In the picture of /etc/pve; `path` begins with `etc/pve`.
    Pve { path: &'a Path, node: &'a pmxcfs::PmxcfsNode },
    /// The copy of config.db.
    Database { path: &'a Path, data: &'a [u8] },
}

pub type Take<'a> = &'a mut dyn FnMut(&'static Item, &FoundPiece) -> Result<()>;

/// The result of a walk beside the files it found.
#[derive(Debug, Default)]
pub struct ScanResult {
    pub absent: Vec<Absence>,
    pub problems: Vec<Problem>,
    /// Every path that was taken or named in a problem.
    pub seen: HashSet<PathBuf>,
}

pub struct Scan<'a> {
    pub host: &'a Host,
    pub picture: Option<&'a PmxcfsPicture>,
    /// The configuration's `include`.
    pub include: &'a [Pattern],
    /// Its `exclude`, and our own stores and work directories.
    pub exclude: &'a [Pattern],
}

/// Walks `items` in their order. A path belongs to the first item that finds it.
pub fn walk(scan: &Scan, items: &[&'static Item], take: Take) -> Result<ScanResult> {
    let mut walk = Walk {
        scan,
        left_out: left_out()?,
        foreign: mounts::foreign_mounts(scan.host.root()),
        seen: HashSet::new(),
        above: HashSet::new(),
        large: Vec::new(),
        links: Vec::new(),
        room: Room { row: 0, all: ROOM_BYTES, taken: 0 },
        left: ScanResult::default(),
        take,
    };
    for item in items {
        check_stopped()?;
        let before = walk.seen.len();
        walk.room = Room { row: ROW_ROOM_BYTES, taken: 0, ..walk.room };
        walk.item(item)?;
        let is_state = item.source.answer().is_some();
        if walk.seen.len() == before && !is_state {
            walk.left.absent.push(Absence { item: item.id.to_owned() });
        }
    }

    walk.check_large();
    walk.check_links();
    Ok(ScanResult { seen: walk.seen, ..walk.left })
}

/// The worst ones stay, in their order, and one line says how many there were.
pub fn shorten(problems: &mut Vec<Problem>) {
    let mut places: Vec<usize> = (0..problems.len()).collect();
    places.sort_by_key(|place| (std::cmp::Reverse(problems[*place].severity), *place));
    let Some(worst) = places.get(PROBLEMS_MAX).map(|place| problems[*place].severity) else { return };
    let more = problems.len() - PROBLEMS_MAX;
    places.truncate(PROBLEMS_MAX);
    places.sort_unstable();
    *problems = places.into_iter().map(|place| problems[place].clone()).collect();
    let what = format!("{more} more problems are not listed");
    problems.push(Problem {
        severity: worst,
        what,
        hint: Some("mend those that are, then run it again".into()),
    });
}

/// How much may still be taken.
#[derive(Clone, Copy)]
struct Room {
    row: u64,
    all: u64,
    /// Entries of this item.
    taken: u64,
}

impl Room {
    /// Takes an entry's part, or says that there is none left. In JSON a byte is six at worst.
    fn take(&mut self, path: &Path, stat: Option<&Stat>) -> bool {
        const ENTRY_BYTES: u64 = 256;
        let link =
            stat.filter(|stat| stat.node == FileNode::Kept(EntryKind::Symlink)).map_or(0, |stat| stat.size);
        let cost = ENTRY_BYTES + 6 * (path.as_os_str().len() as u64 + link);
        if cost > self.row || cost > self.all {
            return false;
        }
        (self.row, self.all, self.taken) = (self.row - cost, self.all - cost, self.taken + 1);
        true
    }

    fn full(self, what: &str, from: &Path) -> Problem {
        let count = self.taken;
        let what =
            format!("{what}: has too many files; {count} are saved, those from /{} on are not", shown(from));
        let folder = from.parent().unwrap_or(from);
        Problem::warning(what)
            .hint(format!("leave out what is no configuration, as in `exclude /{}`", shown(folder)))
    }
}

/// Reports whether a path comes out of the picture of /etc/pve only: to look into the mount could hang, and the
/// database of a running node is never copied raw.
pub(crate) fn is_pictured(host: &Host, path: &Path) -> bool {
    let database = pmxcfs::DATABASE.trim_start_matches('/').as_bytes();
    host.facts.has(Product::Pve)
        && (path == Path::new(pmxcfs::MOUNT.trim_start_matches('/'))
            || path.as_os_str().as_encoded_bytes().starts_with(database))
}

/// The globs that no item collects.
pub(crate) fn left_out() -> Result<Vec<Pattern>> {
    let globs = catalog::items().filter_map(|item| match item.source {
        Source::LeftOut(globs) => Some(globs),
        _ => None,
    });
    globs.flatten().map(|glob| Pattern::new(glob)).collect()
}

struct Walk<'a, 't> {
    scan: &'a Scan<'a>,
    left_out: Vec<Pattern>,
    /// Mount points that are never touched.
    foreign: HashMap<PathBuf, String>,
    seen: HashSet<PathBuf>,
    /// Folders that are in it for what is below them, and not with all that they hold.
    above: HashSet<PathBuf>,
    /// Files too large for an item of the catalogue.
    large: Vec<PathBuf>,
    /// Every link that was met, and the item that met it.
    links: Vec<(&'static Item, PathBuf)>,
    room: Room,
    left: ScanResult,
    take: Take<'t>,
}

impl Walk<'_, '_> {
    fn item(&mut self, item: &'static Item) -> Result<()> {
        let except = match item.source {
            Source::Pmxcfs(_) | Source::PmxcfsRest => pve_patterns(item.except)?,
            _ => patterns(item.except)?,
        };

        match item.source {
            Source::Files(globs) => self.files(item, &patterns(globs)?, &except),
            Source::MountSecrets => self.files(item, &referenced_files::secrets(self.scan.host), &except),
            Source::Snippets => {
                let globs = referenced_files::snippets(self.scan.picture, &mut self.left.problems);
                self.files(item, &globs, &except)
            }
            Source::Configured => self.files(item, self.scan.include, &except),
            Source::Pmxcfs(globs) => {
                let globs = pve_patterns(globs)?;
                self.pve(item, &|path| globs.iter().any(|glob| glob.covers(path)), &except)
            }
            Source::PmxcfsRest => self.pve(item, &|_| true, &except),
            Source::Database => self.database(item),
            Source::Output { .. } | Source::Api { .. } | Source::LeftOut(_) => Ok(()),
        }
    }

    fn wanted(left_out: &[Pattern], scan: &Scan, except: &[Pattern], path: &Path) -> bool {
        !left_out.iter().chain(scan.exclude).chain(except).any(|pattern| pattern.covers(path))
    }

    fn files(&mut self, item: &'static Item, globs: &[Pattern], except: &[Pattern]) -> Result<()> {
        let Self { scan, left_out, foreign, seen, above, links, large, room, left, take } = self;
        // What the admin names is wanted, even where the catalogue would not look.
        let named = matches!(item.source, Source::Configured);
        let left_out: &[Pattern] = if named { &[] } else { left_out };

        for glob in globs {
            let refused = RefCell::new(Vec::new());
            let full: RefCell<Option<PathBuf>> = RefCell::new(None);
            let enter = |path: &Path| {
                if full.borrow().is_some() {
                    return false;
                }
                let wanted = !is_pictured(scan.host, path) && Self::wanted(left_out, scan, except, path);
                let foreign = foreign.contains_key(path);
                if wanted && foreign {
                    refused.borrow_mut().push(path.to_owned());
                }
                wanted && !foreign
            };
            walk::walk(scan.host.root(), glob, &enter, &mut |met| {
                let (path, stat) = match met {
                    WalkedPath::Entry(path, stat) => (path, stat.clone()),
                    WalkedPath::LinkOnTheWay(path) => {
                        let Ok(stat) = files::lstat(&scan.host.root().join(path)) else { return Ok(()) };
                        (path, stat)
                    }
                    WalkedPath::Unreadable(path, error) => {
                        let what = format!("/{}: {}", shown(path), cause(&error));
                        left.problems.push(Problem::warning(what).hint(NOT_SAVED));
                        return Ok(());
                    }
                };
                above.remove(path);
                if seen.contains(path) || full.borrow().is_some() {
                    return Ok(());
                }
                if !room.take(path, Some(&stat)) {
                    *full.borrow_mut() = Some(path.to_owned());
                    return Ok(());
                }
                if let FileNode::Special(what) = stat.node {
                    seen.insert(path.to_owned());
                    left.problems.push(Problem::notice(format!("/{}: is {what}, not saved", shown(path))));
                    return Ok(());
                }
                if stat.node == FileNode::Kept(EntryKind::File) && stat.size > LARGE_BYTES && !named {
                    large.push(path.to_owned());
                    return Ok(());
                }
                if stat.node == FileNode::Kept(EntryKind::Symlink) {
                    links.push((item, path.to_owned()));
                }
                take_parents(scan.host.root(), item, path, (&mut *seen, &mut *above), take)?;
                seen.insert(path.to_owned());
                take(item, &FoundPiece::File { path, stat: &stat })?;
                check_stopped()
            })?;
            if let Some(path) = full.into_inner() {
                left.problems.push(room.full(glob.text(), &path));
                break;
            }
            for path in refused.into_inner() {
                let kind = foreign.get(&path).map_or("", String::as_str);
                let what = format!("/{}: is a mount of kind {kind}, not entered", shown(&path));
                let hint = format!("add `exclude /{}` to the configuration when that is right", shown(&path));
                if seen.insert(path) {
                    left.problems.push(Problem::warning(what).hint(hint));
                }
            }
        }
        Ok(())
    }

    /// A later item may have taken one after all: `include` takes files of any size.
    fn check_large(&mut self) {
        self.large.sort_unstable();
        self.large.dedup();
        for path in self.large.iter().filter(|path| !self.seen.contains(*path)) {
            let what = format!("/{}: is larger than {} MiB, not saved", shown(path), LARGE_BYTES >> 20);
            let hint = format!("add `include` or `exclude /{}` to the configuration", shown(path));
            self.left.problems.push(Problem::warning(what).hint(hint));
        }
    }

    /// Checks that the target of each link is in the snapshot too, or belongs to a package, to the cluster or to the
    /// running system. A link among programs is worth a notice, one in a configuration a warning.
    fn check_links(&mut self) {
        let root = self.scan.host.root();
        let elsewhere: Vec<Pattern> =
            catalog::ELSEWHERE.iter().filter_map(|glob| Pattern::new(glob).ok()).collect();

        for (item, link) in &self.links {
            let Ok(target) = fs::read_link(root.join(link)) else { continue };
            let target = resolve(link, &target);
            let saved = self.seen.contains(&target) && !self.above.contains(&target);
            let known = saved || elsewhere.iter().any(|glob| glob.covers(&target));
            if known {
                continue;
            }
            // On a mount that may hang not even a look is safe.
            let foreign = target.ancestors().any(|path| self.foreign.contains_key(path));
            if !foreign && files::lstat(&root.join(&target)).is_err() {
                continue;
            }
            let what =
                format!("/{}: is a link; what it leads to, /{}, is not saved", shown(link), shown(&target));
            let problem = match item.category {
                Category::Scripts | Category::Custom => Problem::notice(what),
                _ => Problem::warning(what),
            };
            let hint = format!("add `include /{}` to the configuration, or exclude the link", shown(&target));
            self.left.problems.push(problem.hint(hint));
        }
    }

    fn pve(&mut self, item: &'static Item, claims: &dyn Fn(&Path) -> bool, except: &[Pattern]) -> Result<()> {
        let Some(picture) = self.scan.picture else { return Ok(()) };
        let base = Path::new(pmxcfs::MOUNT.trim_start_matches('/'));
        let mut folders: Vec<(PathBuf, &pmxcfs::PmxcfsNode)> = Vec::new();

        for node in &picture.nodes {
            let path = base.join(&node.path);
            folders.retain(|(folder, _)| path.starts_with(folder));
            if !Self::wanted(&self.left_out, self.scan, except, &path) {
                continue;
            }
            let folder = node.data.is_none();
            if claims(&path) && !self.seen.contains(&path) {
                if !self.room.take(&path, None) {
                    self.left.problems.push(self.room.full(pmxcfs::MOUNT, &path));
                    break;
                }
                for (above, node) in &folders {
                    self.take_pve(item, above, node)?;
                }
                self.take_pve(item, &path, node)?;
            }
            if folder {
                folders.push((path, node));
            }
        }
        Ok(())
    }

    fn take_pve(&mut self, item: &'static Item, path: &Path, node: &pmxcfs::PmxcfsNode) -> Result<()> {
        let base = Path::new(pmxcfs::MOUNT.trim_start_matches('/'));
        take_parents(self.scan.host.root(), item, base, (&mut self.seen, &mut self.above), self.take)?;
        if self.seen.insert(base.to_owned()) {
            let root = pmxcfs::PmxcfsNode { path: PathBuf::new(), mtime: 0, data: None };
            (self.take)(item, &FoundPiece::Pve { path: base, node: &root })?;
        }
        if self.seen.insert(path.to_owned()) {
            if path.as_os_str().len() >= PATH_MAX_BYTES {
                let what = format!("/{}: is a longer path than Linux takes, not saved", shown(path));
                self.left.problems.push(Problem::warning(what));
                return Ok(());
            }
            (self.take)(item, &FoundPiece::Pve { path, node })?;
        }
        Ok(())
    }

    fn database(&mut self, item: &'static Item) -> Result<()> {
        let Some(data) = self.scan.picture.and_then(|picture| picture.database.as_ref()) else {
            return Ok(());
        };
        let path = Path::new(pmxcfs::DATABASE.trim_start_matches('/'));
        if Self::wanted(&self.left_out, self.scan, &[], path) && !self.seen.contains(path) {
            take_parents(self.scan.host.root(), item, path, (&mut self.seen, &mut self.above), self.take)?;
            self.seen.insert(path.to_owned());
            (self.take)(item, &FoundPiece::Database { path, data })?;
        }
        Ok(())
    }
}

/// The directories above a path, so that an extraction gives them their owner and mode back.
fn take_parents(
    root: &Path,
    item: &'static Item,
    path: &Path,
    (seen, above): (&mut HashSet<PathBuf>, &mut HashSet<PathBuf>),
    take: &mut dyn FnMut(&'static Item, &FoundPiece) -> Result<()>,
) -> Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    if seen.contains(parent) {
        return Ok(());
    }
    take_parents(root, item, parent, (&mut *seen, &mut *above), take)?;
    if let Ok(stat) = files::lstat(&root.join(parent))
        && stat.node == FileNode::Kept(EntryKind::Dir)
    {
        seen.insert(parent.to_owned());
        above.insert(parent.to_owned());
        take(item, &FoundPiece::File { path: parent, stat: &stat })?;
    }
    Ok(())
}

/// Resolves the target of a link, relative to the root, by its words alone.
pub(crate) fn resolve(link: &Path, target: &Path) -> PathBuf {
    let mut path =
        if target.is_absolute() { PathBuf::new() } else { link.parent().unwrap_or(Path::new("")).to_owned() };
    for part in target.components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => drop(path.pop()),
            _ => {}
        }
    }
    path
}

pub(crate) fn patterns(globs: &[&str]) -> Result<Vec<Pattern>> {
    globs.iter().map(|glob| Pattern::new(glob)).collect()
}

/// Globs relative to /etc/pve.
pub(crate) fn pve_patterns(globs: &[&str]) -> Result<Vec<Pattern>> {
    globs.iter().map(|glob| Pattern::new(&format!("{}/{glob}", pmxcfs::MOUNT))).collect()
}

pub fn shown(path: &Path) -> Name {
    Name::from(path)
}

/// An I/O error in a few words, without Rust's "(os error 13)".
pub fn cause(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_problems_the_worst_are_listed_and_the_others_counted() {
        let mut problems: Vec<Problem> = (0..3000).map(|n| Problem::notice(n.to_string())).collect();
        problems.push(Problem::warning("the last one"));
        shorten(&mut problems);
        assert_eq!(problems.len(), PROBLEMS_MAX + 1);
        assert_eq!((problems[0].what.as_str(), problems[998].what.as_str()), ("0", "998"));
        assert_eq!(problems[999].what, "the last one");
        assert_eq!(
            problems[1000],
            Problem::notice("2001 more problems are not listed")
                .hint("mend those that are, then run it again")
        );
        let before = problems[..PROBLEMS_MAX].to_vec();
        problems.truncate(PROBLEMS_MAX);
        shorten(&mut problems);
        assert_eq!(problems, before);
    }
}
