//! Arguments that can be typed. Nothing is decided here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::common_args::{Global, Selected, Stores};

const EXAMPLES: &str = "\
EXAMPLES:
  pbx-config backup                        back up this host's configuration
  pbx-config list                          list the snapshots
  pbx-config show latest --files           list the files in the newest one
  pbx-config cat latest etc/fstab          print one file of it
  pbx-config verify                        verify the newest one, every byte
  pbx-config restore latest --dry-run      show what a restore would change here
  pbx-config restore latest --to /tmp/x    extract everything into a new directory
  pbx-config backup --root /mnt            back up a system that a rescue disk has mounted

SNAP is HOST/TIME or the beginning of it, latest, latest~1, HOST/latest, or a snapshot file.

EXIT STATUS:
  0 ok   1 failed   2 usage or configuration   3 done, with problems   4 verification failed
  5 a restore was not confirmed in time and was rolled back
  10 no such snapshot or store   11 another run holds the lock   12 cannot open an encrypted snapshot";

/// Back up and restore the configuration of a Proxmox VE or Proxmox Backup Server host
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
    /// Create a snapshot of this host's configuration and save it to every store
    Backup(BackupArgs),
    /// List snapshots, newest first
    List(List),
    /// Show the contents of a snapshot
    Show(Show),
    /// Write one file of a snapshot to standard output
    Cat(Cat),
    /// Verify snapshots: read every byte and check every hash
    Verify(Verify),
    /// Restore a snapshot to this system, or extract it into a directory
    Restore(Box<super::restore::RestoreArgs>),
    /// Decrypt a snapshot into a directory
    Decrypt(super::decrypt::Decrypt),
    /// Undo a restore: put back exactly what it changed
    Undo(super::restore::undo::Undo),
    /// Confirm a restore that waits for it, before it is rolled back
    Confirm(super::restore::undo::Confirm),
    /// Manage the encryption keys: show, create and add them, and check the offline one
    #[command(
        subcommand,
        after_help = "EXAMPLES:
  pbx-config key setup                                          guided setup
  pbx-config key generate --output /media/stick/key.txt --add
  pbx-config key generate --passphrase --add
  pbx-config key add ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA... me@desk
  pbx-config key from-identity /media/stick/key.txt
  pbx-config key prove --identity /media/stick/key.txt
  pbx-config key paper /media/stick/key.txt | lp"
    )]
    Key(super::key::KeyCommand),
    /// Remove old snapshots of this host, according to the keep options of each store
    Prune(Prune),
    /// Show how well this host is backed up
    Status(super::status::StatusArgs),
    /// Show the runs of this program on this host
    Log(super::run_log::Log),
    /// Manage the stores
    #[command(
        subcommand,
        after_help = "EXAMPLES:
  pbx-config store list
  pbx-config store test       reach every store, write, read and remove a file
  pbx-config store test nas
  pbx-config store adopt      after a reinstallation: take over the snapshots of the old machine"
    )]
    Store(StoreCommand),
    /// List the known items of a Proxmox host, and what this host has of them
    Catalog(Catalog),
    /// Manage the hooks: back up when vzdump jobs end, and before packages change
    #[command(
        subcommand,
        after_help = "EXAMPLES:
  pbx-config hook enable vzdump      back up the configuration at the end of every backup job of this node
  pbx-config hook enable apt         create a snapshot before each upgrade
  pbx-config hook status
  pbx-config hook disable vzdump     set /etc/vzdump.conf back to what it was"
    )]
    Hook(HookCommand),
    /// Check the host, the stores and this program's own files, and say what to do
    Check(super::check::CheckArgs),
    /// List and test the notification channels
    #[command(subcommand, after_help = super::notify::EXAMPLES)]
    Notify(super::notify::Notify),
    /// Convert the backup.env of the legacy program into a configuration
    Migrate(super::setup::migrate::Args),
    /// Show, check, export and import the configuration
    #[command(
        subcommand,
        after_help = "EXAMPLES:
  pbx-config config show      show the configuration in force, with file and line
  pbx-config config check
  pbx-config config export > pbx-config.yaml
  pbx-config config import pbx-config.yaml"
    )]
    Config(ConfigCommand),
}

/// Create a snapshot of this host's configuration and save it to every store
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
    /// Add a note to the snapshot
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Protect the snapshot: prune never removes it
    #[arg(long)]
    pub protect: bool,
    /// Show what would be read and written, without writing anything
    #[arg(long)]
    pub dry_run: bool,
    /// Trigger of the backup; the package's timer and hook say so
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
/// Archives of the legacy program in a directory or in an rclone remote are listed too, marked [legacy]. It had no
/// archives on a Proxmox Backup Server.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config list
  pbx-config list --host pve2
  pbx-config list --host 'pve*'
  pbx-config list /media/stick")]
pub struct List {
    /// Directory with snapshots, instead of the configured stores
    #[arg(value_name = "DIR", conflicts_with = "names")]
    pub folder: Option<PathBuf>,
    /// Restrict to snapshots of this host, or of hosts that match this glob [default: all hosts]
    #[arg(long, value_name = "NAME|GLOB")]
    pub host: Option<String>,
    #[command(flatten)]
    pub stores: Stores,
}

/// Show the contents of a snapshot
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config show latest
  pbx-config show pve1/2026-11-22 --files
  pbx-config show /media/stick/pve1_20261122T151740Z.pbx.tar --json")]
pub struct Show {
    pub snap: String,
    /// List every file and directory
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
    /// Path as `show --files` lists it; a leading / is allowed
    pub path: String,
    #[command(flatten)]
    pub stores: Stores,
}

/// Verify snapshots: read every byte and check every hash
///
/// The contents of an encrypted snapshot are verified when its key is available; otherwise only the hash of its
/// payload is. A signature must be valid. --all also verifies the chains: each snapshot names the one before it, so
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // flags of a command line
#[command(after_help = "EXAMPLES:
  pbx-config verify                 verify the newest snapshot of this host
  pbx-config verify pve1/2026-11-22 latest~1
  pbx-config verify --all           verify every copy in every store
  pbx-config verify --deep --identity /media/stick/key.txt
  pbx-config verify --all --signer /etc/ssh/ssh_host_ed25519_key.pub")]
pub struct Verify {
    pub snaps: Vec<String>,
    /// Verify every snapshot of every host in every store; legacy archives are only counted
    #[arg(long, conflicts_with_all = ["snaps", "newest"])]
    pub all: bool,
    /// Also verify the contents of encrypted snapshots; fail if one cannot be opened
    #[arg(long)]
    pub deep: bool,
    /// Require a signature by this key: a fingerprint, SHA256:..., or a file with public SSH keys
    #[arg(long, value_name = "FILE|FINGERPRINT")]
    pub signer: Option<String>,
    /// Verify the newest snapshot of this host (the default)
    #[arg(long, conflicts_with = "snaps")]
    pub newest: bool,
    /// Notify the configured channels of errors, as the weekly timer does
    #[arg(long)]
    pub notify: bool,
    #[command(flatten)]
    pub stores: Stores,
}

/// Remove old snapshots of this host, according to the keep options of each store
///
/// Each backup does the same after it was saved. Never removed are the newest snapshot, protected ones, those of
/// another machine, and files of other programs. Legacy archives are removed only with --legacy. A store without a
/// keep option keeps all snapshots. Nothing is removed while a snapshot has a time in the future, or while the
/// newest one lacks half of the files of an earlier one (see --accept).
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config prune --dry-run      show every snapshot, and why it is kept or removed
  pbx-config prune --store nas
  pbx-config prune --accept       the host has fewer files on purpose
  pbx-config prune --legacy keep-last=3 --store nas --dry-run")]
pub struct Prune {
    /// Show every snapshot with the reason, without removing anything
    #[arg(long)]
    pub dry_run: bool,
    /// Prune even if the newest snapshot has much fewer files than earlier ones
    #[arg(long, conflicts_with = "dry_run")]
    pub accept: bool,
    /// Prune only the legacy archives of this host, with these options: keep-last=3,keep-monthly=12
    #[arg(long, value_name = "KEEP", conflicts_with = "accept")]
    pub legacy: Option<String>,
    #[command(flatten)]
    pub stores: Stores,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// List the stores: where they are, what they keep and what they contain
    List,
    /// Test each store: connect, write a file, read it back and remove it, with the time of each step
    Test {
        /// Restrict to these stores, by name; a path with a / is a directory with snapshots
        #[arg(value_name = "NAME|DIR")]
        names: Vec<String>,
    },
    /// Take over the snapshots of another machine that has the name of this host
    Adopt {
        #[command(flatten)]
        stores: Stores,
    },
}

/// List the known items of a Proxmox host, and what this host has of them
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES:
  pbx-config catalog
  pbx-config catalog --all          also the items of products that are not on this host
  pbx-config catalog --only storage --json")]
pub struct Catalog {
    /// Also list items that do not apply to this host
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub selected: Selected,
}

#[derive(Debug, Subcommand)]
pub enum HookCommand {
    /// Enable a hook; a script that vzdump already runs is still run, after the hook
    Enable { hook: HookName },
    /// Disable a hook; the rest of the file is not changed
    Disable { hook: HookName },
    /// Show whether the hooks are enabled, and the jobs that bypass them
    Status,
    /// Run a hook: a phase of vzdump with its words, or `apt` with its list on standard input
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
    /// Show the configuration in force, and the file and line of each value
    Show,
    /// Check the configuration, and connect to every store
    Check,
    /// Export the configuration as YAML or JSON
    Export(super::setup::exchange::Export),
    /// Import a YAML or JSON file, which replaces the configuration of this node
    Import(super::setup::exchange::Import),
}
