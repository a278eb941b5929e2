//! Metrics in Prometheus's text format, made from the records of this host's runs: pure, newest record first.
//! Times are points, not ages, as Prometheus wants them; all are gauges, as each run writes all of them again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use crate::model::facts::Facts;
use crate::model::problem::{Outcome, Severity};
use crate::model::record::{RunRecord, Verification};
use crate::model::snapshot::SnapshotId;

const BACKUP: &str = "backup";

/// Facts that are not in the records.
#[derive(Debug, Clone, Copy, Default)]
pub struct More<'a> {
    /// Time of the last proof that the offline key opens what is encrypted to it.
    pub key_proved: Option<Timestamp>,
    /// The stores that are configured, and how many copies in each are known to be damaged.
    pub stores: &'a [(String, usize)],
}

/// The text of a `.prom` file. Families without a value are left out.
pub fn text(records: &[RunRecord], facts: &Facts, more: More) -> String {
    let mut page = Page(String::new());
    let products: Vec<String> =
        facts.products.iter().map(|(product, version)| format!("{} {version}", product.word())).collect();
    let about = [
        ("host", facts.node.as_str()),
        ("products", &products.join(", ")),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    page.family("info", "Host, products and version of the program; always 1", [(labels(&about), 1.0)]);

    let runs: Vec<&RunRecord> =
        records.iter().filter(|record| record.verb == BACKUP && !record.part).collect();
    if let Some(last) = runs.first() {
        last_run(&mut page, last);
    }
    if let Some(last) = runs.iter().find(|record| record.is_success()) {
        page.one(
            "last_success_time_seconds",
            "When the last run ended that did not fail",
            seconds(end(last)),
        );
    }

    if let Some(made) = runs.iter().find(|record| record.stats.is_some()) {
        snapshot(&mut page, made);
    }
    stores(&mut page, &runs, records, more.stores);
    if let Some(at) = more.key_proved {
        page.one(
            "key_proved_time_seconds",
            "When the offline key was last checked to open what is encrypted to it",
            seconds(at),
        );
    }
    page.0
}

fn last_run(page: &mut Page, last: &RunRecord) {
    page.one("last_run_start_time_seconds", "When the last backup run began", seconds(last.began));
    page.one("last_run_end_time_seconds", "When the last backup run ended", seconds(end(last)));
    page.one("last_run_duration_seconds", "How long the last backup run took", last.took);
    page.one("last_run_exit_code", "Exit code of the last backup run", f64::from(last.exit));

    let status = match last.outcome {
        Outcome::Ok => 0.0,
        Outcome::Warned => 1.0,
        Outcome::Failed => 2.0,
    };
    page.one("last_run_status", "Result of the last backup run: 0 ok, 1 with problems, 2 failed", status);

    let problems = [Severity::Error, Severity::Warning, Severity::Notice].map(|severity| {
        let of = last.problems.iter().filter(|problem| problem.severity == severity);
        (labels(&[("severity", &severity.to_string())]), count(of.count()))
    });
    page.family("last_run_problems", "Problems of the last backup run", problems);
    let unchanged = f64::from(u8::from(last.unchanged.is_some()));
    page.one(
        "last_run_unchanged",
        "1 when the last run found nothing changed and made no snapshot",
        unchanged,
    );

    if let Some(changes) = &last.changes {
        let counts = [("added", changes.added), ("changed", changes.changed), ("removed", changes.removed)]
            .map(|(how, n)| (labels(&[("how", how)]), count(n)));
        page.family("last_run_changed_paths", "Paths that differed from the snapshot before", counts);
    }
}

fn snapshot(page: &mut Page, made: &RunRecord) {
    let Some(stats) = &made.stats else { return };
    page.one("snapshot_files", "Files in the newest snapshot", whole(stats.files));
    page.one(
        "snapshot_files_failed",
        "Files that were there and are not in the newest snapshot",
        whole(stats.files_failed),
    );
    page.one("snapshot_read_bytes", "Bytes that the newest snapshot was made of", whole(stats.bytes));
    page.one("snapshot_size_bytes", "Size of the newest snapshot's file", whole(stats.size));
    page.one("snapshot_compression_ratio", "Stored bytes by read bytes of the newest snapshot", stats.ratio);
    page.one("snapshot_sealed", "1 when the newest snapshot is encrypted", f64::from(u8::from(stats.sealed)));
    if let Some(unexplained) = stats.unexplained {
        page.one(
            "unexplained_files",
            "Files of the host that are in no backup, without a reason",
            whole(unexplained),
        );
    }

    let phases = &stats.phases;
    let phases = [
        ("prepare", phases.prepare),
        ("write", phases.write),
        ("verify", phases.verify),
        ("store", phases.store),
    ];
    let phases = phases.map(|(name, seconds)| (labels(&[("phase", name)]), seconds));
    page.family("phase_duration_seconds", "Where the time of the newest snapshot went", phases);
}

/// The newest facts that are known of each store that a run has written to.
#[derive(Default)]
struct Known<'a> {
    success: Option<Timestamp>,
    newest: Option<&'a SnapshotId>,
    up: Option<bool>,
    kept: Option<usize>,
    removed: Option<usize>,
    verified: Option<(Timestamp, &'a Verification)>,
}

/// Gathers the facts of the configured stores, and of no other: one that was taken out of the configuration, or a
/// directory that was named once, would grow old in an alert for ever.
fn known_stores<'a>(
    runs: &[&RunRecord],
    records: &'a [RunRecord],
    configured: &[(String, usize)],
) -> BTreeMap<&'a str, Known<'a>> {
    let mut stores: BTreeMap<&str, Known> = BTreeMap::new();
    for record in records {
        for place in &record.stores {
            let known = stores.entry(&place.store).or_default();
            if record.verb == BACKUP {
                known.up.get_or_insert(place.place.is_some());
            }
            if place.place.is_some() && known.newest.is_none() && !record.part {
                known.success = Some(end(record));
                known.newest = record.snapshot.as_ref();
            }
            if let Some(kept) = place.kept {
                known.kept.get_or_insert(kept);
                known.removed.get_or_insert(place.removed);
            }
        }
        for verified in &record.verified {
            let known = stores.entry(&verified.store).or_default();
            known.verified = known.verified.or(Some((end(record), verified)));
        }
    }
    stores.retain(|name, _| configured.iter().any(|(known, _)| known == name));

    // A run that found nothing new is a success of each store that has the last snapshot.
    for known in stores.values_mut() {
        let looked =
            runs.iter().find(|run| run.unchanged.is_some() && run.unchanged.as_ref() == known.newest);
        known.success = known.success.max(looked.map(|run| end(run)));
    }
    stores
}

/// Name, help and value of a family that has a sample for each store.
type StoreFamily = (&'static str, &'static str, fn(&Known) -> Option<f64>);

const STORE_FAMILIES: [StoreFamily; 6] = [
    ("store_last_success_time_seconds", "When the store was last found up to date by a run", |known| {
        known.success.map(seconds)
    }),
    ("store_up", "1 when the last run that made a snapshot could write it there", |known| {
        known.up.map(|up| f64::from(u8::from(up)))
    }),
    ("store_snapshots", "Snapshots of this host that the store keeps", |known| known.kept.map(count)),
    ("store_pruned_snapshots", "Snapshots that retention removed last", |known| known.removed.map(count)),
    ("store_verified_time_seconds", "When copies in the store were last read again", |known| {
        known.verified.map(|(at, _)| seconds(at))
    }),
    ("store_verified_snapshots", "Copies that the last verification found to be good", |known| {
        known.verified.map(|(_, verified)| count(verified.good))
    }),
];

fn stores(page: &mut Page, runs: &[&RunRecord], records: &[RunRecord], configured: &[(String, usize)]) {
    let stores = known_stores(runs, records, configured);
    for (family, help, value) in STORE_FAMILIES {
        let samples =
            stores.iter().filter_map(|(name, known)| Some((labels(&[("store", name)]), value(known)?)));
        page.family(family, help, samples);
    }

    let damaged = configured.iter().map(|(store, n)| (labels(&[("store", store)]), count(*n)));
    page.family("store_damaged_snapshots", "Copies that a verification found to be damaged", damaged);
}

fn end(record: &RunRecord) -> Timestamp {
    #[allow(clippy::cast_possible_truncation)] // a run takes less than ages
    let took = jiff::SignedDuration::from_millis((record.took * 1000.0) as i64);
    record.began.checked_add(took).unwrap_or(record.began)
}

#[allow(clippy::cast_precision_loss)] // the format's numbers are floats
fn whole(n: u64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    whole(n as u64)
}

#[allow(clippy::cast_precision_loss)]
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

/// `{name="value",…}`, values escaped.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

struct Page(String);

impl Page {
    fn one(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, help, [(String::new(), value)]);
    }

    fn family(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (String, f64)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let _ = writeln!(self.0, "# HELP pbx_config_{name} {help}.\n# TYPE pbx_config_{name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "pbx_config_{name}{labels} {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_keeps_its_quotes_lines_and_backslashes_to_itself() {
        assert_eq!(labels(&[("store", "a\"b\\c\nd")]), r#"{store="a\"b\\c\nd"}"#);
    }

    #[test]
    fn without_a_run_there_is_only_the_host() {
        let text = text(&[], &Facts { node: "pve1".to_owned(), ..Facts::default() }, More::default());
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
