//! Globs over absolute paths: `*` and `?` stay inside a component, `**` is any depth,
//! and a pattern that meets a folder means the whole tree below it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};

use anyhow::{Result, bail};

use crate::model::problem::{Fault, FaultKind};

#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    parts: Vec<GlobPart>,
}

#[derive(Debug, Clone)]
pub enum GlobPart {
    Literal(OsString),
    Glob(glob::Pattern),
    /// `**`: no component or any number of them.
    Any,
}

const OPTIONS: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    // Configuration likes dot files: `*` must not pass over them.
    require_literal_leading_dot: false,
};

impl GlobPart {
    pub fn matches(&self, name: &OsStr) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(text) => name == text,
            Self::Glob(pattern) => pattern.matches_with(&name.to_string_lossy(), OPTIONS),
        }
    }
}

/// A glob over one name, as `pve*`.
pub struct NamePattern(glob::Pattern);

impl NamePattern {
    /// None for a name without a wildcard. Errors: it is no glob.
    pub fn new(text: &str) -> Result<Option<Self>> {
        if !text.contains(['*', '?', '[']) {
            return Ok(None);
        }
        match glob::Pattern::new(text) {
            Ok(pattern) => Ok(Some(Self(pattern))),
            Err(error) => bail!("'{text}' is not a valid glob: {}", error.msg),
        }
    }

    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }
}

impl Pattern {
    /// Errors: not absolute, `..`, or a component that is no glob.
    pub fn new(text: &str) -> Result<Self> {
        if !text.starts_with('/') {
            bail!("'{text}' is not an absolute path");
        }

        let mut parts = text
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .map(|part| match part {
                ".." => bail!("'{text}' contains '..'"),
                "**" => Ok(GlobPart::Any),
                _ if part.contains(['*', '?', '[']) => match glob::Pattern::new(part) {
                    Ok(pattern) => Ok(GlobPart::Glob(pattern)),
                    Err(error) => bail!("'{text}' is not a valid glob: {}", error.msg),
                },
                _ => Ok(GlobPart::Literal(part.into())),
            })
            .collect::<Result<Vec<_>>>()?;

        // Two in a row mean the same as one, and would be walked once for every way to share a path between them.
        parts.dedup_by(|a, b| matches!((a, b), (GlobPart::Any, GlobPart::Any)));
        if parts.is_empty() {
            bail!("'{text}' matches the whole system");
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Reads a value of `--path`, with or without its leading slash. Errors: `Usage`.
    pub fn from_option(text: &str) -> Result<Self> {
        let absolute = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
        Self::new(&absolute)
            .map_err(|error| Fault::new(FaultKind::Usage, format!("--path: {error:#}")).into())
    }

    /// Compiles globs of a table. Errors: as `new`.
    pub fn all(globs: &[&str]) -> Result<Vec<Self>> {
        globs.iter().map(|glob| Self::new(glob)).collect()
    }

    /// A path whatever characters it has, `..` resolved by its words. None for a relative one and for the root itself.
    pub fn literal(path: &Path) -> Option<Self> {
        let mut parts: Vec<GlobPart> = Vec::new();
        for part in path.strip_prefix("/").ok()?.components() {
            match part {
                Component::Normal(name) => parts.push(GlobPart::Literal(name.to_owned())),
                Component::ParentDir => drop(parts.pop()),
                _ => {}
            }
        }
        (!parts.is_empty()).then(|| Self { text: path.display().to_string(), parts })
    }

    pub fn parts(&self) -> &[GlobPart] {
        &self.parts
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// True when the pattern meets `path` (relative to the root) or a folder above it.
    pub fn covers(&self, path: &Path) -> bool {
        covers(&self.parts, &names(path))
    }
}

fn names(path: &Path) -> Vec<&OsStr> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    names.collect()
}

/// Patterns, each with a value, by the literal names that they begin with: a path is compared only with the few that
/// can meet it.
#[derive(Debug, Clone)]
pub struct PatternIndex<T> {
    /// What follows the names that led here.
    here: Vec<(Vec<GlobPart>, T)>,
    below: HashMap<OsString, Self>,
}

impl<T> Default for PatternIndex<T> {
    fn default() -> Self {
        Self { here: Vec::new(), below: HashMap::new() }
    }
}

impl<T> PatternIndex<T> {
    pub fn insert(&mut self, pattern: &Pattern, value: T) {
        let mut index = self;
        let mut parts = pattern.parts();
        while let [GlobPart::Literal(name), rest @ ..] = parts {
            index = index.below.entry(name.clone()).or_default();
            parts = rest;
        }
        index.here.push((parts.to_vec(), value));
    }

    /// Returns the values of all patterns that cover `path`, relative to the root.
    pub fn covering(&self, path: &Path) -> Vec<&T> {
        let names = names(path);
        let mut found = Vec::new();
        let mut index = self;

        for at in 0..=names.len() {
            let met = index.here.iter().filter(|(parts, _)| covers(parts, &names[at..]));
            found.extend(met.map(|(_, value)| value));
            match names.get(at).and_then(|name| index.below.get(*name)) {
                Some(below) => index = below,
                None => break,
            }
        }
        found
    }

    pub fn covers(&self, path: &Path) -> bool {
        !self.covering(path).is_empty()
    }
}

impl<'a> FromIterator<&'a Pattern> for PatternIndex<()> {
    fn from_iter<I: IntoIterator<Item = &'a Pattern>>(patterns: I) -> Self {
        let mut index = Self::default();
        for pattern in patterns {
            index.insert(pattern, ());
        }
        index
    }
}

/// Only the last `**` is ever tried again further on: what the ones before it could reach, it reaches too.
/// So a pattern of many costs no more than its length times the path's.
fn covers(parts: &[GlobPart], names: &[&OsStr]) -> bool {
    let (mut part, mut name) = (0, 0);
    let mut again: Option<(usize, usize)> = None;

    loop {
        match (parts.get(part), names.get(name)) {
            // The pattern is used up: what is left of the path lies below a match.
            (None, _) => return true,
            // `dir/**` is what lies below the folder, not the folder itself.
            (Some(_), None) => return false,
            (Some(GlobPart::Any), Some(_)) if part + 1 == parts.len() => return true,
            (Some(GlobPart::Any), Some(_)) => {
                part += 1;
                again = Some((part, name));
            }
            (Some(wanted), Some(found)) if wanted.matches(found) => (part, name) = (part + 1, name + 1),
            _ => {
                let Some((after, from)) = again else { return false };
                (part, name) = (after, from + 1);
                again = Some((part, name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn covers(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).unwrap().covers(Path::new(path))
    }

    #[test]
    fn a_star_stays_inside_a_component() {
        assert!(covers("/etc/*.conf", "etc/a.conf"));
        assert!(!covers("/etc/*.conf", "etc/x/a.conf"));
    }

    #[test]
    fn two_stars_are_any_depth() {
        assert!(covers("/root/**/cache", "root/cache"));
        assert!(covers("/root/**/cache", "root/a/b/cache"));
        assert!(covers("/root/.cache/**", "root/.cache/a/b"));
        assert!(!covers("/root/.cache/**", "root/.cache"));
        assert!(covers("/**/*.lck", "etc/proxmox-backup/.datastore.lck"));
    }

    #[test]
    fn many_two_stars_cost_no_more_time_than_one() {
        let deep = "a/".repeat(200);
        assert!(!covers(&"/**/a".repeat(30).replace("/a/", "/a/x/"), &deep));
        assert!(!covers(&("/**/a".repeat(30) + "/b"), &deep));
        assert!(covers(&"/**/a".repeat(30), &deep));
        assert_eq!(Pattern::new("/a/**/**/**/b").unwrap().parts().len(), 3);
    }

    #[test]
    fn a_folder_covers_its_whole_tree() {
        assert!(covers("/etc/ssh", "etc/ssh"));
        assert!(covers("/etc/ssh", "etc/ssh/a/b"));
        assert!(!covers("/etc/ssh", "etc/sshd"));
    }

    #[test]
    fn a_pattern_must_be_absolute_and_stay_inside() {
        for bad in ["etc/x", "/a/../b", "/", "/a/[", ""] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }
}
