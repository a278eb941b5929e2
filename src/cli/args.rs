//! Arguments that can be typed. Nothing is decided here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::common_args::{Global, Selected, Stores};

const EXAMPLES: &str = "\
EXAMPLES:
  pbx-config backup                        save this host's configuration
  pbx-config list                          what snapshots there are
  pbx-config show latest --files           what is in the newest one
  pbx-config cat latest etc/fstab          one file of it
  pbx-config verify                        prove the newest one, to the last byte
  pbx-config restore latest --dry-run      what bringing it back would change here
  pbx-config restore latest --to /tmp/x    take everything out into a new folder
  pbx-config backup --root /mnt            the dead system mounted there, from a rescue disk

SNAP is HOST/TIME or the beginning of it, latest, latest~1, HOST/latest, or a snapshot file.

EXIT STATUS:
  0 ok   1 failed   2 usage or configuration   3 done, with problems   4 verification failed
  5 an armed restore that nobody confirmed, undone
  10 no such snapshot or store   11 another run holds the lock   12 cannot open an encrypted snapshot";

/// Save the configuration of a Proxmox VE or Proxmox Backup Server host, and bring it back
#[derive(Debug, Parser)]
#[command(name = "pbx-config", version, after_help = EXAMPLES, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a snapshot of this host's configuration and put it on every store
    Backup(BackupArgs),
    /// List snapshots, newest first
    List(List),
    /// Show what a snapshot holds
    Show(Show),
    /// Write one file of a snapshot to standard output
    Cat(Cat),
    /// Read snapshots again, every byte and every hash
    Verify(Verify),
    /// Bring a snapshot back: onto this system, or into a folder
    Restore(Box<super::restore::RestoreArgs>),
    /// Write a sealed snapshot in the clear
    Decrypt(super::decrypt::Decrypt),
    /// Put back exactly what a restore changed
    Undo(super::restore::undo::Undo),
    /// Keep a restore that is armed
    Confirm(super::restore::undo::Confirm),
    /// Keys: who can open the snapshots, new ones, and the proof that the offline one still works
    #[command(
        subcommand,
        after_help = "EXAMPLES:
  pbx-config key setup                                          the guided way
  pbx-config key generate --output /media/stick/key.txt --add
  pbx-config key generate --passphrase --add
  pbx-config key add ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA... me@desk
  pbx-config key from-identity /media/stick/key.txt
  pbx-config key prove --identity /media/stick/key.txt
  pbx-config key paper /media/stick/key.txt | lp"
    )]
    Key(super::key::KeyCommand),
    /// Remove this host's old snapshots, as the keep options of each store say
    Prune(Prune),
    /// How well this host is backed up, at a glance
    Status(super::status::StatusArgs),
    /// What this program did on this host
    Log(super::run_log::Log),
    /// Look at the stores
    #[command(
        subcommand,
        after_help = "EXAMPLES:
  pbx-config store list
  pbx-config store test       every store: reach, write, read, remove
  pbx-config store test nas
  pbx-config store adopt      after a reinstallation: the old machine's snapshots count as this one's"
    )]
    Store(StoreCommand),
    /// What this program knows of a Proxmox host, and what of it is here
    Catalog(Catalog),
    /// Make a backup when vzdump jobs end, and before packages change
    #[command(
        subcommand,
        after_help = "EXAMPLES:
  pbx-config hook enable vzdump      every backup job of this node ends with a backup of its configuration
  pbx-config hook enable apt         a snapshot before each upgrade
  pbx-config hook status
  pbx-config hook disable vzdump     /etc/vzdump.conf is again what it was"
    )]
    Hook(HookCommand),
    /// Look at the host, at what of ours is on it and at its stores: how it stands and what to do
    Check(super::check::CheckArgs),
    /// Look at the channels that a run is told to, and try them
    #[command(subcommand, after_help = super::notify::EXAMPLES)]
    Notify(super::notify::Notify),
    /// Turn the predecessor's backup.env into a configuration of pbx-config
    Migrate(super::setup::migrate::Args),
    /// Look at the configuration, take it out, bring it in
    #[command(
        subcommand,
        after_help = "EXAMPLES:
  pbx-config config show      what is in force, and from which file and line
  pbx-config config check
  pbx-config config export > pbx-config.yaml
  pbx-config config import pbx-config.yaml"
    )]
    Config(ConfigCommand),
}

/// Make a snapshot of this host's configuration and put it on every store
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config backup
  pbx-config backup --dry-run
  pbx-config backup --note 'before the upgrade' --protect
  pbx-config backup --only guests,storage --store /media/stick
  pbx-config backup --root /mnt --store /media/stick")]
pub struct BackupArgs {
    #[command(flatten)]
    pub selected: Selected,
    #[command(flatten)]
    pub stores: Stores,
    /// A line to find the snapshot by
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Mark the snapshot as one to keep for good
    #[arg(long)]
    pub protect: bool,
    /// Show what would be read and written; write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Who asks for it; the package's timer and hook say so
    #[arg(long, value_enum, hide = true, default_value = "manual")]
    pub trigger: TriggerArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TriggerArg {
    Manual,
    Timer,
    Vzdump,
    Apt,
}

/// List snapshots, newest first
///
/// Archives of the predecessor that lie in a folder or in a remote of rclone stand among them, marked [legacy]; on a
/// Proxmox Backup Server it had none.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config list
  pbx-config list --host pve2
  pbx-config list --host 'pve*'
  pbx-config list /media/stick")]
pub struct List {
    /// A folder of snapshots, instead of the configured stores
    #[arg(conflicts_with = "names")]
    pub folder: Option<PathBuf>,
    /// Only snapshots of this host, or of those that a glob meets; without it all hosts
    #[arg(long, value_name = "NAME|GLOB")]
    pub host: Option<String>,
    #[command(flatten)]
    pub stores: Stores,
}

/// Show what a snapshot holds
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config show latest
  pbx-config show pve1/2026-11-22 --files
  pbx-config show /media/stick/pve1_20261122T151740Z.pbx.tar --json")]
pub struct Show {
    pub snap: String,
    /// List every entry
    #[arg(long)]
    pub files: bool,
    #[command(flatten)]
    pub stores: Stores,
}

/// Write one file of a snapshot to standard output
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config cat latest etc/network/interfaces
  pbx-config cat latest~3 /etc/pve/storage.cfg
  pbx-config cat latest .pbx/state/lsblk.json")]
pub struct Cat {
    pub snap: String,
    /// As `show --files` lists it; a leading / is fine
    pub path: String,
    #[command(flatten)]
    pub stores: Stores,
}

/// Read snapshots again, every byte and every hash
///
/// A sealed snapshot is looked into when its key is there; without it, its payload is proven by its hash. A signature
/// must hold. With --all also the chains: each snapshot names the one before it, so that one that was replaced shows.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // flags of a command line
#[command(after_help = "EXAMPLES:
  pbx-config verify                 the newest of this host
  pbx-config verify pve1/2026-11-22 latest~1
  pbx-config verify --all           every copy in every store
  pbx-config verify --deep --identity /media/stick/key.txt
  pbx-config verify --all --signer /etc/ssh/ssh_host_ed25519_key.pub")]
pub struct Verify {
    pub snaps: Vec<String>,
    /// Every snapshot of every host, in every store; archives of the predecessor are only counted
    #[arg(long, conflicts_with_all = ["snaps", "newest"])]
    pub all: bool,
    /// Also look into what is sealed: fails where nothing opens it
    #[arg(long)]
    pub deep: bool,
    /// Who must have signed: a fingerprint, SHA256:..., or a file of public SSH keys
    #[arg(long, value_name = "FILE|FINGERPRINT")]
    pub signer: Option<String>,
    /// The newest of this host (the default)
    #[arg(long, conflicts_with = "snaps")]
    pub newest: bool,
    /// Tell the configured channels when something is wrong; the weekly timer does
    #[arg(long)]
    pub notify: bool,
    #[command(flatten)]
    pub stores: Stores,
}

/// Remove this host's old snapshots, as the keep options of each store say
///
/// Each run does the same after it has written. Never removed: the newest one, protected ones, those of another
/// machine, and what is not ours; the predecessor's archives go by --legacy alone. Without a keep option a store
/// keeps all. Nothing at all is removed while a snapshot is of a time yet to come, or while the newest one lacks half
/// of the files of one before it (--accept).
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config prune --dry-run      every snapshot, and why it stays or goes
  pbx-config prune --store nas
  pbx-config prune --accept       the host was meant to become smaller
  pbx-config prune --legacy keep-last=3 --store nas --dry-run")]
pub struct Prune {
    /// Show every snapshot with its reason; remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take the newest snapshot as it is, though it has much less than those before it
    #[arg(long, conflicts_with = "dry_run")]
    pub accept: bool,
    /// Archives that the predecessor made of this host, and nothing of ours: keep-last=3,keep-monthly=12
    #[arg(long, value_name = "KEEP", conflicts_with = "accept")]
    pub legacy: Option<String>,
    #[command(flatten)]
    pub stores: Stores,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// The stores in force: where they are, what they keep, what they have
    List,
    /// Reach each store, write a probe, read it back and remove it, with the time of each step
    Test {
        /// Only these stores, by name; a path with a / is a folder of snapshots
        #[arg(value_name = "NAME|FOLDER")]
        names: Vec<String>,
    },
    /// Let snapshots of this host's name from another machine count as its own
    Adopt {
        #[command(flatten)]
        stores: Stores,
    },
}

/// What this program knows of a Proxmox host, and what of it is here
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config catalog
  pbx-config catalog --all          rows of products that are not on this host, too
  pbx-config catalog --only storage --json")]
pub struct Catalog {
    /// Also rows that do not belong to this host
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub selected: Selected,
}

#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Take part; a script that vzdump already runs is run after ours, as before
    Enable { hook: HookName },
    /// Take no part any more; every other byte stays
    Disable { hook: HookName },
    /// How the hooks stand, and what goes past them
    Status,
    /// What the hooks call: a phase of vzdump with its words, or `apt` with its list on standard input
    #[command(hide = true)]
    Run {
        phase: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<OsString>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum HookName {
    Vzdump,
    Apt,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// The configuration in force, and where each value came from
    Show,
    /// Check the configuration and reach every store
    Check,
    /// Print the configuration as YAML or JSON
    Export(super::setup::exchange::Export),
    /// Replace this node's configuration by a YAML or JSON file
    Import(super::setup::exchange::Import),
}
