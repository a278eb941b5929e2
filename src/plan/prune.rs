//! Choice of the snapshots of a host that a store keeps: Proxmox Backup Server's algorithm, and the rules above it.
//! Every snapshot gets its reason. Nothing is removed here.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use crate::model::keep::Keep;
use crate::model::snapshot::{FORMAT, Snapshot, SnapshotId};

/// A snapshot of this host's name as a store tells it.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub id: SnapshotId,
    /// None: its manifest cannot be read.
    pub snapshot: Option<Snapshot>,
    /// Why its store does not let it go.
    pub held: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Marked {
    pub id: SnapshotId,
    pub keep: bool,
    /// "daily 3/7", "protected", "of another machine", …
    pub reason: String,
}

/// The machines whose snapshots are ours: this one, and those that it was told to take over.
///
/// A machine is known by its machine id. One that has none is known by the id of its installation; without that, nothing
/// is sure to be its own.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    pub machine_id: Option<&'a str>,
    pub installation: Option<&'a str>,
    pub adopted: &'a [String],
}

impl Ours<'_> {
    pub fn has(&self, snapshot: &Snapshot) -> bool {
        // A legacy archive tells no machine: the name of the host is all that can be said of it.
        if snapshot.legacy.is_some() {
            return true;
        }
        let (own, theirs) = match &snapshot.machine_id {
            Some(id) => (self.machine_id, Some(id)),
            None => (self.installation, snapshot.installation.as_ref()),
        };
        theirs.is_some_and(|id| own == Some(id) || self.adopted.contains(id))
    }
}

/// Marks every candidate, newest first.
///
/// Only readable snapshots of this machine take part, and none that its store or a verification holds back. Those of a part of the host (`--only`, `--skip`) are a group
/// of their own, so that they never take the place of a whole one. The newest of a group always stays: it is the
/// first that any option meets.
pub fn prune(candidates: &[Candidate], keep: &Keep, ours: Ours, zone: &TimeZone) -> Vec<Marked> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| b.id.cmp(&a.id));
    let mut marks: Vec<Option<(bool, String)>> = sorted.iter().map(|one| standing(one, ours)).collect();
    for partial in [false, true] {
        let group: Vec<usize> =
            (0..sorted.len()).filter(|n| marks[*n].is_none() && is_partial(sorted[*n]) == partial).collect();
        mark_group(&sorted, &group, keep, zone, &mut marks);
    }
    let reasons = marks.into_iter().map(|mark| mark.unwrap_or((true, "not looked at".to_owned())));
    sorted
        .into_iter()
        .zip(reasons)
        .map(|(one, (keep, reason))| Marked { id: one.id.clone(), keep, reason })
        .collect()
}

/// Returns the mark of a snapshot that retention does not judge at all: it stays, with the reason.
fn standing(one: &Candidate, ours: Ours) -> Option<(bool, String)> {
    let stays = |why: &str| Some((true, why.to_owned()));
    if let Some(why) = one.held {
        return stays(why);
    }
    match &one.snapshot {
        None => stays("its manifest cannot be read"),
        Some(snapshot) if snapshot.format != FORMAT => stays("of another format"),
        Some(snapshot) if !ours.has(snapshot) => stays("of another machine"),
        Some(_) => None,
    }
}

fn is_partial(one: &Candidate) -> bool {
    one.snapshot.as_ref().is_some_and(|snapshot| !snapshot.selection.is_empty())
}

/// Marks a group: indexes into `sorted`, newest first.
fn mark_group(
    sorted: &[&Candidate],
    group: &[usize],
    keep: &Keep,
    zone: &TimeZone,
    marks: &mut [Option<(bool, String)>],
) {
    if keep.keeps_all() {
        for &n in group {
            let reason = if is_protected(sorted[n]) { PROTECTED } else { "no keep option" };
            marks[n] = Some((true, reason.to_owned()));
        }
        return;
    }

    for option in options(keep).iter().filter(|option| option.count > 0) {
        mark_by_option(sorted, group, option, zone, marks);
    }
    for &n in group {
        let stays = is_protected(sorted[n]);
        let reason = if stays { PROTECTED } else { "not kept by any keep option" };
        marks[n].get_or_insert_with(|| (stays, reason.to_owned()));
    }
}

/// Keeps the newest of each of the last `count` periods that no option before covers.
fn mark_by_option(
    sorted: &[&Candidate],
    group: &[usize],
    option: &KeepOption,
    zone: &TimeZone,
    marks: &mut [Option<(bool, String)>],
) {
    let KeepOption { name, count, period } = *option;
    let period_of = |n: usize| period(&sorted[n].id.at().to_zoned(zone.clone()));
    let is_kept = |n: &&usize| matches!(&marks[**n], Some((true, reason)) if reason != PROTECTED);
    let covered: HashSet<[i64; 2]> = group.iter().filter(is_kept).map(|n| period_of(*n)).collect();

    let mut used = HashSet::new();
    for &n in group {
        if marks[n].is_some() {
            continue;
        }
        if is_protected(sorted[n]) {
            marks[n] = Some((true, PROTECTED.to_owned()));
            continue;
        }
        let period = period_of(n);
        if covered.contains(&period) {
            continue;
        }
        if used.contains(&period) {
            marks[n] = Some((false, format!("a newer one of its {} is kept", unit(name))));
        } else if used.len() < count as usize {
            used.insert(period);
            marks[n] = Some((true, format!("{name} {}/{count}", used.len())));
        } else {
            break;
        }
    }
}

fn is_protected(candidate: &Candidate) -> bool {
    candidate.snapshot.as_ref().is_some_and(|snapshot| snapshot.protected)
}

const PROTECTED: &str = "protected";

/// A keep option: how many periods of what length.
struct KeepOption {
    name: &'static str,
    count: u32,
    /// Numbers that differ when the period does.
    period: fn(&Zoned) -> [i64; 2],
}

/// Lists the options in the order in which they are applied. For `last` each snapshot is a period of its own.
fn options(keep: &Keep) -> [KeepOption; 6] {
    let option = |name, count, period| KeepOption { name, count, period };
    [
        option("last", keep.keep_last, |at| [at.timestamp().as_second(), 0]),
        option("hourly", keep.keep_hourly, |at| [day(at), at.hour().into()]),
        option("daily", keep.keep_daily, |at| [day(at), 0]),
        option("weekly", keep.keep_weekly, |at| {
            let week = at.date().iso_week_date();
            [week.year().into(), week.week().into()]
        }),
        option("monthly", keep.keep_monthly, |at| [at.year().into(), at.month().into()]),
        option("yearly", keep.keep_yearly, |at| [at.year().into(), 0]),
    ]
}

fn day(at: &Zoned) -> i64 {
    i64::from(at.year()) * 1000 + i64::from(at.day_of_year())
}

fn unit(option: &str) -> &'static str {
    match option {
        "hourly" => "hour",
        "daily" => "day",
        "weekly" => "week",
        "monthly" => "month",
        "yearly" => "year",
        _ => "second",
    }
}

/// Why the newest whole snapshot looks as if the host had lost much, beside those before it: then removing the old
/// ones is not for a machine to decide. `accepted` and what came after it is the measure, when one was accepted.
pub fn shrunk(candidates: &[Candidate], ours: Ours, accepted: Option<&SnapshotId>) -> Option<String> {
    let mut whole: Vec<&Candidate> = candidates
        .iter()
        .filter(|one| standing(one, ours).is_none() && !is_partial(one))
        .filter(|one| accepted.is_none_or(|accepted| one.id >= *accepted))
        .collect();
    whole.sort_by(|a, b| b.id.cmp(&a.id));

    let (newest, before) = whole.split_first()?;
    let now = newest.snapshot.as_ref()?.counts;
    for one in before {
        let Some(then) = one.snapshot.as_ref().map(|snapshot| snapshot.counts) else { continue };
        if now.files < then.files.div_ceil(2) {
            return Some(format!("{} has {} files, {} had {}", newest.id, now.files, one.id, then.files));
        }
        if let (Some(0), Some(were @ 1..)) = (now.pmxcfs, then.pmxcfs) {
            return Some(format!("{} has nothing of /etc/pve, {} had {were} files of it", newest.id, one.id));
        }
    }
    None
}

/// Why the times of these snapshots are no measure: one of ours is newer than `now`, so a clock was or is wrong. What
/// retention would take away then may be what was written last. Protected ones take nobody's place and do not count.
pub fn ahead(candidates: &[Candidate], ours: Ours, now: Timestamp) -> Option<String> {
    let counts = |one: &&Candidate| {
        let protected = one.snapshot.as_ref().is_some_and(|snapshot| snapshot.protected);
        standing(one, ours).is_none() && !protected
    };
    let newest = candidates.iter().filter(counts).map(|one| &one.id).max()?;
    (newest.at() > now).then(|| format!("{newest} has a time in the future, it is {now}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::problem::Outcome;
    use crate::model::snapshot::{Compression, Counts, Payload, Trigger};
    use proptest::prelude::*;

    const HERE: Ours = Ours { machine_id: Some("here"), installation: None, adopted: &[] };

    fn candidate(at: &str) -> Candidate {
        let id: SnapshotId = format!("pve1/{at}").parse().unwrap();
        let snapshot = Snapshot {
            format: FORMAT,
            id: id.clone(),
            node: "pve1".to_owned(),
            machine_id: Some("here".to_owned()),
            products: std::collections::BTreeMap::new(),
            cluster: None,
            tool: String::new(),
            codec: Compression { name: "none".to_owned(), level: 0, mode: None, threads: 1 },
            sealed: None,
            payload: Payload::default(),
            installation: None,
            howto: None,
            counts: Counts { files: 100, pmxcfs: Some(40), ..Counts::default() },
            outcome: Outcome::Ok,
            trigger: Trigger::Timer,
            parent: None,
            note: None,
            selection: Vec::new(),
            protected: false,
            skips_unchanged: false,
            legacy: None,
        };
        Candidate { id, snapshot: Some(snapshot), held: None }
    }

    fn with(at: &str, change: impl FnOnce(&mut Snapshot)) -> Candidate {
        let mut one = candidate(at);
        change(one.snapshot.as_mut().unwrap());
        one
    }

    /// The marks of snapshots at these times, in UTC, as `time reason`.
    fn marks(candidates: &[Candidate], keep: Keep) -> Vec<String> {
        let line = |one: Marked| {
            format!(
                "{} {} {}",
                if one.keep { "keep" } else { "gone" },
                one.id.at().strftime("%d-%H:%M"),
                one.reason
            )
        };
        prune(candidates, &keep, HERE, &TimeZone::UTC).into_iter().map(line).collect()
    }

    #[test]
    fn options_add_up_and_a_covered_period_costs_nothing() {
        let times = ["20T01", "20T13", "21T01", "21T13", "22T01", "22T13"];
        let all: Vec<Candidate> = times.iter().map(|t| candidate(&format!("2026-11-{t}:00:00Z"))).collect();
        let keep = Keep { keep_last: 1, keep_daily: 2, ..Keep::default() };
        assert_eq!(
            marks(&all, keep),
            [
                "keep 22-13:00 last 1/1",
                // Its day is covered already; neither kept nor counted.
                "gone 22-01:00 not kept by any keep option",
                "keep 21-13:00 daily 1/2",
                "gone 21-01:00 a newer one of its day is kept",
                "keep 20-13:00 daily 2/2",
                "gone 20-01:00 a newer one of its day is kept",
            ]
        );
    }

    #[test]
    fn gaps_do_not_count_and_weeks_are_of_the_calendar() {
        // Sunday 2026-11-22 and Monday 2026-11-23 are of two weeks; 2026-01-05 is long ago.
        let all: Vec<Candidate> =
            ["2026-01-05T01:00:00Z", "2026-11-22T23:00:00Z", "2026-11-23T01:00:00Z"].map(candidate).to_vec();
        let keep = Keep { keep_weekly: 3, ..Keep::default() };
        assert!(marks(&all, keep).iter().all(|mark| mark.starts_with("keep")), "{:?}", marks(&all, keep));
    }

    #[test]
    fn periods_are_of_the_local_time() {
        let all = ["2026-11-22T22:30:00Z", "2026-11-22T23:30:00Z"].map(candidate);
        let keep = Keep { keep_daily: 5, ..Keep::default() };
        let vienna = TimeZone::fixed(jiff::tz::offset(1));
        let kept = |zone| prune(&all, &keep, HERE, zone).iter().filter(|one| one.keep).count();
        assert_eq!((kept(&TimeZone::UTC), kept(&vienna)), (1, 2));
    }

    #[test]
    fn what_is_not_ours_or_protected_stays_and_takes_no_place() {
        let all = [
            candidate("2026-11-20T01:00:00Z"),
            with("2026-11-21T01:00:00Z", |one| one.protected = true),
            with("2026-11-21T02:00:00Z", |one| one.machine_id = Some("other".to_owned())),
            with("2026-11-21T03:00:00Z", |one| one.format = 2),
            Candidate { snapshot: None, ..candidate("2026-11-21T04:00:00Z") },
            candidate("2026-11-22T01:00:00Z"),
        ];
        assert_eq!(
            marks(&all, Keep { keep_last: 2, ..Keep::default() }),
            [
                "keep 22-01:00 last 1/2",
                "keep 21-04:00 its manifest cannot be read",
                "keep 21-03:00 of another format",
                "keep 21-02:00 of another machine",
                "keep 21-01:00 protected",
                "keep 20-01:00 last 2/2",
            ]
        );
    }

    #[test]
    fn a_part_of_the_host_never_takes_the_place_of_a_whole_one() {
        let all = [
            candidate("2026-11-22T01:00:00Z"),
            with("2026-11-22T13:00:00Z", |one| one.selection = vec!["only:network".to_owned()]),
        ];
        let keep = Keep { keep_last: 1, ..Keep::default() };
        assert!(marks(&all, keep).iter().all(|mark| mark.ends_with("last 1/1")));
    }

    #[test]
    fn a_host_that_lost_much_is_noticed_until_it_is_accepted() {
        let whole = candidate("2026-11-20T01:00:00Z");
        let small = with("2026-11-21T01:00:00Z", |one| one.counts.files = 49);
        let later = with("2026-11-22T01:00:00Z", |one| one.counts.files = 49);
        let all = [whole, small.clone(), later];
        let why = shrunk(&all, HERE, None).unwrap();
        assert!(why.contains("has 49 files") && why.contains("had 100"), "{why}");
        assert_eq!(shrunk(&all, HERE, Some(&small.id)), None);
        let no_cluster = with("2026-11-23T01:00:00Z", |one| one.counts.pmxcfs = Some(0));
        assert!(shrunk(&[all[0].clone(), no_cluster], HERE, None).unwrap().contains("nothing of /etc/pve"));
        let part = with("2026-11-23T01:00:00Z", |one| {
            one.counts.files = 1;
            one.selection = vec!["only:network".to_owned()];
        });
        assert_eq!(shrunk(&[all[0].clone(), part], HERE, None), None);
    }

    #[test]
    fn a_snapshot_of_a_time_yet_to_come_makes_times_no_measure() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let past = candidate("2026-11-22T12:00:00Z");
        let to_come = "2026-11-22T12:00:01Z";
        assert_eq!(ahead(std::slice::from_ref(&past), HERE, now), None);
        let why = ahead(&[candidate(to_come), past.clone()], HERE, now).unwrap();
        assert!(why.starts_with("pve1/2026-11-22T12:00:01Z has a time in the future"), "{why}");
        // What takes no part takes no place.
        for other in [
            with(to_come, |one| one.protected = true),
            with(to_come, |one| one.machine_id = Some("other".to_owned())),
            Candidate { held: Some("damaged"), ..candidate(to_come) },
        ] {
            assert_eq!(ahead(&[past.clone(), other], HERE, now), None);
        }
    }

    fn history() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0_i64..400 * 24, 0_u8..10, any::<bool>()).prop_map(|(hour, kind, partial)| {
            let at = jiff::Timestamp::from_second(1_700_000_000 + hour * 3600 + i64::from(kind)).unwrap();
            let mut one = with(&at.to_string(), |one| {
                one.protected = kind == 1;
                one.machine_id = Some(if kind == 2 { "other" } else { "here" }.to_owned());
                one.format = if kind == 3 { 9 } else { FORMAT };
                one.selection = if partial && kind > 6 { vec!["only:x".to_owned()] } else { Vec::new() };
            });
            if kind == 4 {
                one.snapshot = None;
            }
            if kind == 5 {
                one.held = Some("damaged");
            }
            one
        });
        proptest::collection::vec(one, 0..60).prop_map(|mut all| {
            all.sort_by(|a, b| a.id.cmp(&b.id));
            all.dedup_by(|a, b| a.id == b.id);
            all
        })
    }

    proptest! {
        #[test]
        fn over_any_history_the_guards_hold(all in history(), n in proptest::array::uniform6(0_u32..4)) {
            let keep = Keep { keep_last: n[0], keep_hourly: n[1], keep_daily: n[2], keep_weekly: n[3],
                keep_monthly: n[4], keep_yearly: n[5] };
            let marks = prune(&all, &keep, HERE, &TimeZone::UTC);
            prop_assert_eq!(marks.len(), all.len());
            let kept = |one: &Candidate| marks.iter().any(|mark| mark.id == one.id && mark.keep);
            for one in &all {
                let free = one.held.is_none() && one.snapshot.as_ref().is_some_and(|s| {
                    !s.protected && s.format == FORMAT && s.machine_id.as_deref() == Some("here")
                });
                prop_assert!(free || kept(one));
            }
            for partial in [false, true] {
                let newest = all.iter().filter(|one| standing(one, HERE).is_none() && is_partial(one) == partial)
                    .max_by(|a, b| a.id.cmp(&b.id));
                prop_assert!(newest.is_none_or(kept));
            }
            if keep.keeps_all() {
                prop_assert!(all.iter().all(kept));
            }
            // What is not verified, not ours or not readable changes nothing for the others.
            let good: Vec<Candidate> =
                all.iter().filter(|one| standing(one, HERE).is_none()).cloned().collect();
            for mark in prune(&good, &keep, HERE, &TimeZone::UTC) {
                prop_assert!(marks.contains(&mark), "{:?}", mark);
            }
            // What stays, stays: a second look at the rest removes nothing more.
            let rest: Vec<Candidate> = all.iter().filter(|one| kept(one)).cloned().collect();
            prop_assert!(prune(&rest, &keep, HERE, &TimeZone::UTC).iter().all(|mark| mark.keep));
        }

        #[test]
        fn a_host_that_lost_half_of_what_any_snapshot_had_is_frozen_until_that_is_accepted(
            files in proptest::collection::vec(0_u64..1000, 1..20), accepted in proptest::option::of(0_usize..20),
        ) {
            let all: Vec<Candidate> = files.iter().enumerate().map(|(n, files)| {
                with(&format!("2026-10-{:02}T01:00:00Z", n + 1), |one| one.counts.files = *files)
            }).collect();
            let from = accepted.map_or(0, |n| n.min(all.len() - 1));
            let id = accepted.map(|_| all[from].id.clone());
            let most = files[from..].iter().max().copied().unwrap();
            let frozen = *files.last().unwrap() < most.div_ceil(2);
            prop_assert_eq!(shrunk(&all, HERE, id.as_ref()).is_some(), frozen);
            // Accepting the newest always ends it.
            prop_assert_eq!(shrunk(&all, HERE, Some(&all[all.len() - 1].id)), None);
        }

        #[test]
        fn the_old_machines_snapshots_take_part_only_once_they_are_adopted(
            all in history(), n in proptest::array::uniform6(0_u32..4),
        ) {
            let keep = Keep { keep_last: n[0], keep_hourly: n[1], keep_daily: n[2], keep_weekly: n[3],
                keep_monthly: n[4], keep_yearly: n[5] };
            let here = ["here".to_owned()];
            let other = |one: &&Candidate| {
                one.snapshot.as_ref().is_some_and(|s| s.machine_id.as_deref() == Some("here"))
            };
            // Seen by the machine that was installed again: nothing of the old one goes.
            let new = Ours { machine_id: Some("new"), installation: None, adopted: &[] };
            let marks = prune(&all, &keep, new, &TimeZone::UTC);
            prop_assert!(marks.iter().all(|mark| mark.keep));
            // Adopted, they are kept as if they were its own.
            let adopted = prune(&all, &keep, Ours { machine_id: Some("new"), installation: None, adopted: &here }, &TimeZone::UTC);
            let own = prune(&all, &keep, HERE, &TimeZone::UTC);
            for one in all.iter().filter(other) {
                let of = |marks: &[Marked]| marks.iter().find(|mark| mark.id == one.id).cloned();
                prop_assert_eq!(of(&adopted), of(&own));
            }
        }
    }
}
