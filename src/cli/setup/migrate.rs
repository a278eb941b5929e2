//! `migrate`: turns the legacy configuration into ours.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use crate::archive::recipient::Recipient;
use crate::cli::{App, render};
use crate::config::Config;
use crate::config::legacy::{OptionOutcome, OptionReport, RejectReason};
use crate::model::problem::Exit;
use crate::model::section::Section;
use crate::task::setup::configure;
use crate::task::setup::migrate::{self, MigrateRequest, Migrated};
use crate::{notify, store};

/// Convert the backup.env of the legacy program into a configuration
///
/// Shows what becomes of every option, and the resulting sections. The old installation is never changed; what still
/// starts it is shown with the command that stops it.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:
  pbx-config migrate                  read it from where ProxSave keeps it, write nothing
  pbx-config migrate --write
  pbx-config migrate /root/backup.env --env
  pbx-config migrate --from-root /mnt --write      from the disk of another system

Exit status 3: there are options that the legacy program did not understand either, or that it never had.")]
#[allow(clippy::struct_excessive_bools)] // each is an option of the command line
pub struct Args {
    /// Path of backup.env [default: searched in /opt/proxsave and /opt/proxmox-backup]
    pub file: Option<PathBuf>,
    /// Write pbx-config.cfg and secrets.cfg
    #[arg(long)]
    pub write: bool,
    /// Replace an existing configuration; its files are kept beside the new ones
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Let the environment of this shell override the file, as the legacy program did
    #[arg(long)]
    pub env: bool,
    /// Directory where the system with the legacy program is mounted
    #[arg(long, value_name = "DIR")]
    pub from_root: Option<PathBuf>,
    /// Also show options that are not set
    #[arg(long)]
    pub all: bool,
}

impl App<'_> {
    pub(in crate::cli) fn migrate(&mut self, args: Args) -> Result<Exit> {
        let process = args.env.then(|| {
            let texts = std::env::vars_os();
            texts.filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        });
        let request = MigrateRequest {
            file: args.file,
            root: args.from_root.unwrap_or_else(|| self.host.root().to_owned()),
            process: process.map(Iterator::collect::<BTreeMap<_, _>>),
        };
        let migrated = migrate::run(&self.host, request, &|section| self.accepts(section))?;
        let files = migrated.files();
        migrate::check_text(&files)?;

        // What is written is accepted by every later run, or is not written.
        let config = Config::of_sections(
            migrated.migration.sections.clone(),
            &store::kind_names(),
            &notify::kind_names(),
        )?;
        self.sound(&config)?;

        let mut paths = Vec::new();
        if args.write {
            if !args.force {
                configure::check_unconfigured(&self.host)?;
            }
            let (written, kept) = configure::write(&self.host, &files, "migrate")?;
            paths.extend(written.iter().map(|path| format!("written  {}", path.display())));
            paths.extend(kept.iter().map(|path| format!("kept     {}", path.display())));
        }

        let sections = render::sections(&migrated.migration.sections);
        let mut value = serde_json::to_value(&migrated)?;
        value["configuration"] = sections.clone().into();
        value["written"] = args.write.into();
        self.print(&value, |_| text(&migrated, &sections, &paths, args.all))?;
        Ok(if migrate::has_problems(&migrated) { Exit::Problems } else { Exit::Ok })
    }
}

impl App<'_> {
    /// Checks a section as every later run would. Errors: the reason it is not accepted.
    fn accepts(&self, section: &Section) -> Result<(), RejectReason> {
        let (stores, channels) = (store::kind_names(), notify::kind_names());
        let because = |error: &anyhow::Error| {
            let text = error.to_string();
            if text.contains("unknown kind") {
                return RejectReason::UnknownKind;
            }
            // Its lines stand in no file yet.
            let text = text
                .split_once(&format!("{} '{}': ", section.kind, section.id))
                .map_or(&*text, |(_, why)| why);
            RejectReason::Because(text.to_owned())
        };
        let config = Config::of_sections(vec![section.clone()], &stores, &channels)
            .map_err(|error| because(&error))?;
        for text in &config.backup.recipient {
            Recipient::parse(text).map_err(|error| RejectReason::Because(format!("recipient: {error:#}")))?;
        }

        if stores.contains(&section.kind.as_str()) {
            self.open(&config.stores[0]).map_err(|error| because(&error))?;
        } else if channels.contains(&section.kind.as_str()) {
            notify::open(section).map_err(|error| because(&error))?;
        }
        Ok(())
    }
}

/// Test for the options that stand under a title.
type Takes = fn(&OptionOutcome) -> bool;

fn text(migrated: &Migrated, sections: &str, paths: &[String], all: bool) -> String {
    let options = &migrated.migration.options;
    let mut text = format!("{} (of {})\n", migrated.file, migrated.base_dir);
    migrated.others.iter().for_each(|other| text.push_str(&format!("not read: {other}\n")));

    let groups: [(&str, Takes); 5] = [
        ("taken over", |outcome| matches!(outcome, OptionOutcome::Taken { .. })),
        ("not needed any more", |outcome| matches!(outcome, OptionOutcome::NotNeeded { .. })),
        ("no counterpart: what to do instead", |outcome| {
            matches!(outcome, OptionOutcome::NoCounterpart { .. })
        }),
        ("not valid or not known", |outcome| {
            matches!(outcome, OptionOutcome::Invalid { .. } | OptionOutcome::Unknown { .. })
        }),
        ("not set", |outcome| *outcome == OptionOutcome::NotSet),
    ];
    for (title, takes) in groups.into_iter().filter(|(title, _)| all || *title != "not set") {
        let lines: String = options.iter().filter(|one| takes(&one.outcome)).map(line).collect();
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}:\n{lines}"));
        }
    }

    if !migrated.migration.remarks.is_empty() {
        text.push_str("\nlines that the legacy program read differently from how they look:\n");
        for remark in &migrated.migration.remarks {
            let key = if remark.key.is_empty() { String::new() } else { format!("{}: ", remark.key) };
            text.push_str(&render::one_line(&format!("  line {}  {key}{}", remark.line, remark.what)));
            text.push('\n');
        }
    }

    text.push_str("\ndifferent, whatever was set:\n");
    migrated.migration.differences.iter().for_each(|what| text.push_str(&format!("  {what}\n")));
    if !migrated.starts.is_empty() {
        text.push_str("\nwhat starts the legacy program, and the command that stops it:\n");
        for start in &migrated.starts {
            let what = render::one_line(&format!("{}  {}", start.place, start.what));
            text.push_str(&format!("  {what}\n      {}\n", render::one_line(&start.retire)));
        }
    }

    if paths.is_empty() {
        text.push_str(&format!("\n`--write` writes:\n\n{sections}"));
    } else {
        text.push('\n');
        paths.iter().for_each(|path| text.push_str(&format!("{path}\n")));
        text.push_str("next: `pbx-config config check`, then `pbx-config backup` for the first snapshot\n");
    }
    text
}

fn line(one: &OptionReport) -> String {
    let place = one.line.map_or_else(|| "      ".to_owned(), |line| format!("{line:>6}"));
    let key = one.written_as.as_ref().map_or_else(|| one.key.clone(), |old| format!("{old} ({})", one.key));
    let (what, note) = match &one.outcome {
        OptionOutcome::Taken { becomes, note } => (becomes.as_str(), note.as_str()),
        OptionOutcome::NotNeeded { why } => (why.as_str(), ""),
        OptionOutcome::NoCounterpart { instead } => (instead.as_str(), ""),
        OptionOutcome::Invalid { what } => (what.as_str(), ""),
        OptionOutcome::Unknown { hint } => (hint.as_str(), ""),
        OptionOutcome::NotSet => ("", ""),
    };
    let mut text = format!("{place}  {:<28} {}", render::one_line(&key), render::one_line(what));
    text.truncate(text.trim_end().len());
    if !note.is_empty() {
        text.push_str(&format!("\n        note: {}", render::one_line(note)));
    }

    text + "\n"
}
