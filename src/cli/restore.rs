//! `restore`: into a folder, or onto this system as a plan that is shown, asked for and done.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{Words, args, glob, plans, render};
use crate::model::report::{Exit, Fault, FaultKind, Outcome};
use crate::plan::relocate::{Moves, Pair};
use crate::plan::restore::Request;
use crate::plan::select::Selection;
use crate::task::restore::{self, Prepared, Saved};
use crate::task::{extract, verify};

/// Bring a snapshot back: onto this system, or into a folder
///
/// Without --to the plan is shown first, then asked for once; every change can be undone. The snapshot is proven
/// before anything is written.
#[allow(clippy::struct_excessive_bools)] // flags
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config restore latest --dry-run             what would change here, and what would not and why
  pbx-config restore latest --only guests,storage
  pbx-config restore latest storage/nas user/bob@pve
  pbx-config restore latest vm/101 --as 201 --storage local-lvm=tank --bridge vmbr0=vmbr1
  pbx-config restore latest --recover --node pve1=pve2
  pbx-config restore latest --path /etc/network --yes
  pbx-config restore latest --skip network --plan /root/plan.json
  pbx-config restore --apply /root/plan.json
  pbx-config restore latest --recover             a whole node, on a fresh installation
  pbx-config restore latest --to /tmp/host        only take the files out into a folder")]
pub struct Restore {
    /// The snapshot; with --apply the plan names it
    #[arg(required_unless_present_any = ["apply"], conflicts_with = "apply")]
    pub snap: Option<String>,
    /// Take the files out into this folder, empty or not there yet, instead of onto this system
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Only these: vm/101, ct/102, storage/nas, user/bob@pve, pool/x, job/x, datastore/x, remote/x, mapping/pci/x …
    ///
    /// One object is taken out of the snapshot's files and put into the live ones, which keep every other line. What
    /// belongs to it comes along: a storage's password, a user's tokens and permissions, a guest's firewall.
    #[arg(value_name = "OBJECT", conflicts_with_all = ["to", "apply"])]
    pub objects: Vec<String>,
    #[command(flatten)]
    pub selected: args::Selected,
    /// Only what this path or glob meets
    #[arg(long = "path", value_name = "GLOB")]
    pub paths: Vec<String>,
    /// A choice made for you; --only and --skip go further
    #[arg(long, value_enum, value_name = "MODE", conflicts_with = "apply")]
    pub mode: Option<Mode>,
    /// Show the plan; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write the plan to this file, for --apply
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "apply"])]
    pub plan: Option<PathBuf>,
    /// Do exactly what this plan says; refused when anything changed since
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "only", "skip", "paths"])]
    pub apply: Option<PathBuf>,
    /// On a member of a cluster: also what all nodes share
    #[arg(long, conflicts_with_all = ["to", "apply"])]
    pub cluster_wide: bool,
    /// A whole node on a fresh installation: also what names this host
    #[arg(long, conflicts_with_all = ["to", "apply"])]
    pub recover: bool,
    /// With --recover: jobs come back, too, and begin to run
    #[arg(long, requires = "recover")]
    pub start_jobs: bool,
    /// Another id for the one guest that is named
    #[arg(long = "as", value_name = "ID", conflicts_with_all = ["to", "apply"])]
    pub as_id: Option<u32>,
    /// The node OLD of the snapshot is NEW now: its files move, and what names it is rewritten
    #[arg(long, value_name = "OLD=NEW", conflicts_with_all = ["to", "apply"])]
    pub node: Option<String>,
    /// In configurations of guests the storage OLD becomes NEW
    #[arg(long, value_name = "OLD=NEW", conflicts_with_all = ["to", "apply"])]
    pub storage: Vec<String>,
    /// In configurations of guests the bridge OLD becomes NEW
    #[arg(long, value_name = "OLD=NEW", conflicts_with_all = ["to", "apply"])]
    pub bridge: Vec<String>,
    #[command(flatten)]
    pub stores: args::Stores,
}

/// What the categories of a choice are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// All of it
    Full,
    /// Storages, datastores and their keys, and the jobs that use them
    Storage,
    /// The host itself: name, network, accounts, SSH, certificates, services
    Base,
}

impl Mode {
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
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

impl Words<'_> {
    pub(super) fn restore(&mut self, args: Restore) -> Result<Exit> {
        if args.to.is_some() {
            return self.extract(args);
        }
        let saved = args.apply.as_deref().map(Saved::read).transpose()?;
        let (word, request) = match &saved {
            Some(saved) => {
                (saved.snapshot_file.as_path().to_string_lossy().into_owned(), saved.request.clone())
            }
            None => (args.snap.clone().unwrap_or_default(), request(&args)?),
        };
        let chosen = self.choose(&args.stores, &word)?;
        let prepared = restore::prepare(&self.host, &chosen, &request)?;
        if let Some(saved) = &saved {
            saved.check(&prepared)?;
        }
        if let Some(file) = &args.plan {
            Saved::of(&prepared)?.write(file)?;
        }
        self.show_plan(&prepared)?;
        if args.dry_run || args.plan.is_some() {
            return Ok(Exit::Ok);
        }
        let fault = Fault::new(FaultKind::Usage, "this version only shows the plan");
        Err(fault.hint("add --dry-run").into())
    }

    fn show_plan(&mut self, prepared: &Prepared) -> Result<()> {
        self.print(&prepared.plan, plans::text)
    }

    fn extract(&mut self, args: Restore) -> Result<Exit> {
        let paths = args.paths.iter().map(|path| glob(path)).collect::<Result<_>>()?;
        let selection = super::selection(args.selected);
        let to = args.to.unwrap_or_default();
        let request = extract::Request { selection, paths, to };
        let chosen = self.choose(&args.stores, &args.snap.unwrap_or_default())?;
        if args.dry_run {
            request.selection.check()?;
            let proven = verify::verify(&chosen)?;
            let entries = extract::plan(&proven.index, &request);
            self.print(&entries, |entries| entries.iter().map(|entry| render::entry(entry)).collect())?;
            return Ok(Exit::Ok);
        }
        let done = extract::run(&chosen, &request)?;
        let outcome = Outcome::of(&done.problems);
        self.print(&done, render::extracted)?;
        Ok(outcome.into())
    }
}

fn request(args: &Restore) -> Result<Request> {
    let mut only = args.selected.only.clone();
    if let Some(mode) = args.mode {
        only.extend(mode.words().iter().map(|word| (*word).to_owned()));
    }
    let pairs = |option: &str, words: &[String]| -> Result<Vec<Pair>> {
        Ok(words.iter().map(|word| Moves::pair(option, word)).collect::<Result<_, Fault>>()?)
    };
    Ok(Request {
        selection: Selection { only, skip: args.selected.skip.clone() },
        paths: args.paths.clone(),
        cluster_wide: args.cluster_wide,
        recover: args.recover,
        start_jobs: args.start_jobs,
        objects: args.objects.clone(),
        as_id: args.as_id,
        node: args.node.as_deref().map(|word| Moves::pair("--node", word)).transpose()?,
        storage: pairs("--storage", &args.storage)?,
        bridge: pairs("--bridge", &args.bridge)?,
    })
}
