//! Converters of collection, compression, preflight and encryption. Not here: the stores (`stores`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use super::{Draft, LegacyContext, OptionOutcome, SectionName, env};
use crate::sys::fs::glob::Pattern;

pub const BACKUP: SectionName = ("backup", "main");
pub const CHECK: SectionName = ("check", "main");

// Compression

fn codec(context: &LegacyContext) -> &'static str {
    match &*context.text("COMPRESSION_TYPE").to_ascii_lowercase() {
        "none" => "none",
        "gz" | "gzip" | "pigz" => "gzip",
        "bz2" | "bzip2" => "bzip2",
        "lzma" => "lzma",
        "zst" | "zstd" => "zstd",
        _ => "xz",
    }
}

fn standard(context: &LegacyContext) -> bool {
    context.text("COMPRESSION_MODE").eq_ignore_ascii_case("standard")
}

pub fn compression(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    draft.set(BACKUP, "compression", codec(context))
}

pub fn compression_mode(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    compression(context, "", draft);
    if codec(context) == "none" {
        return OptionOutcome::not_needed("compression is off");
    }
    if standard(context) {
        return OptionOutcome::not_needed("the level is set separately");
    }
    draft.set(BACKUP, "compression-mode", &value.to_ascii_lowercase())
}

pub fn compression_level(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    compression(context, "", draft);
    if codec(context) == "none" {
        return OptionOutcome::not_needed("compression is off");
    }
    if !standard(context) {
        let mode = context.text("COMPRESSION_MODE");
        return OptionOutcome::not_needed(format!("COMPRESSION_MODE={mode} defines the level"));
    }

    let range = match codec(context) {
        "zstd" => 1..=22,
        "xz" | "lzma" => 0..=9,
        _ => 1..=9,
    };
    let level: i64 = value.parse().unwrap_or(6);
    if range.contains(&level) {
        return draft.set(BACKUP, "compression-level", &level.to_string());
    }

    let becomes = draft.line(BACKUP, "compression-level", "6");
    OptionOutcome::invalid(format!(
        "{level} is not a level of {}; the legacy program used 6, so it is now {becomes}",
        codec(context)
    ))
}

// Collection

/// Converts globs. The legacy program compared them with the whole path, the path without its slash, and the name.
pub fn excludes(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let globs = env::list(value).into_iter().map(|item| {
        if item.starts_with('/') {
            item
        } else if item.contains('/') {
            format!("/{item}")
        } else {
            format!("/**/{item}")
        }
    });
    paths(globs.collect(), "exclude", draft)
}

pub fn includes(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    // The legacy list has paths, not globs.
    let globs = env::list(value).into_iter().map(|item| {
        let mut text = if item.starts_with('/') { String::new() } else { "/".to_owned() };
        for c in item.chars() {
            match c {
                '*' | '?' | '[' | ']' => text.push_str(&format!("[{c}]")),
                c => text.push(c),
            }
        }
        text
    });
    paths(globs.collect(), "include", draft)
}

fn paths(globs: Vec<String>, key: &str, draft: &mut Draft) -> OptionOutcome {
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    // The legacy program did not split or cut these values, although they look like that.
    let is_odd = globs.iter().any(|glob| glob.contains(" /") || glob.contains(" #"));
    for glob in globs {
        if glob.contains('$') {
            wrong.push(format!(
                "'{glob}' contains a variable, which the legacy program did not expand in lists"
            ));
            continue;
        }
        match Pattern::new(&glob) {
            Ok(_) if glob.contains(char::is_control) => {
                wrong.push("a path contains a control character".to_owned());
            }
            Ok(_) => lines.push(draft.line(BACKUP, key, &glob)),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }

    let outcome = match (lines.is_empty(), wrong.is_empty()) {
        (true, true) => OptionOutcome::not_needed("the list is empty"),
        (true, false) => OptionOutcome::invalid(wrong.join("; ")),
        (false, true) => OptionOutcome::taken(lines.join(", ")),
        (false, false) => {
            OptionOutcome::invalid(format!("{}; the rest is now {}", wrong.join("; "), lines.join(", ")))
        }
    };

    if is_odd {
        return outcome
            .noted("as before, blanks do not separate paths and a # after a path is not a comment");
    }
    outcome
}

/// Includes a directory that is not at the product's default place.
pub fn other_folder(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if value.is_empty() || value.trim_end_matches('/').ends_with("/ceph") && value.matches('/').count() == 2 {
        return OptionOutcome::not_needed("the catalogue contains this directory");
    }
    includes(context, value, draft)
}

/// Converts two switches, which are one item here.
pub fn acme(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    let (accounts, plugins) = (context.on("BACKUP_PBS_ACME_ACCOUNTS"), context.on("BACKUP_PBS_ACME_PLUGINS"));
    match (accounts, plugins) {
        (true, true) => OptionOutcome::not_needed("also saved here (pbs-acme)"),
        (false, false) => draft.set(BACKUP, "skip", "pbs-acme"),
        _ => {
            OptionOutcome::instead("accounts and plugins are one item here, pbs-acme, and are saved together")
        }
    }
}

/// Converts a switch that followed the one of the datastores when it was not set.
pub fn s3(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let is_set = context.is_set("BACKUP_PBS_S3_ENDPOINTS");
    let is_on = if is_set { env::boolean(value) } else { context.on("BACKUP_DATASTORE_CONFIGS") };
    match (is_on, is_set) {
        (true, true) => OptionOutcome::not_needed("also saved here (pbs-s3)"),
        (true, false) => OptionOutcome::NotSet,
        (false, true) => draft.set(BACKUP, "skip", "pbs-s3"),
        (false, false) => draft
            .set(BACKUP, "skip", "pbs-s3")
            .noted("not set; BACKUP_DATASTORE_CONFIGS, which is off, was used instead"),
    }
}

pub fn time(_: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    let valid = value.split_once(':').is_some_and(|(hour, minute)| {
        hour.parse::<u8>().is_ok_and(|hour| hour < 24) && minute.parse::<u8>().is_ok_and(|minute| minute < 60)
    });
    if !valid {
        return OptionOutcome::invalid(format!(
            "'{value}' is not a valid time; the legacy program used 02:00"
        ));
    }
    OptionOutcome::instead(format!(
        "use `systemctl edit proxmox-backup-extra.timer`: [Timer], OnCalendar= and OnCalendar=*-*-* {value}:00"
    ))
}

// The security preflight

/// Converts the check before each backup, and whether it can stop the run.
pub fn preflight(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    let word = match (context.on("SECURITY_CHECK_ENABLED"), goes_on(context)) {
        (false, _) => "off",
        (true, true) => "warn",
        (true, false) => "stop",
    };
    draft.set(BACKUP, "preflight", word)
}

/// Reads the newer option, or the older one, which has the opposite meaning.
fn goes_on(context: &LegacyContext) -> bool {
    if context.is_set("CONTINUE_ON_SECURITY_ISSUES") {
        return context.on("CONTINUE_ON_SECURITY_ISSUES");
    }
    context.is_set("ABORT_ON_SECURITY_ISSUES") && !context.on("ABORT_ON_SECURITY_ISSUES")
}

pub fn preflight_aborts(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    if context.is_set("CONTINUE_ON_SECURITY_ISSUES") {
        return OptionOutcome::not_needed("CONTINUE_ON_SECURITY_ISSUES is used instead");
    }
    preflight(context, "", draft)
}

pub fn ports(value: &str) -> Vec<String> {
    let is_port = |port: &String| port.parse::<u16>().is_ok_and(|port| port > 0);
    env::numbers(value).into_iter().filter(is_port).collect()
}

pub fn allowed_ports(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let named = |text: &String| {
        text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port > 0)
            && !text.starts_with(':')
    };
    let (good, bad): (Vec<String>, Vec<String>) = env::list(value).into_iter().partition(named);
    let outcome = draft.set_each(CHECK, "port-allow", &good);
    if bad.is_empty() {
        outcome
    } else {
        OptionOutcome::invalid(format!("{}: not SERVICE:PORT", bad.join(", ")))
    }
}

pub fn allowed_processes(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    // The kernel marks its threads itself; names are not needed for them.
    let (bad, good): (Vec<String>, Vec<String>) = env::list(value)
        .into_iter()
        .partition(|name| name.starts_with("regex:") || name.contains(['^', '$', '\\', '(', '[']));
    let outcome = draft.set_each(CHECK, "process-allow", &good);
    if bad.is_empty() {
        return outcome;
    }
    outcome.noted(&format!(
        "skipped: {}; regular expressions are not supported, a name may end with a *",
        bad.join(", ")
    ))
}

// Encryption

/// Returns the lines of a recipient file, without comments.
fn public_keys(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

pub fn encrypt(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !env::boolean(value) {
        if context.is_set("AGE_RECIPIENT") {
            return draft.set(BACKUP, "seal", "no");
        }
        return OptionOutcome::not_needed("snapshots are encrypted when there is a recipient");
    }
    draft.set(BACKUP, "seal", "yes").noted("without a recipient, a run fails before it reads anything")
}

pub fn recipients(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    seal_to(env::list(value), context, draft)
}

/// Adds a line for each public key. Other lines are not repeated: they may be secret keys.
fn seal_to(keys: Vec<String>, context: &LegacyContext, draft: &mut Draft) -> OptionOutcome {
    let (good, bad): (Vec<String>, Vec<String>) =
        keys.into_iter().partition(|key| key.starts_with("age1") || key.starts_with("ssh-"));

    let mut lines = Vec::new();
    let salt = salt(context);
    for key in &good {
        // The file does not say which key belongs to the passphrase, so each gets the salt. A wrong one does no harm.
        let with = match &salt {
            Some(salt) if key.starts_with("age1") && !key.contains(' ') => {
                format!("{key} $scrypt$ln=15,r=8,p=1${}", BASE64.encode(salt))
            }
            _ => key.clone(),
        };
        lines.push(draft.line(BACKUP, "recipient", &with));
    }

    let outcome = match (lines.is_empty(), bad.len()) {
        (true, 0) => OptionOutcome::not_needed("it contains no recipient"),
        (true, _) => OptionOutcome::invalid("it contains no public key of age or SSH"),
        (false, 0) => OptionOutcome::taken(lines.join(", ")),
        (false, bad) => OptionOutcome::invalid(format!(
            "{bad} of its lines are not public keys; the others are {}",
            lines.join(", ")
        )),
    };

    if salt.is_some() && !lines.is_empty() {
        return outcome
            .noted("with the salt of the old passphrase, so that the same passphrase opens new snapshots");
    }
    outcome
}

/// Returns the salt of the passphrase: a comment in the recipient file, else the file beside it.
fn salt(context: &LegacyContext) -> Option<String> {
    let text = context.beside.recipients.as_ref().and_then(|read| read.as_ref().ok())?;
    let comment = text.lines().find_map(|line| line.trim().strip_prefix("# passphrase-salt:"));
    let salt = comment.or(context.beside.salt.as_deref())?.trim();
    (!salt.is_empty()).then(|| salt.to_owned())
}

pub fn recipient_file(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    match &context.beside.recipients {
        Some(Ok(text)) => seal_to(public_keys(text), context, draft),
        Some(Err(why)) => OptionOutcome::invalid(format!("{why}; add its recipients with `recipient`")),
        None if context.is_set("AGE_RECIPIENT") => OptionOutcome::not_needed("the file does not exist"),
        None => OptionOutcome::invalid("the file does not exist, and encryption is on: add a `recipient`"),
    }
}
