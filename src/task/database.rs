//! `restore --recover --database`: all of /etc/pve at once, as its database, on a node whose pmxcfs is stopped. Never
//! within a live cluster.
//! Not here: what pmxcfs refuses (`sys::pmxcfs::offline`), writing.

use anyhow::Result;

use crate::catalog::{self, CLUSTER_MEMBER, Source};
use crate::model::index::{Kind, Name};
use crate::model::report::{Fault, FaultKind};
use crate::plan::relocate;
use crate::plan::restore::{Advice, Content, Database, PVE, Picked, Request, RestorePlan, Wanted};
use crate::sys::files;
use crate::sys::host::Host;
use crate::sys::pmxcfs::offline::{self, Edit, Ready};
use crate::sys::pmxcfs::{DATABASE, LOGS, UNIT};

/// The database takes the place of every file of /etc/pve that was picked.
///
/// Errors: `NotFound` when the snapshot has none; `Failed` while pmxcfs runs, and for what it would not start on;
/// `Usage` for a tree of another node or of a cluster.
pub fn take(host: &Host, picked: &mut Picked, request: &Request) -> Result<Vec<Advice>> {
    let Some(how) = request.database else { return Ok(Vec::new()) };
    let name = Name::new(DATABASE.trim_start_matches('/'));
    let fault = |kind, what: String, hint: &str| Fault::new(kind, what).hint(hint);
    let one = picked.wanted.iter().position(|one| one.entry.path == name).map(|at| picked.wanted.remove(at));
    let (Some(one), Some(bytes)) = (one, picked.contents.get(&name)) else {
        let what = format!("{} has no database of /etc/pve: it was read file by file", picked.id);
        return Err(fault(FaultKind::NotFound, what, "restore without --database").into());
    };
    offline::check_stopped(host)?;
    if files::is_there(host.root(), CLUSTER_MEMBER.trim_start_matches('/')) {
        let what = format!("this host is a member of a cluster: {CLUSTER_MEMBER} is here");
        let hint =
            "join with pvecm add instead; or `systemctl stop corosync` and move /etc/corosync/* away first";
        return Err(fault(FaultKind::Failed, what, hint).into());
    }
    let ready = offline::prepare(bytes, &edit(how, request))?;
    check(host, &ready)?;
    let advice = advice(&one, &ready, how);
    picked.wanted.retain(|one| !one.entry.path.as_path().starts_with(PVE));
    // A log that a killed pmxcfs left would be replayed into the new database: it is emptied first. Where there is
    // none an empty one is made, so that undoing takes away the log of the new database, too.
    for end in LOGS {
        let mut log = Wanted { content: Content::Bytes(Vec::new()), is_named: true, ..one.clone() };
        log.entry.path = Name::new(format!("{name}{end}"));
        (log.entry.kind, log.entry.mode, log.entry.uid, log.entry.gid) = (Kind::File, 0o600, 0, 0);
        picked.wanted.push(log);
    }
    let mut new = Wanted { content: Content::Bytes(ready.database), is_named: true, ..one };
    (new.entry.kind, new.entry.mode, new.entry.uid, new.entry.gid) = (Kind::File, 0o600, 0, 0);
    picked.wanted.push(new);
    Ok(advice)
}

/// The names of the nodes are put wherever files say them, as they are file by file.
fn edit(how: Database, request: &Request) -> Edit<'_> {
    let moves = request.moves();
    Edit {
        leave_cluster: how == Database::WithoutCluster,
        node: request.node.as_ref().map(|(old, new)| (old.as_str(), new.as_str())),
        contents: Box::new(move |path, data| relocate::file(&format!("{PVE}/{path}"), data, &moves).content),
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
            "the database is of {}, this host is '{node}': its guests would be nobody's",
            nodes.join(", ")
        );
        let old = nodes.first().copied().unwrap_or("OLD");
        return Err(Fault::new(FaultKind::Usage, what).hint(format!(
            "give this host the old name first, or the tree the new one: --node {old}={node}"
        )));
    }
    Ok(())
}

fn advice(one: &Wanted, ready: &Ready, how: Database) -> Vec<Advice> {
    let tell = |text: &str, commands: &[&str]| Advice {
        item: one.item.id.to_owned(),
        text: text.to_owned(),
        commands: commands.iter().map(|command| (*command).to_owned()).collect(),
    };
    let mut advice: Vec<Advice> = ready.notes.iter().map(|note| tell(note, &[])).collect();
    advice.push(tell(
        "after its first start the node's certificate is signed anew; guests start when their disks are here",
        &["pvecm updatecerts -f", "qm list", "pct list"],
    ));
    if how == Database::WithoutCluster {
        advice.push(tell(
            "what is left of the cluster: folders of other nodes in /etc/pve/nodes hold guests of theirs, \
             priv/authorized_keys their keys, and storages may be shared with members that live",
            &["ls /etc/pve/nodes", "rm -f /etc/corosync/* /var/lib/corosync/*"],
        ));
    }
    advice
}

/// pmxcfs is stopped now, and is started on its new database.
pub fn start(plan: &mut RestorePlan) {
    let is_of =
        |id: &str| catalog::items().any(|item| item.id == id && matches!(item.source, Source::Database));
    if plan.steps.iter().any(|step| is_of(&step.item)) {
        plan.session.start.push(UNIT.to_owned());
    }
}
