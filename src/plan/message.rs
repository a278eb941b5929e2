//! Message about a run: a Report becomes one Message, its subject, text and page. Here names of files, hosts
//! and guests, and what tools said, become harmless and short; no channel has to think of it again.

use std::fmt::Write as _;

use jiff::{Timestamp, Unit};

use super::html;
use crate::model::facts::Facts;
use crate::model::index::is_harmful;
use crate::model::message::{Details, Message, PlacedCopy};
use crate::model::problem::{Outcome, Problem, Severity, without_errno};
use crate::model::report::{Changes, Report, StoredCopy};

/// Problems that are named; the others are counted.
const PROBLEMS_MAX: usize = 20;
/// Ten, and one that counts the others.
const CHANGES_MAX: usize = 11;
/// Limit of one line from outside.
const LINE_MAX_CHARS: usize = 400;
const SUBJECT_MAX_CHARS: usize = 150;
/// Limit of the log's tail.
const LOG_MAX_BYTES: usize = 8 * 1024;

/// `log`: lines of the run, the last of which are told.
pub fn of(report: &Report, facts: &Facts, log: &str, at: Timestamp) -> Message {
    // Not every service reads fractions of a second, and no person does.
    let at = at.round(Unit::Second).unwrap_or(at);
    let details = details(report, facts, at);
    let subject = cut(&format!("{}: {}", details.host, headline(&details)), SUBJECT_MAX_CHARS);
    let text = text(&subject, &details);
    let html = html::of(&headline(&details), &details);
    Message { subject, text, html, log: tail(log), details }
}

fn details(report: &Report, facts: &Facts, at: Timestamp) -> Details {
    let mut problems: Vec<&Problem> =
        report.problems.iter().filter(|problem| problem.severity > Severity::Notice).collect();
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));

    let clean = |problem: &&Problem| Problem {
        severity: problem.severity,
        what: line(&problem.what),
        hint: problem.hint.as_deref().map(line),
    };
    let changes = report.changes.as_ref().map(Changes::lines).unwrap_or_default();
    let counts = report.snapshot.as_ref().map(|snapshot| &snapshot.counts);
    let words: Vec<&str> = facts.products.keys().map(|product| product.word()).collect();

    Details {
        verb: report.verb.to_owned(),
        outcome: report.outcome,
        severity: match report.outcome {
            Outcome::Ok => "info",
            Outcome::Warned => "warning",
            Outcome::Failed => "error",
        },
        host: line(&report.host),
        system: line(&report.system),
        product: words.join("+"),
        at,
        version: env!("CARGO_PKG_VERSION"),
        snapshot: report.snapshot.as_ref().map(|snapshot| snapshot.id.to_string()),
        unchanged: report.unchanged.as_ref().map(ToString::to_string),
        size: report.size,
        files: counts.map_or(0, |counts| counts.files),
        bytes: counts.map_or(0, |counts| counts.bytes),
        duration: report.took,
        stores: report.stores.iter().map(placed).collect(),
        problems: problems.iter().take(PROBLEMS_MAX).map(clean).collect(),
        more_problems: problems.len().saturating_sub(PROBLEMS_MAX),
        since: report
            .changes
            .as_ref()
            .map(|changes| format!("{} since {}", changes.summary(), changes.since)),
        changes: changes.iter().take(CHANGES_MAX).map(|change| line(change)).collect(),
    }
}

fn placed(stored: &StoredCopy) -> PlacedCopy {
    PlacedCopy {
        store: line(&stored.store),
        place: stored.place.as_deref().map(line),
        kept: stored.kept,
        removed: stored.removed.len(),
    }
}

/// Says what was done and how it went.
fn headline(details: &Details) -> String {
    let what = match details.verb.as_str() {
        "backup" => "configuration backup",
        "verify" => "verification of configuration backups",
        Message::TEST => return "this is a test of pbx-config".to_owned(),
        other => other,
    };

    match details.outcome {
        Outcome::Ok if details.unchanged.is_some() => format!("{what} ok: nothing has changed"),
        Outcome::Ok => format!("{what} ok"),
        Outcome::Failed => format!("{what} FAILED"),
        Outcome::Warned => {
            let counts = [(Severity::Error, "error"), (Severity::Warning, "warning")];
            let words = counts.map(|(severity, word)| (details.count(severity), word));
            let words = words
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, word)| format!("{count} {word}{}", if *count == 1 { "" } else { "s" }));
            let words: Vec<String> = words.collect();
            format!("{what} done, with {}", words.join(" and "))
        }
    }
}

fn text(subject: &str, details: &Details) -> String {
    let mut text = format!("{subject}\n\n");
    for (label, value) in details.rows() {
        let _ = writeln!(text, "{label:<9} {value}");
    }
    if !details.problems.is_empty() {
        text.push('\n');
    }
    for problem in &details.problems {
        let _ = writeln!(text, "{}: {}", problem.severity, problem.what);
        if let Some(hint) = &problem.hint {
            let _ = writeln!(text, "    hint: {hint}");
        }
    }

    if details.more_problems > 0 {
        let _ = writeln!(text, "and {} more", details.more_problems);
    }
    if !details.changes.is_empty() {
        text.push_str("\nchanges:\n");
        details.changes.iter().for_each(|change| text.push_str(&format!("  {change}\n")));
    }
    text
}

/// One harmless line of bounded length.
fn line(text: &str) -> String {
    cut(&without_errno(text), LINE_MAX_CHARS)
}

fn cut(text: &str, max_chars: usize) -> String {
    let mut chars = text.chars().map(|c| if is_harmful(c) { ' ' } else { c });
    let mut short: String = chars.by_ref().take(max_chars).collect();
    if chars.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

/// The last lines, harmless.
fn tail(log: &str) -> String {
    let from = log.len().saturating_sub(LOG_MAX_BYTES);
    let from = (from..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
    let part = &log[from..];
    // Not from the middle of a line, unless it is one line without end.
    let part = if from == 0 { part } else { part.split_once('\n').map_or(part, |(_, rest)| rest) };
    part.chars().map(|c| if is_harmful(c) && c != '\n' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::report::{ChangedPath, Difference, Phases};

    fn report(outcome: Outcome, problems: Vec<Problem>) -> Report {
        Report {
            verb: "backup",
            host: "pve1".into(),
            system: "Proxmox VE 9.1.2, node pve1".into(),
            outcome,
            snapshot: None,
            size: 0,
            stores: vec![StoredCopy {
                store: "local".into(),
                place: Some("/store/pve1".into()),
                medium: None,
                primary: true,
                kept: Some(7),
                removed: Vec::new(),
            }],
            changes: Some(Changes {
                since: "pve1/2026-11-21T00:00:00Z".parse().unwrap(),
                added: 0,
                changed: 4,
                removed: 0,
                listed: vec![ChangedPath {
                    how: Difference::Changed,
                    item: "fstab".into(),
                    path: "etc/fstab".into(),
                }],
                more: 3,
            }),
            unchanged: None,
            took: 1.26,
            phases: Phases::default(),
            problems,
        }
    }

    fn message(report: &Report, log: &str) -> Message {
        of(report, &Facts::default(), log, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_text_has_every_fact_once() {
        let problems = vec![
            Problem::notice("calm"),
            Problem::warning("a: gone (os error 2)").hint("look at b"),
            Problem::error("c"),
        ];
        let message = message(&report(Outcome::Warned, problems), "");
        assert_eq!(message.subject, "pve1: configuration backup done, with 1 error and 1 warning");
        assert_eq!(
            message.text,
            "pve1: configuration backup done, with 1 error and 1 warning\n\n\
             Host      Proxmox VE 9.1.2, node pve1\n\
             Changes   4 changed since pve1/2026-11-21T00:00:00Z\n\
             Time      1.3 s\n\
             Store     local: /store/pve1 (7 kept, 0 removed)\n\n\
             error: c\n\
             warning: a: gone\n    hint: look at b\n\n\
             changes:\n  changed /etc/fstab (fstab)\n  and 3 more\n"
        );
    }

    #[test]
    fn nothing_from_outside_starts_a_line_or_moves_a_cursor() {
        let mut hostile = report(Outcome::Failed, vec![Problem::error("x\r\nBcc: a@b\x1b[2J\u{202e}")]);
        hostile.host = "pve1\r\nBcc: evil@example.org".into();
        let message = message(&hostile, "one\x1b]0;title\x07\ntwo\r");
        assert_eq!(message.subject, "pve1  Bcc: evil@example.org: configuration backup FAILED");
        assert!(message.text.chars().chain(message.log.chars()).all(|c| c == '\n' || !is_harmful(c)));
        assert_eq!(message.details.problems[0].what, "x  Bcc: a@b [2J ");
    }

    #[test]
    fn a_time_is_told_in_seconds() {
        let at = "2026-11-24T20:20:05.778779813Z".parse().unwrap();
        let message = of(&report(Outcome::Ok, Vec::new()), &Facts::default(), "", at);
        assert_eq!(message.variable("at").unwrap(), "2026-11-24T20:20:06Z");
        assert!(message.html.contains(", 2026-11-24T20:20:06Z</p>"), "{}", message.html);
    }

    #[test]
    fn a_message_stays_small_however_much_happened() {
        let problems = (0..5000).map(|n| Problem::error(format!("{n} {}", "é".repeat(3000)))).collect();
        let message = message(&report(Outcome::Failed, problems), &"ü".repeat(1 << 20));
        assert!(
            message.text.len() < 20_000 && message.html.len() < 40_000 && message.log.len() <= LOG_MAX_BYTES
        );
        assert!(message.text.contains("and 4980 more"));
    }
}
