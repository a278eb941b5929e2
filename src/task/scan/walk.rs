//! Walks the catalogue over a host: the item that finds each path, each path once, what is left out and what went
//! wrong.
//! Not here: reading contents and writing them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use super::referenced_files;
use crate::catalog::matcher::{CatalogMatcher, ItemPatterns};
use crate::catalog::{self, Category, Item, Source};
use crate::model::facts::Product;
use crate::model::index::{Absence, ENTRIES_MAX_BYTES, Entry, EntryKind, Name};
use crate::model::problem::{NOT_SAVED, Problem, without_errno};
use crate::sys::fs::files::{self, FileNode, Stat};
use crate::sys::fs::glob::{Pattern, PatternIndex};
use crate::sys::fs::mounts;
use crate::sys::fs::walk::{self, WalkedPath};
use crate::sys::host::Host;
use crate::sys::pmxcfs::{self, PmxcfsPicture};
use crate::sys::process::signals::check_stopped;

/// No configuration is larger; a disk image or a sparse file that strayed into a collected directory is.
const LARGE_BYTES: u64 = 512 << 20;

/// The room of the items' entries, as `Room::take` reckons: what a reader takes, less what attributes and the outputs
/// of commands may need. Some 90 000 files with names as usual, many times what a host has.
const ROOM_BYTES: u64 = ENTRIES_MAX_BYTES as u64 - (5 << 20);
/// One item's part of it, so that a directory of a million files leaves room for all the others.
const ITEM_ROOM_BYTES: u64 = ROOM_BYTES / 4 * 3;
/// Problems are for a person to read.
const PROBLEMS_MAX: usize = 1000;

/// pmxcfs takes longer ones.
const PATH_MAX_BYTES: usize = 4096;

/// An entry that an item found. Paths are relative to the root.
#[derive(Debug)]
pub enum Found<'a> {
    /// An entry on the disk.
    File { path: &'a Path, stat: &'a Stat },
    /// An entry of the picture of /etc/pve; `path` begins with `etc/pve`.
    Pve { path: &'a Path, node: &'a pmxcfs::PmxcfsNode },
    /// The copy of config.db.
    Database { path: &'a Path, data: &'a [u8] },
}

pub type Visit<'a> = &'a mut dyn FnMut(&'static Item, &Found) -> Result<()>;

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
pub fn walk(scan: &Scan, items: &[&'static Item], visit: Visit) -> Result<ScanResult> {
    let bounds = Bounds {
        scan,
        exclude: scan.exclude.iter().collect(),
        foreign: mounts::foreign_mounts(scan.host.root()),
    };
    let mut walk = Walk {
        bounds: &bounds,
        cluster: &ClusterFiles::new(&bounds),
        seen: HashSet::new(),
        above: HashSet::new(),
        large: Vec::new(),
        links: Vec::new(),
        room: Room { item: 0, all: ROOM_BYTES, taken: 0 },
        left: ScanResult::default(),
        visit,
    };
    for item in items {
        check_stopped()?;
        let before = walk.seen.len();
        walk.room = Room { item: ITEM_ROOM_BYTES, taken: 0, ..walk.room };
        walk.item(item)?;
        let is_state = item.source.answer().is_some();
        if walk.seen.len() == before && !is_state {
            walk.left.absent.push(Absence { item: item.id.to_owned() });
        }
    }

    walk.check_large();
    walk.check_links()?;
    Ok(ScanResult { seen: walk.seen, ..walk.left })
}

/// Keeps the worst problems in their order; one more says how many there were.
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
        hint: Some("fix those that are, then run it again".into()),
    });
}

/// Room for entries that is left, in bytes.
#[derive(Clone, Copy)]
struct Room {
    item: u64,
    all: u64,
    /// Entries of this item.
    taken: u64,
}

impl Room {
    /// Takes an entry's part, or says that there is none left: never less than `Entry::memory` says of it.
    fn take(&mut self, path: &Path, stat: Option<&Stat>) -> bool {
        // Item, owner, group and the hash; a link has none.
        const ENTRY_BYTES: u64 = size_of::<Entry>() as u64 + 32 + 2 * 48 + 80 + 24;
        let link =
            stat.filter(|stat| stat.node == FileNode::Kept(EntryKind::Symlink)).map_or(0, |stat| stat.size);
        let cost = ENTRY_BYTES + path.as_os_str().len() as u64 + link;
        if cost > self.item || cost > self.all {
            return false;
        }
        (self.item, self.all, self.taken) = (self.item - cost, self.all - cost, self.taken + 1);
        true
    }

    fn full(self, what: &str, from: &Path) -> Problem {
        let count = self.taken;
        let what =
            format!("{what}: has too many files; {count} are saved, those from /{} on are not", shown(from));
        let folder = from.parent().unwrap_or(from);
        Problem::warning(what)
            .hint(format!("exclude what is not configuration, for example with `exclude /{}`", shown(folder)))
    }
}

/// Reports whether a path comes out of the picture of /etc/pve only: to look into the mount could hang, and the
/// database of a running node is never copied raw.
pub(crate) fn is_pictured(host: &Host, path: &Path) -> bool {
    let database = pmxcfs::DATABASE.trim_start_matches('/').as_bytes();
    host.facts.has(Product::Pve)
        && (path == Path::new(catalog::PVE_TREE) || path.as_os_str().as_encoded_bytes().starts_with(database))
}

/// What a walk does not enter.
struct Bounds<'a> {
    scan: &'a Scan<'a>,
    exclude: PatternIndex<()>,
    /// Mount points that are never touched, and their kinds.
    foreign: HashMap<PathBuf, String>,
}

impl Bounds<'_> {
    fn wants(&self, item: &ItemPatterns, path: &Path) -> bool {
        // What the admin names is wanted, even where the catalogue would not look.
        let is_named = matches!(item.item.source, Source::Configured);
        let is_left_out = !is_named && CatalogMatcher::get().left_out(path).is_some();
        !(is_left_out || self.exclude.covers(path) || item.excepts(path))
    }

    /// Reports whether a path is entered. A mount that would be, were it none, is added to `refused`.
    fn enters(&self, item: &ItemPatterns, path: &Path, refused: &RefCell<Vec<PathBuf>>) -> bool {
        if is_pictured(self.scan.host, path) || !self.wants(item, path) {
            return false;
        }
        let is_foreign = self.foreign.contains_key(path);
        if is_foreign {
            refused.borrow_mut().push(path.to_owned());
        }
        !is_foreign
    }
}

/// The picture of /etc/pve by the items that collect it.
struct ClusterFiles<'a> {
    /// What is wanted of it, each with its path below the root.
    nodes: Vec<(PathBuf, &'a pmxcfs::PmxcfsNode)>,
    /// Places of the directories in `nodes`.
    folders: HashMap<PathBuf, usize>,
    /// Places in `nodes`, by the item's id, in their order.
    by_item: HashMap<&'static str, Vec<usize>>,
}

impl<'a> ClusterFiles<'a> {
    fn new(bounds: &Bounds<'a>) -> Self {
        let matcher = CatalogMatcher::get();
        let mut files = Self { nodes: Vec::new(), folders: HashMap::new(), by_item: HashMap::new() };
        for node in bounds.scan.picture.iter().flat_map(|picture| &picture.nodes) {
            let path = Path::new(catalog::PVE_TREE).join(&node.path);
            if matcher.left_out(&path).is_some() || bounds.exclude.covers(&path) {
                continue;
            }
            let place = files.nodes.len();
            for item in matcher.collecting(&path) {
                files.by_item.entry(item.id).or_default().push(place);
            }
            if node.data.is_none() {
                files.folders.insert(path.clone(), place);
            }
            files.nodes.push((path, node));
        }
        files
    }

    /// Lists the directories above a path, the uppermost first.
    fn above(&self, path: &Path) -> Vec<usize> {
        let mut above: Vec<usize> =
            path.ancestors().skip(1).filter_map(|path| self.folders.get(path).copied()).collect();
        above.reverse();
        above
    }
}

struct Walk<'a, 't> {
    bounds: &'a Bounds<'a>,
    cluster: &'a ClusterFiles<'a>,
    seen: HashSet<PathBuf>,
    /// Directories that are in it for what is below them, and not with all that they hold.
    above: HashSet<PathBuf>,
    /// Files too large for an item of the catalogue.
    large: Vec<PathBuf>,
    /// Every link that was met, and the item that met it.
    links: Vec<(&'static Item, PathBuf)>,
    room: Room,
    left: ScanResult,
    visit: Visit<'t>,
}

impl Walk<'_, '_> {
    fn item(&mut self, item: &'static Item) -> Result<()> {
        let patterns = CatalogMatcher::get().patterns(item.id);
        let patterns = patterns.with_context(|| format!("{}: is not in the catalogue", item.id))?;
        let scan = self.bounds.scan;

        match item.source {
            Source::Files(_) => self.files(patterns, &patterns.globs),
            Source::MountSecrets => self.files(patterns, &referenced_files::secrets(scan.host)),
            Source::Snippets => {
                let globs = referenced_files::snippets(scan.picture, &mut self.left.problems);
                self.files(patterns, &globs)
            }
            Source::Configured => self.files(patterns, scan.include),
            Source::Pmxcfs(_) | Source::PmxcfsRest => self.pve(item),
            Source::Database => self.database(patterns),
            Source::Output { .. } | Source::Api { .. } | Source::LeftOut(_) => Ok(()),
        }
    }

    fn files(&mut self, item: &'static ItemPatterns, globs: &[Pattern]) -> Result<()> {
        let bounds = self.bounds;
        for glob in globs {
            let refused = RefCell::new(Vec::new());
            let full: RefCell<Option<PathBuf>> = RefCell::new(None);
            let enter = |path: &Path| full.borrow().is_none() && bounds.enters(item, path, &refused);
            walk::walk(bounds.scan.host.root(), glob, &enter, &mut |met| {
                let is_full = full.borrow().is_some();
                if let Some(path) = self.met(item.item, met, is_full)? {
                    *full.borrow_mut() = Some(path);
                }
                Ok(())
            })?;
            if let Some(path) = full.into_inner() {
                self.left.problems.push(self.room.full(glob.text(), &path));
                break;
            }
            self.report_mounts(refused.into_inner());
        }
        Ok(())
    }

    /// Takes what the disk has at a path. Returns the path when there is no room for it.
    fn met(&mut self, item: &'static Item, met: WalkedPath, is_full: bool) -> Result<Option<PathBuf>> {
        let root = self.bounds.scan.host.root();
        let (path, stat) = match met {
            WalkedPath::Entry(path, stat) => (path, stat.clone()),
            WalkedPath::LinkOnTheWay(path) => {
                let Ok(stat) = files::lstat(&root.join(path)) else { return Ok(None) };
                (path, stat)
            }
            WalkedPath::Unreadable(path, error) => {
                let what = format!("/{}: {}", shown(path), cause(&error));
                self.left.problems.push(Problem::warning(what).hint(NOT_SAVED));
                return Ok(None);
            }
        };

        self.above.remove(path);
        if self.seen.contains(path) || is_full {
            return Ok(None);
        }
        if !self.room.take(path, Some(&stat)) {
            return Ok(Some(path.to_owned()));
        }
        if let FileNode::Special(what) = stat.node {
            self.seen.insert(path.to_owned());
            self.left.problems.push(Problem::notice(format!("/{}: is {what}, not saved", shown(path))));
            return Ok(None);
        }
        let is_named = matches!(item.source, Source::Configured);
        if stat.node == FileNode::Kept(EntryKind::File) && stat.size > LARGE_BYTES && !is_named {
            self.large.push(path.to_owned());
            return Ok(None);
        }

        if stat.node == FileNode::Kept(EntryKind::Symlink) {
            self.links.push((item, path.to_owned()));
        }
        take_parents(root, item, path, (&mut self.seen, &mut self.above), self.visit)?;
        self.seen.insert(path.to_owned());
        (self.visit)(item, &Found::File { path, stat: &stat })?;
        check_stopped()?;
        Ok(None)
    }

    fn report_mounts(&mut self, refused: Vec<PathBuf>) {
        for path in refused {
            let kind = self.bounds.foreign.get(&path).map_or("", String::as_str);
            let what = format!("/{}: is a mount of type {kind}, not entered", shown(&path));
            let hint = format!("add `exclude /{}` to the configuration when that is right", shown(&path));
            if self.seen.insert(path) {
                self.left.problems.push(Problem::warning(what).hint(hint));
            }
        }
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
    fn check_links(&mut self) -> Result<()> {
        let root = self.bounds.scan.host.root();
        let elsewhere: PatternIndex<()> = Pattern::all(catalog::ELSEWHERE)?.iter().collect();

        for (item, link) in &self.links {
            let Ok(target) = fs::read_link(root.join(link)) else { continue };
            let target = resolve(link, &target);
            let saved = self.seen.contains(&target) && !self.above.contains(&target);
            let known = saved || elsewhere.covers(&target);
            if known {
                continue;
            }
            // On a mount that may hang not even a look is safe.
            let foreign = target.ancestors().any(|path| self.bounds.foreign.contains_key(path));
            if !foreign && files::lstat(&root.join(&target)).is_err() {
                continue;
            }
            let what = format!("/{}: is a link; its target, /{}, is not saved", shown(link), shown(&target));
            let problem = match item.category {
                Category::Scripts | Category::Custom => Problem::notice(what),
                _ => Problem::warning(what),
            };
            let hint = format!("add `include /{}` to the configuration, or exclude the link", shown(&target));
            self.left.problems.push(problem.hint(hint));
        }
        Ok(())
    }

    fn pve(&mut self, item: &'static Item) -> Result<()> {
        let ClusterFiles { nodes, by_item, .. } = self.cluster;
        for place in by_item.get(item.id).into_iter().flatten() {
            let (path, node) = &nodes[*place];
            if self.seen.contains(path) {
                continue;
            }
            if !self.room.take(path, None) {
                self.left.problems.push(self.room.full(pmxcfs::MOUNT, path));
                break;
            }
            for above in self.cluster.above(path) {
                let (path, node) = &nodes[above];
                self.take_pve(item, path, node)?;
            }
            self.take_pve(item, path, node)?;
        }
        Ok(())
    }

    fn take_pve(&mut self, item: &'static Item, path: &Path, node: &pmxcfs::PmxcfsNode) -> Result<()> {
        let base = Path::new(catalog::PVE_TREE);
        take_parents(
            self.bounds.scan.host.root(),
            item,
            base,
            (&mut self.seen, &mut self.above),
            self.visit,
        )?;
        if self.seen.insert(base.to_owned()) {
            let root = pmxcfs::PmxcfsNode { path: PathBuf::new(), mtime: 0, data: None };
            (self.visit)(item, &Found::Pve { path: base, node: &root })?;
        }
        if self.seen.insert(path.to_owned()) {
            if path.as_os_str().len() >= PATH_MAX_BYTES {
                let what = format!("/{}: is a longer path than Linux allows, not saved", shown(path));
                self.left.problems.push(Problem::warning(what));
                return Ok(());
            }
            (self.visit)(item, &Found::Pve { path, node })?;
        }
        Ok(())
    }

    fn database(&mut self, item: &'static ItemPatterns) -> Result<()> {
        let scan = self.bounds.scan;
        let Some(data) = scan.picture.and_then(|picture| picture.database.as_ref()) else {
            return Ok(());
        };
        let path = Path::new(pmxcfs::DATABASE.trim_start_matches('/'));
        if self.bounds.wants(item, path) && !self.seen.contains(path) {
            let item = item.item;
            take_parents(scan.host.root(), item, path, (&mut self.seen, &mut self.above), self.visit)?;
            self.seen.insert(path.to_owned());
            (self.visit)(item, &Found::Database { path, data })?;
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
    visit: Visit,
) -> Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    if seen.contains(parent) {
        return Ok(());
    }
    take_parents(root, item, parent, (&mut *seen, &mut *above), visit)?;
    if let Ok(stat) = files::lstat(&root.join(parent))
        && stat.node == FileNode::Kept(EntryKind::Dir)
    {
        seen.insert(parent.to_owned());
        above.insert(parent.to_owned());
        visit(item, &Found::File { path: parent, stat: &stat })?;
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

pub fn shown(path: &Path) -> Name {
    Name::from(path)
}

/// An I/O error in a few words, without Rust's "(os error 13)".
pub fn cause(error: &std::io::Error) -> String {
    without_errno(&error.to_string()).to_lowercase()
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
                .hint("fix those that are, then run it again")
        );
        let before = problems[..PROBLEMS_MAX].to_vec();
        problems.truncate(PROBLEMS_MAX);
        shorten(&mut problems);
        assert_eq!(problems, before);
    }
}
