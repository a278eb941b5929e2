//! Every option that the predecessor's loader ever read: its names in their order of precedence, its type and
//! default, whether the environment overrode it, and what becomes of it. One row an option, and nothing else.

use super::channels as ch;
use super::env;
use super::files as fi;
use super::stores as st;
use super::{Draft, LegacyContext, OptionOutcome};

pub struct OptionRow {
    /// Today's name.
    pub key: &'static str,
    /// All names that are read, the first that says something wins.
    pub names: &'static [&'static str],
    pub kind: OptionKind,
    /// Of its code, when the file does not say.
    pub default: &'static str,
    pub secret: bool,
    /// A variable of the process overrides the file.
    pub env: bool,
    pub rule: Rule,
}

#[derive(Clone, Copy)]
pub enum OptionKind {
    Bool,
    Int,
    Float,
    /// A number with K, M, G or T.
    Size,
    /// Go's `1h30m`.
    Duration,
    Choice(&'static [&'static str]),
    /// A text in which variables are expanded.
    Text,
    List,
    Numbers,
}

impl OptionKind {
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Choice(_) | Self::Duration)
    }

    /// What is wrong with a value. An empty one is the same as none.
    pub fn check(self, text: &str) -> Result<(), String> {
        let ok = text.is_empty()
            || match self {
                Self::Bool => env::is_boolean(text),
                Self::Int => text.parse::<i64>().is_ok(),
                Self::Float => text.parse::<f64>().is_ok_and(f64::is_finite),
                Self::Size => {
                    let number = text.trim_end_matches(|c: char| "kKmMgGtT".contains(c)).trim();
                    text.len() <= number.len() + 2 && number.parse::<f64>().is_ok_and(|n| n >= 0.0)
                }
                Self::Duration => env::duration(text).is_some(),
                Self::Choice(words) => words.contains(&&*text.to_ascii_lowercase()),
                Self::Numbers => env::numbers(text).iter().all(|n| n.parse::<i64>().is_ok()),
                Self::Text | Self::List => true,
            };
        if ok { Ok(()) } else { Err(format!("is no {}", self.name())) }
    }

    fn name(self) -> String {
        match self {
            Self::Bool => "yes or no".to_owned(),
            Self::Int => "whole number".to_owned(),
            Self::Float => "number".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Numbers => "list of numbers".to_owned(),
            Self::Choice(words) => format!("word of {}", words.join(", ")),
            Self::Text | Self::List => "text".to_owned(),
        }
    }

    /// What counts in place of a value that is not understood.
    pub fn fallback(self, default: &'static str) -> &'static str {
        if matches!(self, Self::Bool) { "no" } else { default }
    }
}

pub enum Rule {
    NotNeeded(&'static str),
    Instead(&'static str),
    /// Nothing to do at this value; another one has no counterpart.
    Unless(&'static str, &'static str),
    /// A switch of the collection: off leaves out these items or categories of the catalogue.
    Skip(&'static [&'static str]),
    /// A switch that was off unless asked for; we save it in any case.
    Anyway(&'static str),
    By(fn(&LegacyContext, &str, &mut Draft) -> OptionOutcome),
    /// As `By`, and also when the file does not name the option: its default had an effect.
    Always(fn(&LegacyContext, &str, &mut Draft) -> OptionOutcome),
}

impl Rule {
    pub fn speaks_unasked(&self) -> bool {
        matches!(self, Self::Always(_))
    }

    pub fn apply(
        &self,
        row: &OptionRow,
        value: &str,
        from: &LegacyContext,
        draft: &mut Draft,
    ) -> OptionOutcome {
        match self {
            Self::NotNeeded(why) => OptionOutcome::not_needed(*why),
            Self::Instead(_) if value.is_empty() => OptionOutcome::not_needed("it is empty"),
            Self::Instead(what) => OptionOutcome::instead(*what),
            Self::Unless(neutral, what) => {
                let same = match row.kind {
                    OptionKind::Bool => env::boolean(value) == env::boolean(neutral),
                    _ => value.is_empty() || from.default(neutral) == value,
                };
                if same { OptionOutcome::not_needed("as it is here") } else { OptionOutcome::instead(*what) }
            }
            Self::Skip(items) if env::boolean(value) => {
                OptionOutcome::not_needed(format!("saved here too ({})", items.join(", ")))
            }
            Self::Skip(items) => {
                let lines: Vec<_> =
                    items.iter().map(|item| draft.set("backup", "main", "skip", item)).collect();
                OptionOutcome::taken(lines.join(", "))
            }
            Self::Anyway(_) if env::boolean(value) => OptionOutcome::not_needed("saved here in any case"),
            Self::Anyway(items) => {
                OptionOutcome::not_needed(format!("saved here in any case; `skip` leaves it out ({items})"))
            }
            Self::By(convert) | Self::Always(convert) => convert(from, value, draft),
        }
    }
}

const BASE: OptionRow = OptionRow {
    key: "",
    names: &[],
    kind: OptionKind::Text,
    default: "",
    secret: false,
    env: false,
    rule: Rule::NotNeeded(""),
};

/// `row!(KEY, kind, default, rule)`; `OLD > KEY` is an older name that goes before it, `KEY | OLD` one that goes after.
macro_rules! row {
    ($old:literal > $key:literal, $($rest:tt)*) => { row!(@ $key, [$old, $key], $($rest)*) };
    ($key:literal $(| $older:literal)?, $($rest:tt)*) => { row!(@ $key, [$key $(, $older)?], $($rest)*) };
    (@ $key:literal, [$($name:literal),*], $kind:expr, $default:literal, $rule:expr $(, $field:ident: $value:expr)*) => {
        OptionRow { key: $key, names: &[$($name),*], kind: $kind, default: $default, rule: $rule $(, $field: $value)*, ..BASE }
    };
}

use OptionKind::{Bool, Choice, Duration, Float, Int, List, Numbers, Size, Text};
use Rule::{Always, Anyway, By, Instead, NotNeeded, Skip, Unless};

const IGNORED: Rule = NotNeeded("an option of the Bash version; the old tool did not read it any more");
const COLOURS: Rule = NotNeeded("colours are for terminals, and NO_COLOR turns them off");
const LOGS: Rule = NotNeeded("the log is the journal's: journalctl -u proxmox-backup-extra");
const EXACT: Rule = NotNeeded("contents are kept byte for byte, each file by itself");
const UPLOAD: Rule = NotNeeded("a snapshot is one file; there is nothing to upload side by side");
const BOUNDED: Rule = NotNeeded("every wait has a limit of its own");
const SAMPLES: Rule = NotNeeded("the contents of datastores and guest backups are not looked through");
const ROOTED: Rule = Instead("`--root DIR` works on a system that is mounted elsewhere, for every verb");
const OWNERS: Rule = NotNeeded("snapshots are root's and for root only");
const TIMER: &str =
    "`systemctl edit proxmox-backup-extra.timer` sets another time, with an empty OnCalendar= before it";

#[rustfmt::skip]
#[allow(clippy::needless_update)] // of the rows that say everything
pub const ROWS: &[OptionRow] = &[
    // General
    row!("BACKUP_ENABLED", Bool, "true", Unless("true", "`systemctl disable --now proxmox-backup-extra.timer` stops the daily runs"), env: true),
    row!("PROFILING_ENABLED", Bool, "true", NotNeeded("a profiler is no part of a backup"), env: true),
    row!("USE_COLOR", Bool, "true", COLOURS, env: true),
    row!("DISABLE_COLORS", Bool, "false", COLOURS, env: true),
    row!("COLORIZE_STEP_LOGS", Bool, "true", COLOURS, env: true),
    row!("DEBUG_LEVEL", Text, "standard", NotNeeded("-v tells more, -vv everything"), env: true),
    row!("DRY_RUN", Bool, "false", Unless("false", "`pbx-config backup --dry-run` shows what a run would do"), env: true),
    row!("LOCK_PATH", Text, "${BASE_DIR}/lock", NotNeeded("the lock is in /run"), env: true),
    row!("SECURE_ACCOUNT", Text, "${BASE_DIR}/secure_account", NotNeeded("credentials are in secrets.cfg, those of rclone in its own configuration"), env: true),

    // Security preflight
    row!("SECURITY_CHECK_ENABLED" | "FULL_SECURITY_CHECK", Bool, "true", By(fi::preflight), env: true),
    row!("CONTINUE_ON_SECURITY_ISSUES", Bool, "false", By(fi::preflight_stops), env: true),
    row!("ABORT_ON_SECURITY_ISSUES", Bool, "true", By(fi::preflight_aborts), env: true),
    row!("AUTO_UPDATE_HASHES", Bool, "true", NotNeeded("dpkg knows the checksums of the package, `pbx-config check` compares them"), env: true),
    row!("AUTO_FIX_PERMISSIONS", Bool, "true", NotNeeded("`pbx-config check --fix` mends owners and modes"), env: true),
    row!("CHECK_NETWORK_SECURITY", Bool, "false", By(fi::network), env: true),
    row!("CHECK_FIREWALL", Bool, "false", By(fi::of_network), env: true),
    row!("CHECK_OPEN_PORTS", Bool, "false", By(fi::of_network), env: true),
    row!("SUSPICIOUS_PORTS", Numbers, "6666 6665 1337 31337 4444 5555 4242 6324 8888 2222 3389 5900", By(fi::ports), env: true),
    row!("PORT_WHITELIST", List, "", By(fi::allowed_ports), env: true),
    row!("SUSPICIOUS_PROCESSES", List, "", By(fi::processes), env: true),
    row!("SAFE_BRACKET_PROCESSES", List, "", By(fi::allowed_processes), env: true),
    row!("SAFE_KERNEL_PROCESSES", List, "", By(fi::allowed_processes), env: true),
    row!("SAFE_PROCESSES", List, "", By(fi::allowed_processes), env: true),
    row!("SKIP_PERMISSION_CHECK", Bool, "false", NotNeeded("a store tells itself when it cannot be written to"), env: true),
    row!("BACKUP_USER", Text, "backup", OWNERS, env: true),
    row!("BACKUP_GROUP", Text, "backup", OWNERS, env: true),
    row!("SET_BACKUP_PERMISSIONS", Bool, "false", Unless("false", "snapshots are root's and for root only"), env: true),

    // Space
    row!("MIN_DISK_SPACE_PRIMARY_GB", Float, "10", By(st::space), env: true),
    row!("MIN_DISK_SPACE_SECONDARY_GB", Float, "10", By(st::space), env: true),
    row!("MIN_DISK_SPACE_CLOUD_GB", Float, "10", By(st::space), env: true),
    row!("STORAGE_WARNING_THRESHOLD_PRIMARY", Text, "", IGNORED),
    row!("STORAGE_WARNING_THRESHOLD_SECONDARY", Text, "", IGNORED),

    // Compression and what it did with files
    row!("COMPRESSION_TYPE", Choice(&["none", "gz", "gzip", "pigz", "bz2", "bzip2", "xz", "lzma", "zst", "zstd"]), "xz", By(fi::compression), env: true),
    row!("COMPRESSION_MODE", Choice(&["fast", "standard", "maximum", "ultra"]), "standard", By(fi::compression_mode), env: true),
    row!("COMPRESSION_LEVEL", Int, "6", By(fi::compression_level), env: true),
    row!("COMPRESSION_THREADS", Int, "0", By(fi::compression_threads), env: true),
    row!("ENABLE_DEDUPLICATION", Bool, "true", EXACT, env: true),
    row!("ENABLE_PREFILTER", Bool, "true", EXACT, env: true),
    row!("PREFILTER_MAX_FILE_SIZE_MB", Int, "8", EXACT, env: true),
    row!("ENABLE_SMART_CHUNKING", Bool, "false", EXACT, env: true),
    row!("CHUNK_SIZE_MB", Int, "0", EXACT, env: true),
    row!("CHUNK_THRESHOLD_MB", Int, "0", EXACT, env: true),
    row!("DISABLE_NETWORK_PREFLIGHT", Bool, "false", NotNeeded("no host on the internet is probed"), env: true),
    row!("BACKUP_EXCLUDE_PATTERNS", List, "", By(fi::excludes), env: true),
    row!("BACKUP_BLACKLIST", List, "", By(fi::excludes), env: true),
    row!("CUSTOM_BACKUP_PATHS", List, "", By(fi::includes), env: true),

    // Places
    row!("BASE_DIR", Text, "", NotNeeded("the old tool took the folder that it is installed in, whatever stood here")),
    row!("LOCAL_BACKUP_PATH" > "BACKUP_PATH", Text, "${BASE_DIR}/backup", Always(st::local), env: true),
    row!("LOCAL_LOG_PATH" > "LOG_PATH", Text, "${BASE_DIR}/log", LOGS, env: true),
    row!("ENABLE_SECONDARY_BACKUP" > "SECONDARY_ENABLED", Bool, "false", By(st::secondary), env: true),
    row!("SECONDARY_BACKUP_PATH" > "SECONDARY_PATH", Text, "", By(st::secondary_path), env: true),
    row!("SECONDARY_LOG_PATH", Text, "", LOGS, env: true),
    row!("ENABLE_CLOUD_BACKUP" > "CLOUD_ENABLED", Bool, "false", By(st::cloud), env: true),
    row!("RCLONE_REMOTE" > "CLOUD_REMOTE", Text, "", By(st::cloud_remote), env: true),
    row!("CLOUD_REMOTE_PATH" | "CLOUD_BACKUP_PATH", Text, "", By(st::cloud_path), env: true),
    row!("CLOUD_LOG_PATH", Text, "", LOGS, env: true),
    row!("CLOUD_UPLOAD_MODE", Choice(&["sequential", "parallel"]), "parallel", UPLOAD, env: true),
    row!("CLOUD_PARALLEL_MAX_JOBS", Int, "2", UPLOAD, env: true),
    row!("CLOUD_PARALLEL_VERIFICATION", Bool, "true", UPLOAD, env: true),
    row!("CLOUD_WRITE_HEALTHCHECK", Bool, "false", NotNeeded("the upload itself is the test"), env: true),
    row!("CLOUD_VERIFY_CHECKSUM", Bool, "true", By(st::cloud_checksum)),
    row!("CLOUD_VERIFY_DOWNLOAD", Bool, "false", By(st::cloud_download)),
    row!("CLOUD_BATCH_SIZE", Int, "20", By(st::cloud_batch), env: true),
    row!("CLOUD_BATCH_PAUSE", Int, "1", By(st::cloud_pause), env: true),
    row!("RCLONE_TIMEOUT_CONNECTION" | "CLOUD_CONNECTIVITY_TIMEOUT", Int, "30", By(st::cloud_connect), env: true),
    row!("RCLONE_TIMEOUT_OPERATION", Int, "300", By(st::cloud_timeout), env: true),
    row!("RCLONE_BANDWIDTH_LIMIT", Text, "", By(st::cloud_bandwidth), env: true),
    row!("RCLONE_TRANSFERS", Int, "4", By(st::cloud_transfers), env: true),
    row!("RCLONE_RETRIES", Int, "3", By(st::cloud_retries), env: true),
    row!("RCLONE_VERIFY_METHOD", Choice(&["primary", "alternative"]), "primary", NotNeeded("a copy is compared by the remote's own checksum"), env: true),
    row!("RCLONE_FLAGS", Text, "", By(st::cloud_flags), env: true),

    // Retention
    row!("RETENTION_POLICY", Choice(&["simple", "gfs"]), "simple", By(st::policy)),
    row!("MAX_LOCAL_BACKUPS" | "LOCAL_RETENTION_DAYS", Int, "7", Always(st::keep_local), env: true),
    row!("MAX_SECONDARY_BACKUPS" | "SECONDARY_RETENTION_DAYS", Int, "14", Always(st::keep_secondary), env: true),
    row!("MAX_CLOUD_BACKUPS" | "CLOUD_RETENTION_DAYS", Int, "30", Always(st::keep_cloud), env: true),
    row!("RETENTION_DAILY", Int, "0", By(st::gfs_daily), env: true),
    row!("RETENTION_WEEKLY", Int, "0", By(st::gfs_weekly), env: true),
    row!("RETENTION_MONTHLY", Int, "0", By(st::gfs_monthly), env: true),
    row!("RETENTION_YEARLY", Int, "0", By(st::gfs_yearly), env: true),

    // Bundle and encryption
    row!("BUNDLE_ASSOCIATED_FILES", Bool, "true", NotNeeded("a snapshot is one file"), env: true),
    row!("ENCRYPT_ARCHIVE", Bool, "false", By(fi::encrypt), env: true),
    row!("AGE_RECIPIENT" | "AGE_RECIPIENTS", List, "", By(fi::recipients), env: true),
    row!("AGE_RECIPIENT_FILE", Text, "${BASE_DIR}/identity/age/recipient.txt", Always(fi::recipient_file), env: true),

    // Channels
    row!("TELEGRAM_ENABLED" | "TELEGRAM_ENABLE", Bool, "false", By(ch::telegram), env: true),
    row!("BOT_TELEGRAM_TYPE", Choice(&["personal", "centralized"]), "centralized", By(ch::telegram_type), env: true),
    row!("TELEGRAM_BOT_TOKEN", Text, "", By(ch::telegram_token), secret: true, env: true),
    row!("TELEGRAM_CHAT_ID", Text, "", By(ch::telegram_chat), env: true),
    row!("TELEGRAM_CONFIRM_DELIVERY", Bool, "true", NotNeeded("the answer of the server is the confirmation"), env: true),
    row!("TELEGRAM_CONFIRM_TIMEOUT_SECONDS", Int, "10", BOUNDED, env: true),
    row!("TELEGRAM_CONFIRM_INTERVAL_SECONDS", Int, "1", BOUNDED, env: true),
    row!("EMAIL_ENABLED" | "EMAIL_ENABLE", Bool, "false", By(ch::email), env: true),
    row!("EMAIL_DELIVERY_METHOD", Choice(&["relay", "cloud", "cloud-relay", "tis24-relay", "sendmail", "local", "mta", "local-mta", "pmf", "pfm", "proxmox", "proxmox-notifications", "proxmox-mail-forward"]), "relay", By(ch::email_method), env: true),
    row!("EMAIL_FALLBACK_SENDMAIL" | "EMAIL_FALLBACK_PMF", Bool, "true", NotNeeded("each channel stands for itself; have several"), env: true),
    row!("EMAIL_RECIPIENT", Text, "", By(ch::email_to), env: true),
    row!("EMAIL_FROM", Text, "no-reply@proxmox.tis24.it", By(ch::email_from), env: true),
    row!("GOTIFY_ENABLED" | "GOTIFY_ENABLE", Bool, "false", By(ch::gotify), env: true),
    row!("GOTIFY_SERVER_URL", Text, "", By(ch::gotify_url), env: true),
    row!("GOTIFY_TOKEN", Text, "", By(ch::gotify_token), secret: true, env: true),
    row!("GOTIFY_PRIORITY_SUCCESS", Int, "2", By(ch::gotify_success), env: true),
    row!("GOTIFY_PRIORITY_WARNING", Int, "5", By(ch::gotify_warning), env: true),
    row!("GOTIFY_PRIORITY_FAILURE", Int, "8", By(ch::gotify_failure), env: true),
    row!("WEBHOOK_ENABLED" | "WEBHOOK_ENABLE", Bool, "false", By(ch::webhook), env: true),
    row!("WEBHOOK_ENDPOINTS", List, "", By(ch::webhook_endpoints), env: true),
    row!("WEBHOOK_FORMAT", Text, "generic", By(ch::webhook_part), env: true),
    row!("WEBHOOK_TIMEOUT", Int, "30", BOUNDED, env: true),
    row!("WEBHOOK_MAX_RETRIES", Int, "3", NotNeeded("every channel retries with growing pauses"), env: true),
    row!("WEBHOOK_RETRY_DELAY", Int, "2", NotNeeded("every channel retries with growing pauses"), env: true),
    row!("PROMETHEUS_ENABLED" > "METRICS_ENABLED", Bool, "false", By(ch::metrics), env: true),
    row!("METRICS_PATH" | "PROMETHEUS_TEXTFILE_DIR", Text, "", By(ch::metrics_path), env: true),

    // What is collected: PVE
    row!("BACKUP_CLUSTER_CONFIG", Bool, "true", Skip(&["pve-corosync", "pve-corosync-node"])),
    row!("BACKUP_PVE_FIREWALL", Bool, "true", Skip(&["pve-firewall", "pve-firewall-node", "pve-firewall-vnet", "pve-firewall-guest"])),
    row!("BACKUP_VZDUMP_CONFIG", Bool, "true", Skip(&["pve-vzdump"])),
    row!("BACKUP_PVE_ACL", Bool, "true", Skip(&["pve-users", "pve-realms", "pve-shadow", "pve-tokens", "pve-tfa"])),
    row!("BACKUP_PVE_JOBS", Bool, "true", Skip(&["pve-jobs", "pve-vzdump-cron"])),
    row!("BACKUP_PVE_SCHEDULES", Bool, "true", Unless("true", "they are part of the items cron and crontabs; `skip cron` leaves all of them out")),
    row!("BACKUP_PVE_REPLICATION", Bool, "true", Skip(&["pve-replication"])),
    row!("BACKUP_PVE_BACKUP_FILES", Bool, "true", SAMPLES),
    row!("BACKUP_VM_CONFIGS", Bool, "true", Skip(&["pve-guests"])),
    row!("BACKUP_SMALL_PVE_BACKUPS", Bool, "false", Unless("false", "backups of guests are vzdump's; name files with `include`")),
    row!("MAX_PVE_BACKUP_SIZE", Size, "0", SAMPLES),
    row!("PVE_BACKUP_INCLUDE_PATTERN", Text, "", Unless("", "backups of guests are vzdump's; name files with `include`")),
    row!("BACKUP_CEPH_CONFIG", Bool, "false", Anyway("ceph, pve-ceph, pve-ceph-daemons")),
    row!("CEPH_CONFIG_PATH", Text, "", By(fi::other_folder)),
    row!("PVESH_TIMEOUT", Int, "15", BOUNDED),
    row!("FS_IO_TIMEOUT", Int, "30", BOUNDED),
    row!("PVE_CONFIG_PATH", Text, "", By(fi::own_place)),
    row!("PVE_CLUSTER_PATH", Text, "", By(fi::own_place)),
    row!("COROSYNC_CONFIG_PATH", Text, "", By(fi::own_place)),
    row!("VZDUMP_CONFIG_PATH", Text, "", By(fi::own_place)),
    row!("PBS_CONFIG_PATH", Text, "", By(fi::own_place)),

    // What is collected: PBS
    row!("BACKUP_DATASTORE_CONFIGS", Bool, "true", Skip(&["pbs-datastores"])),
    row!("BACKUP_PBS_S3_ENDPOINTS", Bool, "true", Always(fi::s3)),
    row!("BACKUP_PBS_NODE_CONFIG", Bool, "true", Skip(&["pbs-node"])),
    row!("BACKUP_PBS_ACME_ACCOUNTS", Bool, "true", By(fi::acme)),
    row!("BACKUP_PBS_ACME_PLUGINS", Bool, "true", By(fi::acme)),
    row!("BACKUP_PBS_METRIC_SERVERS", Bool, "true", Skip(&["pbs-metrics"])),
    row!("BACKUP_PBS_TRAFFIC_CONTROL", Bool, "true", Skip(&["pbs-traffic-control"])),
    row!("BACKUP_PBS_NOTIFICATIONS", Bool, "true", Skip(&["pbs-notifications"])),
    row!("BACKUP_PBS_NOTIFICATIONS_PRIV", Bool, "true", Unless("true", "it belongs to the item pbs-notifications; `skip pbs-notifications` leaves both out")),
    row!("BACKUP_USER_CONFIGS", Bool, "true", Skip(&["pbs-users", "pbs-realms", "pbs-shadow", "pbs-tokens", "pbs-tfa", "pbs-acl"])),
    row!("BACKUP_REMOTE_CONFIGS" | "BACKUP_REMOTE_CFG", Bool, "true", Skip(&["pbs-remotes"])),
    row!("BACKUP_SYNC_JOBS", Bool, "true", Skip(&["pbs-sync-jobs"])),
    row!("BACKUP_VERIFICATION_JOBS", Bool, "true", Skip(&["pbs-verify-jobs"])),
    row!("BACKUP_TAPE_CONFIGS", Bool, "true", Skip(&["pbs-tape-keys", "pbs-tape-drives", "pbs-media-pools", "pbs-tape-inventory", "pbs-tape-jobs"])),
    row!("BACKUP_PRUNE_SCHEDULES", Bool, "true", Skip(&["pbs-prune-jobs"])),
    row!("BACKUP_PBS_NETWORK_CONFIG", Bool, "true", Unless("true", "the network belongs to the items network and network-links; `skip network` leaves it out")),
    row!("PXAR_SCAN_ENABLE" | "BACKUP_PXAR_FILES", Bool, "true", SAMPLES),
    row!("PXAR_SCAN_DS_CONCURRENCY", Int, "3", SAMPLES),
    row!("PXAR_FILE_INCLUDE_PATTERN" | "PXAR_INCLUDE_PATTERN", List, "", SAMPLES),
    row!("PXAR_FILE_EXCLUDE_PATTERN", List, "", SAMPLES),
    row!("PBS_DATASTORE_PATH", List, "", SAMPLES),
    row!("PBS_REPOSITORY", Text, "", NotNeeded("root's own tools are asked; `api: pbs` asks with a token instead"), env: true),
    row!("PBS_PASSWORD", Text, "", NotNeeded("root's own tools are asked; `api: pbs` asks with a token instead"), secret: true, env: true),
    row!("PBS_FINGERPRINT", Text, "", NotNeeded("the node's own certificate is read from where it lies"), env: true),

    // What is collected: the system
    row!("BACKUP_NETWORK_CONFIGS" | "BACKUP_NETWORK_CONFIG", Bool, "true", Skip(&["network", "network-links", "networkd", "netplan", "network-manager"])),
    row!("BACKUP_APT_SOURCES", Bool, "true", Skip(&["apt-sources", "apt-keys", "apt-auth", "apt-settings"])),
    row!("BACKUP_CRON_JOBS" | "BACKUP_CRONTABS", Bool, "true", Skip(&["cron", "crontabs"])),
    row!("BACKUP_SYSTEMD_SERVICES", Bool, "true", Skip(&["systemd-units"])),
    row!("BACKUP_SSL_CERTS", Bool, "true", Skip(&["ssl", "ssl-certs", "ssl-private"])),
    row!("BACKUP_SYSCTL_CONFIG", Bool, "true", Skip(&["sysctl"])),
    row!("BACKUP_KERNEL_MODULES", Bool, "true", Skip(&["modules", "modprobe"])),
    row!("BACKUP_INSTALLED_PACKAGES", Bool, "true", Skip(&["package-selections"])),
    row!("BACKUP_SCRIPT_DIR", Bool, "true", Skip(&["local"])),
    row!("BACKUP_CRITICAL_FILES", Bool, "true", Skip(&["accounts", "sudo"])),
    row!("BACKUP_SSH_KEYS", Bool, "true", Skip(&["ssh-host", "sshd", "ssh-client", "ssh-known-hosts", "ssh-other", "ssh-root", "ssh-root-trust"])),
    row!("BACKUP_ZFS_CONFIG", Bool, "true", Skip(&["zfs", "hostid", "zpool-cache"])),
    row!("BACKUP_ROOT_HOME", Bool, "true", Skip(&["root"])),
    row!("BACKUP_CONFIG_FILE", Bool, "true", NotNeeded("the items pbx-config and proxsave hold both configurations"), env: true),
    row!("BACKUP_FIREWALL_RULES", Bool, "false", Anyway("nftables, iptables, ufw, firewalld")),
    row!("BACKUP_SCRIPT_REPOSITORY", Bool, "false", NotNeeded("a package needs no copy of itself")),
    row!("BACKUP_USER_HOMES", Bool, "true", NotNeeded("dropped by the old tool itself; `include` names what matters below /home")),
    row!("SYSTEM_ROOT_PREFIX", Text, "", ROOTED),
    row!("HOST_BACKUP_MODE", Bool, "false", Unless("false", "`--root DIR` works on a system that is mounted elsewhere, for every verb")),

    // Schedule
    row!("SCHEDULER_MODE", Choice(&["cron", "daemon"]), "cron", NotNeeded("proxmox-backup-extra.timer starts the runs")),
    row!("SCHEDULER_TIME", Text, "02:00", By(fi::time)),
    row!("CRON_SCHEDULE", Text, "", Instead(TIMER)),
    row!("CRON_HOUR", Text, "", Instead(TIMER)),
    row!("CRON_MINUTE", Text, "", Instead(TIMER)),
    row!("MAX_RUN_DURATION", Duration, "1h", NotNeeded("every wait has a limit of its own; TimeoutStartSec of the service bounds the whole")),
    row!("DAEMON_OPT_OUT", Bool, "false", NotNeeded("there is no daemon")),

    // Healthchecks
    row!("HEALTHCHECK_ENABLED", Bool, "false", By(ch::health)),
    row!("HEALTHCHECK_MODE", Choice(&["centralized", "self"]), "centralized", By(ch::health_mode)),
    row!("HEALTHCHECK_BACKUP_URL", Text, "", By(ch::health_url), secret: true),
    row!("HEALTHCHECK_PING_ENDPOINT", Text, "https://hc-ping.com", By(ch::health_part)),
    row!("HEALTHCHECK_PING_KEY", Text, "", By(ch::health_part), secret: true),
    row!("HEALTHCHECK_BACKUP_ID", Text, "", By(ch::health_part), secret: true),
    row!("HEALTHCHECK_SEND_LOG", Bool, "true", By(ch::health_log)),
    row!("HEALTHCHECK_HEARTBEAT_INTERVAL", Duration, "5m", ch::NO_DAEMON),
    row!("HEALTHCHECK_ALIVE_URL", Text, "", ch::NO_DAEMON, secret: true),
    row!("HEALTHCHECK_ALIVE_ID", Text, "", ch::NO_DAEMON, secret: true),
    row!("HEALTHCHECK_UPDATES_URL", Text, "", ch::NO_UPDATES, secret: true),
    row!("HEALTHCHECK_UPDATES_ID", Text, "", ch::NO_UPDATES, secret: true),
    row!("HEALTHCHECK_UPDATE_INTERVAL", Duration, "5m", ch::NO_UPDATES),
    row!("HEALTHCHECK_NOTIFY_EMAIL_URL", Text, "", ch::NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_EMAIL_ID", Text, "", ch::NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_TELEGRAM_URL", Text, "", ch::NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_TELEGRAM_ID", Text, "", ch::NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_GOTIFY_URL", Text, "", ch::NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_GOTIFY_ID", Text, "", ch::NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_WEBHOOK_URL", Text, "", ch::NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_WEBHOOK_ID", Text, "", ch::NO_CHANNEL_CHECKS, secret: true),

    // Of the Bash version, which nobody reads any more
    row!("AUTO_DETECT_DATASTORES", Text, "", IGNORED),
    row!("BACKUP_COROSYNC_CONFIG", Text, "", IGNORED),
    row!("BACKUP_SMALL_PXAR", Text, "", IGNORED),
    row!("LOCAL_BACKUP_REQUIRED", Text, "", IGNORED),
    row!("SECONDARY_BACKUP_REQUIRED", Text, "", IGNORED),
    row!("CLOUD_BACKUP_REQUIRED", Text, "", IGNORED),
    row!("CLOUD_PARALLEL_UPLOAD_TIMEOUT", Text, "", IGNORED),
    row!("ENABLE_EMOJI_LOG", Text, "", IGNORED),
    row!("ENABLE_LOG_MANAGEMENT", Text, "", IGNORED),
    row!("MAX_LOCAL_LOGS", Text, "", IGNORED),
    row!("MAX_SECONDARY_LOGS", Text, "", IGNORED),
    row!("MAX_CLOUD_LOGS", Text, "", IGNORED),
    row!("MAX_PXAR_SIZE", Text, "", IGNORED),
    row!("MIN_BASH_VERSION", Text, "", IGNORED),
    row!("MULTI_STORAGE_PARALLEL", Text, "", IGNORED),
    row!("REMOVE_UNAUTHORIZED_FILES", Text, "", IGNORED),
    row!("SKIP_CLOUD_VERIFICATION", Text, "", IGNORED),
    row!("EMAIL_SUBJECT_PREFIX", Text, "", IGNORED),
    row!("TELEGRAM_SERVER_API_HOST", Text, "", IGNORED),
];
