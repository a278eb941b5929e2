//! The predecessor's configuration becomes ours: its options one by one, each with what became of it.
//! Pure: what must be read beside `backup.env` comes in as a value, and nothing is written here.
//!
//! `env` reads the file by the old rules, `table` has a row for every option, `files`, `stores` and `channels` hold
//! the rows' converters.

mod channels;
pub mod env;
mod files;
mod stores;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use self::env::{EnvFile, OptionValue, Warning};
use self::table::{OptionKind, OptionRow};
use crate::model::nearest::nearest;
use crate::model::secret::MASK;
use crate::model::section::{Section, SectionEntry};
use crate::sys::mask::mask;

/// The table's keys, for whoever walks it.
pub fn keys() -> impl Iterator<Item = &'static str> {
    table::ROWS.iter().flat_map(|row| row.names.iter().copied())
}

/// Key of the file that names the recipients of its encryption.
pub const RECIPIENT_FILE: &str = "AGE_RECIPIENT_FILE";

/// What lies beside `backup.env` and belongs to it.
#[derive(Debug, Default)]
pub struct SiblingFiles {
    /// Text of the recipient file; None when there is none, an error when it cannot be read.
    pub recipients: Option<Result<String, String>>,
    /// Text of `passphrase.salt` beside it.
    pub salt: Option<String>,
}

/// What became of an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fate")]
pub enum OptionOutcome {
    /// It is a line of ours now.
    Taken {
        becomes: String,
        /// Where the meaning is not quite the same.
        #[serde(skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// Nothing has to be done.
    NotNeeded {
        why: String,
    },
    /// We have no such thing.
    NoCounterpart {
        instead: String,
    },
    /// What the old tool did not understand, and what it did then.
    Invalid {
        what: String,
    },
    /// No option that the old tool ever had.
    Unknown {
        hint: String,
    },
    NotSet,
}

impl OptionOutcome {
    fn taken(becomes: impl Into<String>) -> Self {
        Self::Taken { becomes: becomes.into(), note: String::new() }
    }

    fn not_needed(why: impl Into<String>) -> Self {
        Self::NotNeeded { why: why.into() }
    }

    fn instead(what: impl Into<String>) -> Self {
        Self::NoCounterpart { instead: what.into() }
    }

    fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    /// What was to become a line of a section that cannot be.
    fn refuse(&mut self, section: &str, why: &RejectReason) {
        let Self::Taken { becomes, .. } = self else { return };
        let names = |text: &str| text == section || text.starts_with(&format!("{section} "));
        if !becomes.split(", ").any(names) {
            return;
        }
        *self = match why {
            RejectReason::UnknownKind => {
                Self::instead(format!("this version has no such thing as '{section}'"))
            }
            RejectReason::Because(why) => Self::invalid(format!("'{section}' cannot be made of it: {why}")),
        };
    }

    fn noted(self, more: &str) -> Self {
        match self {
            Self::Taken { becomes, note } if note.is_empty() => {
                Self::Taken { becomes, note: more.to_owned() }
            }
            Self::Taken { becomes, note } => Self::Taken { becomes, note: format!("{note}; {more}") },
            Self::NotNeeded { why } => Self::NotNeeded { why: format!("{why}; {more}") },
            Self::NoCounterpart { instead } => Self::NoCounterpart { instead: format!("{instead}; {more}") },
            Self::Invalid { what } => Self::Invalid { what: format!("{what}; {more}") },
            other => other,
        }
    }
}

/// An option of the old tool, and what became of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OptionReport {
    pub key: String,
    /// The older name that stands in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_as: Option<String>,
    /// None: not in the file.
    pub line: Option<usize>,
    /// As it was read; secrets are masked.
    pub value: String,
    #[serde(flatten)]
    pub outcome: OptionOutcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Migration {
    /// In the order of the file, then what is not in it.
    pub options: Vec<OptionReport>,
    /// Lines of the file that the old tool read otherwise than they look.
    pub remarks: Vec<Warning>,
    /// Ours; secrets are marked private.
    #[serde(skip)]
    pub sections: Vec<Section>,
    /// What changes although no option says so.
    pub differences: Vec<&'static str>,
}

/// Of terminals, as the Bash version named them.
const COLOURS: [&str; 14] = [
    "BLACK", "BLUE", "BOLD", "CYAN", "GRAY", "GREEN", "MAGENTA", "NC", "ORANGE", "PINK", "PURPLE", "RED",
    "RESET", "YELLOW",
];

/// What the old tool did whatever was set, and we do otherwise.
const DIFFERENCES: [&str; 3] = [
    "it always saved all of /home, which is data of users; name what matters with `include`",
    "its retention counted the archives of all hosts in a folder together; ours counts each host's own",
    "it ran from cron or as a daemon; ours runs from proxmox-backup-extra.timer, once a day",
];

/// Why a section cannot stand.
pub enum RejectReason {
    /// There is none of its kind.
    UnknownKind,
    /// Its line would be refused, and this is why.
    Because(String),
}

/// Every option of the file and of the table, with what became of it. What `accepts` refuses is never made, and told
/// of each option that wanted it.
pub fn migrate(
    env: &EnvFile,
    beside: &SiblingFiles,
    accepts: &dyn Fn(&Section) -> Result<(), RejectReason>,
) -> Migration {
    let mut draft = Draft { sections: Vec::new() };
    let from = LegacyContext { env, beside };
    let mut options: Vec<OptionReport> =
        table::ROWS.iter().map(|row| account(row, &from, &mut draft)).collect();
    let mut known: BTreeSet<String> = keys().map(str::to_owned).collect();
    let endpoints = channels::endpoints(&from, &mut draft);
    known.extend(endpoints.iter().map(|account| account.key.clone()));
    options.extend(endpoints);
    for (key, line) in env.keys().filter(|(key, _)| !known.contains(*key)) {
        options.push(unknown(key, line, env));
    }
    let mut refused = Vec::new();
    for section in &mut draft.sections {
        refused.extend(thin_out(section, accepts));
    }
    draft.sections.retain(|section| match accepts(section) {
        Ok(()) => true,
        Err(why) => {
            refused.push((format!("{}: {}", section.kind, section.id), why));
            false
        }
    });
    for account in &mut options {
        refused.iter().for_each(|(section, why)| account.outcome.refuse(section, why));
    }
    options.sort_by_key(|account| account.line.unwrap_or(usize::MAX));
    Migration {
        options,
        remarks: env.remarks.clone(),
        sections: draft.ordered(),
        differences: DIFFERENCES.to_vec(),
    }
}

/// What a section can do without: losing one changes how it works, never whether, where or for whom.
const SPARE: [&str; 13] = [
    "bandwidth",
    "batch-pause",
    "batch-size",
    "connect-timeout",
    "flags",
    "from",
    "priority-failure",
    "priority-ok",
    "priority-warning",
    "retries",
    "secret-header",
    "timeout",
    "transfers",
];

/// One line that cannot stand must not cost the others: the refused ones go, each with its reason.
fn thin_out(
    section: &mut Section,
    accepts: &dyn Fn(&Section) -> Result<(), RejectReason>,
) -> Vec<(String, RejectReason)> {
    let mut refused = Vec::new();
    if accepts(section).is_ok() {
        return refused;
    }
    let is_backup = section.kind == "backup";
    let is_spare = |entry: &SectionEntry| is_backup || SPARE.contains(&&*entry.key);
    let mut bare = section.clone();
    bare.entries.retain(|entry| !is_spare(entry));
    if accepts(&bare).is_err() {
        return refused;
    }
    section.entries.retain(|entry| {
        let mut with = bare.clone();
        with.entries.extend(is_spare(entry).then(|| entry.clone()));
        let Err(why) = accepts(&with) else { return true };
        refused.push((format!("{}: {} / {}", bare.kind, bare.id, entry.key), why));
        false
    });
    refused
}

fn account(row: &OptionRow, from: &LegacyContext, draft: &mut Draft) -> OptionReport {
    let given = from.given(row);
    let (value, set) = match &given {
        Some(value) => (value.text.clone(), true),
        None => (row.default.to_owned(), false),
    };
    let mut outcome = if set || row.rule.speaks_unasked() {
        judge(row, &value, from, draft)
    } else {
        OptionOutcome::NotSet
    };
    if let Some(value) = given.as_ref().filter(|value| !value.unknown.is_empty()) {
        let names = value.unknown.join(", ");
        outcome = outcome.noted(&format!(
            "{names} is set nowhere in the file; the old tool took it from its environment, --env does too"
        ));
    }
    let written_as = given.as_ref().filter(|value| value.name != row.key).map(|value| value.name.clone());
    let shown = if row.secret && !value.is_empty() { MASK.to_owned() } else { mask(&value).into_owned() };
    OptionReport {
        key: row.key.to_owned(),
        written_as,
        line: given.and_then(|value| value.line),
        value: if set { shown } else { String::new() },
        outcome,
    }
}

/// A value that the loader did not understand is its default from here on, and said to be.
fn judge(row: &OptionRow, value: &str, from: &LegacyContext, draft: &mut Draft) -> OptionOutcome {
    match row.kind.check(value) {
        Ok(()) => row.rule.apply(row, value, from, draft),
        Err(wrong) => {
            let shown = if row.secret { MASK } else { value };
            let treated = match row.kind {
                OptionKind::Bool => "no".to_owned(),
                OptionKind::Size => "an error that ended its run".to_owned(),
                _ if row.default.is_empty() => "not set".to_owned(),
                _ => format!("its default {}", row.default),
            };
            let what = format!("'{shown}' {wrong}; the old tool took it for {treated}");
            match row.rule.apply(row, row.kind.fallback(row.default), from, draft) {
                OptionOutcome::Taken { becomes, .. } => {
                    OptionOutcome::invalid(format!("{what}, so it is now {becomes}"))
                }
                _ => OptionOutcome::invalid(what),
            }
        }
    }
}

fn unknown(key: &str, line: usize, env: &EnvFile) -> OptionReport {
    let names: Vec<&str> = keys().collect();
    let outcome = if env.is_variable(key) {
        OptionOutcome::not_needed("a variable of the file's own: what names it has its value")
    } else if COLOURS.contains(&key) {
        OptionOutcome::not_needed("a colour of the Bash version")
    } else if channels::is_of_endpoint(key) {
        OptionOutcome::not_needed(
            "WEBHOOK_ENDPOINTS does not name this endpoint; the old tool sent nothing to it",
        )
    } else {
        let hint = nearest(key, &names).map_or_else(
            || "the old tool knew no such option and passed over it".to_owned(),
            |near| format!("the old tool knew no such option; was {near} meant?"),
        );
        OptionOutcome::Unknown { hint }
    };
    let (key, value) = (key.to_owned(), String::new());
    OptionReport { key, written_as: None, line: Some(line), value, outcome }
}

/// What the converters read from.
struct LegacyContext<'a> {
    env: &'a EnvFile,
    beside: &'a SiblingFiles,
}

impl LegacyContext<'_> {
    fn given(&self, row: &OptionRow) -> Option<OptionValue> {
        self.env.value(row.names, row.env, row.kind.is_text())
    }

    /// The text of an option as it took effect, its default when it is not set or not understood.
    fn text(&self, key: &str) -> String {
        let Some(row) = table::ROWS.iter().find(|row| row.key == key) else { return String::new() };
        let given = self.given(row).map(|value| value.text);
        // Whatever is no yes was no.
        let understood = |text: &String| !text.is_empty() && row.kind.check(text).is_ok();
        let given = given.filter(|text| matches!(row.kind, OptionKind::Bool) || understood(text));
        given.unwrap_or_else(|| self.default(row.default))
    }

    fn default(&self, text: &str) -> String {
        text.replace("${BASE_DIR}", &self.env.base_dir)
    }

    fn on(&self, key: &str) -> bool {
        env::boolean(&self.text(key))
    }

    fn is_set(&self, key: &str) -> bool {
        let row = table::ROWS.iter().find(|row| row.key == key);
        row.and_then(|row| self.given(row)).is_some_and(|value| !value.text.is_empty())
    }
}

/// Our sections as they grow.
struct Draft {
    sections: Vec<Section>,
}

impl Draft {
    /// The order of the written file; the first store is the primary.
    const ORDER: [&'static str; 3] = ["backup", "check", "dir"];

    /// Adds a line, and returns how the report names it.
    fn set(&mut self, kind: &str, id: &str, key: &str, value: &str) -> String {
        self.add(kind, id, key, value, false);
        format!("{kind}: {id} / {key} {value}").trim_end().to_owned()
    }

    /// A section without a key.
    fn section(&mut self, kind: &str, id: &str) -> String {
        if !self.sections.iter().any(|section| section.kind == kind && section.id == id) {
            let (kind, id, file) = (kind.to_owned(), id.to_owned(), "backup.env".into());
            self.sections.push(Section { kind, id, file, line: 0, entries: Vec::new() });
        }
        format!("{kind}: {id}")
    }

    fn secret(&mut self, kind: &str, id: &str, key: &str, value: &str) -> String {
        self.add(kind, id, key, value, true);
        format!("{kind}: {id} / {key} in secrets.cfg")
    }

    fn add(&mut self, kind: &str, id: &str, key: &str, value: &str, private: bool) {
        let file: Arc<str> = "backup.env".into();
        // One line is one line: what is behind a line end would be another key.
        let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let value = value.trim().to_owned();
        let entry = SectionEntry { key: key.to_owned(), value, file: Arc::clone(&file), line: 0, private };
        match self.sections.iter_mut().find(|section| section.kind == kind && section.id == id) {
            Some(section) if section.entries.contains(&entry) => {}
            Some(section) => section.entries.push(entry),
            None => {
                let (kind, id) = (kind.to_owned(), id.to_owned());
                self.sections.push(Section { kind, id, file, line: 0, entries: vec![entry] });
            }
        }
    }

    fn ordered(mut self) -> Vec<Section> {
        let place = |section: &Section| {
            let kind = Self::ORDER.iter().position(|kind| *kind == section.kind).unwrap_or(Self::ORDER.len());
            (kind, section.kind == "dir" && section.id != stores::LOCAL)
        };
        self.sections.sort_by_key(place);
        self.sections
    }
}
