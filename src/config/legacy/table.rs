//! Table of every option that the legacy program ever read: its names in their order, its type and default, whether
//! the environment overrode it, and the rule that converts it.

use super::files::{BACKUP, CHECK};
use super::{
    CHANNEL_OFF, Draft, LegacyContext, OptionOutcome, SectionName, channels as ch, env, files as fi,
    stores as st,
};

pub struct OptionRow {
    /// Current name.
    pub key: &'static str,
    /// All names that are read; the first with a value wins.
    pub names: &'static [&'static str],
    pub kind: OptionKind,
    /// Default of the legacy program.
    pub default: &'static str,
    pub secret: bool,
    /// A variable of the process overrides the file.
    pub env: bool,
    /// Conditions; unless all hold, the option has no effect.
    pub needs: &'static [Need],
    pub rule: Rule,
}

#[derive(Clone, Copy)]
pub enum OptionKind {
    Bool,
    Int,
    Float,
    /// A number with K, M, G or T.
    Size,
    /// Duration of Go, such as `1h30m`.
    Duration,
    Choice(&'static [&'static str]),
    /// Text in which variables are expanded.
    Text,
    List,
    Numbers,
}

impl OptionKind {
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Choice(_) | Self::Duration)
    }

    /// Checks a value. An empty value counts as not set. Errors: the reason.
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
        if ok { Ok(()) } else { Err(format!("is not a valid {}", self.name())) }
    }

    fn name(self) -> String {
        match self {
            Self::Bool => "boolean (yes or no)".to_owned(),
            Self::Int => "whole number".to_owned(),
            Self::Float => "number".to_owned(),
            Self::Size => "size".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Numbers => "list of numbers".to_owned(),
            Self::Choice(words) => format!("value (one of {})", words.join(", ")),
            Self::Text | Self::List => "text".to_owned(),
        }
    }

    /// Returns the value that counts when the given one is not understood.
    pub fn fallback(self, default: &'static str) -> &'static str {
        if matches!(self, Self::Bool) { "no" } else { default }
    }
}

pub type Convert = fn(&LegacyContext, &str, &mut Draft) -> OptionOutcome;

pub enum Rule {
    /// Nothing has to be done, with the reason.
    Ignore(&'static str),
    /// There is no such option here; says what to do instead.
    Instead(&'static str),
    /// Nothing to do at this value; for all others there is no such option here.
    Unless(&'static str, &'static str),
    /// Switch of the collection: off skips these items or categories of the catalogue.
    Skip(&'static [&'static str]),
    /// Switch of the collection that was off by default; these items are saved in any case.
    Anyway(&'static str),
    /// The value is used in other lines.
    Becomes(&'static str),
    /// Sets this key of this section.
    Set(SectionName, &'static str, Form),
    /// Switch: off has no effect, with the reason; on calls the converter.
    Switch(&'static str, Convert),
    /// Number of snapshots that a store keeps. Its default counts too.
    Keep,
    /// Number of snapshots of a generation, with its key here and a note about the difference.
    Generation(&'static str, &'static str),
    Custom(Convert),
    /// Like `Custom`, and also when the file does not have the option: its default had an effect.
    Always(Convert),
}

/// Conversion of a value.
pub enum Form {
    Plain,
    /// Value in secrets.cfg.
    Secret,
    /// Address of a server, perhaps without TLS.
    Address,
    /// Number within these bounds. The legacy program moved others to the bound.
    Number(i64, i64),
    /// Priority of 1 to 10; the default of the option replaces a smaller one.
    Priority,
    /// List with a line for each entry.
    Lines(fn(&str) -> Vec<String>),
}

/// Condition for the effect of an option.
pub enum Need {
    /// A switch is on; else the reason.
    On(&'static str, &'static str),
    Holds(fn(&LegacyContext) -> Result<(), OptionOutcome>),
}

impl Need {
    fn check(&self, context: &LegacyContext) -> Result<(), OptionOutcome> {
        match self {
            Self::On(switch, _) if context.on(switch) => Ok(()),
            Self::On(switch, off) => Err(OptionOutcome::not_needed(format!("{off} ({switch})"))),
            Self::Holds(check) => check(context),
        }
    }
}

impl Rule {
    /// Reports whether an option that is not in the file has an outcome too.
    pub fn applies_unset(&self) -> bool {
        matches!(self, Self::Always(_) | Self::Keep)
    }

    pub fn apply(
        &self,
        row: &OptionRow,
        value: &str,
        context: &LegacyContext,
        draft: &mut Draft,
    ) -> OptionOutcome {
        if let Err(outcome) = row.needs.iter().try_for_each(|need| need.check(context)) {
            return outcome;
        }

        match self {
            Self::Ignore(why) => OptionOutcome::not_needed(*why),
            Self::Instead(_) if value.is_empty() => OptionOutcome::not_needed("the value is empty"),
            Self::Instead(what) => OptionOutcome::instead(*what),
            Self::Unless(neutral, what) => {
                let same = match row.kind {
                    OptionKind::Bool => env::boolean(value) == env::boolean(neutral),
                    _ => value.is_empty() || context.default(neutral) == value,
                };
                if same {
                    OptionOutcome::not_needed("the same as here")
                } else {
                    OptionOutcome::instead(*what)
                }
            }
            Self::Skip(items) if env::boolean(value) => {
                OptionOutcome::not_needed(format!("also saved here ({})", items.join(", ")))
            }
            Self::Skip(items) => draft.set_each(BACKUP, "skip", items),
            Self::Anyway(_) if env::boolean(value) => OptionOutcome::not_needed("always saved here"),
            Self::Anyway(items) => {
                OptionOutcome::not_needed(format!("always saved here; use `skip` to exclude it ({items})"))
            }
            Self::Becomes(what) => OptionOutcome::taken(*what),
            Self::Set(section, key, form) => form.set(row, *section, key, value, draft),
            Self::Switch(off, _) if !env::boolean(value) => OptionOutcome::not_needed(*off),
            Self::Keep => st::keep(context, row.key, value, draft),
            Self::Generation(key, note) => st::generation(context, key, value, note),
            Self::Switch(_, convert) | Self::Custom(convert) | Self::Always(convert) => {
                convert(context, value, draft)
            }
        }
    }
}

impl Form {
    fn set(
        &self,
        row: &OptionRow,
        section: SectionName,
        key: &str,
        value: &str,
        draft: &mut Draft,
    ) -> OptionOutcome {
        if let Self::Lines(split) = self {
            return draft.set_each(section, key, &split(value));
        }
        if value.is_empty() {
            return OptionOutcome::not_needed("the value is empty");
        }

        let number: i64 = value.parse().unwrap_or(0);
        match self {
            Self::Secret => draft.set_secret(section, key, value),
            Self::Address => ch::address(draft, section, false, value),
            Self::Number(least, most) => draft.set(section, key, &number.clamp(*least, *most).to_string()),
            Self::Priority if number <= 0 => draft.set(section, key, row.default),
            Self::Priority => draft.set(section, key, &number.min(10).to_string()),
            Self::Plain | Self::Lines(_) => draft.set(section, key, value),
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
    needs: &[],
    rule: Rule::Ignore(""),
};

/// Writes a row: `row!(KEY, kind, default, rule)`. `OLD > KEY` is an older name that is read first, `KEY | OLD` one after.
macro_rules! row {
    ($old:literal > $key:literal, $($rest:tt)*) => { row!(@ $key, [$old, $key], $($rest)*) };
    ($key:literal $(| $older:literal)?, $($rest:tt)*) => { row!(@ $key, [$key $(, $older)?], $($rest)*) };
    (@ $key:literal, [$($name:literal),*], $kind:expr, $default:literal, $rule:expr $(, $field:ident: $value:expr)*) => {
        OptionRow { key: $key, names: &[$($name),*], kind: $kind, default: $default, rule: $rule $(, $field: $value)*, ..BASE }
    };
}

use Form::{Address, Lines, Number, Plain, Priority, Secret};
use Need::{Holds, On};
use OptionKind::{Bool, Choice, Duration, Float, Int, List, Numbers, Size, Text};
use Rule::{Always, Anyway, Becomes, Custom, Generation, Ignore, Instead, Keep, Set, Skip, Switch, Unless};

const IGNORED: Rule = Ignore("an option of the Bash version, which the legacy program already ignored");
const COLOURS: Rule = Ignore("colours are used on terminals only; NO_COLOR disables them");
const LOGS: Rule = Ignore("the log is in the journal: journalctl -u proxmox-backup-extra");
const EXACT: Rule = Ignore("files are saved unchanged, byte for byte");
const UPLOAD: Rule = Ignore("a snapshot is one file; there are no parallel uploads");
const BOUNDED: Rule = Ignore("every operation has its own timeout");
const SAMPLES: Rule = Ignore("the contents of datastores and guest backups are not scanned");
const ROOTED: Rule = Instead("use `--root DIR` with any command for a system that is mounted elsewhere");
const NO_DAEMON: Rule = Ignore("there is no daemon; monitoring watches the runs");
const NO_UPDATES: Rule = Ignore("updates are installed with apt");
const NO_CHANNEL_CHECKS: Rule = Ignore("a channel that fails is reported as a problem of the run");
const PLACES: Rule = Ignore("the catalogue contains the paths of Proxmox; use `include` for others");
const SPACE: Rule =
    Ignore("a store without enough free space is reported as a problem, and no partial snapshot remains");
const NETWORK: Rule =
    Unless("false", "use `pbx-config check --network` to check ports, packet filter and programs");
const OWNERS: Rule = Ignore("snapshots belong to root and only root can read them");
const TIMER: &str = "use `systemctl edit proxmox-backup-extra.timer` to set another time, with an empty OnCalendar= line before it";

const CHECKED: &[Need] = &[On("CHECK_NETWORK_SECURITY", "the network check was off")];
const ENCRYPTED: &[Need] = &[On("ENCRYPT_ARCHIVE", "encryption was off")];
const SECOND: &[Need] = &[On("SECONDARY_ENABLED", "the second copy was off")];
const CLOUD_ON: &[Need] = &[On("CLOUD_ENABLED", "the cloud copy was off")];
const REMOTE: &[Need] = &[On("CLOUD_ENABLED", "the cloud copy was off"), Holds(st::check_remote)];
const TELEGRAM_ON: &[Need] = &[On("TELEGRAM_ENABLED", CHANNEL_OFF)];
const OWN_BOT: &[Need] = &[On("TELEGRAM_ENABLED", CHANNEL_OFF), Holds(ch::check_own_bot)];
const MAIL_ON: &[Need] = &[On("EMAIL_ENABLED", CHANNEL_OFF)];
const GOTIFY_ON: &[Need] = &[On("GOTIFY_ENABLED", CHANNEL_OFF), Holds(ch::check_gotify)];
const WEBHOOK_ON: &[Need] = &[On("WEBHOOK_ENABLED", CHANNEL_OFF)];
const METRICS_ON: &[Need] = &[On("METRICS_ENABLED", CHANNEL_OFF)];
const HEALTH_ON: &[Need] = &[On("HEALTHCHECK_ENABLED", CHANNEL_OFF)];
const OWN_HEALTH: &[Need] = &[On("HEALTHCHECK_ENABLED", CHANNEL_OFF), Holds(ch::check_own_health)];

/// Largest number that the new keys accept.
const MOST: i64 = u16::MAX as i64;

#[rustfmt::skip]
#[allow(clippy::needless_update)] // of the rows that say everything
pub const ROWS: &[OptionRow] = &[
    // General
    row!("BACKUP_ENABLED", Bool, "true", Unless("true", "use `systemctl disable --now proxmox-backup-extra.timer` to stop the daily runs"), env: true),
    row!("PROFILING_ENABLED", Bool, "true", Ignore("there is no profiler"), env: true),
    row!("USE_COLOR", Bool, "true", COLOURS, env: true),
    row!("DISABLE_COLORS", Bool, "false", COLOURS, env: true),
    row!("COLORIZE_STEP_LOGS", Bool, "true", COLOURS, env: true),
    row!("DEBUG_LEVEL", Text, "standard", Ignore("use -v for more output, -vv for debug output"), env: true),
    row!("DRY_RUN", Bool, "false", Unless("false", "use `pbx-config backup --dry-run` to see what a run would do"), env: true),
    row!("LOCK_PATH", Text, "${BASE_DIR}/lock", Ignore("the lock file is in /run"), env: true),
    row!("SECURE_ACCOUNT", Text, "${BASE_DIR}/secure_account", Ignore("credentials are in secrets.cfg, those of rclone in rclone.conf"), env: true),

    // Security preflight
    row!("SECURITY_CHECK_ENABLED" | "FULL_SECURITY_CHECK", Bool, "true", Custom(fi::preflight), env: true),
    row!("CONTINUE_ON_SECURITY_ISSUES", Bool, "false", Custom(fi::preflight), env: true),
    row!("ABORT_ON_SECURITY_ISSUES", Bool, "true", Custom(fi::preflight_aborts), env: true),
    row!("AUTO_UPDATE_HASHES", Bool, "true", Ignore("`pbx-config check` verifies the checksums of the package with dpkg"), env: true),
    row!("AUTO_FIX_PERMISSIONS", Bool, "true", Ignore("`pbx-config check --fix` repairs owners and modes"), env: true),
    row!("CHECK_NETWORK_SECURITY", Bool, "false", NETWORK, env: true),
    row!("CHECK_FIREWALL", Bool, "false", NETWORK, needs: CHECKED, env: true),
    row!("CHECK_OPEN_PORTS", Bool, "false", NETWORK, needs: CHECKED, env: true),
    row!("SUSPICIOUS_PORTS", Numbers, "6666 6665 1337 31337 4444 5555 4242 6324 8888 2222 3389 5900", Set(CHECK, "port-suspicious", Lines(fi::ports)), env: true),
    row!("PORT_WHITELIST", List, "", Custom(fi::allowed_ports), env: true),
    row!("SUSPICIOUS_PROCESSES", List, "", Set(CHECK, "process-suspicious", Lines(env::list)), env: true),
    row!("SAFE_BRACKET_PROCESSES", List, "", Custom(fi::allowed_processes), env: true),
    row!("SAFE_KERNEL_PROCESSES", List, "", Custom(fi::allowed_processes), env: true),
    row!("SAFE_PROCESSES", List, "", Custom(fi::allowed_processes), env: true),
    row!("SKIP_PERMISSION_CHECK", Bool, "false", Ignore("a store reports an error when it is not writable"), env: true),
    row!("BACKUP_USER", Text, "backup", OWNERS, env: true),
    row!("BACKUP_GROUP", Text, "backup", OWNERS, env: true),
    row!("SET_BACKUP_PERMISSIONS", Bool, "false", Unless("false", "snapshots belong to root and only root can read them"), env: true),

    // Space
    row!("MIN_DISK_SPACE_PRIMARY_GB", Float, "10", SPACE, env: true),
    row!("MIN_DISK_SPACE_SECONDARY_GB", Float, "10", SPACE, env: true),
    row!("MIN_DISK_SPACE_CLOUD_GB", Float, "10", SPACE, env: true),
    row!("STORAGE_WARNING_THRESHOLD_PRIMARY", Text, "", IGNORED),
    row!("STORAGE_WARNING_THRESHOLD_SECONDARY", Text, "", IGNORED),

    // Compression and what it did with files
    row!("COMPRESSION_TYPE", Choice(&["none", "gz", "gzip", "pigz", "bz2", "bzip2", "xz", "lzma", "zst", "zstd"]), "xz", Custom(fi::compression), env: true),
    row!("COMPRESSION_MODE", Choice(&["fast", "standard", "maximum", "ultra"]), "standard", Custom(fi::compression_mode), env: true),
    row!("COMPRESSION_LEVEL", Int, "6", Custom(fi::compression_level), env: true),
    row!("COMPRESSION_THREADS", Int, "0", Set(BACKUP, "compression-threads", Number(0, 256)), env: true),
    row!("ENABLE_DEDUPLICATION", Bool, "true", EXACT, env: true),
    row!("ENABLE_PREFILTER", Bool, "true", EXACT, env: true),
    row!("PREFILTER_MAX_FILE_SIZE_MB", Int, "8", EXACT, env: true),
    row!("ENABLE_SMART_CHUNKING", Bool, "false", EXACT, env: true),
    row!("CHUNK_SIZE_MB", Int, "0", EXACT, env: true),
    row!("CHUNK_THRESHOLD_MB", Int, "0", EXACT, env: true),
    row!("DISABLE_NETWORK_PREFLIGHT", Bool, "false", Ignore("no connection to the internet is tested"), env: true),
    row!("BACKUP_EXCLUDE_PATTERNS", List, "", Custom(fi::excludes), env: true),
    row!("BACKUP_BLACKLIST", List, "", Custom(fi::excludes), env: true),
    row!("CUSTOM_BACKUP_PATHS", List, "", Custom(fi::includes), env: true),

    // Stores
    row!("BASE_DIR", Text, "", Ignore("the legacy program ignored it and used its install directory")),
    row!("LOCAL_BACKUP_PATH" > "BACKUP_PATH", Text, "${BASE_DIR}/backup", Always(st::local), env: true),
    row!("LOCAL_LOG_PATH" > "LOG_PATH", Text, "${BASE_DIR}/log", LOGS, env: true),
    row!("ENABLE_SECONDARY_BACKUP" > "SECONDARY_ENABLED", Bool, "false", Switch("there is no second copy", st::secondary), env: true),
    row!("SECONDARY_BACKUP_PATH" > "SECONDARY_PATH", Text, "", Custom(st::secondary_path), needs: SECOND, env: true),
    row!("SECONDARY_LOG_PATH", Text, "", LOGS, env: true),
    row!("ENABLE_CLOUD_BACKUP" > "CLOUD_ENABLED", Bool, "false", Switch("there is no cloud copy", st::cloud), env: true),
    row!("RCLONE_REMOTE" > "CLOUD_REMOTE", Text, "", Custom(st::cloud_remote), needs: CLOUD_ON, env: true),
    row!("CLOUD_REMOTE_PATH" | "CLOUD_BACKUP_PATH", Text, "", Custom(st::cloud_remote), needs: CLOUD_ON, env: true),
    row!("CLOUD_LOG_PATH", Text, "", LOGS, env: true),
    row!("CLOUD_UPLOAD_MODE", Choice(&["sequential", "parallel"]), "parallel", UPLOAD, env: true),
    row!("CLOUD_PARALLEL_MAX_JOBS", Int, "2", UPLOAD, env: true),
    row!("CLOUD_PARALLEL_VERIFICATION", Bool, "true", UPLOAD, env: true),
    row!("CLOUD_WRITE_HEALTHCHECK", Bool, "false", Ignore("the upload itself is the write test"), env: true),
    row!("CLOUD_VERIFY_CHECKSUM", Bool, "true", Custom(st::cloud_checksum), needs: REMOTE),
    row!("CLOUD_VERIFY_DOWNLOAD", Bool, "false", Switch("it was off", st::cloud_download), needs: REMOTE),
    row!("CLOUD_BATCH_SIZE", Int, "20", Set(st::CLOUD, "batch-size", Number(1, MOST)), needs: REMOTE, env: true),
    row!("CLOUD_BATCH_PAUSE", Int, "1", Set(st::CLOUD, "batch-pause", Number(0, MOST)), needs: REMOTE, env: true),
    row!("RCLONE_TIMEOUT_CONNECTION" | "CLOUD_CONNECTIVITY_TIMEOUT", Int, "30", Set(st::CLOUD, "connect-timeout", Number(1, MOST)), needs: REMOTE, env: true),
    row!("RCLONE_TIMEOUT_OPERATION", Int, "300", Custom(st::cloud_timeout), needs: REMOTE, env: true),
    row!("RCLONE_BANDWIDTH_LIMIT", Text, "", Set(st::CLOUD, "bandwidth", Plain), needs: REMOTE, env: true),
    row!("RCLONE_TRANSFERS", Int, "4", Set(st::CLOUD, "transfers", Number(1, MOST)), needs: REMOTE, env: true),
    row!("RCLONE_RETRIES", Int, "3", Set(st::CLOUD, "retries", Number(1, MOST)), needs: REMOTE, env: true),
    row!("RCLONE_VERIFY_METHOD", Choice(&["primary", "alternative"]), "primary", Ignore("an upload is verified with the remote's own checksum"), env: true),
    row!("RCLONE_FLAGS", Text, "", Custom(st::cloud_flags), needs: REMOTE, env: true),

    // Retention
    row!("RETENTION_POLICY", Choice(&["simple", "gfs"]), "simple", Custom(st::policy)),
    row!("MAX_LOCAL_BACKUPS" | "LOCAL_RETENTION_DAYS", Int, "7", Keep, env: true),
    row!("MAX_SECONDARY_BACKUPS" | "SECONDARY_RETENTION_DAYS", Int, "14", Keep, needs: SECOND, env: true),
    row!("MAX_CLOUD_BACKUPS" | "CLOUD_RETENTION_DAYS", Int, "30", Keep, needs: CLOUD_ON, env: true),
    row!("RETENTION_DAILY", Int, "0", Generation("keep-last", "it counted backups, not days, and kept at least one: this is keep-last, not keep-daily"), env: true),
    row!("RETENTION_WEEKLY", Int, "0", Generation("keep-weekly", "it counted calendar weeks before the current one; here only weeks with a snapshot count"), env: true),
    row!("RETENTION_MONTHLY", Int, "0", Generation("keep-monthly", "a weekly snapshot also counts for its month; the legacy program kept a second one"), env: true),
    row!("RETENTION_YEARLY", Int, "0", Generation("keep-yearly", "0 kept one snapshot a year without a limit, which is keep-yearly 1000"), env: true),

    // Bundle and encryption
    row!("BUNDLE_ASSOCIATED_FILES", Bool, "true", Ignore("a snapshot is one file"), env: true),
    row!("ENCRYPT_ARCHIVE", Bool, "false", Custom(fi::encrypt), env: true),
    row!("AGE_RECIPIENT" | "AGE_RECIPIENTS", List, "", Custom(fi::recipients), needs: ENCRYPTED, env: true),
    row!("AGE_RECIPIENT_FILE", Text, "${BASE_DIR}/identity/age/recipient.txt", Always(fi::recipient_file), needs: ENCRYPTED, env: true),

    // Channels
    row!("TELEGRAM_ENABLED" | "TELEGRAM_ENABLE", Bool, "false", Switch("it was off", ch::telegram), env: true),
    row!("BOT_TELEGRAM_TYPE", Choice(&["personal", "centralized"]), "centralized", Custom(ch::telegram_type), needs: TELEGRAM_ON, env: true),
    row!("TELEGRAM_BOT_TOKEN", Text, "", Set(ch::TELEGRAM, "token", Secret), needs: OWN_BOT, secret: true, env: true),
    row!("TELEGRAM_CHAT_ID", Text, "", Set(ch::TELEGRAM, "chat", Plain), needs: OWN_BOT, env: true),
    row!("TELEGRAM_CONFIRM_DELIVERY", Bool, "true", Ignore("the answer of the server confirms the delivery"), env: true),
    row!("TELEGRAM_CONFIRM_TIMEOUT_SECONDS", Int, "10", BOUNDED, env: true),
    row!("TELEGRAM_CONFIRM_INTERVAL_SECONDS", Int, "1", BOUNDED, env: true),
    row!("EMAIL_ENABLED" | "EMAIL_ENABLE", Bool, "false", Switch("it was off", ch::email), env: true),
    row!("EMAIL_DELIVERY_METHOD", Choice(&["relay", "cloud", "cloud-relay", "tis24-relay", "sendmail", "local", "mta", "local-mta", "pmf", "pfm", "proxmox", "proxmox-notifications", "proxmox-mail-forward"]), "relay", Custom(ch::email_method), needs: MAIL_ON, env: true),
    row!("EMAIL_FALLBACK_SENDMAIL" | "EMAIL_FALLBACK_PMF", Bool, "true", Ignore("there is no fallback; configure several channels instead"), env: true),
    row!("EMAIL_RECIPIENT", Text, "", Custom(ch::email_to), needs: MAIL_ON, env: true),
    row!("EMAIL_FROM", Text, "no-reply@proxmox.tis24.it", Custom(ch::email_from), needs: MAIL_ON, env: true),
    row!("GOTIFY_ENABLED" | "GOTIFY_ENABLE", Bool, "false", Switch("it was off", ch::gotify), env: true),
    row!("GOTIFY_SERVER_URL", Text, "", Set(ch::GOTIFY, "url", Address), needs: GOTIFY_ON, env: true),
    row!("GOTIFY_TOKEN", Text, "", Set(ch::GOTIFY, "token", Secret), needs: GOTIFY_ON, secret: true, env: true),
    row!("GOTIFY_PRIORITY_SUCCESS", Int, "2", Set(ch::GOTIFY, "priority-ok", Priority), needs: GOTIFY_ON, env: true),
    row!("GOTIFY_PRIORITY_WARNING", Int, "5", Set(ch::GOTIFY, "priority-warning", Priority), needs: GOTIFY_ON, env: true),
    row!("GOTIFY_PRIORITY_FAILURE", Int, "8", Set(ch::GOTIFY, "priority-failure", Priority), needs: GOTIFY_ON, env: true),
    row!("WEBHOOK_ENABLED" | "WEBHOOK_ENABLE", Bool, "false", Switch("it was off", ch::webhook), env: true),
    row!("WEBHOOK_ENDPOINTS", List, "", Custom(ch::webhook), needs: WEBHOOK_ON, env: true),
    row!("WEBHOOK_FORMAT", Text, "generic", Becomes("`format` of the webhooks without their own"), needs: WEBHOOK_ON, env: true),
    row!("WEBHOOK_TIMEOUT", Int, "30", BOUNDED, env: true),
    row!("WEBHOOK_MAX_RETRIES", Int, "3", Ignore("every channel retries with increasing pauses"), env: true),
    row!("WEBHOOK_RETRY_DELAY", Int, "2", Ignore("every channel retries with increasing pauses"), env: true),
    row!("PROMETHEUS_ENABLED" > "METRICS_ENABLED", Bool, "false", Switch("it was off", ch::metrics), env: true),
    row!("METRICS_PATH" | "PROMETHEUS_TEXTFILE_DIR", Text, "", Custom(ch::metrics_path), needs: METRICS_ON, env: true),

    // Collection: PVE
    row!("BACKUP_CLUSTER_CONFIG", Bool, "true", Skip(&["pve-corosync", "pve-corosync-node"])),
    row!("BACKUP_PVE_FIREWALL", Bool, "true", Skip(&["pve-firewall", "pve-firewall-node", "pve-firewall-vnet", "pve-firewall-guest"])),
    row!("BACKUP_VZDUMP_CONFIG", Bool, "true", Skip(&["pve-vzdump"])),
    row!("BACKUP_PVE_ACL", Bool, "true", Skip(&["pve-users", "pve-realms", "pve-shadow", "pve-tokens", "pve-tfa"])),
    row!("BACKUP_PVE_JOBS", Bool, "true", Skip(&["pve-jobs", "pve-vzdump-cron"])),
    row!("BACKUP_PVE_SCHEDULES", Bool, "true", Unless("true", "they are part of the items cron and crontabs; `skip cron` excludes all of them")),
    row!("BACKUP_PVE_REPLICATION", Bool, "true", Skip(&["pve-replication"])),
    row!("BACKUP_PVE_BACKUP_FILES", Bool, "true", SAMPLES),
    row!("BACKUP_VM_CONFIGS", Bool, "true", Skip(&["pve-guests"])),
    row!("BACKUP_SMALL_PVE_BACKUPS", Bool, "false", Unless("false", "guest backups are made by vzdump; use `include` for single files")),
    row!("MAX_PVE_BACKUP_SIZE", Size, "0", SAMPLES),
    row!("PVE_BACKUP_INCLUDE_PATTERN", Text, "", Unless("", "guest backups are made by vzdump; use `include` for single files")),
    row!("BACKUP_CEPH_CONFIG", Bool, "false", Anyway("ceph, pve-ceph, pve-ceph-daemons")),
    row!("CEPH_CONFIG_PATH", Text, "", Custom(fi::other_folder)),
    row!("PVESH_TIMEOUT", Int, "15", BOUNDED),
    row!("FS_IO_TIMEOUT", Int, "30", BOUNDED),
    row!("PVE_CONFIG_PATH", Text, "", PLACES),
    row!("PVE_CLUSTER_PATH", Text, "", PLACES),
    row!("COROSYNC_CONFIG_PATH", Text, "", PLACES),
    row!("VZDUMP_CONFIG_PATH", Text, "", PLACES),
    row!("PBS_CONFIG_PATH", Text, "", PLACES),

    // Collection: PBS
    row!("BACKUP_DATASTORE_CONFIGS", Bool, "true", Skip(&["pbs-datastores"])),
    row!("BACKUP_PBS_S3_ENDPOINTS", Bool, "true", Always(fi::s3)),
    row!("BACKUP_PBS_NODE_CONFIG", Bool, "true", Skip(&["pbs-node"])),
    row!("BACKUP_PBS_ACME_ACCOUNTS", Bool, "true", Custom(fi::acme)),
    row!("BACKUP_PBS_ACME_PLUGINS", Bool, "true", Custom(fi::acme)),
    row!("BACKUP_PBS_METRIC_SERVERS", Bool, "true", Skip(&["pbs-metrics"])),
    row!("BACKUP_PBS_TRAFFIC_CONTROL", Bool, "true", Skip(&["pbs-traffic-control"])),
    row!("BACKUP_PBS_NOTIFICATIONS", Bool, "true", Skip(&["pbs-notifications"])),
    row!("BACKUP_PBS_NOTIFICATIONS_PRIV", Bool, "true", Unless("true", "it is part of the item pbs-notifications; `skip pbs-notifications` excludes both")),
    row!("BACKUP_USER_CONFIGS", Bool, "true", Skip(&["pbs-users", "pbs-realms", "pbs-shadow", "pbs-tokens", "pbs-tfa", "pbs-acl"])),
    row!("BACKUP_REMOTE_CONFIGS" | "BACKUP_REMOTE_CFG", Bool, "true", Skip(&["pbs-remotes"])),
    row!("BACKUP_SYNC_JOBS", Bool, "true", Skip(&["pbs-sync-jobs"])),
    row!("BACKUP_VERIFICATION_JOBS", Bool, "true", Skip(&["pbs-verify-jobs"])),
    row!("BACKUP_TAPE_CONFIGS", Bool, "true", Skip(&["pbs-tape-keys", "pbs-tape-drives", "pbs-media-pools", "pbs-tape-inventory", "pbs-tape-jobs"])),
    row!("BACKUP_PRUNE_SCHEDULES", Bool, "true", Skip(&["pbs-prune-jobs"])),
    row!("BACKUP_PBS_NETWORK_CONFIG", Bool, "true", Unless("true", "the network is part of the items network and network-links; `skip network` excludes it")),
    row!("PXAR_SCAN_ENABLE" | "BACKUP_PXAR_FILES", Bool, "true", SAMPLES),
    row!("PXAR_SCAN_DS_CONCURRENCY", Int, "3", SAMPLES),
    row!("PXAR_FILE_INCLUDE_PATTERN" | "PXAR_INCLUDE_PATTERN", List, "", SAMPLES),
    row!("PXAR_FILE_EXCLUDE_PATTERN", List, "", SAMPLES),
    row!("PBS_DATASTORE_PATH", List, "", SAMPLES),
    row!("PBS_REPOSITORY", Text, "", Ignore("the command line tools of root are used; `api: pbs` uses a token instead"), env: true),
    row!("PBS_PASSWORD", Text, "", Ignore("the command line tools of root are used; `api: pbs` uses a token instead"), secret: true, env: true),
    row!("PBS_FINGERPRINT", Text, "", Ignore("the certificate is read from this node's disk"), env: true),

    // Collection: the system
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
    row!("BACKUP_CONFIG_FILE", Bool, "true", Ignore("the items pbx-config and proxsave contain both configurations"), env: true),
    row!("BACKUP_FIREWALL_RULES", Bool, "false", Anyway("nftables, iptables, ufw, firewalld")),
    row!("BACKUP_SCRIPT_REPOSITORY", Bool, "false", Ignore("the package is not saved; install it again")),
    row!("BACKUP_USER_HOMES", Bool, "true", Ignore("the legacy program already ignored it; use `include` for files below /home")),
    row!("SYSTEM_ROOT_PREFIX", Text, "", ROOTED),
    row!("HOST_BACKUP_MODE", Bool, "false", Unless("false", "use `--root DIR` with any command for a system that is mounted elsewhere")),

    // Schedule
    row!("SCHEDULER_MODE", Choice(&["cron", "daemon"]), "cron", Ignore("proxmox-backup-extra.timer starts the runs")),
    row!("SCHEDULER_TIME", Text, "02:00", Custom(fi::time)),
    row!("CRON_SCHEDULE", Text, "", Instead(TIMER)),
    row!("CRON_HOUR", Text, "", Instead(TIMER)),
    row!("CRON_MINUTE", Text, "", Instead(TIMER)),
    row!("MAX_RUN_DURATION", Duration, "1h", Ignore("every operation has its own timeout; TimeoutStartSec of the service limits the whole run")),
    row!("DAEMON_OPT_OUT", Bool, "false", Ignore("there is no daemon")),

    // Healthchecks
    row!("HEALTHCHECK_ENABLED", Bool, "false", Switch("it was off", ch::health)),
    row!("HEALTHCHECK_MODE", Choice(&["centralized", "self"]), "centralized", Custom(ch::health_mode), needs: HEALTH_ON),
    row!("HEALTHCHECK_BACKUP_URL", Text, "", Custom(ch::health_url), needs: OWN_HEALTH, secret: true),
    row!("HEALTHCHECK_PING_ENDPOINT", Text, "https://hc-ping.com", Custom(ch::health_part), needs: OWN_HEALTH),
    row!("HEALTHCHECK_PING_KEY", Text, "", Custom(ch::health_part), needs: OWN_HEALTH, secret: true),
    row!("HEALTHCHECK_BACKUP_ID", Text, "", Custom(ch::health_part), needs: OWN_HEALTH, secret: true),
    row!("HEALTHCHECK_SEND_LOG", Bool, "true", Ignore("the end of the log is always sent"), needs: OWN_HEALTH),
    row!("HEALTHCHECK_HEARTBEAT_INTERVAL", Duration, "5m", NO_DAEMON),
    row!("HEALTHCHECK_ALIVE_URL", Text, "", NO_DAEMON, secret: true),
    row!("HEALTHCHECK_ALIVE_ID", Text, "", NO_DAEMON, secret: true),
    row!("HEALTHCHECK_UPDATES_URL", Text, "", NO_UPDATES, secret: true),
    row!("HEALTHCHECK_UPDATES_ID", Text, "", NO_UPDATES, secret: true),
    row!("HEALTHCHECK_UPDATE_INTERVAL", Duration, "5m", NO_UPDATES),
    row!("HEALTHCHECK_NOTIFY_EMAIL_URL", Text, "", NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_EMAIL_ID", Text, "", NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_TELEGRAM_URL", Text, "", NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_TELEGRAM_ID", Text, "", NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_GOTIFY_URL", Text, "", NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_GOTIFY_ID", Text, "", NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_WEBHOOK_URL", Text, "", NO_CHANNEL_CHECKS, secret: true),
    row!("HEALTHCHECK_NOTIFY_WEBHOOK_ID", Text, "", NO_CHANNEL_CHECKS, secret: true),

    // Options of the Bash version, which nothing reads any more
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
