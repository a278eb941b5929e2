//! Words: parses what was typed, calls the task, prints its value, chooses the exit code.
//! The only floor that prints.

mod args;
mod backup;
mod catalog;
mod check;
mod common_args;
mod decrypt;
mod key;
mod notify;
mod prune;
mod render;
mod restore;
mod run_log;
mod show;
mod status;
mod stores;
mod verify;

/// The program set up: its configuration, its hooks and the migration of a legacy configuration.
mod setup {
    pub mod config;
    pub mod exchange;
    pub mod hook;
    pub mod migrate;
}

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use clap::Parser;
use jiff::Timestamp;
use log::LevelFilter;
use serde::Serialize;

use self::args::{Cli, Verb};
use self::common_args::Format;
use self::render::progress::Progress;
use crate::archive::keys::Keys;
use crate::config::Config;
use crate::model::nearest::nearest;
use crate::model::problem::{Exit, Fault, FaultKind, Outcome, Problem, without_errno};
use crate::model::record::RunRecord;
use crate::model::section::Section;
use crate::model::snapshot::Compression;
use crate::notify as channels;
use crate::plan::select::Selection;
use crate::store::{self, Store};
use crate::sys::host::Host;
use crate::sys::process::exec::{Exec, NoTools, System};
use crate::sys::{log as talk, mask};
use crate::task::backup::compression;
use crate::task::error;
use crate::task::runs::{finish, metrics};
use crate::task::snapshots::verify::NO_OUTPUT;
use crate::task::snapshots::{self, ChosenSnapshot};

/// The program: from its arguments to its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    crate::sys::process::locked_memory::forbid_core_dumps();
    crate::sys::process::signals::catch_signals();
    // Standard error is not locked: a thread that logs, or panics, would wait for the end of the program.
    let (stdout, mut stderr) = (io::stdout(), io::stderr());
    let Ok(now) = Timestamp::try_from(SystemTime::now()) else {
        let _ = writeln!(stderr, "error: the clock is beyond the year 9999\nhint: set it");
        return Exit::Failed as i32;
    };
    let world = AppEnv { exec: None, now, out: &mut stdout.lock(), err: &mut stderr };
    run(args, world) as i32
}

/// All that can be typed, for the manual and the completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Surroundings of the program: the tests bring theirs.
pub struct AppEnv<'a> {
    /// None: the running system's tools, or none at all for another root.
    pub exec: Option<Box<dyn Exec>>,
    pub now: Timestamp,
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

pub fn run(args: impl IntoIterator<Item = OsString>, mut world: AppEnv) -> Exit {
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
    let AppEnv { exec, now, out, err } = world;

    // One spelling for one root: the lock is named after it.
    let root = match std::fs::canonicalize(&cli.global.root) {
        Ok(root) if root.is_dir() => root,
        _ => {
            let shown = cli.global.root.display();
            let fault = Fault::new(FaultKind::Usage, format!("--root {shown}: no such directory"));
            return failed(&fault.into(), format, err);
        }
    };
    let host = match exec {
        Some(exec) => Host::detect(root, now, exec),
        None if root == Path::new("/") => Host::detect(root, now, Box::new(System)),
        None => Host::detect(root, now, Box::new(NoTools)),
    };

    let quiet = cli.global.quiet;
    // A proof is of the key that was named, and of no other that happens to lie here.
    let proves = matches!(cli.verb, Verb::Key(key::KeyCommand::Prove)) && !cli.global.identities.is_empty();
    let said = key::identity::keys(&cli.global.identities, !proves)
        .and_then(|keys| App { host, format, quiet, keys, out, err: &mut *err }.speak(cli.verb));

    match said {
        Ok(exit) => exit,
        // A call that a signal interrupted is the signal's error, not the disk's.
        Err(error) if is_interrupted(&error) => {
            failed(&crate::sys::process::signals::check_stopped().err().unwrap_or(error), format, err)
        }
        Err(error) => failed(&error, format, err),
    }
}

/// clap's own answers: help and version go to standard output, mistakes are exit 2.
fn usage(error: &clap::Error, args: &[OsString], world: &mut AppEnv) -> Exit {
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
    let message = render::one_line(&mask::mask(&without_errno(&format!("{error:#}"))));

    let hint = if error.to_string() == NO_OUTPUT {
        Some("its target is full or closed; the command itself was completed".to_owned())
    } else {
        error::hint(error)
    };
    let written = if format == Format::Text {
        let hint = hint.map(|hint| format!("hint: {}\n", render::one_line(&hint))).unwrap_or_default();
        write!(err, "error: {message}\n{hint}")
    } else {
        let error = serde_json::json!({ "error": message, "hint": hint, "exit": exit as i32 });
        writeln!(err, "{error}")
    };
    let _ = written;
    exit
}

/// Hint for the stores in the configuration of a system that is only mounted here.
const STORES_FROM_HERE: &str =
    "name a directory with --store, or configure the store on this machine and name it with --store";

/// One command being carried out.
struct App<'a> {
    host: Host,
    format: Format,
    quiet: bool,
    /// Keys that open encrypted snapshots.
    keys: Keys,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl App<'_> {
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
            Verb::Config(args::ConfigCommand::Show) => self.config_show(),
            Verb::Config(args::ConfigCommand::Check) => self.config_check(),
            Verb::Config(args::ConfigCommand::Export(args)) => self.config_export(&args),
            Verb::Config(args::ConfigCommand::Import(args)) => self.config_import(&args),
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

    /// Writes to standard output. A closed pipe is not an error: its reader has read enough. What was done is done,
    /// and the exit code tells it.
    fn write(&mut self, data: &[u8]) -> Result<()> {
        match self.out.write_all(data).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context(NO_OUTPUT),
        }
    }

    /// The configuration of the host. Of one that is only mounted here it commands nothing on this machine: a store
    /// that is not one of its folders is told, and is none.
    fn config(&self) -> Result<Config> {
        let mut config = Config::load(&self.host, &store::kind_names(), &channels::kind_names())?;
        if self.host.exec.is_of_host() {
            return Ok(config);
        }

        let is_folder = |section: &Section| section.kind == store::FOLDER;
        let (folders, others): (Vec<_>, Vec<_>) = config.stores.into_iter().partition(is_folder);
        config.stores = folders;
        if !others.is_empty() {
            let names: Vec<_> =
                others.iter().map(|section| format!("{} '{}'", section.kind, section.id)).collect();
            let what = format!("not opened, for this system is only mounted here: {}", names.join(", "));
            config.problems.push(Problem::warning(what).hint(STORES_FROM_HERE));
        }
        Ok(config)
    }

    /// The stores that were named, or all; what is wrong with the configuration is told.
    fn stores(&self, config: &Config, args: &common_args::Stores) -> Result<Vec<Box<dyn Store>>> {
        if args.names.is_empty() {
            self.tell(&config.problems);
        }
        self.open_all(config, args)
    }

    /// The same for a verb that tells the problems of the configuration with its own.
    fn open_all(&self, config: &Config, args: &common_args::Stores) -> Result<Vec<Box<dyn Store>>> {
        if !args.names.is_empty() {
            return args.names.iter().map(|name| self.store(config, name)).collect();
        }
        if config.stores.is_empty() {
            let what = config.problems.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>();
            let fault = Fault::new(FaultKind::Usage, format!("there is no store: {}", what.join("; ")));
            return Err(fault.hint(STORES_FROM_HERE).into());
        }
        config.stores.iter().map(|section| self.open(section)).collect()
    }

    fn store(&self, config: &Config, name: &str) -> Result<Box<dyn Store>> {
        if name.contains('/') {
            return Ok(store::folder(&std::path::absolute(name)?, &self.host));
        }
        let section = |config: &Config| config.stores.iter().find(|section| section.id == name).cloned();
        if let Some(section) = section(config) {
            return self.open(&section);
        }
        if !self.host.exec.is_of_host() {
            let machine = self.host.machine();
            let own = Config::load(&machine, &store::kind_names(), &channels::kind_names())?;
            if let Some(section) = section(&own).filter(|_| !own.files.is_empty()) {
                return store::open(&section, &machine);
            }
        }

        let known: Vec<&str> = config.stores.iter().map(|section| section.id.as_str()).collect();
        let near = nearest(name, &known).map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
        let mut hint =
            format!("{near}the stores are: {}; a path to a directory contains a /", known.join(", "));
        if !self.host.exec.is_of_host() {
            hint.push_str("; ");
            hint.push_str(STORES_FROM_HERE);
        }
        Err(Fault::new(FaultKind::NotFound, format!("store '{name}' does not exist")).hint(hint).into())
    }

    /// A link of another system must not lead a store of it onto this one.
    fn open(&self, section: &Section) -> Result<Box<dyn Store>> {
        let store = store::open(section, &self.host)?;
        let Some(folder) = store.folder().filter(|_| !self.host.is_live()) else { return Ok(store) };
        let there = folder.ancestors().find(|above| above.symlink_metadata().is_ok());
        let real = there.and_then(|above| std::fs::canonicalize(above).ok());
        if real.is_none_or(|real| !real.starts_with(self.host.root())) {
            let (place, root) = (store.place(), self.host.root().display());
            let message = format!("store '{}': {place} is outside of {root}", store.name());
            return Err(Fault::new(FaultKind::Usage, message).hint("name a directory with --store").into());
        }
        Ok(store)
    }

    fn choose(&self, stores: &common_args::Stores, word: &str) -> Result<ChosenSnapshot> {
        // A file needs no configuration: a bare snapshot opens on any machine.
        let is_file = snapshots::is_file_word(word);
        if is_file && !stores.names.is_empty() {
            let fault =
                Fault::new(FaultKind::Usage, format!("{word}: is a file and cannot be used with --store"));
            return Err(fault.hint("use one of the two").into());
        }
        let stores = if is_file { Vec::new() } else { self.stores(&self.config()?, stores)? };
        Ok(snapshots::choose(&stores, &self.host.facts.node, word)?.with_keys(&self.keys))
    }

    fn progress(&self) -> Progress {
        Progress { live: !self.quiet && self.format == Format::Text && io::stderr().is_terminal() }
    }

    /// Carries a verb out and keeps the record of it.
    fn noted(
        &mut self,
        verb: &'static str,
        carry_out: impl FnOnce(&mut Self, &mut RunRecord) -> Result<Exit>,
    ) -> Result<Exit> {
        let clock = Instant::now();
        let mut record = finish::blank(&self.host, verb);
        let done = carry_out(self, &mut record);
        record.took = clock.elapsed().as_secs_f64();
        finish::other(&self.host, record, &done);
        let problems = self.metrics();
        self.tell(&problems);
        done
    }

    /// Metrics of what is recorded by now. A configuration that does not stand names no place for them.
    fn metrics(&self) -> Vec<Problem> {
        let Ok(config) = self.config() else { return Vec::new() };
        metrics::write(&self.host, &config)
    }

    /// Problems of a verb whose value is a table: to standard error, the table stays clean.
    fn tell(&self, problems: &[Problem]) {
        if self.format == Format::Text {
            for problem in problems {
                let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                log::warn!("{}{hint}", render::one_line(&without_errno(&problem.what)));
            }
        }
    }

    /// Checks what the grammar of a configuration does not, without touching a store: its compression, its
    /// stores, its channels. Errors: `Usage`.
    fn sound(&self, config: &Config) -> Result<(Compression, Vec<Box<dyn Store>>)> {
        let compression = settings(config)?;
        let stores = config.stores.iter().map(|section| self.open(section)).collect::<Result<_>>()?;
        for section in &config.channels {
            channels::open(section)?;
        }
        Ok((compression, stores))
    }
}

/// The rules of `backup: main` that its grammar does not hold.
fn settings(config: &Config) -> Result<Compression> {
    Selection { skip: config.backup.skip.clone(), ..Selection::default() }.check()?;
    compression(config)
}

fn is_interrupted(error: &anyhow::Error) -> bool {
    has_cause(error, io::ErrorKind::Interrupted)
}

fn has_cause(error: &anyhow::Error, kind: io::ErrorKind) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| error.kind() == kind)
}

fn selection(args: common_args::Selected) -> Selection {
    Selection { only: args.only, skip: args.skip }
}

/// Returns the problems that an admin can act on.
fn worth(problems: &[Problem]) -> Vec<Problem> {
    problems
        .iter()
        .filter(|problem| Outcome::of(std::slice::from_ref(problem)) != Outcome::Ok)
        .cloned()
        .collect()
}
