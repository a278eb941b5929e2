//! Another name for what comes back: a guest's id, a node, a storage, a bridge, put wherever the snapshot's files
//! say the old one. Texts to texts, no I/O.
//! Not here: the places (`catalog::restore::references`), NICs (`nics`).

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::places::{self, words};
use crate::catalog::objects::NODES;
use crate::catalog::restore::references::{
    FIXED_NODE_NAMES, NODE_NAMES, OWNED, Reference, ReferenceForm, of_node,
};
use crate::model::problem::{Fault, FaultKind};
use crate::model::units::counted;
use crate::plan::restore::guest_conf::{self, NamedFile};
use crate::plan::restore::objects::config_edit;
use crate::plan::restore::objects::object_names::guest_id;

/// `OLD=NEW` of the command line.
pub type Pair = (String, String);

/// Names that change on the way back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves {
    /// The new id of the one guest that is selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Pair>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storages: Vec<Pair>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bridges: Vec<Pair>,
}

/// A file as it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Relative to the root.
    pub path: String,
    pub content: Vec<u8>,
    /// Notes on what was rewritten, and what an admin must do besides.
    pub notes: Vec<String>,
    /// The reason why it should not come back under the new name, and what to do instead.
    pub skip_reason: Option<(String, String)>,
}

impl Moves {
    /// `OLD=NEW` for `--node`, `--storage` and `--bridge`.
    ///
    /// Errors: `Usage` when it is no such pair, or a name that cannot be one.
    pub fn pair(option: &str, word: &str) -> Result<Pair, Fault> {
        let name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        match word.split_once('=') {
            Some((old, new)) if name(old) && name(new) => Ok((old.to_owned(), new.to_owned())),
            _ => Err(Fault::new(FaultKind::Usage, format!("{option} '{word}' is not OLD=NEW"))
                .hint(format!("use two names, for example '{option} old1=new1'"))),
        }
    }

    /// Errors: `Usage` when a name is given two new ones or its own, or two names the same.
    pub fn check(&self) -> Result<(), Fault> {
        for (option, pairs) in
            [("--node", &self.nodes), ("--storage", &self.storages), ("--bridge", &self.bridges)]
        {
            for (number, (old, new)) in pairs.iter().enumerate() {
                let rest = &pairs[number + 1..];
                if old == new {
                    let what = format!("{option} {old}={new}: both names are the same");
                    return Err(Fault::new(FaultKind::Usage, what).hint("remove it"));
                }
                if rest.iter().any(|(other, _)| other == old) {
                    return Err(Fault::new(FaultKind::Usage, format!("{option} gives '{old}' two names")));
                }
                // Two nodes of one name would write the same files twice.
                if option == "--node" && rest.iter().any(|(_, other)| other == new) {
                    return Err(Fault::new(
                        FaultKind::Usage,
                        format!("{option} gives two nodes the name '{new}'"),
                    ));
                }
            }
        }

        if let Some(id) = &self.as_id {
            let fine = id.parse::<u32>().is_ok_and(|number| (100..=999_999_999).contains(&number));
            if !fine || id.starts_with('0') {
                return Err(Fault::new(FaultKind::Usage, format!("--as '{id}' is not a guest id"))
                    .hint("ids are numbers from 100 to 999999999"));
            }
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the node's name from now on.
    pub fn node<'a>(&'a self, old: &'a str) -> &'a str {
        renamed(&self.nodes, old).unwrap_or(old)
    }
}

pub(crate) fn renamed<'a>(pairs: &'a [Pair], old: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == old).map(|(_, new)| new.as_str())
}

/// Returns a file of the snapshot as it comes back: its path, what it names, and the guest it is.
pub fn file(path: &str, content: &[u8], moves: &Moves) -> Moved {
    let (content, places) = references(path, content, NODE_NAMES, &moves.nodes);
    let mut notes = Vec::new();
    if places > 0 {
        let pairs: Vec<String> = moves.nodes.iter().map(|(old, new)| format!("{old} is {new}")).collect();
        notes.push(format!("{} in {}", pairs.join(", "), counted(places, "place")));
    }

    let skip_reason = fixed(path, &content, &moves.nodes);
    notes.extend(left_over(path, &content, &moves.nodes));
    let mut path = path.to_owned();
    if let Some(rest) = of_node(&path).map(|(node, rest)| (moves.node(node), rest)) {
        path = format!("{NODES}{}/{}", rest.0, rest.1);
    }

    let Some(id) = guest_id(&path) else {
        return Moved { path, content, notes, skip_reason };
    };
    let guest = guest(&content, &id, moves);
    notes.extend(guest.notes);
    if let Some(new) = &moves.as_id {
        path =
            path.strip_suffix(&format!("{id}.conf")).map_or(path.clone(), |dir| format!("{dir}{new}.conf"));
    }
    Moved { path, content: guest.content, notes, skip_reason }
}

fn fixed(path: &str, content: &[u8], nodes: &[Pair]) -> Option<(String, String)> {
    let known = FIXED_NODE_NAMES.iter().find(|known| known.path == path)?;
    let (old, new) = nodes.iter().find(|(old, _)| mentions(content, old))?;
    let hint = known.hint.replace("{old}", old).replace("{new}", new);
    Some((format!("by the name of {old} it {}", known.why), hint))
}

/// Returns a note on a name that may be left: what is known of a machine's own file is not all that may stand in it.
fn left_over(path: &str, content: &[u8], nodes: &[Pair]) -> Option<String> {
    let is_json = |known: &&Reference| known.path == path && matches!(known.form, ReferenceForm::Json(_));
    NODE_NAMES.iter().find(is_json)?;
    let text = String::from_utf8_lossy(content);
    let names =
        |old: &str| words(&text, |c| c.is_ascii_alphanumeric() || c == '-').any(|at| &text[at] == old);
    // Of two that were swapped each is there by right.
    let (old, _) = nodes.iter().find(|(old, _)| !nodes.iter().any(|(_, new)| new == old) && names(old))?;
    Some(format!(
        "still contains {old} in other places; it is written again when the configuration is applied"
    ))
}

/// A guest's configuration with its new names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenumberedGuest {
    pub content: Vec<u8>,
    pub notes: Vec<String>,
}

/// Renumbers a guest; `id` is its id in the snapshot. With another one its disks are named as PVE would name them:
/// it must never run on the disks of the guest it was made from.
pub fn guest(text: &[u8], id: &str, moves: &Moves) -> RenumberedGuest {
    let Ok(text) = std::str::from_utf8(text) else {
        let note = "its configuration is not UTF-8; nothing in it was rewritten".to_owned();
        return RenumberedGuest { content: text.to_vec(), notes: vec![note] };
    };
    let new_id = moves.as_id.as_deref().filter(|new| *new != id);
    let mut edits = Vec::new();
    let mut disks: Vec<String> = Vec::new();
    for entry in guest_conf::entries(text) {
        for named in entry.names() {
            match named {
                NamedFile::Bridge(at) => {
                    edits.extend(renamed(&moves.bridges, &text[at.clone()]).map(|new| (at, new.to_owned())));
                }
                NamedFile::File { storage, .. } => {
                    edits.extend(
                        renamed(&moves.storages, &text[storage.clone()]).map(|new| (storage, new.to_owned())),
                    );
                }
                NamedFile::Disk { storage, volume } => {
                    let (old, name) = (&text[storage.clone()], &text[volume.clone()]);
                    let place = renamed(&moves.storages, old);
                    let owned = new_id.and_then(|new| owned_by(name, id, new));
                    let expected = format!("{}:{}", place.unwrap_or(old), owned.as_deref().unwrap_or(name));
                    if !disks.contains(&expected) {
                        disks.push(expected);
                    }
                    edits.extend(place.map(|new| (storage, new.to_owned())));
                    edits.extend(owned.map(|new| (volume, new)));
                }
            }
        }
    }

    let mut notes = Vec::new();
    if !disks.is_empty() {
        notes.push(format!("its disks are not restored with it; it expects {}", disks.join(", ")));
    }

    if let Some(new) = new_id {
        let uuid =
            if text.lines().any(|line| line.starts_with("smbios1:")) { " and the SMBIOS uuid" } else { "" };
        notes.push(format!("{new} has the MAC addresses{uuid} of {id}: change them if {id} also exists"));
    }
    RenumberedGuest { content: splice(text.as_bytes(), edits), notes }
}

/// Returns the name of a volume for another guest: `vm-101-disk-0`, `101/vm-101-disk-0.qcow2`. The base of a linked
/// clone (`base-9000-disk-0/vm-101-disk-0`) stays another guest's. None when it does not belong to `id`.
fn owned_by(volume: &str, id: &str, new: &str) -> Option<String> {
    let mut changed = false;
    let parts = volume.split('/').map(|part| {
        let owned = OWNED.iter().find_map(|word| {
            let rest = part.strip_prefix(word)?.strip_prefix('-')?.strip_prefix(id)?;
            rest.starts_with('-').then(|| format!("{word}-{new}{rest}"))
        });
        let owned = owned.or_else(|| (part == id).then(|| new.to_owned()));
        changed |= owned.is_some();
        owned.unwrap_or_else(|| part.to_owned())
    });
    let parts: Vec<String> = parts.collect();
    changed.then(|| parts.join("/"))
}

/// Puts edits, which do not overlap, into a text.
pub(crate) fn splice(text: &[u8], mut edits: Vec<(Range<usize>, String)>) -> Vec<u8> {
    edits.sort_by_key(|(at, _)| at.start);
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for (at, new) in edits {
        out.extend_from_slice(text.get(done..at.start).unwrap_or_default());
        out.extend_from_slice(new.as_bytes());
        done = at.end;
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

/// Rewrites the node names in a file's entries, with which `choose` of an object puts them in.
pub(crate) fn contents(path: &str, text: &[u8], moves: &Moves) -> Vec<u8> {
    references(path, text, NODE_NAMES, &moves.nodes).0
}

/// Returns the text with the new names in the places that `table` says for this path, and how many were put there.
pub(crate) fn references(path: &str, text: &[u8], table: &[Reference], pairs: &[Pair]) -> (Vec<u8>, usize) {
    let forms: Vec<ReferenceForm> =
        table.iter().filter(|known| matches(known.path, path)).map(|known| known.form).collect();
    let Some(text) = std::str::from_utf8(text).ok().filter(|_| !forms.is_empty() && !pairs.is_empty()) else {
        return (text.to_vec(), 0);
    };
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for form in &forms {
        let ReferenceForm::Json(keys) = form else { continue };
        for word in places::in_json(text, keys) {
            edits.extend(renamed(pairs, &text[word.clone()]).map(|new| (word, new.to_owned())));
        }
    }

    for at in config_edit::lines(text.as_bytes()) {
        let line = &text[at.clone()];
        if line.trim_start().starts_with('#') {
            continue;
        }
        for form in &forms {
            for word in places::in_line(*form, line) {
                if let Some(new) = renamed(pairs, &line[word.clone()]) {
                    edits.push((at.start + word.start..at.start + word.end, new.to_owned()));
                }
            }
        }
    }

    edits.sort_by_key(|(at, _)| at.start);
    edits.dedup_by_key(|(at, _)| at.start);
    let places = edits.len();
    (splice(text.as_bytes(), edits), places)
}

/// Matches a path with a pattern of the table: `{…}` is any part of a component.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let same = pattern.split('/').all(|wanted| {
        let Some(part) = parts.next() else { return false };
        match wanted.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?.1))) {
            Some((before, after)) => {
                part.len() > before.len() + after.len() && part.starts_with(before) && part.ends_with(after)
            }
            None => part == wanted,
        }
    });
    same && parts.next().is_none()
}

pub(crate) fn mentions(content: &[u8], name: &str) -> bool {
    let text = String::from_utf8_lossy(content);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.any(|line| words(line, is_name).any(|at| &line[at] == name))
}
