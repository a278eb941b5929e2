//! Upload of a snapshot to all its stores at the same time, then retention on the stores that have it safely.
//! Not here: the content of the snapshot.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::Result;
use jiff::tz::TimeZone;

use crate::config::Config;
use crate::model::problem::Problem;
use crate::model::report::StoredCopy;
use crate::model::snapshot::SnapshotId;
use crate::store::Store;
use crate::sys::host::Host;
use crate::sys::process::lock::Lock;
use crate::sys::process::signals::check_stopped;
use crate::sys::process::threads;
use crate::task::error;
use crate::task::runs::prune;

/// A snapshot on its way to the stores.
pub(crate) struct Upload<'a> {
    pub host: &'a Host,
    pub config: &'a Config,
    pub lock: &'a Lock,
    pub spool: &'a Path,
    pub id: &'a SnapshotId,
}

impl Upload<'_> {
    /// Uploads to all stores at the same time: each waits elsewhere. Problems of the others are returned with the
    /// primary's. Errors: the primary's, the first of `stores`, when all have ended; a stop.
    pub fn to_all(
        &self,
        stores: &[Box<dyn Store>],
        problems: &mut Vec<Problem>,
        say: &dyn Fn(&str),
    ) -> Result<Vec<StoredCopy>> {
        let mut results: Vec<Result<(StoredCopy, Vec<Problem>)>> = match stores {
            [only] => vec![self.to_one(0, only.as_ref(), say)],
            _ => thread::scope(|scope| {
                let (line, lines) = mpsc::channel::<String>();
                let running: Vec<_> = stores
                    .iter()
                    .enumerate()
                    .map(|(n, store)| {
                        let line = line.clone();
                        threads::start(scope, move || {
                            self.to_one(n, store.as_ref(), &|what| drop(line.send(what.to_owned())))
                        })
                    })
                    .collect();
                drop(line);
                lines.into_iter().for_each(|what| say(&what));
                running.into_iter().filter_map(threads::Started::join_or_panic).collect()
            }),
        };
        let is_whole =
            |result: &Result<(StoredCopy, _)>| result.as_ref().is_ok_and(|(one, _)| one.place.is_some());
        if !results.iter().all(is_whole) {
            check_stopped()?;
        }

        if results.first().is_some_and(Result::is_err) {
            for (store, result) in stores.iter().zip(&results).skip(1) {
                let Ok((other, met)) = result else { continue };
                if let Some(place) = &other.place {
                    log::warn!("saved to store '{}': {place}", store.name());
                }
                met.iter().for_each(|problem| log::warn!("{}", problem.what));
            }
            results.truncate(1);
        }

        let mut done = Vec::new();
        for result in results {
            let (one, met) = result?;
            problems.extend(met);
            done.push(one);
        }
        Ok(done)
    }

    /// Errors: the primary's, which is store 0. Another one that fails is a problem.
    fn to_one(&self, n: usize, store: &dyn Store, say: &dyn Fn(&str)) -> Result<(StoredCopy, Vec<Problem>)> {
        say(&format!("writing to store {}", store.name()));
        let mut problems = Vec::new();

        let mut stored = StoredCopy {
            store: store.name().to_owned(),
            place: None,
            medium: None,
            primary: n == 0,
            kept: None,
            removed: Vec::new(),
        };
        match store.put(self.spool, self.id) {
            Ok(placed) => {
                problems.extend(placed.problems);
                (stored.place, stored.medium) = (Some(placed.place), placed.medium);
                self.prune(store, &mut stored, &mut problems, say);
            }
            Err(error) if n == 0 => return Err(error),
            Err(error) => problems.push(failed_store(&error)),
        }
        Ok((stored, problems))
    }

    /// Retention where the new snapshot lies safely. What goes wrong is a problem: the snapshot is there.
    fn prune(
        &self,
        store: &dyn Store,
        stored: &mut StoredCopy,
        problems: &mut Vec<Problem>,
        say: &dyn Fn(&str),
    ) {
        let keep = self.config.keep(store.name());
        if keep.keeps_all() {
            stored.kept = store.list(Some(&self.host.facts.node)).ok().map(|found| found.len());
            return;
        }

        let mut plan = match prune::plan(self.host, store, keep, &TimeZone::system()) {
            Ok(plan) => plan,
            Err(error) => {
                problems.push(Problem::warning(format!("nothing was pruned: {error:#}")));
                return;
            }
        };
        for marked in plan.removed() {
            say(&format!("store {}: removing {} ({})", store.name(), marked.id, marked.reason));
        }

        let (removed, failed) = prune::carry_out(store, &plan, self.lock);
        problems.append(&mut plan.problems);
        problems.extend(failed);
        stored.kept = Some(plan.snapshots.len() - removed.len());
        stored.removed = removed;
    }
}

/// Makes the problem of a failed store, with the hint of its error.
fn failed_store(error: &anyhow::Error) -> Problem {
    let hint = error::hint(error).map(|hint| format!("{hint}; ")).unwrap_or_default();
    Problem::error(format!("{error:#}")).hint(format!("{hint}the snapshot is in the other stores"))
}
