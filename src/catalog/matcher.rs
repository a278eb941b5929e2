//! The catalogue compiled once: the items that collect a path, the one it belongs to, and what no item collects.
//! Not here: walking a host (`task::scan::walk`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use super::{Item, Source, items};
use crate::sys::fs::glob::{Pattern, PatternIndex};
use crate::sys::pmxcfs::{DATABASE, MOUNT};

/// An item and its globs, all of them absolute.
pub struct ItemPatterns {
    pub item: &'static Item,
    /// Empty when only the host knows the item's files.
    pub globs: Vec<Pattern>,
    pub except: Vec<Pattern>,
}

impl ItemPatterns {
    fn new(item: &'static Item) -> Self {
        let (base, globs): (_, &[&str]) = match item.source {
            Source::Files(globs) | Source::LeftOut(globs) => ("", globs),
            Source::Pmxcfs(globs) => (MOUNT, globs),
            Source::PmxcfsRest => (MOUNT, &["**"]),
            Source::Database => ("", &[DATABASE]),
            _ => ("", &[]),
        };
        // The tests of the catalogue hold that each one is a glob.
        let compiled = |globs: &[&str]| {
            globs.iter().filter_map(|glob| Pattern::new(&format!("{base}/{glob}")).ok()).collect()
        };
        Self { item, globs: compiled(globs), except: compiled(item.except) }
    }

    pub fn excepts(&self, path: &Path) -> bool {
        self.except.iter().any(|glob| glob.covers(path))
    }

    /// Reports whether a path, relative to the root, is the item's.
    pub fn cover(&self, path: &Path) -> bool {
        self.globs.iter().any(|glob| glob.covers(path)) && !self.excepts(path)
    }
}

/// All items of the catalogue, ready to be asked about paths. Every path is relative to the root.
pub struct CatalogMatcher {
    items: Vec<ItemPatterns>,
    places: HashMap<&'static str, usize>,
    /// Globs of what is collected, each with its item's place in `items`.
    collected: PatternIndex<usize>,
    left_out: PatternIndex<usize>,
}

static MATCHER: LazyLock<CatalogMatcher> = LazyLock::new(CatalogMatcher::new);

impl CatalogMatcher {
    pub fn get() -> &'static Self {
        &MATCHER
    }

    fn new() -> Self {
        let items: Vec<ItemPatterns> = items().map(ItemPatterns::new).collect();
        let places = items.iter().enumerate().map(|(place, patterns)| (patterns.item.id, place)).collect();
        let (mut collected, mut left_out) = (PatternIndex::default(), PatternIndex::default());
        for (place, patterns) in items.iter().enumerate() {
            let is_left_out = matches!(patterns.item.source, Source::LeftOut(_));
            let index = if is_left_out { &mut left_out } else { &mut collected };
            for glob in &patterns.globs {
                index.insert(glob, place);
            }
        }
        Self { items, places, collected, left_out }
    }

    /// Returns all items in the order of the catalogue.
    pub fn items(&self) -> &[ItemPatterns] {
        &self.items
    }

    /// Returns an item's patterns. None: the catalogue has no such item.
    pub fn patterns(&self, id: &str) -> Option<&ItemPatterns> {
        self.places.get(id).map(|place| &self.items[*place])
    }

    /// Returns the items that collect a path, in the order of the catalogue.
    pub fn collecting(&self, path: &Path) -> Vec<&'static Item> {
        let mut places = self.collected.covering(path);
        places.sort_unstable();
        places.dedup();
        let items = places.into_iter().map(|place| &self.items[*place]);
        items.filter(|patterns| !patterns.excepts(path)).map(|patterns| patterns.item).collect()
    }

    /// Returns the item that a path belongs to: of those that collect it the first one.
    pub fn owner_of(&self, path: &Path) -> Option<&'static Item> {
        self.collecting(path).first().copied()
    }

    /// Returns the item that says why a path is never collected.
    pub fn left_out(&self, path: &Path) -> Option<&'static Item> {
        self.left_out.covering(path).into_iter().min().map(|place| self.items[*place].item)
    }
}
