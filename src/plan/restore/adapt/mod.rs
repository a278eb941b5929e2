//! Changes to entries of a snapshot on their way to this host, before it is decided what happens to them: objects
//! are taken out of their files, names are changed, NICs matched, files merged. Texts to texts, no I/O.
//! Not here: each of these (`objects`, `references`, `nics`, `merge`), the decisions (`decide`, `skip_rules`).

pub mod nics;
mod places;
pub mod references;
pub mod rename;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use self::nics::{Card, Cards};
use self::references::Moves;
use super::merge::{self, Accounts};
use super::objects::object_names::{self, FileTree, Selector};
use super::objects::{self, ChosenObject};
use super::{
    Advice, Content, HostState, LivePath, PVE, RestoreRequest, SelectedEntries, SelectedEntry, Skipped,
    advice,
};
use crate::catalog::restore::merges::{self, GROUP, Merge, PASSWD};
use crate::catalog::restore::references::{ADDRESSES, CARD_LINKS, is_link_file};
use crate::catalog::{RestoreRule, Tied};
use crate::model::index::{EntryKind, Name, STATE_DIR};
use crate::model::problem::{Fault, FaultKind};
use crate::plan::select::Selection;

/// Facts that are looked for on this host besides its files.
#[derive(Debug, Clone, Default)]
pub struct HostHardware {
    /// The devices that are here, of those that `devices` names.
    pub devices: BTreeSet<String>,
    /// None when nobody could tell.
    pub cards: Option<Vec<Card>>,
}

impl RestoreRequest {
    pub fn moves(&self) -> Moves {
        Moves {
            as_id: self.as_id.map(|id| id.to_string()),
            nodes: self.node.clone().into_iter().collect(),
            storages: self.storage.clone(),
            bridges: self.bridge.clone(),
        }
    }
}

/// Lists the devices that a merge of what is wanted depends on, to be looked for.
pub fn devices(picked: &SelectedEntries) -> BTreeSet<String> {
    let merged = picked.wanted.iter().filter(|selected| selected.item.restore == RestoreRule::AddLines);
    let texts = merged.filter_map(|selected| {
        Some((text_of(&selected.entry.path)?, picked.contents.get(&selected.entry.path)?))
    });
    texts.flat_map(|(path, text)| merge::devices(path, text)).collect()
}

/// Reports whether the NICs of this host matter for what is wanted.
pub fn needs_cards(picked: &SelectedEntries, request: &RestoreRequest) -> bool {
    let names = |selected: &SelectedEntry| text_of(&selected.entry.path).is_some_and(nics::reads);
    request.database.is_some() || picked.wanted.iter().any(names)
}

/// Matches the snapshot's NICs with those of this host. Errors: `Usage`, as `Cards::by_hand` says.
pub fn cards(
    picked: &SelectedEntries,
    world: &HostHardware,
    request: &RestoreRequest,
) -> Result<Cards, Fault> {
    let old = cards_of(picked);
    let live = world.cards.as_deref();
    let cards = live.map(|live| Cards::compare(&old, live)).unwrap_or_default();
    cards.by_hand(&old, live, &request.nic, |name| is_named(picked, request, name))
}

/// Reports whether something that comes back says a NIC's name; within the database what would come back of /etc/pve.
fn is_named(picked: &SelectedEntries, request: &RestoreRequest, name: &str) -> bool {
    let wanted = picked.wanted.iter();
    let wanted =
        wanted.filter_map(|selected| Some((&selected.entry.path, selected.content.bytes(&picked.contents)?)));
    let within = picked.contents.iter().map(|(path, text)| (path, text.as_slice()));
    let within = within.filter(|(path, _)| request.database.is_some() && path.as_path().starts_with(PVE));
    let mut texts = wanted.chain(within).filter(|(path, _)| text_of(path).is_some_and(nics::reads));
    texts.any(|(_, text)| references::mentions(text, name))
}

/// Changes what is wanted in place, and tells what an admin must know.
///
/// Errors: `Usage` for an object that the snapshot does not have, and for names that cannot be.
pub fn shape(
    picked: &mut SelectedEntries,
    here: &HostState,
    world: &HostHardware,
    request: &RestoreRequest,
) -> Result<Vec<Advice>, Fault> {
    let moves = request.moves();
    moves.check()?;
    rename::check_nodes(picked, here, &moves)?;
    let mut advice = rename::unmet(picked, request);
    if !request.objects.is_empty() {
        advice.extend(objects(picked, here, request, &moves)?);
    }
    // The new id is that object's alone.
    advice.extend(adapt(picked, here, world, &Moves { as_id: None, ..moves }, request)?);
    Ok(advice)
}

fn adapt(
    picked: &mut SelectedEntries,
    here: &HostState,
    world: &HostHardware,
    moves: &Moves,
    request: &RestoreRequest,
) -> Result<Vec<Advice>, Fault> {
    let mut advice = relocated(picked, moves);
    advice.extend(on_these_cards(picked, here, world, request)?);
    advice.extend(merged(picked, here, world));
    advice.extend(by_hand(picked, here, request));
    Ok(advice)
}

fn text_of(name: &Name) -> Option<&str> {
    std::str::from_utf8(name.as_bytes()).ok()
}

/// Tells something of an entry.
fn note(selected: &SelectedEntry, text: String) -> Advice {
    Advice { item: selected.item.id.to_owned(), text, commands: Vec::new() }
}

// ---- objects

fn objects(
    picked: &mut SelectedEntries,
    here: &HostState,
    request: &RestoreRequest,
    moves: &Moves,
) -> Result<Vec<Advice>, Fault> {
    let selectors: Vec<Selector> =
        request.objects.iter().map(|word| Selector::parse(word)).collect::<Result<_, _>>()?;

    let parts = picked.parts.iter().map(|selected| &selected.entry.path);
    let snapshot = file_tree(parts, |name| picked.contents.get(name).cloned());
    let live = file_tree(here.live.keys(), |name| live_text(name, picked, here));
    let nodes: BTreeSet<&str> = here.live.keys().filter_map(rename::node_of).collect();
    let nodes: Vec<String> = nodes.into_iter().map(str::to_owned).collect();
    let place = objects::ObjectHost { node: &here.facts.node, nodes: &nodes };
    let chosen = objects::choose(&selectors, moves, &snapshot, &live, place)?;
    let parts: HashMap<&Name, &SelectedEntry> =
        picked.parts.iter().map(|selected| (&selected.entry.path, selected)).collect();

    // A file that comes back whole holds its objects.
    let whole: HashSet<Name> = picked.wanted.iter().map(|selected| selected.entry.path.clone()).collect();
    // What is named need not be of the categories that come back whole.
    let comes_along = Selection { only: Vec::new(), skip: request.selection.skip.clone() };
    let mut files: BTreeMap<Name, SelectedEntry> = BTreeMap::new();
    let mut advice = Vec::new();
    for object in chosen {
        let Some(first) = parts.get(&Name::new(object.from.as_str())).copied() else { continue };
        let is_skipped = |part: &SelectedEntry| !comes_along.takes(part.item.id);
        if is_skipped(first) {
            let what = format!("{} is in '{}', which --skip excludes", object.name, first.item.id);
            return Err(Fault::new(FaultKind::Usage, what).hint("remove one of the two"));
        }
        advice.extend(object.notes.iter().map(|text| note(first, format!("{}: {text}", object.name))));
        if let Some(fault) = object.skip_reason {
            picked.skipped.push(Skipped {
                item: first.item.id.to_owned(),
                path: first.entry.path.clone(),
                count: 1,
                named: true,
                reason: fault.to_string(),
                hint: fault.hint,
            });
            continue;
        }
        for change in as_files(object) {
            let (path, from) = (Name::new(change.path.as_str()), Name::new(change.from.as_str()));
            let part = parts.get(&from).filter(|part| !whole.contains(&path) && !is_skipped(part));
            if let Some(part) = part {
                files.insert(path, changed(part, change, &live));
            }
        }
    }

    picked.wanted.extend(files.into_values());
    Ok(advice)
}

fn file_tree<'a>(names: impl Iterator<Item = &'a Name>, text: impl Fn(&Name) -> Option<Vec<u8>>) -> FileTree {
    names.filter_map(|name| Some((text_of(name)?.to_owned(), text(name)?))).collect()
}

/// Returns the entry of a file of the snapshot, with what objects change of it.
fn changed(part: &SelectedEntry, change: objects::FileChange, live: &FileTree) -> SelectedEntry {
    let mut selected = SelectedEntry { is_named: true, is_exact: true, ..part.clone() };
    selected.entry.path = Name::new(change.path.as_str());
    // A file that is made of the live one stays whose it is; of one that is the object nothing stays.
    selected.is_merged = live.contains_key(&change.path)
        && change.path == change.from
        && !object_names::is_whole(&change.path);
    selected.content = Content::Bytes(change.content);
    selected
}

/// Returns its changes, or the file it stands in as it is, so that it is counted as unchanged.
fn as_files(chosen: ChosenObject) -> Vec<objects::FileChange> {
    if !chosen.changes.is_empty() {
        return chosen.changes;
    }
    let (path, from) = (chosen.path, chosen.from);
    chosen
        .now
        .map(|content| objects::FileChange { path, from, content, what: Vec::new() })
        .into_iter()
        .collect()
}

/// Returns the live text of a file. One that is not kept in memory is the same as in the snapshot.
fn live_text(name: &Name, picked: &SelectedEntries, here: &HostState) -> Option<Vec<u8>> {
    let Some(LivePath::There { print, content, .. }) = here.live.get(name) else { return None };
    if print.kind != EntryKind::File {
        return None;
    }
    let same = || {
        let part = picked.parts.iter().chain(&picked.wanted).find(|selected| selected.entry.path == *name)?;
        let is_same = part.entry.sha256 == print.sha256;
        is_same.then(|| picked.contents.get(name).cloned()).flatten()
    };
    content.clone().or_else(same)
}

// ---- names

fn relocated(picked: &mut SelectedEntries, moves: &Moves) -> Vec<Advice> {
    if moves.is_empty() {
        return Vec::new();
    }

    let mut advice = Vec::new();
    let mut skipped = Vec::new();
    for selected in &mut picked.wanted {
        let Some(path) = text_of(&selected.entry.path).map(str::to_owned) else { continue };
        // What was chosen as an object has its new names already.
        if selected.is_merged || matches!(selected.content, Content::Bytes(_)) {
            continue;
        }
        let known = selected.content.bytes(&picked.contents);
        let there = references::file(&path, known.unwrap_or_default(), moves);
        selected.entry.path = Name::new(there.path.as_str());
        match there.skip_reason {
            // Asked for by its name it comes back as it is.
            Some((reason, hint)) if selected.is_named => {
                advice.push(note(selected, format!("/{}: {reason}: {hint}", there.path)));
            }
            Some((reason, hint)) => {
                skipped.push((selected.entry.clone(), reason, hint));
                continue;
            }
            None => {}
        }
        if known.is_some_and(|before| there.content != before) {
            selected.content = Content::Bytes(there.content);
        }
        advice.extend(there.notes.into_iter().map(|text| note(selected, format!("/{}: {text}", there.path))));
    }

    picked.wanted.retain(|selected| !skipped.iter().any(|(entry, ..)| entry.path == selected.entry.path));
    for (entry, reason, hint) in skipped {
        super::skip_entry(&mut picked.skipped, &entry, false, reason, Some(hint));
    }
    advice
}

/// Lists the cards that the snapshot knows: of its record of links and its .link files.
fn cards_of(picked: &SelectedEntries) -> Vec<Card> {
    let mut old = Vec::new();
    // The second tells less, and only where there is no first.
    for name in [CARD_LINKS, ADDRESSES].map(|answer| Name::new(format!("{STATE_DIR}/{answer}"))) {
        if old.is_empty() {
            old = picked.contents.get(&name).map(|text| nics::cards(text)).unwrap_or_default();
        }
    }
    let mut links: Vec<(&Name, &Vec<u8>)> =
        picked.contents.iter().filter(|(name, _)| text_of(name).is_some_and(is_link_file)).collect();
    links.sort_by_key(|(name, _)| *name);
    old.extend(links.into_iter().filter_map(|(_, text)| nics::linked(text)));
    let mut seen = HashSet::new();
    old.retain(|card| seen.insert(card.name.clone()));
    old
}

/// Errors: `Usage`, as `Cards::by_hand` says; a pair where nothing names a card.
fn on_these_cards(
    picked: &mut SelectedEntries,
    here: &HostState,
    world: &HostHardware,
    request: &RestoreRequest,
) -> Result<Vec<Advice>, Fault> {
    if !needs_cards(picked, request) {
        if let Some((old, new)) = request.nic.first() {
            let what = format!("--nic {old}={new}: no selected file contains the name of a NIC");
            return Err(Fault::new(FaultKind::Usage, what).hint("remove it, or also select the network"));
        }
        return Ok(Vec::new());
    }

    let mut advice = Vec::new();
    let cards = cards(picked, world, request)?;
    let network = |text: String, commands| Advice { item: "network".to_owned(), text, commands };
    if world.cards.is_none() {
        let text = "the NICs of this host could not be read: check the names".to_owned();
        advice.push(network(text, vec!["ip -d link show".to_owned()]));
    }

    let named = |name: &str| is_named(picked, request, name);
    let to_be_matched = cards.to_be_matched(&picked.id.to_string(), named);
    let hint = to_be_matched.first().map(|(_, command)| {
        let pair = command.rsplit(' ').next().unwrap_or_default();
        format!(
            "name the NIC that replaces it, for example with --nic {pair}; or skip it with --skip network"
        )
    });
    advice.extend(to_be_matched.into_iter().map(|(text, command)| network(text, vec![command])));

    let mut skipped = Vec::new();
    for selected in &mut picked.wanted {
        let Some(path) = text_of(&selected.entry.path).map(str::to_owned).filter(|path| nics::reads(path))
        else {
            continue;
        };
        let Some(before) = selected.content.bytes(&picked.contents) else { continue };
        let adapted = cards.adapt(&path, before);
        // Of a card that is pulled out, and that is named here just so, nothing changes.
        let is_here = is_link_file(&path)
            && matches!(here.live.get(&selected.entry.path), Some(LivePath::There { print, .. }) if print.sha256 == selected.entry.sha256);
        if is_here && adapted.skip_reason.is_some() {
            continue;
        }
        advice.extend(adapted.notes.into_iter().map(|text| note(selected, format!("/{path}: {text}"))));
        if let Some(reason) = adapted.skip_reason.filter(|_| selected.item.tied != Tied::Nothing) {
            skipped.push((selected.entry.clone(), selected.is_named, reason));
        } else if adapted.content != before {
            selected.content = Content::Bytes(adapted.content);
        }
    }

    picked.wanted.retain(|selected| !skipped.iter().any(|(entry, ..)| entry.path == selected.entry.path));
    for (entry, is_named, reason) in skipped {
        super::skip_entry(&mut picked.skipped, &entry, is_named, reason, hint.clone());
    }
    Ok(advice)
}

// ---- merges

fn merged(picked: &mut SelectedEntries, here: &HostState, world: &HostHardware) -> Vec<Advice> {
    let host = merge::MergeContext { accounts: accounts(picked, here), devices: world.devices.clone() };
    let mut advice = Vec::new();
    let mut made = Vec::new();

    for (number, selected) in picked.wanted.iter().enumerate() {
        if selected.item.restore != RestoreRule::AddLines
            || selected.is_merged
            || selected.entry.kind != EntryKind::File
        {
            continue;
        }
        let (Some(path), Some(saved)) =
            (text_of(&selected.entry.path), selected.content.bytes(&picked.contents))
        else {
            continue;
        };
        let is_new = matches!(here.live.get(&selected.entry.path), None | Some(LivePath::Absent));
        let now = match live_text(&selected.entry.path, picked, here) {
            Some(now) => now,
            // What is not here at all comes back as it is, but for mounts of what is not here.
            None if is_new && merges::of(path) == Merge::Mounts => Vec::new(),
            None => continue,
        };
        let merged = merge::merge(path, &now, saved, &host);
        advice.extend(merged.notes.into_iter().map(|text| note(selected, format!("/{path}: {text}"))));
        made.push((number, merged.content));
    }

    for (number, content) in made {
        picked.wanted[number].content = Content::Bytes(content);
        picked.wanted[number].is_merged = true;
    }
    advice
}

/// Tells who is here under which number, and who will be: only those whose line comes along.
fn accounts(picked: &SelectedEntries, here: &HostState) -> Accounts {
    let saved = |path: &str| picked.contents.get(&Name::new(path)).cloned().unwrap_or_default();
    let comes = |path: &str| picked.wanted.iter().any(|selected| selected.entry.path == Name::new(path));
    let live = [here.users, here.groups].map(account_lines);
    Accounts::of([&saved(PASSWD), &saved(GROUP)], [&live[0], &live[1]]).only(comes(PASSWD), comes(GROUP))
}

/// Writes accounts as lines of /etc/passwd or /etc/group.
fn account_lines(numbers: &HashMap<String, u32>) -> Vec<u8> {
    let lines = numbers.iter().map(|(name, number)| format!("{name}:x:{number}:\n"));
    lines.collect::<String>().into_bytes()
}

// ---- what is never written

/// Returns the manual steps. On the machine that the snapshot is of there are none unless somebody asks.
fn by_hand(picked: &SelectedEntries, here: &HostState, request: &RestoreRequest) -> Vec<Advice> {
    let is_other_machine = !picked.facts.is_same_machine(here.facts);
    let is_other = is_other_machine || request.recover;
    let never = |selected: &&SelectedEntry| {
        let is_foreign = selected.item.tied == Tied::Hardware && is_other_machine && !selected.is_named;
        (matches!(selected.item.restore, RestoreRule::Never(_)) && (is_other || selected.is_named))
            || is_foreign
    };
    let items: BTreeSet<&str> = picked.wanted.iter().filter(never).map(|selected| selected.item.id).collect();
    let snapshot = picked.id.to_string();
    let mut advice = advice::by_hand(&items, &picked.contents, &snapshot, &picked.facts.node);
    let asks_for_disks =
        picked.wanted.iter().any(|selected| selected.item.tied == Tied::Hardware && !selected.is_named);
    if is_other && asks_for_disks {
        advice.extend(advice::layout(&picked.contents, &snapshot));
    }
    advice
}

/// Errors: `Usage` for a guest's new names without a guest.
pub fn check(request: &RestoreRequest) -> Result<(), Fault> {
    if request.as_id.is_some() && request.objects.is_empty() {
        let fault = Fault::new(FaultKind::Usage, "--as changes the id of one guest, but no guest is named");
        return Err(fault.hint("for example 'restore SNAP vm/101 --as 201'"));
    }
    let known: Result<Vec<Selector>, Fault> =
        request.objects.iter().map(|word| Selector::parse(word)).collect();
    known.map(|_| ())?;
    request.moves().check()
}
