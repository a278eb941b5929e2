//! Facts that a restore needs of this host besides its files: devices that mounts name, NICs, guests that run.
//! Not here: the files (`observe`), the decisions (`plan::restore::adapt`).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::catalog::guests::{GuestPath, Sign};
use crate::catalog::{self, Source};
use crate::model::index::Name;
use crate::plan::restore::adapt::{self, HostHardware, nics};
use crate::plan::restore::{RestoreRequest, RestoreStep, SelectedEntries, merge};
use crate::sys::fs::files;
use crate::sys::guests;
use crate::sys::host::Host;
use crate::sys::process::exec::{Cmd, ToolStatus};

/// The kernel answers at once.
const LINKS_LIMIT: Duration = Duration::from_secs(10);
/// The items that list NICs, the better source first.
const CARD_ITEMS: [&str; 2] = ["state-links", "state-addresses"];

pub fn look(host: &Host, picked: &SelectedEntries, request: &RestoreRequest) -> HostHardware {
    let is_there = |device: &String| {
        merge::device_path(device)
            .is_some_and(|path| files::is_there(host.root(), path.trim_start_matches('/')))
    };
    let devices = adapt::devices(picked).into_iter().filter(is_there).collect();
    let cards = adapt::needs_cards(picked, request).then(|| cards(host)).flatten();
    HostHardware { devices, cards }
}

/// Returns the steps that write the configuration of a guest that runs on this node.
pub fn running(host: &Host, steps: &[RestoreStep]) -> BTreeSet<Name> {
    let runs = |step: &&RestoreStep| {
        let guest = GuestPath::of(step.path.as_path()).filter(|guest| guest.node == host.facts.node);
        guest.is_some_and(|guest| match guest.sign() {
            Sign::Process { file, argument } => guests::has_process(host.root(), &file, &argument),
            Sign::Socket(name) => guests::has_socket(host.root(), &name),
        })
    };
    steps.iter().filter(runs).map(|step| step.path.clone()).collect()
}

/// Reads the NICs as a backup of this host would record them.
fn cards(host: &Host) -> Option<Vec<nics::Card>> {
    CARD_ITEMS
        .iter()
        .filter_map(|id| catalog::items().find(|item| item.id == *id))
        .filter_map(|item| match item.source {
            Source::Output { argv, .. } => {
                let output = host.exec.run(&Cmd::new(argv.iter().copied(), LINKS_LIMIT)).ok()??;
                (output.status == ToolStatus::Exit(0)).then(|| nics::cards(&output.stdout))
            }
            _ => None,
        })
        .find(|cards| !cards.is_empty())
}
