//! `verify`: proves snapshots, one or all, and their chains.

use std::path::Path;

use anyhow::Result;

use super::{App, args, render};
use crate::archive::sign::Signers;
use crate::model::problem::{Exit, Fault, FaultKind, Problem};
use crate::model::snapshot::SnapshotId;
use crate::store::Store;
use crate::sys::input;
use crate::task::snapshots::verify::{self, Demand, Verified, WantedFile};

impl App<'_> {
    pub(super) fn verify(&mut self, args: &args::Verify) -> Result<Exit> {
        self.noted("verify", |app, record| {
            let demand =
                Demand { deep: args.deep, signers: args.signer.as_deref().map(signers).transpose()? };
            let progress = app.progress();
            let say = |what: &str| progress.say(what);
            let results = if args.all {
                app.verify_stores(args, &demand, &say)?
            } else {
                app.verify_named(args, &demand, &say)?
            };
            progress.clear();

            if results.is_empty() {
                let fault = Fault::new(FaultKind::NotFound, "there are no snapshots");
                return Err(fault.hint("create one with `pbx-config backup`").into());
            }
            record.verified = verify::verifications(&results, &app.host.facts.node, args.all);
            record.problems = results.iter().filter_map(Verified::problem).collect();
            if args.notify && !record.problems.is_empty() {
                app.tell_of_damage(&record.problems)?;
            }
            app.print(&results, |results| results.iter().map(render::verified).collect())?;

            let kinds: Vec<FaultKind> = results.iter().filter_map(|one| one.kind).collect();
            let damaged = kinds.iter().copied().find(|kind| *kind == FaultKind::Verification);
            Ok(damaged.or(kinds.first().copied()).map_or(Exit::Ok, Exit::from))
        })
    }

    /// Verifies every copy of every store, and the chains.
    fn verify_stores(
        &self,
        args: &args::Verify,
        demand: &Demand,
        say: &dyn Fn(&str),
    ) -> Result<Vec<Verified>> {
        let config = self.config()?;
        let stores = self.stores(&config, &args.stores)?;
        let all = Everything::of(&stores);
        // One after the other: a store that is far away is not downloaded whole.
        let take = |(store, id): &(&dyn Store, _)| WantedFile::take(*store, id, &self.keys);
        let mut results = verify::verify_all(all.copies.iter().map(take), demand, say)?;
        results.extend(all.unreachable);

        let keeps_all = |name: &str| config.keep(name).keeps_all();
        let broken = verify::broken_chains(&stores, &keeps_all, &results);
        results.extend(broken);
        self.tell(&all.left_out);
        Ok(results)
    }

    /// Verifies the snapshots that are named; without a name the newest of this host.
    fn verify_named(
        &self,
        args: &args::Verify,
        demand: &Demand,
        say: &dyn Fn(&str),
    ) -> Result<Vec<Verified>> {
        let latest = ["latest".to_owned()];
        let names = if args.snaps.is_empty() { &latest[..] } else { &args.snaps };
        let chosen = names.iter().map(|word| self.choose(&args.stores, word));
        let chosen = chosen.collect::<Result<Vec<_>>>()?;
        verify::verify_all(chosen.into_iter().map(WantedFile::from), demand, say)
    }
}

/// Errors: `Usage` for what is neither a fingerprint nor a file with an ed25519 key.
fn signers(word: &str) -> Result<Signers> {
    if let Some(signers) = Signers::of_fingerprint(word) {
        return Ok(signers);
    }
    let fault = |what: String| {
        Fault::new(FaultKind::Usage, format!("--signer {word}: {what}")).hint(
            "use a fingerprint as printed by `ssh-keygen -l`, or a file with the ssh-ed25519 key of the host",
        )
    };
    let text =
        input::read(Path::new(word), input::TEXT_MAX_BYTES).map_err(|error| fault(error.to_string()))?;
    Some(Signers::of_file(&String::from_utf8_lossy(&text)))
        .filter(|signers| !signers.is_empty())
        .ok_or_else(|| fault("contains no ed25519 key".into()).into())
}

/// Snapshots of the stores for `--all`.
#[derive(Default)]
struct Everything<'a> {
    /// Newest first in each store.
    copies: Vec<(&'a dyn Store, SnapshotId)>,
    /// Legacy archives: nothing can be added to them any more, and each would be downloaded whole.
    left_out: Vec<Problem>,
    unreachable: Vec<Verified>,
}

impl<'a> Everything<'a> {
    fn of(stores: &'a [Box<dyn Store>]) -> Self {
        let mut all = Self::default();
        for store in stores {
            let store = store.as_ref();
            let mut found = match store.list(None) {
                Ok(found) => found,
                Err(error) => {
                    all.unreachable.push(Verified::unreachable(store, &error));
                    continue;
                }
            };
            let old = match store.relics() {
                Ok(old) => old.len(),
                Err(error) => {
                    all.unreachable.push(Verified::unreachable(store, &error));
                    0
                }
            };
            if old > 0 {
                let what =
                    format!("store '{}': {old} legacy archives are not verified by --all", store.name());
                let hint = "`pbx-config verify SNAP` verifies one, `pbx-config list` lists them";
                all.left_out.push(Problem::notice(what).hint(hint));
            }
            found.sort_by(|a, b| b.id.cmp(&a.id));
            all.copies.extend(found.into_iter().map(|one| (store, one.id)));
        }

        all
    }
}
