//! Words: parses what was typed, calls the task, prints its value, chooses the exit code.
//! The only floor that prints.

mod args;
mod check;
mod decrypt;
mod exchange;
mod guided;
mod hook;
mod identity;
mod key;
mod migrate;
mod notify;
mod paper;
mod plans;
mod prune;
mod render;
mod restore;
mod row;
mod runs;
mod setup;
mod status;
mod stores;
mod undo;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use jiff::Timestamp;
use log::LevelFilter;
use serde::Serialize;

use self::args::{Cli, Format, Verb};
use self::row::Row;
use crate::archive::identity::Keys;
use crate::archive::recipient::Recipient;
use crate::archive::sign::Signers;
use crate::config::Config;
use crate::model::record::Record;
use crate::model::report::{Exit, Fault, FaultKind, Outcome, Problem, Report};
use crate::model::section::Section;
use crate::model::snapshot::{Compression, SnapshotId, Trigger};
use crate::notify as channels;
use crate::plan::select::{self, Selection};
use crate::store::{self, Store};
use crate::sys::exec::{Exec, NoTools, System};
use crate::sys::glob::{Named, Pattern};
use crate::sys::host::Host;
use crate::sys::{files, lock, log as talk, mask};
use crate::task::notify::{Channels, Lines};
use crate::task::snapshots::{self, Chosen};
use crate::task::verify::{Demand, Looked, Wanted};
use crate::task::{after, backup, key as keys_of_host, metrics, sources, verify};

/// The program: from its arguments to its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    lock::catch_signals();
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let world = World { exec: None, now: Timestamp::now(), out: &mut stdout.lock(), err: &mut stderr.lock() };
    run(args, world) as i32
}

/// All that can be typed, for the manual and the completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// What the program meets: the tests bring their own.
pub struct World<'a> {
    /// None: the running system's tools, or none at all for another root.
    pub exec: Option<Box<dyn Exec>>,
    pub now: Timestamp,
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

pub fn run(args: impl IntoIterator<Item = OsString>, mut world: World) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &args, &mut world),
    };
    let format = cli.global.format();
    let level = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, _) => LevelFilter::Debug,
    };
    talk::init(level);
    let World { exec, now, out, err } = world;
    // One spelling for one root: the lock is named after it.
    let root = match std::fs::canonicalize(&cli.global.root) {
        Ok(root) if root.is_dir() => root,
        _ => {
            let shown = cli.global.root.display();
            let fault = Fault::new(FaultKind::Usage, format!("--root {shown}: no such folder"));
            return failed(&fault.into(), format, err);
        }
    };
    let mut host = match exec {
        Some(exec) => Host::detect(root, now, exec),
        None if root == Path::new("/") => Host::detect(root, now, Box::new(System)),
        None => Host::detect(root, now, Box::new(NoTools)),
    };
    if !host.exec.is_of_host() {
        host.machine = Arc::new(System);
    }
    let quiet = cli.global.quiet;
    let said = identity::keys(&cli.global.identities)
        .and_then(|keys| Words { host, format, quiet, keys, out, err: &mut *err }.speak(cli.verb));
    match said {
        Ok(exit) => exit,
        // A call that a signal interrupted is the signal's error, not the disk's.
        Err(error) if is_interrupted(&error) => {
            failed(&lock::check_stopped().err().unwrap_or(error), format, err)
        }
        Err(error) => failed(&error, format, err),
    }
}

/// clap's own answers: help and version go to standard output, mistakes are exit 2.
fn usage(error: &clap::Error, args: &[OsString], world: &mut World) -> Exit {
    if !error.use_stderr() {
        let _ = write!(world.out, "{}", error.render());
        return Exit::Ok;
    }
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let json = words.iter().any(|word| word == "--json" || word.starts_with("--output-format=json"))
        || words.windows(2).any(|pair| pair[0] == "--output-format" && pair[1].starts_with("json"));
    if json {
        let text = error.render().to_string();
        // The first paragraph is the mistake, the rest is the usage.
        let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
        let line = lines.collect::<Vec<_>>().join(" ");
        let line = line.trim_start_matches("error: ");
        return failed(&Fault::new(FaultKind::Usage, line).into(), Format::Json, world.err);
    }
    let _ = write!(world.err, "{}", error.render());
    Exit::Usage
}

/// Prints an error once, with what to do.
fn failed(error: &anyhow::Error, format: Format, err: &mut dyn Write) -> Exit {
    let fault = error.downcast_ref::<Fault>();
    let exit = fault.map_or(Exit::Failed, |fault| fault.kind.into());
    let message = render::one_line(&mask::mask(&render::without_errno(&format!("{error:#}"))));
    let hint = fault.and_then(|fault| fault.hint.as_deref()).or_else(|| usual_hint(error));
    let written = if format == Format::Text {
        let hint = hint.map(|hint| format!("hint: {}\n", render::one_line(hint))).unwrap_or_default();
        write!(err, "error: {message}\n{hint}")
    } else {
        let error = serde_json::json!({ "error": message, "hint": hint, "exit": exit as i32 });
        writeln!(err, "{error}")
    };
    let _ = written;
    exit
}

/// What helps against the system's own refusals.
fn usual_hint(error: &anyhow::Error) -> Option<&'static str> {
    if error.to_string() == verify::NO_OUTPUT {
        return Some("what it leads to is full or broken; what was to be done is done");
    }
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>())?;
    match cause.kind() {
        io::ErrorKind::PermissionDenied if files::is_root() => {
            Some("not even root may: `lsattr -d` tells what is immutable, `findmnt -T` what holds it")
        }
        io::ErrorKind::PermissionDenied => Some("run it as root"),
        io::ErrorKind::StorageFull => {
            Some("make room there (`df` shows the space, `df -i` the files), or choose another place")
        }
        io::ErrorKind::QuotaExceeded => Some("make room there, or choose another place"),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("see with `dmesg` why and mount it writable, or choose another place")
        }
        io::ErrorKind::StaleNetworkFileHandle => Some("the share was taken away; mount it again"),
        _ if files::is_device_error(cause) => Some("the disk or the share fails; `dmesg` says more"),
        _ => None,
    }
}

/// One command being carried out.
struct Words<'a> {
    host: Host,
    format: Format,
    quiet: bool,
    /// What opens sealed snapshots.
    keys: Keys,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Words<'_> {
    fn speak(mut self, verb: Verb) -> Result<Exit> {
        match verb {
            Verb::Backup(args) => self.backup(args),
            Verb::List(args) => self.list(&args),
            Verb::Show(args) => self.show(&args),
            Verb::Cat(args) => self.cat(&args),
            Verb::Verify(args) => self.verify(&args),
            Verb::Restore(args) => self.restore(*args),
            Verb::Decrypt(args) => self.decrypt(&args),
            Verb::Undo(args) => self.undo(&args),
            Verb::Confirm(args) => self.confirm(&args),
            Verb::Key(verb) => self.key(verb),
            Verb::Prune(args) => self.prune(&args),
            Verb::Log(args) => self.log(&args),
            Verb::Status(args) => self.status(&args),
            Verb::Store(args) => self.store_verb(&args),
            Verb::Catalog(args) => self.catalog(args),
            Verb::Hook(args) => self.hook(args),
            Verb::Check(args) => self.check(&args),
            Verb::Notify(args) => self.notify(args),
            Verb::Migrate(args) => self.migrate(args),
            Verb::Config(args::Config::Show) => self.config_show(),
            Verb::Config(args::Config::Check) => self.config_check(),
            Verb::Config(args::Config::Export(args)) => self.config_export(&args),
            Verb::Config(args::Config::Import(args)) => self.config_import(&args),
        }
    }

    /// A value as JSON, or as the text that `text` makes of it.
    fn print<T: Serialize>(&mut self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let text = match self.format {
            Format::Text => render::harmless(&text(value)),
            Format::Json => serde_json::to_string(value)? + "\n",
            Format::JsonPretty => serde_json::to_string_pretty(value)? + "\n",
        };
        self.write(text.as_bytes())
    }

    /// Who closed the pipe has read enough; what was done is done, and the exit code tells it.
    fn write(&mut self, data: &[u8]) -> Result<()> {
        match self.out.write_all(data).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context(verify::NO_OUTPUT),
        }
    }

    fn config(&self) -> Result<Config> {
        Config::load(&self.host, &store::kind_names(), &channels::kind_names())
    }

    fn stores(&self, config: &Config, args: &args::Stores) -> Result<Vec<Box<dyn Store>>> {
        if args.names.is_empty() {
            return config.stores.iter().map(|section| self.open(section)).collect();
        }
        args.names.iter().map(|name| self.store(config, name)).collect()
    }

    fn store(&self, config: &Config, name: &str) -> Result<Box<dyn Store>> {
        if name.contains('/') {
            return Ok(store::folder(&std::path::absolute(name)?, &self.host));
        }
        let section = config.stores.iter().find(|section| section.id == name).with_context(|| {
            let known: Vec<&str> = config.stores.iter().map(|section| section.id.as_str()).collect();
            Fault::new(FaultKind::NotFound, format!("there is no store '{name}'"))
                .hint(format!("the stores are: {}; a folder is named with a /", known.join(", ")))
        })?;
        self.open(section)
    }

    /// A link of another system must not lead a store of it onto this one.
    fn open(&self, section: &Section) -> Result<Box<dyn Store>> {
        let store = store::open(section, &self.host)?;
        let Some(folder) = store.folder().filter(|_| !self.host.is_live()) else { return Ok(store) };
        let there = folder.ancestors().find(|above| above.symlink_metadata().is_ok());
        let real = there.and_then(|above| std::fs::canonicalize(above).ok());
        if real.is_none_or(|real| !real.starts_with(self.host.root())) {
            let (place, root) = (store.place(), self.host.root().display());
            let message = format!("store '{}': {place} leads out of {root}", store.name());
            return Err(Fault::new(FaultKind::Usage, message).hint("name a folder with --store").into());
        }
        Ok(store)
    }

    fn choose(&self, stores: &args::Stores, word: &str) -> Result<Chosen> {
        // A file needs no configuration: a bare snapshot opens on any machine.
        let is_file = snapshots::is_file_word(word);
        if is_file && !stores.names.is_empty() {
            let fault =
                Fault::new(FaultKind::Usage, format!("{word}: is a file; --store does not go with it"));
            return Err(fault.hint("name one of the two").into());
        }
        let stores = if is_file { Vec::new() } else { self.stores(&self.config()?, stores)? };
        Ok(snapshots::choose(&stores, &self.host.facts.node, word)?.with_keys(&self.keys))
    }

    fn progress(&self) -> Progress {
        Progress { live: !self.quiet && self.format == Format::Text && io::stderr().is_terminal() }
    }

    fn backup(&mut self, args: args::Backup) -> Result<Exit> {
        if args.dry_run {
            let config = self.config()?;
            let (stores, request) = self.backup_request(&config, args)?;
            let plan = backup::plan(&self.host, &config, &stores, &request)?;
            self.print(&plan, render::plan)?;
            return Ok(Outcome::of(&plan.problems).into());
        }
        let (clock, trigger) = (Instant::now(), trigger(args.trigger));
        let config = self.config();
        let channels = Channels::open(&self.host, config.as_ref().ok());
        let lines = Lines::default();
        let (done, begun) = channels.around(&self.host, || self.make_backup(&config?, args, &lines));
        let mut report = match &done {
            Ok(report) => report.clone(),
            Err(error) => {
                log::info!("backup failed: {error:#}");
                after::failure(&self.host, "backup", clock.elapsed().as_secs_f64(), error)
            }
        };
        let own = report.problems.len();
        report.problems.extend(begun);
        channels.tell_backup(&self.host, &mut report, &lines, &done, trigger);
        after::backup(&self.host, &mut report, trigger, &done);
        report.problems.extend(self.metrics());
        report.outcome = report.outcome.max(Outcome::of(&report.problems));
        if let Err(error) = done {
            self.tell(&report.problems[own..]);
            return Err(error);
        }
        let quiet = self.quiet;
        self.print(&report, |report| {
            if quiet { render::problems(&worth(&report.problems)) } else { render::report(report) }
        })?;
        Ok(report.outcome.into())
    }

    fn make_backup(&self, config: &Config, args: args::Backup, lines: &Lines) -> Result<Report> {
        let (stores, request) = self.backup_request(config, args)?;
        log::info!("backup of {} begins", self.host.facts.summary());
        let progress = self.progress();
        let report = backup::run(&self.host, config, &stores, &request, &|what| {
            lines.add(what);
            progress.say(what);
        })?;
        progress.clear();
        let (id, outcome) =
            (report.snapshot.as_ref().map(|snapshot| snapshot.id.to_string()), report.outcome);
        let id = id.as_deref().unwrap_or("of what is unchanged");
        log::info!("backup {id}: {outcome}, {} problems", report.problems.len());
        Ok(report)
    }

    #[allow(clippy::type_complexity)] // two things that a backup takes
    fn backup_request(
        &self,
        config: &Config,
        args: args::Backup,
    ) -> Result<(Vec<Box<dyn Store>>, backup::Request)> {
        let stores = self.stores(config, &args.stores)?;
        let request = backup::Request {
            selection: selection(args.selected),
            note: args.note.map(|note| render::one_line(&note)),
            protect: args.protect,
            trigger: trigger(args.trigger),
        };
        backup::compression(config)?;
        Ok((stores, request))
    }

    /// Carries a verb out and keeps the record of it.
    fn noted(
        &mut self,
        verb: &'static str,
        carry_out: impl FnOnce(&mut Self, &mut Record) -> Result<Exit>,
    ) -> Result<Exit> {
        let clock = Instant::now();
        let mut record = after::blank(&self.host, verb);
        let done = carry_out(self, &mut record);
        record.took = clock.elapsed().as_secs_f64();
        after::other(&self.host, record, &done);
        let problems = self.metrics();
        self.tell(&problems);
        done
    }

    /// Metrics of what is recorded by now. A configuration that does not stand names no place for them.
    fn metrics(&self) -> Vec<Problem> {
        let Ok(config) = self.config() else { return Vec::new() };
        metrics::write(&self.host, &config)
    }

    fn list(&mut self, args: &args::List) -> Result<Exit> {
        let mut problems = Vec::new();
        let stores = match &args.folder {
            Some(folder) if !folder.is_dir() => {
                return Err(
                    Fault::new(FaultKind::NotFound, format!("{}: no such folder", folder.display())).into()
                );
            }
            Some(folder) => vec![store::folder(&std::path::absolute(folder)?, &self.host)],
            None => {
                let config = self.config()?;
                problems.clone_from(&config.problems);
                self.stores(&config, &args.stores)?
            }
        };
        let usage = |error: anyhow::Error| Fault::new(FaultKind::Usage, format!("--host: {error:#}"));
        let glob = args.host.as_deref().map(Named::new).transpose().map_err(usage)?.flatten();
        let host = args.host.as_deref().filter(|_| glob.is_none());
        let wanted = |host: &str| glob.as_ref().is_none_or(|glob| glob.matches(host));
        let mut listing = snapshots::list(&stores, host, &wanted)?;
        listing.problems.splice(0..0, problems);
        let bad = !listing.problems.is_empty();
        self.print(&listing, render::listing)?;
        self.tell(&listing.problems);
        Ok(if bad { Exit::Problems } else { Exit::Ok })
    }

    /// Problems of a verb whose value is a table: to standard error, the table stays clean.
    fn tell(&self, problems: &[Problem]) {
        if self.format == Format::Text {
            for problem in problems {
                let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                log::warn!("{}{hint}", render::one_line(&render::without_errno(&problem.what)));
            }
        }
    }

    fn show(&mut self, args: &args::Show) -> Result<Exit> {
        let chosen = self.choose(&args.stores, &args.snap)?;
        let proven = if args.files {
            verify::verify(&chosen)?
        } else {
            match verify::look(&chosen)? {
                Looked::Into(proven) => *proven,
                Looked::At(snapshot, signed_by) => {
                    self.print(&serde_json::json!({ "snapshot": snapshot, "signed-by": signed_by }), |_| {
                        render::signed(signed_by.as_deref()) + &render::closed(&snapshot)
                    })?;
                    return Ok(Exit::Ok);
                }
            }
        };
        let index = &proven.index;
        if self.format == Format::Text && args.files {
            let text: String = index.entries.iter().map(render::entry).collect();
            self.write(text.as_bytes())?;
            return Ok(Exit::Ok);
        }
        let items: Vec<_> = render::items(index)
            .into_iter()
            .map(|(item, files, bytes)| serde_json::json!({ "item": item, "files": files, "bytes": bytes }))
            .collect();
        let mut value = serde_json::json!({
            "snapshot": proven.snapshot,
            "signed-by": proven.signed_by,
            "facts": index.facts,
            "items": items,
            "outputs": index.outputs,
            "absent": index.absent,
            "problems": index.problems,
        });
        if args.files {
            value["entries"] = serde_json::to_value(&index.entries)?;
        }
        self.print(&value, |_| {
            render::signed(proven.signed_by.as_deref()) + &render::shown(&proven.snapshot, index)
        })?;
        Ok(Exit::Ok)
    }

    fn cat(&mut self, args: &args::Cat) -> Result<Exit> {
        let chosen = self.choose(&args.stores, &args.snap)?;
        match verify::cat(&chosen, &args.path, self.out) {
            Err(error) if is_broken_pipe(&error) => Ok(Exit::Ok),
            done => done.map(|()| Exit::Ok),
        }
    }

    fn verify(&mut self, args: &args::Verify) -> Result<Exit> {
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

    fn catalog(&mut self, args: args::Catalog) -> Result<Exit> {
        let config = self.config()?;
        let stores = self.stores(&config, &args::Stores { names: Vec::new() })?;
        let selection = selection(args.selected);
        let sources = sources::Sources::new(&self.host, &config, &stores, &selection)?;
        let (found, left) = sources::count(&self.host, &sources)?;
        let rows: Vec<Row> = if args.all {
            crate::catalog::items().collect()
        } else {
            select::of_host(&self.host.facts).collect::<Vec<_>>()
        }
        .into_iter()
        .filter(|item| selection.takes(item.id))
        .map(|item| Row::new(item, found.iter().find(|row| row.item == item.id)))
        .collect();
        let mut problems = sources.problems;
        problems.extend(left.problems);
        let problems = worth(&problems);
        let value = serde_json::json!({ "items": rows, "problems": problems });
        self.print(&value, |_| {
            let cells = |row: &Row| {
                vec![
                    row.item.to_owned(),
                    row.category.to_owned(),
                    row.found(),
                    row.restore.clone(),
                    row.title.to_owned(),
                ]
            };
            render::table(
                &["ITEM", "CATEGORY", "HERE", "RESTORE", "TITLE"],
                &rows.iter().map(cells).collect::<Vec<_>>(),
            )
        })?;
        self.tell(&problems);
        Ok(Exit::Ok)
    }

    fn config_show(&mut self) -> Result<Exit> {
        let config = self.config()?;
        let sections: Vec<_> = config.sections.iter().map(|section| {
            let entries: Vec<_> = section.entries.iter().map(|entry| serde_json::json!({
                "key": entry.key, "value": Config::shown(entry), "file": *entry.file, "line": entry.line,
            })).collect();
            serde_json::json!({ "kind": section.kind, "id": section.id, "file": *section.file, "line": section.line, "entries": entries })
        }).collect();
        let value = serde_json::json!({ "sections": sections, "problems": config.problems });
        self.print(&value, |_| {
            let mut text = String::new();
            for section in &config.sections {
                text.push_str(&format!(
                    "{}: {}    # {}\n",
                    section.kind,
                    section.id,
                    origin(&section.file, section.line)
                ));
                for entry in &section.entries {
                    let line = format!("\t{} {}", entry.key, Config::shown(entry));
                    text.push_str(&format!("{}    # {}\n", line.trim_end(), origin(&entry.file, entry.line)));
                }
                text.push('\n');
            }
            text.truncate(text.trim_end().len());
            text + "\n"
        })?;
        self.tell(&config.problems);
        Ok(Outcome::of(&config.problems).into())
    }

    /// What a configuration must be beside its grammar, decided without touching a store: its compression, its
    /// stores. Errors: `Usage`.
    fn sound(&self, config: &Config) -> Result<(Compression, Vec<Box<dyn Store>>)> {
        let compression = backup::compression(config)?;
        Selection { skip: config.backup.skip.clone(), ..Selection::default() }.check()?;
        let stores = config.stores.iter().map(|section| self.open(section)).collect::<Result<_>>()?;
        for section in &config.channels {
            channels::open(section)?;
        }
        Ok((compression, stores))
    }

    fn config_check(&mut self) -> Result<Exit> {
        let config = self.config()?;
        let (compression, opened) = self.sound(&config)?;
        let sealed_to: Vec<_> =
            keys_of_host::recipients(&self.host, &config)?.iter().map(Recipient::fingerprint).collect();
        let mut problems = config.problems.clone();
        let mut stores = Vec::new();
        for store in opened {
            match store.list(Some(&self.host.facts.node)) {
                Ok(found) => stores.push(format!(
                    "{}: {} ({} snapshots of this host)",
                    store.name(),
                    store.place(),
                    found.len()
                )),
                Err(error) => problems.push(Problem::error(format!("{error:#}"))),
            }
        }
        let channels = config.channels.iter().map(channels::open).collect::<Result<Vec<_>>>()?;
        let channels: Vec<String> = channels
            .iter()
            .map(|target| format!("{} '{}': {}", target.kind, target.name, target.channel.place()))
            .collect();
        let value = serde_json::json!({
            "files": config.files, "compression": compression, "sealed-to": sealed_to, "stores": stores, "channels": channels,
            "problems": problems,
        });
        self.print(&value, |_| {
            let mut text = String::new();
            if config.files.is_empty() {
                text.push_str("ok: no configuration file, the defaults are in force\n");
            }
            config.files.iter().for_each(|file| text.push_str(&format!("ok: {file}\n")));
            sealed_to.iter().for_each(|print| text.push_str(&format!("ok: sealed to {print}\n")));
            stores.iter().for_each(|store| text.push_str(&format!("ok: store {store}\n")));
            channels.iter().for_each(|channel| text.push_str(&format!("ok: {channel}\n")));
            text + &render::problems(&problems)
        })?;
        Ok(Outcome::of(&problems).into())
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    has_cause(error, io::ErrorKind::BrokenPipe)
}

fn is_interrupted(error: &anyhow::Error) -> bool {
    has_cause(error, io::ErrorKind::Interrupted)
}

fn has_cause(error: &anyhow::Error, kind: io::ErrorKind) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| error.kind() == kind)
}

fn origin(file: &str, line: usize) -> String {
    if line == 0 { file.to_owned() } else { format!("{file}:{line}") }
}

fn trigger(word: args::Trigger) -> Trigger {
    match word {
        args::Trigger::Manual => Trigger::Manual,
        args::Trigger::Timer => Trigger::Timer,
        args::Trigger::Vzdump => Trigger::Vzdump,
        args::Trigger::Apt => Trigger::Apt,
    }
}

fn selection(args: args::Selected) -> Selection {
    Selection { only: args.only, skip: args.skip }
}

/// What an admin can act on.
fn worth(problems: &[Problem]) -> Vec<Problem> {
    problems
        .iter()
        .filter(|problem| Outcome::of(std::slice::from_ref(problem)) != Outcome::Ok)
        .cloned()
        .collect()
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

fn glob(text: &str) -> Result<Pattern> {
    let absolute = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    Pattern::new(&absolute).map_err(|error| Fault::new(FaultKind::Usage, format!("--path: {error:#}")).into())
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

/// Whoever sets `NO_COLOR` to anything wants none.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|word| word.is_empty())
}

/// A live line on a terminal; nothing elsewhere.
struct Progress {
    live: bool,
}

impl Progress {
    const WIDTH: usize = 76;

    /// A step stays on the terminal, and stands in the journal; a detail is overwritten by the next one.
    #[allow(clippy::print_stderr)] // the live line is not a record of the log
    fn say(&self, what: &str) {
        let step = what.starts_with(backup::STEP);
        log::log!(if step { log::Level::Info } else { log::Level::Debug }, "{what}");
        if self.live {
            let shown = mask::mask(what);
            let line: String = render::one_line(&shown).chars().take(Self::WIDTH).collect();
            let line = if step { render::step(&line, colours()) } else { line };
            eprint!("\r\x1b[K{line}{}", if step { "\n" } else { "" });
        }
    }

    #[allow(clippy::print_stderr)]
    fn clear(&self) {
        if self.live {
            eprint!("\r\x1b[K");
        }
    }
}
