//! `restore --recover --database`: all of /etc/pve at once, as its database, on a node whose pmxcfs is stopped. Never
//! within a live cluster.
//! Not here: what pmxcfs refuses (`sys::pmxcfs::offline`), writing.

use std::cell::RefCell;

use anyhow::Result;

use super::observe;
use crate::catalog::{CLUSTER_MEMBER, Risk};
use crate::model::facts::Product;
use crate::model::index::{EntryKind, Mtime, Name};
use crate::model::problem::{Fault, FaultKind};
use crate::plan::restore::adapt::nics::{self, Cards};
use crate::plan::restore::adapt::{self, HostHardware, references};
use crate::plan::restore::{
    Action, Advice, Content, Database, FileState, LivePath, PVE, RestorePlan, RestoreRequest, RestoreStep,
    SelectedEntries, SelectedEntry, TargetKind,
};
use crate::sys::fs::files;
use crate::sys::fs::hash::sha256;
use crate::sys::host::Host;
use crate::sys::pmxcfs::offline::{self, Edit, Ready};
use crate::sys::pmxcfs::{DATABASE, LOGS, UNIT};

/// Puts the database in the place of every file of /etc/pve that was picked.
///
/// Errors: `NotFound` when the snapshot has none; `Failed` while pmxcfs runs, and for what it would not start on;
/// `Usage` for a tree of another node or of a cluster.
pub fn take(
    host: &Host,
    picked: &mut SelectedEntries,
    world: &HostHardware,
    request: &RestoreRequest,
) -> Result<Vec<Advice>> {
    let Some(how) = request.database else { return Ok(Vec::new()) };
    let name = Name::new(DATABASE.trim_start_matches('/'));
    let fault = |kind, what: String, hint: &str| Fault::new(kind, what).hint(hint);
    let at = picked.wanted.iter().position(|selected| selected.entry.path == name);
    let selected = at.map(|at| picked.wanted.remove(at));
    let (Some(selected), Some(bytes)) = (selected, picked.contents.get(&name)) else {
        let id = &picked.id;
        let what = if picked.facts.has(Product::Pve) {
            format!("{id} has no database of /etc/pve: it could not be read, or was skipped")
        } else {
            format!("{id} is of a host without Proxmox VE: it has no database of /etc/pve")
        };
        return Err(fault(FaultKind::NotFound, what, "restore without --database").into());
    };
    if !host.facts.has(Product::Pve) {
        let what = "Proxmox VE is not installed here: nothing would use its database".to_owned();
        return Err(fault(FaultKind::Failed, what, "install it, then restore again").into());
    }

    offline::check_stopped(host)?;
    if files::is_there(host.root(), CLUSTER_MEMBER.trim_start_matches('/')) {
        let what = format!("this host is a member of a cluster: {CLUSTER_MEMBER} is here");
        let hint =
            "join with pvecm add instead; or `systemctl stop corosync` and move /etc/corosync/* away first";
        return Err(fault(FaultKind::Failed, what, hint).into());
    }

    let told = RefCell::new(Vec::new());
    let cards = adapt::cards(picked, world, request)?;
    let ready = offline::prepare(bytes, &edit(how, request, cards, &told))?;
    check(host, &ready)?;

    let mut advice = advice(&selected, &ready, how);
    let tell = |text| Advice { item: selected.item.id.to_owned(), text, commands: Vec::new() };
    advice.extend(told.into_inner().into_iter().map(tell));
    picked.wanted.retain(|selected| !selected.entry.path.as_path().starts_with(PVE));

    let mut new = SelectedEntry { content: Content::Bytes(ready.database), is_named: true, ..selected };
    (new.entry.kind, new.entry.mode, new.entry.uid, new.entry.gid) = (EntryKind::File, 0o600, 0, 0);
    picked.wanted.push(new);
    Ok(advice)
}

/// Builds the edit that puts new names of nodes and cards wherever files say the old ones; `told` collects its notes.
fn edit<'a>(
    how: Database,
    request: &'a RestoreRequest,
    cards: Cards,
    told: &'a RefCell<Vec<String>>,
) -> Edit<'a> {
    let moves = request.moves();
    let contents = move |path: &str, data: &[u8]| {
        let path = format!("{PVE}/{path}");
        let mut content = data.to_vec();
        let mut notes = Vec::new();
        if !moves.is_empty() {
            let there = references::file(&path, data, &moves);
            notes.extend(there.skip_reason.map(|(reason, hint)| format!("{reason}: {hint}")));
            notes.extend(there.notes);
            content = there.content;
        }
        if nics::reads(&path) {
            let adapted = cards.adapt(&path, &content);
            notes.extend(adapted.notes);
            content = adapted.content;
        }
        told.borrow_mut().extend(notes.into_iter().map(|note| format!("/{path}: {note}")));
        content
    };

    Edit {
        leave_cluster: how == Database::WithoutCluster,
        node: request.node.as_ref().map(|(old, new)| (old.as_str(), new.as_str())),
        contents: Box::new(contents),
    }
}

fn check(host: &Host, ready: &Ready) -> Result<(), Fault> {
    let node = &host.facts.node;
    if ready.is_member {
        let what = "the database makes its host a member of a cluster".to_owned();
        return Err(Fault::new(FaultKind::Usage, what).hint(
            "to join the cluster again: restore without --database, then pvecm add; \
             if the cluster is gone for good: --leave-cluster makes a single node of it",
        ));
    }

    if !ready.nodes.contains(node) {
        let nodes: Vec<&str> = ready.nodes.iter().map(String::as_str).collect();
        let what = format!(
            "the database is of {}, this host is '{node}': its guests would belong to no node",
            nodes.join(", ")
        );
        let old = nodes.first().copied().unwrap_or("OLD");
        return Err(Fault::new(FaultKind::Usage, what)
            .hint(format!("give this host the old name first, or rename the node: --node {old}={node}")));
    }
    Ok(())
}

fn advice(selected: &SelectedEntry, ready: &Ready, how: Database) -> Vec<Advice> {
    let tell = |text: &str, commands: &[&str]| Advice {
        item: selected.item.id.to_owned(),
        text: text.to_owned(),
        commands: commands.iter().map(|command| (*command).to_owned()).collect(),
    };
    let mut advice: Vec<Advice> = ready.notes.iter().map(|note| tell(note, &[])).collect();
    advice.push(tell(
        "after the first start, sign the certificate of the node again; guests start when their disks are here",
        &["pvecm updatecerts -f", "qm list", "pct list"],
    ));

    if how == Database::WithoutCluster {
        advice.push(tell(
            "what is left of the cluster: directories of other nodes in /etc/pve/nodes contain their guests, \
             priv/authorized_keys their keys, and storages may be shared with running nodes",
            &["ls /etc/pve/nodes", "rm -f /etc/corosync/* /var/lib/corosync/*"],
        ));
    }
    advice
}

/// Adds the start of pmxcfs on its new database, and the removal of logs. A log that a killed pmxcfs left would be
/// replayed into that database: it goes first. The step stands where there is no log, too, so that undoing takes away
/// the log that the new database has by then.
///
/// Errors: something that is no file has the name of the database or of a log.
pub fn start(
    host: &Host,
    plan: &mut RestorePlan,
    picked: &SelectedEntries,
    request: &RestoreRequest,
) -> Result<()> {
    let name = Name::new(DATABASE.trim_start_matches('/'));
    let wanted = picked.wanted.iter().find(|selected| selected.entry.path == name);
    let (Some(_), Some(wanted)) = (request.database, wanted) else { return Ok(()) };
    let at = plan.steps.iter().position(|step| step.path == name);
    let mut steps = Vec::new();
    for end in LOGS {
        let path = Name::new(format!("{name}{end}"));
        steps.push(RestoreStep {
            how: Action::Remove,
            before: live(host, &path)?,
            ..step(wanted, path, no_log())
        });
    }

    let is_logged = steps.iter().any(|step| step.before.is_some());
    match at {
        Some(at) => drop(plan.steps.splice(at..at, steps)),
        // The database itself is as it is to be, but not with its log. pmxcfs will write into it: it is kept, too.
        None if is_logged => {
            plan.steps.extend(steps);
            if let Some(print) = live(host, &name)? {
                let content = wanted.content.clone();
                let before = Some(print.clone());
                plan.steps.push(RestoreStep { before, content, ..step(wanted, name, print) });
            }
        }
        None => return Ok(()),
    }

    let stage = plan.stages.iter_mut().find(|stage| stage.may_disconnect);
    stage.into_iter().for_each(|stage| stage.services.start.push(UNIT.to_owned()));
    Ok(())
}

fn live(host: &Host, path: &Name) -> Result<Option<FileState>> {
    match observe::look(host, path.as_path())? {
        LivePath::Absent => Ok(None),
        LivePath::There { print, .. } if print.kind == EntryKind::File => Ok(Some(print)),
        _ => {
            let fault = Fault::new(FaultKind::Failed, format!("/{path}: is not a file"));
            Err(fault.hint("check what created it, and move it away").into())
        }
    }
}

fn step(wanted: &SelectedEntry, path: Name, after: FileState) -> RestoreStep {
    RestoreStep {
        item: wanted.item.id.to_owned(),
        path,
        how: Action::Replace,
        via: TargetKind::Disk,
        lock: None,
        before: None,
        after,
        secret: true,
        may_disconnect: wanted.item.risk == Risk::Session,
        diff: None,
        content: Content::None,
    }
}

/// Returns the state of the log that `Action::Remove` expects.
fn no_log() -> FileState {
    FileState {
        kind: EntryKind::File,
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        size: 0,
        sha256: sha256(b""),
        link: None,
        xattrs: Vec::new(),
    }
}
