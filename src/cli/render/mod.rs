//! Text for people: tables, sizes, times. Values in, lines out.

pub mod item;
pub mod plan;
pub mod progress;

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use crate::model::index::one_line;
use crate::model::index::{Entry, EntryKind, Index, is_harmful};
use crate::model::problem::{Outcome, Problem, Severity, without_errno};
use crate::model::report::{Medium, Report, StoredCopy};
use crate::model::secret::MASK;
use crate::model::section::{self, Section};
use crate::model::snapshot::{Compression, Sealed, Snapshot};
use crate::model::units;
pub use crate::model::units::size;
use crate::task::backup::BackupPlan;
use crate::task::setup::hook::HookState;
use crate::task::snapshots::extract::Extracted;
use crate::task::snapshots::verify::Verified;
use crate::task::snapshots::{Listed, Listing};

/// Rows under a head, columns as wide as they need; the last one is free. Numbers stand right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let columns: Vec<Column> =
        head.iter().enumerate().map(|(number, head)| Column::of(number, head, &rows)).collect();

    let lines = rows.iter().map(|row| table_line(&columns, row));
    table_line(&columns, head) + &lines.collect::<String>()
}

/// A column of a table: its width in characters, and whether all of its cells are numbers.
struct Column {
    width: usize,
    is_numeric: bool,
}

impl Column {
    fn of(number: usize, head: &str, rows: &[Vec<String>]) -> Self {
        let cells = || rows.iter().filter_map(|row| row.get(number));
        let width = cells().map(|cell| cell.chars().count()).chain([head.len()]).max().unwrap_or(0);
        let is_numeric = !rows.is_empty()
            && cells().all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains('-'));
        Self { width, is_numeric }
    }
}

fn table_line(columns: &[Column], cells: &[impl AsRef<str>]) -> String {
    let mut text = String::new();
    for (n, (&Column { width, is_numeric }, cell)) in columns.iter().zip(cells).enumerate() {
        let (cell, is_last) = (cell.as_ref(), n + 1 == cells.len());
        let _ = match (is_numeric, is_last) {
            (true, _) => write!(text, "{cell:>width$}  "),
            (false, true) => write!(text, "{cell}"),
            (false, false) => write!(text, "{cell:<width$}  "),
        };
    }
    format!("{}\n", text.trim_end())
}

/// Writes a time in UTC, to the second.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn problems(problems: &[Problem]) -> String {
    let mut text = String::new();
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    for problem in sorted {
        let _ = writeln!(text, "{}: {}", problem.severity, one_line(&without_errno(&problem.what)));
        if let Some(hint) = &problem.hint {
            let _ = writeln!(text, "    hint: {}", one_line(hint));
        }
    }
    text
}

pub fn hook(state: &HookState) -> String {
    let name = state.hook.name();
    let mut text = match (state.enabled, &state.script) {
        (true, Some(script)) => format!("{name}: enabled; hands on to {script}\n"),
        (true, None) => format!("{name}: enabled\n"),
        (false, Some(script)) => format!("{name}: not enabled; vzdump runs {script}\n"),
        (false, None) => format!("{name}: not enabled\n"),
    };
    for job in &state.bypassed_by {
        let _ = writeln!(text, "    job {} runs {} instead", one_line(&job.id), one_line(&job.script));
    }
    text + &problems(&state.problems)
}

/// Section files as they would be written, secrets masked.
pub fn sections(sections: &[Section]) -> String {
    let mut masked = sections.to_vec();
    let entries = masked.iter_mut().flat_map(|section| &mut section.entries);
    entries.filter(|entry| entry.private).for_each(|entry| MASK.clone_into(&mut entry.value));
    section::to_text(&masked)
}

/// The same of a whole text, whose lines and tabs are ours.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) && !"\n\t".contains(c) { ' ' } else { c }).collect()
}

pub fn report(report: &Report) -> String {
    let mut text = String::new();
    if let Some(snapshot) = &report.snapshot {
        text.push_str(&new_snapshot(report, snapshot));
    }

    if let Some(changes) = report.changes.as_ref().filter(|_| report.unchanged.is_none()) {
        let _ = writeln!(text, "changes   {} since {}", changes.summary(), changes.since);
        for line in changes.lines() {
            let _ = writeln!(text, "          {}", one_line(&line));
        }
    }

    if let Some(before) = &report.unchanged {
        let _ = writeln!(text, "unchanged since {before}; no new snapshot was made");
        let _ = writeln!(text, "host      {}", report.system);
        let _ = writeln!(text, "time      {:.2} s", report.took);
    }

    text.extend(report.stores.iter().map(stored));
    text.push_str(&problems(&report.problems));

    let told = |severity, word| {
        let of = report.problems.iter().filter(|problem| problem.severity == severity);
        units::counted(of.count(), word)
    };
    let result = if report.outcome == Outcome::Ok {
        "ok".to_owned()
    } else {
        let (errors, warnings) = (told(Severity::Error, "error"), told(Severity::Warning, "warning"));
        format!("done, with {errors} and {warnings}")
    };
    let _ = writeln!(text, "result    {result}");
    text
}

/// Writes what the new snapshot of a run holds.
fn new_snapshot(report: &Report, snapshot: &Snapshot) -> String {
    let (counts, codec) = (&snapshot.counts, &snapshot.codec);
    let mut text = format!("snapshot  {}\nhost      {}\n", snapshot.id, report.system);
    let (files, read) = (counts.files, size(counts.bytes));
    let _ = writeln!(text, "files     {files} ({read} before compression), {} absent items", counts.absent);

    match counts.unexplained {
        Some(0) => text.push_str("missing   nothing: every file of this host is accounted for\n"),
        Some(n) => {
            let files = units::counted(n, "file");
            let _ = writeln!(text, "missing   {files} of this host (`pbx-config check --complete`)");
        }
        None => {}
    }

    let (size, codec_text) = (size(report.size), compression(codec));
    let _ = writeln!(text, "size      {size} ({codec_text}, {} threads)", codec.threads);
    if let Some(sealed) = &snapshot.sealed {
        let _ = writeln!(text, "encrypted to {}", count(sealed));
    }
    let _ = writeln!(text, "time      {:.2} s, read back and verified", report.took);
    text
}

fn stored(copy: &StoredCopy) -> String {
    let mut text = format!("store     {}: {}\n", copy.store, copy.place.as_deref().unwrap_or("FAILED"));
    if let Some(on) = &copy.medium {
        let _ = writeln!(text, "          {}", medium(on));
    }
    if let Some(kept) = copy.kept {
        let _ = writeln!(text, "          {kept} kept, {} removed", copy.removed.len());
    }
    text
}

/// `nfs4 on server:/export, 120.0 GiB free`
pub fn medium(medium: &Medium) -> String {
    let free = medium.free.map(|free| format!(", {} free", size(free))).unwrap_or_default();
    format!("{} on {}{free}", one_line(&medium.kind), one_line(&medium.source))
}

fn count(sealed: &Sealed) -> String {
    units::counted(sealed.recipients, "recipient")
}

pub fn compression(codec: &Compression) -> String {
    let mode = codec.mode.as_ref().map(|mode| format!(" ({mode})")).unwrap_or_default();
    format!("{} level {}{mode}", codec.name, codec.level)
}

pub fn plan(plan: &BackupPlan) -> String {
    let rows: Vec<_> = plan
        .items
        .iter()
        .map(|row| vec![row.item.to_owned(), row.files.to_string(), size(row.bytes), row.title.to_owned()])
        .collect();
    let mut text = format!("would save {} as {}\n\n", plan.system, plan.snapshot);
    text.push_str(&table(&["ITEM", "FILES", "SIZE", "TITLE"], &rows));
    if !plan.commands.is_empty() {
        text.push_str("\nwould run, where they are installed:\n");
        plan.commands.iter().for_each(|command| text.push_str(&format!("  {command}\n")));
    }

    text.push_str("\nwould write to:\n");
    plan.stores.iter().for_each(|store| text.push_str(&format!("  {store}\n")));
    if !plan.sealed_to.is_empty() {
        text.push_str("\nwould encrypt to:\n");
        plan.sealed_to.iter().for_each(|print| text.push_str(&format!("  {print}\n")));
    }

    text.push_str(&problems(&plan.problems));
    text
}

pub fn listing(listing: &Listing) -> String {
    if listing.snapshots.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let rows: Vec<_> = listing.snapshots.iter().map(list_row).collect();
    table(&["SNAPSHOT", "LOCAL TIME", "SIZE", "FILES", "RESULT", "STORES", "NOTE"], &rows)
}

fn list_row(listed: &Listed) -> Vec<String> {
    let local = listed.id.at().to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
    let stray = listed.stray.map(|reason| format!("[{reason}] ")).unwrap_or_default();
    let (files, outcome, note) = match &listed.snapshot {
        Some(snapshot) => {
            let protected = if snapshot.protected { "[protected] " } else { "" };
            let note = one_line(snapshot.note.as_deref().unwrap_or_default());
            let sealed = if snapshot.sealed.is_some() { "[encrypted] " } else { "" };
            let partial = if snapshot.selection.is_empty() { "" } else { "[partial] " };
            (
                snapshot.counts.files.to_string(),
                snapshot.outcome.to_string(),
                format!("{protected}{sealed}{partial}{stray}{note}"),
            )
        }
        None => ("-".to_owned(), "damaged".to_owned(), stray),
    };

    // Their manifest does not tell what is in them.
    let (files, outcome, note) = match &listed.legacy {
        Some(file) => {
            ("-".to_owned(), outcome.replace("ok", "-"), format!("[legacy] {note}{}", one_line(file)))
        }
        None => (files, outcome, note),
    };
    vec![listed.id.to_string(), local, size(listed.size), files, outcome, listed.stores.join(","), note]
}

pub fn manifest(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key:<11}{}", one_line(value));
    };
    line("snapshot", &snapshot.id.to_string());
    line("node", &snapshot.node);
    for (product, version) in &snapshot.products {
        line("product", &product.with_version(version));
    }
    if let Some(cluster) = &snapshot.cluster {
        line("cluster", &format!("{} ({})", cluster.name, cluster.nodes.join(", ")));
    }
    line("machine", snapshot.machine_id.as_deref().unwrap_or("unknown"));

    let codec = &snapshot.codec;
    line("payload", &format!("{}, {}", size(snapshot.payload.size), compression(codec)));
    if let Some(sealed) = &snapshot.sealed {
        let to = sealed.fingerprints.join(", ");
        let is_told = snapshot.legacy.is_none();
        let count =
            if is_told { count(sealed) } else { "recipients that its manifest does not name".to_owned() };
        line("encrypted", &format!("to {count}{}{to}", if to.is_empty() { "" } else { ": " }));
    }

    let counts = &snapshot.counts;
    // Legacy archives record neither; the counts are known when it was looked into.
    if snapshot.legacy.is_none() || counts.entries > 0 {
        let packed = size(counts.bytes);
        line(
            "counts",
            &format!("{} entries, {} files, {packed} before compression", counts.entries, counts.files),
        );
    }

    if snapshot.legacy.is_none() {
        line("result", &snapshot.outcome.to_string());
    }
    if let Some(parent) = &snapshot.parent {
        line("parent", &parent.id.to_string());
    }
    if let Some(note) = &snapshot.note {
        line("note", note);
    }
    if !snapshot.selection.is_empty() {
        line("selection", &snapshot.selection.join(" "));
    }
    if snapshot.protected {
        line("protected", "yes");
    }
    match &snapshot.legacy {
        None => line("written by", &format!("proxmox-backup-extra {}", snapshot.tool)),
        Some(legacy) => {
            line("written by", format!("legacy program {}", snapshot.tool).trim_end());
            line("archive", &legacy.archive);
        }
    }
    text
}

/// Writes the line that names the signer of a manifest; empty when there is none.
pub fn signed(by: Option<&str>) -> String {
    by.map(|print| format!("signed by  {print}\n")).unwrap_or_default()
}

/// Writes the page of an encrypted snapshot that nothing here opens.
pub fn closed(snapshot: &Snapshot) -> String {
    let has_passphrase = snapshot.sealed.as_ref().is_some_and(|sealed| !sealed.passphrases.is_empty());
    let or = if has_passphrase { ", or --files with its passphrase," } else { "" };
    manifest(snapshot)
        + &format!("\nencrypted: its payload is intact; --identity FILE{or} shows its contents\n")
}

/// Files and bytes of each item, in the snapshot's order.
pub fn items(index: &Index) -> Vec<(String, u64, u64)> {
    let mut items: Vec<(String, u64, u64)> = Vec::new();
    for entry in index.entries.iter().filter(|entry| entry.kind != EntryKind::Dir) {
        match items.iter_mut().find(|(item, ..)| *item == entry.item) {
            Some((_, files, bytes)) => {
                *files += 1;
                *bytes += entry.size;
            }
            None => items.push((entry.item.clone(), 1, entry.size)),
        }
    }
    items
}

pub fn shown(snapshot: &Snapshot, index: &Index) -> String {
    let rows: Vec<_> = items(index)
        .into_iter()
        .map(|(item, files, bytes)| vec![item, files.to_string(), size(bytes)])
        .collect();
    let mut text = manifest(snapshot);
    text.push('\n');
    text.push_str(&table(&["ITEM", "FILES", "SIZE"], &rows));

    let absent: Vec<&str> = index.absent.iter().map(|absence| absence.item.as_str()).collect();
    if !absent.is_empty() {
        let _ = writeln!(text, "\nnot on this host: {}", one_line(&absent.join(", ")));
    }
    if !index.problems.is_empty() {
        text.push('\n');
        text.push_str(&problems(&index.problems));
    }
    text
}

pub fn verified(one: &Verified) -> String {
    match (&one.error, &one.id) {
        (Some(error), _) => {
            let hint = one.hint.as_ref().map(|hint| format!("    hint: {}\n", one_line(hint)));
            format!("FAILED  {}\n{}", one_line(&without_errno(error)), hint.unwrap_or_default())
        }
        (None, Some(id)) => {
            let closed = if one.contents { "" } else { "  (encrypted: contents not verified)" };
            let signed =
                one.signed_by.as_ref().map(|print| format!("  signed by {print}")).unwrap_or_default();
            format!("ok      {id}  {} entries  {}{signed}{closed}\n", one.entries, one.path)
        }
        (None, None) => String::new(),
    }
}

/// A step's number in colour: "step 3/8 …".
pub fn step(line: &str, colours: bool) -> String {
    let mut words = line.splitn(3, ' ');
    match (colours, words.next(), words.next(), words.next()) {
        (true, Some(step), Some(number), Some(rest)) => format!("\x1b[1;36m{step} {number}\x1b[0m {rest}"),
        _ => line.to_owned(),
    }
}

/// Like `ls -l`: mode, owner, size, time, path, target.
pub fn entry(entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryKind::File => '-',
        EntryKind::Dir => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Hardlink => 'h',
    };
    let name = |name: &str, id: u32| if name.is_empty() { id.to_string() } else { one_line(name) };
    let owner = format!("{}:{}", name(&entry.owner, entry.uid), name(&entry.group, entry.gid));
    let time = jiff::Timestamp::from_second(entry.mtime.0)
        .map_or_else(|_| entry.mtime.0.to_string(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let target = entry.link.as_ref().map(|link| format!(" -> {link}")).unwrap_or_default();
    format!("{kind}{:04o} {owner:<16} {:>9} {time} {}{target}\n", entry.mode, entry.size, entry.path)
}

pub fn extracted(done: &Extracted) -> String {
    let mut text =
        format!("{} entries ({}) of {} are in {}\n", done.entries, size(done.bytes), done.id, done.to);
    text.push_str(&problems(&done.problems));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_text_left() {
        let rows = vec![vec!["a".into(), "5".into(), "x".into()], vec!["bb".into(), "10".into(), "y".into()]];
        assert_eq!(table(&["ID", "N", "T"], &rows), "ID   N  T\na    5  x\nbb  10  y\n");
    }

    #[test]
    fn a_step_has_colour_only_where_it_is_wanted() {
        assert_eq!(
            step("step 2/4 reading and packing", true),
            "\u{1b}[1;36mstep 2/4\u{1b}[0m reading and packing"
        );
        assert_eq!(step("step 2/4 reading and packing", false), "step 2/4 reading and packing");
    }

    #[test]
    fn error_numbers_are_left_out() {
        assert_eq!(without_errno("a: No space (os error 28): b (os error 1)"), "a: No space: b");
    }

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        assert_eq!(one_line("a\x1b[2Jb\nc"), "a [2Jb c");
    }
}
