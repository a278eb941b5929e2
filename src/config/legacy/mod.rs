//! Conversion of the legacy configuration (`backup.env` of ProxSave), with the outcome of each option.
//! Pure: the caller reads the files beside `backup.env`, and nothing is written here.
//!
//! `env` reads the file by the legacy rules, `table` has a row for every option, and `files`, `stores` and `channels`
//! hold the converters of the rows that need one.

mod channels;
pub mod env;
mod files;
mod stores;
mod table;

use std::collections::BTreeSet;

use serde::Serialize;

use self::env::{EnvFile, OptionValue, Warning};
use self::table::{OptionKind, OptionRow};
use crate::model::nearest::nearest;
use crate::model::secret::MASK;
use crate::model::section::{Section, SectionEntry};
use crate::sys::mask::mask;

/// Returns the names of all options of the table.
pub fn keys() -> impl Iterator<Item = &'static str> {
    table::ROWS.iter().flat_map(|row| row.names.iter().copied())
}

/// File name of the sections that are made here.
const FILE: &str = "backup.env";
/// Option with the path of the recipient file.
pub const RECIPIENT_FILE: &str = "AGE_RECIPIENT_FILE";

/// Files beside `backup.env` that belong to it.
#[derive(Debug, Default)]
pub struct SiblingFiles {
    /// Text of the recipient file; None when it does not exist, an error when it cannot be read.
    pub recipients: Option<Result<String, String>>,
    /// Text of `passphrase.salt`.
    pub salt: Option<String>,
}

/// Outcome of an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fate")]
pub enum OptionOutcome {
    /// It is part of the new configuration.
    Taken {
        becomes: String,
        /// Difference in meaning.
        #[serde(skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// Nothing has to be done.
    NotNeeded {
        why: String,
    },
    /// There is no such option here.
    NoCounterpart {
        instead: String,
    },
    /// The legacy program did not understand it either; `what` says what it did.
    Invalid {
        what: String,
    },
    /// The legacy program never had such an option.
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

    /// Replaces the outcome when the section that it names is rejected.
    fn reject(&mut self, section: &str, why: &RejectReason) {
        let Self::Taken { becomes, .. } = self else { return };
        let names = |text: &str| text == section || text.starts_with(&format!("{section} "));
        if !becomes.split(", ").any(names) {
            return;
        }
        *self = match why {
            RejectReason::UnknownKind => Self::instead(format!("this version does not have '{section}'")),
            RejectReason::Because(why) => Self::invalid(format!("'{section}' is not valid: {why}")),
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

/// Kind and id of a section of the new configuration.
type SectionName = (&'static str, &'static str);

/// Reason for options of a channel that is off.
const CHANNEL_OFF: &str = "the channel was off";

/// Legacy option with its outcome.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OptionReport {
    pub key: String,
    /// The older name that the file uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_as: Option<String>,
    /// None: not in the file.
    pub line: Option<usize>,
    /// Value as it was read; secrets are masked.
    pub value: String,
    #[serde(flatten)]
    pub outcome: OptionOutcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Migration {
    /// Options of the file in its order, then all others.
    pub options: Vec<OptionReport>,
    /// Lines of the file that the legacy program did not read as they look.
    pub remarks: Vec<Warning>,
    /// The new configuration; secrets are marked private.
    #[serde(skip)]
    pub sections: Vec<Section>,
    /// Changes that no option caused.
    pub differences: Vec<&'static str>,
}

/// Terminal colours of the Bash version.
const COLOURS: [&str; 14] = [
    "BLACK", "BLUE", "BOLD", "CYAN", "GRAY", "GREEN", "MAGENTA", "NC", "ORANGE", "PINK", "PURPLE", "RED",
    "RESET", "YELLOW",
];

/// Fixed behaviour of the legacy program that is different here.
const DIFFERENCES: [&str; 3] = [
    "all of /home was always saved; here, use `include` for the files that you need",
    "retention counted the archives of all hosts in a directory together; here it counts each host separately",
    "it was started by cron or ran as a daemon; here proxmox-backup-extra.timer starts it once a day",
];

/// Reason why a section is rejected.
pub enum RejectReason {
    /// Its kind does not exist.
    UnknownKind,
    /// One of its values is invalid.
    Because(String),
}

/// Converts every option of the file and of the table. A section that `accepts` rejects is left out, and each option
/// that wanted it gets the reason.
pub fn migrate(
    env: &EnvFile,
    beside: &SiblingFiles,
    accepts: &dyn Fn(&Section) -> Result<(), RejectReason>,
) -> Migration {
    let mut draft = Draft { sections: Vec::new() };
    let context = LegacyContext { env, beside };
    let mut options: Vec<OptionReport> =
        table::ROWS.iter().map(|row| report(row, &context, &mut draft)).collect();

    let mut known: BTreeSet<String> = keys().map(str::to_owned).collect();
    let endpoints = channels::endpoints(&context, &mut draft);
    known.extend(endpoints.iter().map(|report| report.key.clone()));
    options.extend(endpoints);
    for (key, line) in env.keys().filter(|(key, _)| !known.contains(*key)) {
        options.push(unknown(key, line, env));
    }

    let mut rejected = Vec::new();
    for section in &mut draft.sections {
        rejected.extend(remove_invalid_lines(section, accepts));
    }
    draft.sections.retain(|section| match accepts(section) {
        Ok(()) => true,
        Err(why) => {
            rejected.push((format!("{}: {}", section.kind, section.id), why));
            false
        }
    });

    for report in &mut options {
        rejected.iter().for_each(|(section, why)| report.outcome.reject(section, why));
    }

    options.sort_by_key(|report| report.line.unwrap_or(usize::MAX));
    Migration {
        options,
        remarks: env.remarks.clone(),
        sections: draft.ordered(),
        differences: DIFFERENCES.to_vec(),
    }
}

/// Keys that a section can do without. None of them changes the target or the recipients.
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

/// Removes invalid lines and returns them with their reasons, so that one of them does not cost the whole section.
fn remove_invalid_lines(
    section: &mut Section,
    accepts: &dyn Fn(&Section) -> Result<(), RejectReason>,
) -> Vec<(String, RejectReason)> {
    let mut rejected = Vec::new();
    if accepts(section).is_ok() {
        return rejected;
    }

    let is_backup = section.kind == "backup";
    let is_spare = |entry: &SectionEntry| is_backup || SPARE.contains(&&*entry.key);
    let mut bare = section.clone();
    bare.entries.retain(|entry| !is_spare(entry));
    if accepts(&bare).is_err() {
        return rejected;
    }

    section.entries.retain(|entry| {
        let mut with = bare.clone();
        with.entries.extend(is_spare(entry).then(|| entry.clone()));
        let Err(why) = accepts(&with) else { return true };
        rejected.push((format!("{}: {} / {}", bare.kind, bare.id, entry.key), why));
        false
    });
    rejected
}

fn report(row: &OptionRow, context: &LegacyContext, draft: &mut Draft) -> OptionReport {
    let given = context.given(row);
    let (value, set) = match &given {
        Some(value) => (value.text.clone(), true),
        None => (row.default.to_owned(), false),
    };

    let mut outcome = if set || row.rule.applies_unset() {
        judge(row, &value, context, draft)
    } else {
        OptionOutcome::NotSet
    };
    if let Some(value) = given.as_ref().filter(|value| !value.unknown.is_empty()) {
        let names = value.unknown.join(", ");
        outcome = outcome.noted(&format!(
            "{names} is not set in the file; the legacy program read it from its environment, as --env does"
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

/// Applies the rule of an option. A value that the legacy program did not understand counts as its default.
fn judge(row: &OptionRow, value: &str, context: &LegacyContext, draft: &mut Draft) -> OptionOutcome {
    match row.kind.check(value) {
        Ok(()) => row.rule.apply(row, value, context, draft),
        Err(wrong) => {
            let shown = if row.secret { MASK } else { value };
            let treated = match row.kind {
                OptionKind::Bool => "no".to_owned(),
                OptionKind::Size => "an error and stopped".to_owned(),
                _ if row.default.is_empty() => "not set".to_owned(),
                _ => format!("its default {}", row.default),
            };

            let what = format!("'{shown}' {wrong}; the legacy program treated it as {treated}");
            match row.rule.apply(row, row.kind.fallback(row.default), context, draft) {
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
        OptionOutcome::not_needed("a variable that other values in the file use")
    } else if COLOURS.contains(&key) {
        OptionOutcome::not_needed("a terminal colour of the Bash version")
    } else if channels::is_of_endpoint(key) {
        OptionOutcome::not_needed(
            "WEBHOOK_ENDPOINTS does not contain this endpoint; the legacy program sent nothing to it",
        )
    } else {
        let hint = nearest(key, &names).map_or_else(
            || "the legacy program did not have this option and ignored it".to_owned(),
            |near| format!("the legacy program did not have this option; did you mean {near}?"),
        );
        OptionOutcome::Unknown { hint }
    };

    let (key, value) = (key.to_owned(), String::new());
    OptionReport { key, written_as: None, line: Some(line), value, outcome }
}

/// Input of the converters.
struct LegacyContext<'a> {
    env: &'a EnvFile,
    beside: &'a SiblingFiles,
}

impl LegacyContext<'_> {
    fn given(&self, row: &OptionRow) -> Option<OptionValue> {
        self.env.value(row.names, row.env, row.kind.is_text())
    }

    /// Returns the effective text of an option: its default when it is not set or not understood.
    fn text(&self, key: &str) -> String {
        let Some(row) = table::ROWS.iter().find(|row| row.key == key) else { return String::new() };
        let given = self.given(row).map(|value| value.text);
        // The legacy program read every other word as no.
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

/// New sections under construction.
struct Draft {
    sections: Vec<Section>,
}

impl Draft {
    /// Order in the written file; the first store is the primary.
    const ORDER: [&'static str; 3] = ["backup", "check", "dir"];

    /// Adds a line, and returns its name in the report.
    fn line(&mut self, section: (&str, &str), key: &str, value: &str) -> String {
        self.add(section, key, value, false);
        format!("{}: {} / {key} {value}", section.0, section.1).trim_end().to_owned()
    }

    fn set(&mut self, section: (&str, &str), key: &str, value: &str) -> OptionOutcome {
        OptionOutcome::taken(self.line(section, key, value))
    }

    /// Adds a line for each value.
    fn set_each(&mut self, section: (&str, &str), key: &str, values: &[impl AsRef<str>]) -> OptionOutcome {
        let lines: Vec<_> = values.iter().map(|value| self.line(section, key, value.as_ref())).collect();
        if lines.is_empty() {
            return OptionOutcome::not_needed("the list is empty");
        }
        OptionOutcome::taken(lines.join(", "))
    }

    fn set_secret(&mut self, section: (&str, &str), key: &str, value: &str) -> OptionOutcome {
        self.add(section, key, value, true);
        OptionOutcome::taken(format!("{}: {} / {key} in secrets.cfg", section.0, section.1))
    }

    /// Adds a section, which may have no key.
    fn section(&mut self, section: (&str, &str)) -> OptionOutcome {
        self.entries(section);
        OptionOutcome::taken(format!("{}: {}", section.0, section.1))
    }

    fn add(&mut self, section: (&str, &str), key: &str, value: &str, private: bool) {
        // Text behind a line break would be another key.
        let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let (key, value) = (key.to_owned(), value.trim().to_owned());
        let entry = SectionEntry { key, value, file: FILE.into(), line: 0, private };
        let entries = self.entries(section);
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }

    /// Returns the entries of a section, which is added when it does not exist.
    fn entries(&mut self, (kind, id): (&str, &str)) -> &mut Vec<SectionEntry> {
        let found = self.sections.iter().position(|section| section.kind == kind && section.id == id);
        let at = found.unwrap_or_else(|| {
            let (kind, id) = (kind.to_owned(), id.to_owned());
            self.sections.push(Section { kind, id, file: FILE.into(), line: 0, entries: Vec::new() });
            self.sections.len() - 1
        });
        &mut self.sections[at].entries
    }

    fn ordered(mut self) -> Vec<Section> {
        let place = |section: &Section| {
            let kind = Self::ORDER.iter().position(|kind| *kind == section.kind).unwrap_or(Self::ORDER.len());
            (kind, section.kind == "dir" && section.id != stores::LOCAL.1)
        };
        self.sections.sort_by_key(place);
        self.sections
    }
}
