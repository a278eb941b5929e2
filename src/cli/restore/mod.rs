//! `restore`: into a directory, or onto this system as a plan that is shown, asked for and done.

mod guided;
pub mod undo;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::App;
use super::common_args::Format;
use super::render::{self, plan};
use crate::config::ApiConfig;
use crate::model::facts::Product;
use crate::model::problem::{Exit, Fault, FaultKind, Outcome, Problem};
use crate::plan::restore::adapt::references::{Moves, Pair};
use crate::plan::restore::{Database, RestorePlan, RestoreRequest};
use crate::plan::select::Selection;
use crate::sys::fs::glob::Pattern;
use crate::task::restore::prepare::{self, Prepared, Saved};
use crate::task::restore::probe::Probe;
use crate::task::restore::{self, ConfirmOptions, Restored, audit_log, auto_rollback, pending, preview};
use crate::task::snapshots::{ChosenSnapshot, extract, signature, verify};

/// All are asked at once.
const MAX_PROBES: usize = 8;

/// Restore a snapshot to this system, or extract it into a directory
///
/// Without --to the plan is shown first and must be confirmed once; every change can be undone. The snapshot is
/// verified before anything is written.
#[allow(clippy::struct_excessive_bools)] // flags
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config restore                              ask for each choice, on a terminal
  pbx-config restore latest --dry-run             show what would change here, and what would not and why
  pbx-config restore latest --only guests,storage
  pbx-config restore latest storage/nas user/bob@pve
  pbx-config restore latest vm/101 --as 201 --storage local-lvm=tank --bridge vmbr0=vmbr1
  pbx-config restore latest --recover --node pve1=pve2
  pbx-config restore latest --only network --confirm-within 5m --probe ping:10.0.0.1
  pbx-config restore latest --only network --nic nic0=enp5s0     the NIC on the new mainboard
  pbx-config restore latest --recover --database  /etc/pve as its database, with pmxcfs stopped
  pbx-config restore latest --path /etc/network --yes
  pbx-config restore latest --skip network --plan /root/plan.json
  pbx-config restore --apply /root/plan.json
  pbx-config restore latest --recover             a whole node, on a fresh installation
  pbx-config restore latest --to /tmp/host        only extract the files into a directory")]
pub struct RestoreArgs {
    /// Snapshot to restore; not with --apply. On a terminal you are asked if it is missing
    #[arg(conflicts_with = "apply")]
    pub snap: Option<String>,
    /// Extract the files into this directory, empty or new, instead of restoring to this system
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Restrict to these objects: vm/101, ct/102, storage/nas, user/bob@pve, pool/x, job/x, datastore/x, mapping/pci/x …
    ///
    /// An object is copied from the files of the snapshot into those of this system, which keep every other line. What
    /// belongs to it is restored too: a storage's password, a user's tokens and permissions, a guest's firewall.
    #[arg(value_name = "OBJECT", conflicts_with_all = ["to", "apply"])]
    pub objects: Vec<String>,
    #[command(flatten)]
    pub selected: super::common_args::Selected,
    /// Restrict to paths matching this glob
    #[arg(long = "path", value_name = "GLOB")]
    pub paths: Vec<String>,
    /// Restrict to a predefined selection; --only and --skip are finer
    #[arg(long, value_enum, value_name = "MODE", conflicts_with = "apply")]
    pub mode: Option<RestoreMode>,
    /// Show the plan, without writing anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan to this file, for --apply
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "apply"])]
    pub plan: Option<PathBuf>,
    /// Apply exactly this saved plan; fails if anything has changed since
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "only", "skip", "paths", "names"])]
    pub apply: Option<PathBuf>,
    /// On a cluster node: also restore what all nodes share
    #[arg(long, conflicts_with_all = ["to", "apply"])]
    pub cluster_wide: bool,
    /// Restore a whole node on a fresh installation, including its host name
    #[arg(long, conflicts_with_all = ["to", "apply"])]
    pub recover: bool,
    /// With --recover: also restore jobs, which then begin to run
    #[arg(long, requires = "recover")]
    pub start_jobs: bool,
    /// With --recover: restore all of /etc/pve as a database, while pmxcfs is stopped
    #[arg(long, requires = "recover", conflicts_with = "objects")]
    pub database: bool,
    /// With --database: leave the cluster and restore a single node
    #[arg(long, requires = "database")]
    pub leave_cluster: bool,
    /// New id for the guest, if only one is restored
    #[arg(long = "as", value_name = "ID", conflicts_with_all = ["to", "apply"])]
    pub as_id: Option<u32>,
    /// Rename the node OLD of the snapshot to NEW: its files are moved, and its name is replaced
    #[arg(long, value_name = "OLD=NEW", conflicts_with_all = ["to", "apply"])]
    pub node: Option<String>,
    /// Replace the storage OLD by NEW in guest configurations
    #[arg(long, value_name = "OLD=NEW", conflicts_with_all = ["to", "apply"])]
    pub storage: Vec<String>,
    /// Replace the bridge OLD by NEW in guest configurations
    #[arg(long, value_name = "OLD=NEW", conflicts_with_all = ["to", "apply"])]
    pub bridge: Vec<String>,
    /// Rename the NIC OLD of the snapshot to NEW, if its MAC address is not here (another mainboard)
    ///
    /// Without it NICs are matched by their MAC addresses. The names are replaced in the files of the network and of the
    /// firewall; a .link file gets the address of the new NIC.
    #[arg(long, value_name = "OLD=NEW", conflicts_with_all = ["to", "apply"])]
    pub nic: Vec<String>,
    /// Resume an interrupted restore; with --dry-run, show what is left of it
    #[arg(long, value_name = "ID", conflicts_with_all = ["snap", "to", "apply", "plan", "only", "skip", "paths",
        "mode", "cluster_wide", "recover", "start_jobs", "as_id", "node", "storage", "bridge", "nic", "names"])]
    pub resume: Option<String>,
    /// Do not ask for confirmation
    #[arg(long, conflicts_with = "to")]
    pub yes: bool,
    /// Time to type `pbx-config confirm` in a new session, or what may cut your connection is rolled back:
    /// 90s, 3m, 1h [default: 3m]
    ///
    /// The time begins when everything is restored. What may cut your connection must be done within 5 minutes, with its
    /// services; otherwise it is rolled back at once.
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "to")]
    pub confirm_within: Option<Duration>,
    /// Confirm if this probe succeeds, roll back if it fails: ping:HOST, quorum, `https://HOST[:PORT][/PATH]`
    ///
    /// The restore is confirmed when all probes succeed three times in a row. It is rolled back when one still fails after
    /// half of the time to confirm, at most a minute. quorum: /etc/pve is writable. https: a server answers within 3 s with
    /// a status below 500, so a login page is enough. Its certificate is not verified, because nodes sign their own: a
    /// probe shows that something answers, not what.
    #[arg(long = "probe", value_name = "PROBE", conflicts_with = "to")]
    pub probes: Vec<Probe>,
    #[command(flatten)]
    pub stores: super::common_args::Stores,
}

/// "90s", "3m", "1h".
fn time(text: &str) -> Result<Duration, String> {
    const MAX_SECONDS: u64 = 24 * 3600;
    let bad = || format!("'{text}' is not a valid time; use 90s, 3m or 1h");
    let unit = text.chars().last().ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(bad()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    match number.checked_mul(seconds) {
        Some(seconds @ 1..=MAX_SECONDS) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("'{text}' is not between one second and a day")),
    }
}

fn arming(args: &RestoreArgs) -> Result<ConfirmOptions> {
    const DEFAULT: Duration = Duration::from_secs(3 * 60);
    let within = args.confirm_within.unwrap_or(DEFAULT);
    if args.probes.len() > MAX_PROBES {
        return Err(Fault::new(FaultKind::Usage, format!("more than {MAX_PROBES} probes")).into());
    }
    Ok(ConfirmOptions { within, probes: args.probes.clone(), always: args.confirm_within.is_some() })
}

/// Choice of the categories that come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestoreMode {
    /// All of it
    Full,
    /// Storages, datastores and their keys, and the jobs that use them
    Storage,
    /// The host itself: name, network, accounts, SSH, certificates, services
    Base,
    /// Choose from a list, on a terminal
    Custom,
}

impl RestoreMode {
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Full | Self::Custom => &[],
            Self::Storage => &["storage", "jobs", "tape"],
            Self::Base => &[
                "identity",
                "network",
                "packages",
                "boot",
                "accounts",
                "ssh",
                "services",
                "scripts",
                "certificates",
                "firewall",
            ],
        }
    }
}

impl App<'_> {
    pub(in crate::cli) fn restore(&mut self, mut args: RestoreArgs) -> Result<Exit> {
        if let Some(to) = args.to.clone() {
            return self.extract(args, to);
        }
        if args.snap.is_none() && args.apply.is_none() && args.resume.is_none() {
            args.snap = Some(self.guided_snapshot(&mut args.stores)?);
            if args.mode.is_none() && args.selected.only.is_empty() && args.paths.is_empty() {
                args.mode = Some(self.guided_mode()?);
            }
        }

        if let Some(id) = args.resume.clone() {
            return self.resume(&id, &args);
        }
        if args.mode == Some(RestoreMode::Custom) {
            args.selected.only.extend(self.guided_categories()?);
        }
        let saved = args.apply.as_deref().map(Saved::read).transpose()?;
        saved.as_ref().map(|saved| saved.check_host(&self.host)).transpose()?;

        let (word, request) = match &saved {
            Some(saved) => {
                args.stores.names = saved.store.clone().into_iter().collect();
                (saved.word(), saved.request.clone())
            }
            None => (args.snap.clone().unwrap_or_default(), request(&args)?),
        };
        let chosen = self.choose(&args.stores, &word).map_err(|error| match &saved {
            Some(saved) => saved.without_snapshot(error),
            None => error,
        })?;
        saved.as_ref().map(|saved| saved.check_snapshot(&chosen)).transpose()?;

        let mut prepared = prepare::prepare(&self.host, &chosen, &request)?;
        prepared.plan.problems.extend(self.doubt(&chosen)?);
        saved.as_ref().map(|saved| saved.check(&chosen, &prepared)).transpose()?;
        if let Some(file) = &args.plan {
            Saved::of(&self.host, &prepared)?.write(file)?;
        }
        // A new one begins over what one that was killed left.
        self.tell(&pending::restores(&self.host));
        let only_shown = args.dry_run || args.plan.is_some() || prepared.plan.steps.is_empty();

        // Of what is done one value is told to programs, not two.
        if only_shown || self.format == Format::Text {
            self.print(&prepared.plan.told(), plan::text)?;
        }

        if only_shown {
            if let Some(file) = args.plan.as_deref().map(Path::display) {
                writeln!(self.err, "written to {file}; apply it with: pbx-config restore --apply {file}")?;
            }
            let is_to_be_done = !args.dry_run && args.plan.is_none();
            let falls_short = is_to_be_done && prepared.plan.falls_short();
            return Ok(if falls_short { Exit::Problems } else { Exit::Ok });
        }
        self.apply(&args, &chosen, &prepared)
    }

    /// Returns the reason to doubt who made a snapshot.
    fn doubt(&self, chosen: &ChosenSnapshot) -> Result<Option<Problem>> {
        let config = self.config().ok();
        let signs = config.as_ref().is_none_or(|config| config.backup.sign);
        let named = chosen.store.as_ref().zip(config.as_ref());
        let store = named.and_then(|(name, config)| self.store(config, name).ok());
        signature::doubt(&self.host, signs, store.as_deref(), chosen)
    }

    /// Asks, and does the plan.
    fn apply(&mut self, args: &RestoreArgs, chosen: &ChosenSnapshot, prepared: &Prepared) -> Result<Exit> {
        let arming = arming(args)?;
        let beforehand = restore::beforehand(&self.host, &prepared.plan, &arming);
        self.tell(beforehand.as_slice());
        self.ask(args.yes, &prepared.plan)?;
        let apis = self.apis();
        let err = &mut self.err;
        let mut tell = |id: &str| -> Result<()> {
            Ok(writeln!(err, "to undo it: pbx-config undo {id}").and_then(|()| err.flush())?)
        };
        let mut restored = restore::run(&self.host, chosen, prepared, &apis, &arming, &mut tell)?;
        restored.problems.splice(0..0, prepared.plan.problems.iter().cloned());
        if self.format != Format::Text {
            restored.problems.splice(0..0, beforehand);
        }
        self.conclude(&restored)
    }

    fn resume(&mut self, id: &str, args: &RestoreArgs) -> Result<Exit> {
        if args.dry_run {
            let ahead = preview::resume(&self.host, id)?;
            self.print(&ahead, plan::preview)?;
            return Ok(Exit::Ok);
        }
        let restored = restore::resume(&self.host, id, &self.apis(), &arming(args)?)?;
        self.conclude(&restored)
    }

    /// Returns the places of the products' own APIs; a configuration that cannot be read must not keep a restore from
    /// repairing it. Of a system that is only mounted here none is asked.
    pub(in crate::cli) fn apis(&self) -> Vec<(Product, ApiConfig)> {
        let config = self.config().ok().filter(|_| self.host.exec.is_of_host());
        config.map(|config| config.apis).unwrap_or_default()
    }

    /// One question on a terminal; elsewhere the answer is a flag.
    fn ask(&mut self, yes: bool, plan: &RestorePlan) -> Result<()> {
        if yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let fault = Fault::new(FaultKind::Usage, "there is no terminal to ask on");
            return Err(fault.hint("check the plan with --dry-run, then add --yes").into());
        }

        // Programs get what was done; who is asked must see what is to be.
        if self.format != Format::Text {
            write!(self.err, "{}", plan::text(plan))?;
        }

        write!(self.err, "Do this? Type yes: ").and_then(|()| self.err.flush())?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if answer.trim() == "yes" {
            return Ok(());
        }

        let fault = Fault::new(FaultKind::Failed, "nothing was changed");
        Err(match answer.trim() {
            "" => fault,
            other => fault.hint(format!("'{other}' is not yes")),
        }
        .into())
    }

    /// Tells what was done; of an armed one, waits for its end.
    fn conclude(&mut self, restored: &Restored) -> Result<Exit> {
        let outcome = Outcome::of(&restored.problems);
        self.print(restored, plan::restored)?;

        let Some(armed) = &restored.armed else { return Ok(outcome.into()) };
        let apis = self.apis();
        let progress = self.progress();
        let ended = auto_rollback::watch(&self.host, &apis, armed, &|what| progress.say(what));
        progress.clear();
        if ended? == auto_rollback::Ended::Undone {
            let why = audit_log::why_undone(&self.host, &restored.id);
            let message = format!("{}: {}", restored.id, why.as_deref().unwrap_or("was undone"));
            return Err(Fault::new(FaultKind::Unconfirmed, message)
                .hint("the host is as before; see `pbx-config log --restores`")
                .into());
        }

        if self.format == Format::Text {
            let id = &restored.id;
            writeln!(self.out, "confirmed  it is kept; `pbx-config undo {id}` can still undo it")?;
        }
        Ok(outcome.into())
    }

    fn extract(&mut self, mut args: RestoreArgs, to: PathBuf) -> Result<Exit> {
        if args.mode == Some(RestoreMode::Custom) {
            args.selected.only.extend(self.guided_categories()?);
        }

        let paths = args.paths.iter().map(|path| Pattern::from_option(path)).collect::<Result<_>>()?;
        let request = extract::ExtractRequest { selection: selection(&args), paths, to };
        let word = match args.snap {
            Some(word) => word,
            None => self.guided_snapshot(&mut args.stores)?,
        };
        let chosen = self.choose(&args.stores, &word)?;
        if args.dry_run {
            request.selection.check()?;
            let proven = verify::verify(&chosen)?;
            let entries = extract::plan(&proven.index, &request);
            self.print(&entries, |entries| entries.iter().map(|entry| render::entry(entry)).collect())?;
            return Ok(Exit::Ok);
        }

        let doubt = self.doubt(&chosen)?;
        let mut done = extract::run(&chosen, &request)?;
        done.problems.splice(0..0, doubt);
        let outcome = Outcome::of(&done.problems);
        self.print(&done, render::extracted)?;
        Ok(outcome.into())
    }
}

/// The words and what a choice adds to them.
fn selection(args: &RestoreArgs) -> Selection {
    let mut only = args.selected.only.clone();
    let words = args.mode.map(RestoreMode::words).unwrap_or_default();
    only.extend(words.iter().map(|word| (*word).to_owned()));
    Selection { only, skip: args.selected.skip.clone() }
}

fn request(args: &RestoreArgs) -> Result<RestoreRequest> {
    let pairs = |option: &str, words: &[String]| -> Result<Vec<Pair>> {
        Ok(words.iter().map(|word| Moves::pair(option, word)).collect::<Result<_, Fault>>()?)
    };

    Ok(RestoreRequest {
        selection: selection(args),
        paths: args.paths.clone(),
        cluster_wide: args.cluster_wide,
        recover: args.recover,
        start_jobs: args.start_jobs,
        database: args.database.then_some(if args.leave_cluster {
            Database::WithoutCluster
        } else {
            Database::Whole
        }),
        objects: args.objects.clone(),
        as_id: args.as_id,
        node: args.node.as_deref().map(|word| Moves::pair("--node", word)).transpose()?,
        storage: pairs("--storage", &args.storage)?,
        bridge: pairs("--bridge", &args.bridge)?,
        nic: pairs("--nic", &args.nic)?,
    })
}
