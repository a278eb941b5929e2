//! `verify`: snapshots proven, one or all, and their chains.

use anyhow::Result;

use super::{Words, args, render};
use crate::archive::sign::Signers;
use crate::model::report::{Exit, Fault, FaultKind, Problem};
use crate::model::snapshot::SnapshotId;
use crate::store::Store;
use crate::task::verify::{self, Demand, Wanted};

impl Words<'_> {
    pub(super) fn verify(&mut self, args: &args::Verify) -> Result<Exit> {
        self.noted("verify", |words, record| {
            let demand =
                Demand { deep: args.deep, signers: args.signer.as_deref().map(signers).transpose()? };
            let progress = words.progress();
            let say = |what: &str| progress.say(what);
            let results = if args.all {
                let config = words.config()?;
                let stores = words.stores(&config, &args.stores)?;
                let (copies, unreachable) = every_copy(&stores);
                // One after the other: a store that is far away is not downloaded whole.
                let take = |(store, id): &(&dyn Store, _)| Wanted::take(*store, id, &words.keys);
                let mut results = verify::verify_all(copies.iter().map(take), &demand, &say)?;
                results.extend(unreachable);
                let keeps_all = |name: &str| config.keep(name).keeps_all();
                let broken = verify::broken_chains(&stores, &keeps_all, &results);
                results.extend(broken);
                words.tell(&old_ones(&stores));
                results
            } else {
                let latest = ["latest".to_owned()];
                let names = if args.snaps.is_empty() { &latest[..] } else { &args.snaps };
                let chosen = names.iter().map(|word| words.choose(&args.stores, word));
                let chosen = chosen.collect::<Result<Vec<_>>>()?;
                verify::verify_all(chosen.into_iter().map(Wanted::from), &demand, &say)?
            };
            if results.is_empty() {
                let fault = Fault::new(FaultKind::NotFound, "there are no snapshots");
                return Err(fault.hint("`pbx-config backup` makes one").into());
            }
            progress.clear();
            record.verified = verify::verifications(&results, &words.host.facts.node, args.all);
            let kinds: Vec<FaultKind> = results.iter().filter_map(|one| one.kind).collect();
            let damaged = kinds.iter().copied().find(|kind| *kind == FaultKind::Verification);
            record.problems =
                results.iter().filter_map(|one| one.error.as_ref()).map(Problem::error).collect();
            if args.notify && !record.problems.is_empty() {
                words.tell_of_damage(&record.problems)?;
            }
            words.print(&results, |results| results.iter().map(render::verified).collect())?;
            Ok(damaged.or(kinds.first().copied()).map_or(Exit::Ok, Exit::from))
        })
    }
}

/// Errors: `Usage` for what is neither a fingerprint nor a file with an ed25519 key.
fn signers(word: &str) -> Result<Signers> {
    if let Some(signers) = Signers::of_fingerprint(word) {
        return Ok(signers);
    }
    let fault = |what: String| {
        Fault::new(FaultKind::Usage, format!("--signer {word}: {what}")).hint(
            "name a fingerprint as `ssh-keygen -l` prints it, or a file with the host's ssh-ed25519 key",
        )
    };
    let text = std::fs::read_to_string(word).map_err(|error| fault(error.to_string()))?;
    Some(Signers::of_file(&text))
        .filter(|signers| !signers.is_empty())
        .ok_or_else(|| fault("has no ed25519 key".into()).into())
}

/// Archives of the predecessor: nothing can be added to them any more, and each would be downloaded whole.
fn old_ones(stores: &[Box<dyn Store>]) -> Vec<Problem> {
    let of_store = |store: &dyn Store| match store.relics() {
        Ok(old) if old.is_empty() => None,
        Ok(old) => {
            let what = format!("store '{}': {} old archives are not read by --all", store.name(), old.len());
            Some(
                Problem::notice(what)
                    .hint("`pbx-config verify SNAP` reads one, `pbx-config list` names them"),
            )
        }
        Err(error) => Some(Problem::warning(format!("{error:#}"))),
    };
    stores.iter().filter_map(|store| of_store(store.as_ref())).collect()
}

/// Every copy in every store, newest first, and what could not be listed.
fn every_copy(stores: &[Box<dyn Store>]) -> (Vec<(&dyn Store, SnapshotId)>, Vec<verify::Verified>) {
    let (mut copies, mut unreachable) = (Vec::new(), Vec::new());
    for store in stores {
        let mut found = match store.list(None) {
            Ok(found) => found,
            Err(error) => {
                unreachable.push(verify::Verified::unreachable(store.as_ref(), &error));
                continue;
            }
        };
        found.sort_by(|a, b| b.id.cmp(&a.id));
        copies.extend(found.into_iter().map(|one| (store.as_ref(), one.id)));
    }
    (copies, unreachable)
}
