//! Advice on guests whose configuration a restore puts in place: one that runs keeps what it was started with,
//! one that was saved under a lock of its own stays locked, and one of another node is locked by nobody during this.

use std::collections::BTreeSet;

use super::{Advice, Content, RestoreStep, SelectedEntries, guest_conf};
use crate::catalog::guests::GuestPath;
use crate::model::index::Name;

/// Lists hints, in the order of the steps. `running` are the paths of guests that run here, on `node`.
pub fn advice(
    steps: &[RestoreStep],
    picked: &SelectedEntries,
    node: &str,
    running: &BTreeSet<Name>,
) -> impl Iterator<Item = Advice> {
    steps.iter().flat_map(move |step| {
        let guest = GuestPath::of(step.path.as_path());
        guest.into_iter().flat_map(move |guest| {
            let tool = guest.kind.tool;
            let say = |text: String, verb: &str| Advice {
                item: step.item.clone(),
                text,
                commands: vec![format!("{tool} {verb} {}", guest.id)],
            };
            let runs = running.contains(&step.path).then(|| {
                let why = "is running, and uses its old configuration until it is stopped and started again";
                say(format!("{guest} {why}"), "reboot")
            });
            let locked = after(step, picked).and_then(guest_conf::lock).map(|lock| {
                let why = format!("was locked ({lock}) when it was saved, and is restored with the lock");
                say(format!("{guest} {why}: unlock it when no task uses it"), "unlock")
            });
            // A task there takes a lock of that node, which nobody here can hold.
            let is_elsewhere = guest.node != node && step.before.is_some();
            let elsewhere = is_elsewhere.then(|| Advice {
                item: step.item.clone(),
                text: format!(
                    "{guest} is on {}: a task there may change it at the same time; \
                     restore it when no task uses it",
                    guest.node
                ),
                commands: vec![format!(
                    "pvesh get /nodes/{}/tasks --source active --vmid {}",
                    guest.node, guest.id
                )],
            });
            runs.into_iter().chain(locked).chain(elsewhere)
        })
    })
}

fn after<'a>(step: &'a RestoreStep, picked: &'a SelectedEntries) -> Option<&'a str> {
    let bytes = match &step.content {
        Content::Bytes(bytes) => bytes,
        Content::Entry(name) => picked.contents.get(name)?,
        Content::None => return None,
    };
    std::str::from_utf8(bytes).ok()
}
