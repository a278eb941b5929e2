//! Objects by name: `storage/nas`, `vm/101`, `user/bob@pve` are taken out of a snapshot's files and put into the
//! live ones, which keep every other byte. Texts to texts, no I/O.
//! Not here: the grammars (`config_edit`), the facts (`catalog::objects`), writing anything.

pub mod acl;
pub mod config_edit;
pub mod object_names;

use std::collections::BTreeMap;

use self::acl::{Acl, list_field, with_member};
use self::config_edit::ConfigPart;
use self::object_names::{FileTree, Selector, capture, full_name, guest_id, id_of, token_of};
use super::adapt::references::{self, Moves};
use crate::catalog::objects::{GUEST_KINDS, Grammar, KINDS, ObjectKind, ObjectPart, Whose};
use crate::model::problem::{Fault, FaultKind};

/// The host that objects come back to.
#[derive(Debug, Clone, Copy)]
pub struct ObjectHost<'a> {
    pub node: &'a str,
    /// The names of the directories below /etc/pve/nodes.
    pub nodes: &'a [String],
}

/// An object as it would come back.
#[derive(Debug, Clone)]
pub struct ChosenObject {
    /// `kind/id`.
    pub name: String,
    pub title: &'static str,
    /// Empty when all of it is as it was.
    pub changes: Vec<FileChange>,
    /// Notes that an admin must know or follow besides.
    pub notes: Vec<String>,
    /// The path of the file, here and in the snapshot, and that file as it is here.
    pub path: String,
    pub from: String,
    pub now: Option<Vec<u8>>,
    /// The reason why it cannot come back here; then it has no changes.
    pub skip_reason: Option<Fault>,
}

/// A file as it must become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Relative to the root.
    pub path: String,
    /// The path that the contents come from; another one when a guest or a node was renamed.
    pub from: String,
    pub content: Vec<u8>,
    /// "section 'cifs: nas' replaced", one for each entry of it.
    pub what: Vec<String>,
}

/// Chooses objects as they come back, one after the other onto the same live files: a later change of a file holds
/// the earlier ones. In the order in which they must be written.
///
/// Errors: `Usage` for an object that is not in the snapshot.
pub fn choose(
    selectors: &[Selector],
    moves: &Moves,
    snapshot: &FileTree,
    live: &FileTree,
    here: ObjectHost,
) -> Result<Vec<ChosenObject>, Fault> {
    let rank =
        |kind: &ObjectKind| KINDS.iter().position(|known| known.name == kind.name && known.on == kind.on);
    let mut wanted: Vec<(&'static ObjectKind, &str)> = Vec::new();
    for selector in selectors {
        let kind = selector.kind(snapshot)?;
        if !wanted.iter().any(|(known, id)| rank(known) == rank(kind) && *id == selector.id) {
            wanted.push((kind, selector.id.as_str()));
        }
    }

    if moves.as_id.is_some() && !matches!(wanted[..], [(kind, _)] if GUEST_KINDS.contains(&kind.name)) {
        let fault = Fault::new(FaultKind::Usage, "--as changes the id of one guest");
        return Err(fault.hint("for example 'vm/101 --as 201'"));
    }
    wanted.sort_by_key(|(kind, _)| rank(kind));
    let mut work = Work { moves, snapshot, live, here, now: BTreeMap::new() };
    let mut all: Vec<ChosenObject> = wanted.iter().map(|(kind, id)| work.object(kind, id)).collect();

    // A later one may have brought what an earlier one lacks. Of what stays as it is there is nothing to say.
    for (chosen, (kind, id)) in all.iter_mut().zip(&wanted).filter(|(chosen, _)| !chosen.changes.is_empty()) {
        work.missing(kind, id, &mut chosen.notes);
        // What names the old id brings nothing of another one back.
        if moves.as_id.as_deref().is_none_or(|new| new == *id) {
            work.related(kind, id, &mut chosen.notes);
        }
    }
    Ok(all)
}

struct Work<'a> {
    moves: &'a Moves,
    snapshot: &'a FileTree,
    live: &'a FileTree,
    here: ObjectHost<'a>,
    /// The live files as earlier objects changed them.
    now: FileTree,
}

/// Changes of one object: the paths it changes, and what it has to say.
#[derive(Default)]
struct Told {
    from: BTreeMap<String, (String, Vec<String>)>,
    notes: Vec<String>,
}

impl Told {
    fn change(&mut self, path: &str, from: &str, what: String) {
        self.from.entry(path.to_owned()).or_insert_with(|| (from.to_owned(), Vec::new())).1.push(what);
    }
}

impl Work<'_> {
    fn object(&mut self, kind: &'static ObjectKind, id: &str) -> ChosenObject {
        let mut told = Told::default();
        let before = self.now.clone();
        let skip_reason = self.parts(kind, id, &mut told).err();
        if skip_reason.is_some() {
            self.now = before;
            told = Told::default();
        }

        if told.from.is_empty() {
            told.notes.clear();
        }
        let (path, from) = self.place(kind, id);
        let changes = told.from.into_iter().map(|(path, (from, what))| {
            let content = self.now.get(&path).cloned().unwrap_or_default();
            FileChange { path, from, content, what }
        });

        ChosenObject {
            name: full_name(kind, id),
            title: kind.title,
            changes: changes.collect(),
            notes: told.notes,
            now: self.current(&path).cloned(),
            path,
            from,
            skip_reason,
        }
    }

    fn parts(&mut self, kind: &ObjectKind, id: &str, told: &mut Told) -> Result<(), Fault> {
        let new = self.moves.as_id.as_deref().unwrap_or(id);
        for part in kind.parts {
            match part.grammar {
                Grammar::Whole => self.whole(kind, part, id, new, told)?,
                Grammar::AclOf | Grammar::AclAt(_) => self.permissions(part, id, new, told),
                Grammar::Member { word, field } => self.member(part, word, field, id, new, told),
                _ => self.entries(part, id, told)?,
            }
        }
        Ok(())
    }

    /// Returns the file of its first part, here and in the snapshot.
    fn place(&self, kind: &ObjectKind, id: &str) -> (String, String) {
        let Some(part) = kind.parts.first() else { return Default::default() };
        if part.grammar != Grammar::Whole {
            return (part.path.to_owned(), part.path.to_owned());
        }
        let of_id =
            |path: &&String| capture(part.path, path).is_some_and(|found| found.id.as_deref() == Some(id));
        let from = self.snapshot.keys().find(of_id).cloned().unwrap_or_default();
        let moved = references::file(&from, &[], self.moves);
        (moved.path, from)
    }

    fn current(&self, path: &str) -> Option<&Vec<u8>> {
        self.now.get(path).or_else(|| self.live.get(path))
    }

    /// Returns the snapshot's text with what the moves make of it.
    fn saved(&self, path: &str) -> Option<Vec<u8>> {
        self.snapshot.get(path).map(|text| references::contents(path, text, self.moves))
    }

    fn whole(
        &mut self,
        kind: &ObjectKind,
        part: &ObjectPart,
        id: &str,
        new: &str,
        told: &mut Told,
    ) -> Result<(), Fault> {
        let portal = part.path.contains("{portal}").then(|| self.property(kind, id, "portal")).flatten();
        let owned = |path: &&String| {
            let named = portal.as_deref().unwrap_or(id);
            capture(part.path, path).is_some_and(|found| found.id.as_deref() == Some(named))
        };
        if part.path.contains("{portal}") && portal.is_none() {
            return Ok(());
        }

        let Some(from) = self.snapshot.keys().find(owned).cloned() else { return Ok(()) };
        let old_node = capture(part.path, &from).and_then(|found| found.node);
        let node = old_node.as_deref().map(|node| self.moves.node(node));
        let filled = portal.as_deref().unwrap_or(new);
        let path = part.path.replace("{node}", node.unwrap_or_default());
        let path = ["{id}", "{portal}"].iter().fold(path, |path, hole| path.replace(hole, filled));
        let mut content = self.saved(&from).unwrap_or_default();
        if let Some(node) = node {
            self.check_place(&path, node, new, old_node.as_deref().unwrap_or_default())?;
            let guest = references::guest(&content, id, self.moves);
            content = guest.content;
            told.notes.extend(guest.notes);
        }

        let what = match self.current(&path) {
            Some(now) if *now == content => return Ok(()),
            Some(_) => "replaced",
            None => "created",
        };
        told.change(&path, &from, what.to_owned());
        self.now.insert(path, content);
        Ok(())
    }

    /// Errors: the guest id is taken in the cluster, or its node is not there.
    fn check_place(&self, path: &str, node: &str, id: &str, old: &str) -> Result<(), Fault> {
        let failed = |what: String, hint: String| Err(Fault::new(FaultKind::Failed, what).hint(hint));
        if id.parse::<u32>().is_ok_and(|number| number >= 100) && !id.starts_with('0') {
            // As itself it is replaced; as another one it takes nobody's place.
            let is_itself = |other: &str| other == path && self.moves.as_id.is_none();
            let elsewhere =
                self.live.keys().find(|other| !is_itself(other) && guest_id(other).as_deref() == Some(id));
            if let Some(other) = elsewhere {
                let what = format!("guest {id} is there already, as /{other}");
                return failed(what, "give it another id with --as, or remove that one first".to_owned());
            }
        } else {
            return failed(format!("'{id}' is not a guest id"), "ids are numbers from 100 on".to_owned());
        }

        if node != self.here.node && !self.here.nodes.iter().any(|known| known == node) {
            let what = format!("guest {id} was on node '{old}', and there is no node '{node}' here");
            return failed(what, format!("restore it to this node with --node {old}={}", self.here.node));
        }
        Ok(())
    }

    fn property(&self, kind: &ObjectKind, id: &str, key: &str) -> Option<String> {
        let part = kind.parts.first()?;
        let text = self.snapshot.get(part.path)?;
        let entry =
            config_edit::entries(part.grammar, text).ok()?.into_iter().find(|entry| entry.id == id)?;
        let section = std::str::from_utf8(&text[entry.at]).ok()?;
        section.lines().find_map(|line| Some(line.trim().strip_prefix(key)?.trim().to_owned()))
    }

    fn entries(&mut self, part: &ObjectPart, id: &str, told: &mut Told) -> Result<(), Fault> {
        let Some(saved) = self.saved(part.path) else { return Ok(()) };
        let broken = |whose: &str, why: String| {
            Fault::new(FaultKind::Failed, format!("/{} {whose}: {why}", part.path))
                .hint("fix the file, or restore the whole file by its path")
        };
        let found =
            config_edit::entries(part.grammar, &saved).map_err(|why| broken("in the snapshot", why))?;

        for entry in found.iter().filter(|entry| part.whose.owns(id, entry)) {
            let twins = found.iter().filter(|other| id_of(part.whose, other) == id_of(part.whose, entry));
            if twins.count() > 1 {
                return Err(broken("in the snapshot", format!("'{}' is in it twice", entry.id)));
            }
            let now = self.current(part.path).cloned().unwrap_or_default();
            let here = config_edit::entries(part.grammar, &now).map_err(|why| broken("on this host", why))?;
            // Of types that share their ids, another one of the same name is the same thing of old.
            let same = |other: &&ConfigPart| match part.whose {
                Whose::Typed => id_of(part.whose, other) == id_of(part.whose, entry),
                _ => other.id == entry.id,
            };
            let content = &saved[entry.at.clone()];
            let (text, what) = match here.iter().filter(same).collect::<Vec<_>>()[..] {
                [] => {
                    let text = config_edit::add(part.grammar, &now, &entry.kind, &entry.id, content);
                    (text.map_err(|why| broken("on this host", why))?, "added")
                }
                [old] if now[old.at.clone()] == *content => continue,
                [old] => (config_edit::replace(&now, &old.at, content), "replaced"),
                [..] => return Err(broken("on this host", format!("'{}' is in it twice", entry.id))),
            };
            told.change(part.path, part.path, format!("{} {what}", shown(part.grammar, entry)));
            self.now.insert(part.path.to_owned(), text);
        }
        Ok(())
    }

    /// Adds what the snapshot grants and the live list does not. Nothing that was granted since is taken away.
    fn permissions(&mut self, part: &ObjectPart, id: &str, new: &str, told: &mut Told) {
        let (Some(saved), grammar) = (self.saved(part.path), part.grammar) else { return };
        let of_path = match grammar {
            Grammar::AclAt(path) => Some((path.replace("{id}", id), path.replace("{id}", new))),
            _ => None,
        };
        let mut now = self.current(part.path).cloned().unwrap_or_default();
        for at in config_edit::entries(grammar, &saved).unwrap_or_default().into_iter().map(|entry| entry.at)
        {
            let Some(mut entry) = Acl::parse(&saved[at]) else { continue };
            match &of_path {
                Some((path, new)) if entry.path == *path => entry.path.clone_from(new),
                Some(_) => continue,
                None => entry
                    .who
                    .retain(|who| who == id || who.strip_prefix('@') == Some(id) || token_of(who, id)),
            }
            let lacking = entry.beyond(&now);
            for line in lacking {
                told.change(part.path, part.path, format!("permission on {} added", line.path));
                now = config_edit::add(grammar, &now, "acl", "", line.text().as_bytes()).unwrap_or(now);
            }
        }

        if told.from.contains_key(part.path) {
            self.now.insert(part.path.to_owned(), now);
        }
    }

    /// Puts it back into the live groups or pools that had it.
    fn member(&mut self, part: &ObjectPart, word: &str, field: usize, id: &str, new: &str, told: &mut Told) {
        let Some(saved) = self.saved(part.path) else { return };

        for list in config_edit::entries(part.grammar, &saved).unwrap_or_default() {
            if !list_field(&saved[list.at.clone()], field).iter().any(|member| member == id) {
                continue;
            }
            let now = self.current(part.path).cloned().unwrap_or_default();
            let here = config_edit::entries(part.grammar, &now).unwrap_or_default();
            let Some(place) = here.iter().find(|other| other.id == list.id) else { continue };
            let line = &now[place.at.clone()];
            if list_field(line, field).iter().any(|member| member == new) {
                continue;
            }
            let Some(line) = with_member(line, field, new) else { continue };
            told.change(part.path, part.path, format!("member of {word} '{}' again", list.id));
            let text = config_edit::replace(&now, &place.at, &line);
            self.now.insert(part.path.to_owned(), text);
        }
    }

    /// Notes the groups and pools that had it and are not here.
    fn missing(&self, kind: &ObjectKind, id: &str, notes: &mut Vec<String>) {
        for part in kind.parts {
            let Grammar::Member { word, field } = part.grammar else { continue };
            let Some(saved) = self.saved(part.path) else { continue };
            let now = self.current(part.path).map(Vec::as_slice).unwrap_or_default();
            let here = config_edit::entries(part.grammar, now).unwrap_or_default();
            for list in config_edit::entries(part.grammar, &saved).unwrap_or_default() {
                let had = list_field(&saved[list.at.clone()], field).iter().any(|member| member == id);
                if had && !here.iter().any(|other| other.id == list.id) {
                    notes.push(format!("{word} '{}' had it and is not here: {word}/{}", list.id, list.id));
                }
            }
        }
    }

    fn related(&self, kind: &ObjectKind, id: &str, notes: &mut Vec<String>) {
        for related in kind.related {
            let Some(text) = self.snapshot.get(related.path) else { continue };
            let wanted = related.id.replace("{id}", id);
            let names = |entry: &&ConfigPart| {
                if wanted.ends_with('-') { entry.id.starts_with(&wanted) } else { entry.id == wanted }
            };
            for entry in config_edit::entries(related.grammar, text).unwrap_or_default().iter().filter(names)
            {
                let here = self.current(related.path).map(|text| config_edit::entries(related.grammar, text));
                if here.and_then(Result::ok).is_some_and(|here| here.iter().any(|other| other.id == entry.id))
                {
                    continue;
                }
                let name = match related.grammar {
                    Grammar::Sections(types) if !types.is_empty() => format!("{}:{}", entry.kind, entry.id),
                    _ => entry.id.clone(),
                };
                notes.push(format!("it {}: {}/{name} restores that", related.title, related.kind));
            }
        }
    }
}

/// Names an entry for a message; never its contents.
fn shown(grammar: Grammar, entry: &ConfigPart) -> String {
    match grammar {
        Grammar::Sections(_) => format!("section '{}: {}'", entry.kind, entry.id),
        Grammar::Bare => format!("section '{}'", entry.id),
        Grammar::Lines(word) => format!("{word} '{}'", entry.id),
        _ => format!("entry of '{}'", entry.id),
    }
}
