//! The words of a selection that name objects, and which objects of a tree they mean.
//! Not here: taking them out and putting them in (`objects`), the facts (`catalog::objects`).

use std::collections::{BTreeMap, BTreeSet};

use super::config_edit::{self, ConfigPart};
use std::path::Path;

use crate::catalog::On;
use crate::catalog::guests::GuestPath;
use crate::catalog::objects::{
    ALIASES, GUEST_KINDS, GUEST_WORD, Grammar, JOB_KINDS, JOB_WORD, KINDS, ObjectKind, ObjectPart, Whose,
};
use crate::model::nearest::nearest;
use crate::model::problem::{Fault, FaultKind};
use crate::plan::select;

/// Contents by path, relative to the root: `etc/pve/storage.cfg`.
pub type FileTree = BTreeMap<String, Vec<u8>>;

/// The most objects of a kind that are named when one is not found.
const MAX_NAMED: usize = 12;

/// A word that was asked for, before a snapshot is known.
#[derive(Debug, Clone)]
pub struct Selector {
    /// The word as it was typed.
    pub word: String,
    pub(crate) id: String,
    /// More than one where both products have such a thing, or the word is a general one.
    kinds: Vec<&'static ObjectKind>,
}

/// Reports whether a word begins as no object's word does.
fn is_path(word: &str) -> bool {
    let top = word.split_once('/').map(|(top, _)| top);
    top.is_some_and(|top| {
        matches!(top, "" | "." | ".." | "etc" | "root" | "usr" | "var") || top.contains('*')
    })
}

fn kind_names() -> BTreeSet<&'static str> {
    KINDS.iter().map(|kind| kind.name).chain([GUEST_WORD]).collect()
}

fn usage(what: String, hint: String) -> Fault {
    Fault::new(FaultKind::Usage, what).hint(hint)
}

/// Builds the error for a word without a kind of object and an id; `rest` is the word without its product.
fn no_object(word: &str, rest: &str) -> Fault {
    if kind_names().contains(rest) {
        return usage(format!("'{word}' is not an object"), format!("for example '{rest}/NAME'"));
    }
    if select::known(rest) {
        let hint = format!("use --only {rest}; separate the names of one option with commas");
        return usage(format!("'{word}' is an item or a category, not an object"), hint);
    }
    let name = rest.rsplit_once('/').map_or(rest, |(name, _)| name);
    let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let words: Vec<&str> = names.into_iter().chain([GUEST_WORD]).collect();
    let hint = nearest(name, &words).map_or_else(
        || format!("the kinds are: {}", words.join(", ")),
        |near| format!("did you mean '{near}/…'?"),
    );
    usage(format!("'{word}': unknown kind of object '{name}'"), hint)
}

/// Reports whether this module reads a path of a snapshot or a host.
pub fn reads(path: &str) -> bool {
    let parts = KINDS.iter().flat_map(|kind| kind.parts.iter().map(|part| part.path));
    let related = KINDS.iter().flat_map(|kind| kind.related.iter().map(|related| related.path));
    parts.chain(related).any(|pattern| capture(pattern, path).is_some())
}

impl Selector {
    /// Errors: `Usage`, with the nearest kind.
    pub fn parse(word: &str) -> Result<Self, Fault> {
        let (product, rest) = match word.split_once('/') {
            Some(("pve", rest)) => (Some(On::Pve), rest),
            Some(("pbs", rest)) => (Some(On::Pbs), rest),
            _ => (None, word),
        };
        if is_path(word) {
            return Err(usage(format!("'{word}' is a path, not an object"), format!("use --path '{word}'")));
        }

        // `mapping/pci/x`: the longest name counts.
        let splits = rest.match_indices('/').map(|(at, _)| (&rest[..at], &rest[at + 1..]));
        let mut fitting = splits.filter_map(|(name, id)| {
            let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name);
            kind_names().contains(name).then_some((name, id))
        });
        let Some((name, id)) = fitting.next_back() else { return Err(no_object(word, rest)) };
        if id.is_empty() || id.contains(char::is_control) {
            return Err(usage(format!("'{word}' is not an object"), format!("for example '{name}/NAME'")));
        }

        let wanted = |kind: &&ObjectKind| match name {
            GUEST_WORD => GUEST_KINDS.contains(&kind.name),
            JOB_WORD => JOB_KINDS.contains(&kind.name),
            name => kind.name == name,
        };
        let kinds =
            KINDS.iter().filter(wanted).filter(|kind| product.is_none_or(|on| kind.on == on)).collect();
        Ok(Self { word: word.to_owned(), id: id.to_owned(), kinds })
    }

    /// Errors: `Usage` when the snapshot has none of this name, or more than one.
    pub(crate) fn kind(&self, snapshot: &FileTree) -> Result<&'static ObjectKind, Fault> {
        let found: Vec<&ObjectKind> =
            self.kinds.iter().copied().filter(|kind| ids(kind, snapshot).contains(&self.id)).collect();
        match found[..] {
            [kind] => Ok(kind),
            [] => Err(self.unknown(snapshot)),
            _ => {
                let words: Vec<String> = found.iter().map(|kind| full_name(kind, &self.id)).collect();
                let fault = Fault::new(FaultKind::Usage, format!("'{}' is ambiguous", self.word));
                Err(fault.hint(format!("use {}", words.join(" or "))))
            }
        }
    }

    fn unknown(&self, snapshot: &FileTree) -> Fault {
        let named = |kind: &ObjectKind| {
            let words = ids(kind, snapshot).into_iter().map(|id| format!("{}/{id}", kind.name));
            words.collect::<Vec<_>>()
        };
        let same: Vec<String> = self.kinds.iter().flat_map(|kind| named(kind)).collect();
        let all: Vec<String> = KINDS.iter().flat_map(named).collect();
        let near = |of: &[String], word: &str| {
            let words: Vec<&str> = of.iter().map(String::as_str).collect();
            nearest(word, &words).map(|near| format!("did you mean '{near}'?"))
        };
        let plain = self.kinds.first().map_or_else(String::new, |kind| format!("{}/{}", kind.name, self.id));
        let elsewhere = all.iter().find(|name| name.rsplit_once('/').is_some_and(|(_, id)| id == self.id));

        // A number that is near another means nothing.
        let numbered = self.id.bytes().all(|byte| byte.is_ascii_digit());
        let hint = elsewhere
            .map(|name| format!("did you mean '{name}'?"))
            .or_else(|| near(&same, &plain).filter(|_| !numbered))
            .or_else(|| (!same.is_empty()).then(|| shortened("it has: ", &same)))
            .or_else(|| near(&all, &plain).filter(|_| !numbered))
            .unwrap_or_else(|| "see `pbx-config show SNAP --files`".to_owned());
        Fault::new(FaultKind::Usage, format!("the snapshot has no '{}'", self.word)).hint(hint)
    }
}

fn shortened(before: &str, words: &[String]) -> String {
    let more = words.len().saturating_sub(MAX_NAMED);
    let shown = words[..words.len() - more].join(", ");
    if more == 0 { format!("{before}{shown}") } else { format!("{before}{shown} and {more} more") }
}

/// Returns the object's word, with its product where the name alone says too little.
pub(crate) fn full_name(kind: &ObjectKind, id: &str) -> String {
    let twins = KINDS.iter().filter(|other| other.name == kind.name).count();
    let product = match kind.on {
        On::Pbs => "pbs/",
        _ => "pve/",
    };
    format!("{}{}/{id}", if twins > 1 { product } else { "" }, kind.name)
}

/// Lists every object of a tree by its word, in the order of the kinds.
pub fn all(tree: &FileTree) -> Vec<String> {
    KINDS.iter().flat_map(|kind| ids(kind, tree).into_iter().map(|id| full_name(kind, &id))).collect()
}

/// Reports whether a file is a kind's own by its name, whatever pattern it fits besides.
fn is_literal(path: &str) -> bool {
    KINDS.iter().any(|kind| kind.parts.iter().any(|part| part.path == path))
}

/// Reports whether a file is one object and nothing else, as a guest's configuration is.
pub fn is_whole(path: &str) -> bool {
    let mut parts = KINDS.iter().flat_map(|kind| kind.parts);
    let fits = |part: &ObjectPart| part.grammar == Grammar::Whole && capture(part.path, path).is_some();
    !is_literal(path) && parts.any(fits)
}

/// Lists the objects of a kind, by the first of its parts.
pub(crate) fn ids(kind: &ObjectKind, tree: &FileTree) -> Vec<String> {
    let Some(part) = kind.parts.first() else { return Vec::new() };
    if part.grammar == Grammar::Whole {
        // A file that another kind knows by its own name is none of these.
        return tree
            .keys()
            .filter(|path| !is_literal(path))
            .filter_map(|path| capture(part.path, path)?.id)
            .collect();
    }
    let entries = tree
        .get(part.path)
        .and_then(|text| config_edit::entries(part.grammar, text).ok())
        .unwrap_or_default();
    entries.into_iter().map(|entry| id_of(part.whose, &entry)).collect()
}

pub(crate) fn id_of(whose: Whose, entry: &ConfigPart) -> String {
    if whose == Whose::Typed { format!("{}:{}", entry.kind, entry.id) } else { entry.id.clone() }
}

impl Whose {
    pub(crate) fn owns(self, object: &str, entry: &ConfigPart) -> bool {
        match self {
            Self::Itself | Self::Typed => id_of(self, entry) == object,
            Self::Tokens => token_of(&entry.id, object),
            Self::NameIn(realm) => object.rsplit_once('@') == Some((entry.id.as_str(), realm)),
        }
    }
}

pub(crate) fn token_of(token: &str, user: &str) -> bool {
    token.strip_prefix(user).is_some_and(|rest| rest.starts_with('!'))
}

/// Values of the placeholders of a pattern in a path.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    pub(crate) node: Option<String>,
    pub(crate) id: Option<String>,
}

/// Matches a path; a component holds at most one placeholder.
pub(crate) fn capture(pattern: &str, path: &str) -> Option<Captured> {
    let mut captured = Captured::default();
    let mut parts = path.split('/');

    for wanted in pattern.split('/') {
        let part = parts.next()?;
        let Some((before, rest)) = wanted.split_once('{') else {
            if part != wanted {
                return None;
            }
            continue;
        };
        let (name, after) = rest.split_once('}')?;
        let value = part.strip_prefix(before)?.strip_suffix(after).filter(|value| !value.is_empty())?;
        match name {
            "node" => captured.node = Some(value.to_owned()),
            _ => captured.id = Some(value.to_owned()),
        }
    }
    parts.next().is_none().then_some(captured)
}

/// Returns the id of the guest whose configuration lies at a path.
pub fn guest_id(path: &str) -> Option<String> {
    GuestPath::of(Path::new(path)).map(|guest| guest.id.to_string())
}
