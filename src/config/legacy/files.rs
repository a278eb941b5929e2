//! Converters of what is saved, how it is packed, looked at before and sealed. Not here: where it is kept (`stores`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use super::env;
use super::{Draft, LegacyContext, OptionOutcome};
use crate::sys::fs::glob::Pattern;

const BACKUP: (&str, &str) = ("backup", "main");
fn backup(draft: &mut Draft, key: &str, value: &str) -> OptionOutcome {
    OptionOutcome::taken(draft.set(BACKUP.0, BACKUP.1, key, value))
}

// Compression

fn codec(from: &LegacyContext) -> &'static str {
    match &*from.text("COMPRESSION_TYPE").to_ascii_lowercase() {
        "none" => "none",
        "gz" | "gzip" | "pigz" => "gzip",
        "bz2" | "bzip2" => "bzip2",
        "lzma" => "lzma",
        "zst" | "zstd" => "zstd",
        _ => "xz",
    }
}

fn standard(from: &LegacyContext) -> bool {
    from.text("COMPRESSION_MODE").eq_ignore_ascii_case("standard")
}

pub fn compression(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    backup(draft, "compression", codec(from))
}

pub fn compression_mode(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    compression(from, "", draft);
    if codec(from) == "none" {
        return OptionOutcome::not_needed("nothing is compressed");
    }
    if standard(from) {
        return OptionOutcome::not_needed("the level is given by itself");
    }
    backup(draft, "compression-mode", &value.to_ascii_lowercase())
}

pub fn compression_level(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    compression(from, "", draft);
    if codec(from) == "none" {
        return OptionOutcome::not_needed("nothing is compressed");
    }
    if !standard(from) {
        let mode = from.text("COMPRESSION_MODE");
        return OptionOutcome::not_needed(format!("COMPRESSION_MODE={mode} chose the level, here and there"));
    }
    let range = match codec(from) {
        "zstd" => 1..=22,
        "xz" | "lzma" => 0..=9,
        _ => 1..=9,
    };
    let level: i64 = value.parse().unwrap_or(6);
    if range.contains(&level) {
        return backup(draft, "compression-level", &level.to_string());
    }
    let becomes = draft.set(BACKUP.0, BACKUP.1, "compression-level", "6");
    OptionOutcome::invalid(format!(
        "{level} is no level of {}; the old tool took 6, so it is now {becomes}",
        codec(from)
    ))
}

pub fn compression_threads(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let threads: i64 = value.parse().unwrap_or(0);
    backup(draft, "compression-threads", &threads.clamp(0, 256).to_string())
}

// What is saved

/// The old globs were tried against the whole path, the path without its slash, and the bare name.
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
    // A path of the old list was no glob.
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
    // Both look as if they meant more.
    let is_odd = globs.iter().any(|glob| glob.contains(" /") || glob.contains(" #"));
    for glob in globs {
        if glob.contains('$') {
            wrong.push(format!("'{glob}' holds a variable, which the old tool did not expand in lists"));
            continue;
        }
        match Pattern::new(&glob) {
            Ok(_) if glob.contains(char::is_control) => {
                wrong.push("a path holds a control character".to_owned());
            }
            Ok(_) => lines.push(draft.set(BACKUP.0, BACKUP.1, key, &glob)),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    let outcome = match (lines.is_empty(), wrong.is_empty()) {
        (true, true) => OptionOutcome::not_needed("the list is empty"),
        (true, false) => OptionOutcome::invalid(wrong.join("; ")),
        (false, true) => OptionOutcome::taken(lines.join(", ")),
        (false, false) => OptionOutcome::invalid(format!(
            "{}; what could be read is now {}",
            wrong.join("; "),
            lines.join(", ")
        )),
    };
    if is_odd {
        return outcome
            .noted("a blank separates nothing, and a # behind a path begins no comment, there as here");
    }
    outcome
}

/// A folder that differs from where the product has it.
pub fn other_folder(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if value.is_empty() || value.trim_end_matches('/').ends_with("/ceph") && value.matches('/').count() == 2 {
        return OptionOutcome::not_needed("the catalogue knows this folder");
    }
    includes(from, value, draft)
}

pub fn own_place(_: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    if value.is_empty() {
        return OptionOutcome::not_needed("as it is here");
    }
    OptionOutcome::not_needed("the catalogue knows where Proxmox keeps its files; `include` names others")
}

/// Two switches of the old tool, one item here.
pub fn acme(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    let (accounts, plugins) = (from.on("BACKUP_PBS_ACME_ACCOUNTS"), from.on("BACKUP_PBS_ACME_PLUGINS"));
    match (accounts, plugins) {
        (true, true) => OptionOutcome::not_needed("saved here too (pbs-acme)"),
        (false, false) => backup(draft, "skip", "pbs-acme"),
        _ => OptionOutcome::instead("accounts and plugins are one item, pbs-acme, and saved together"),
    }
}

/// Without a word of its own it followed the datastores.
pub fn s3(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let is_set = from.is_set("BACKUP_PBS_S3_ENDPOINTS");
    let is_on = if is_set { env::boolean(value) } else { from.on("BACKUP_DATASTORE_CONFIGS") };
    match (is_on, is_set) {
        (true, true) => OptionOutcome::not_needed("saved here too (pbs-s3)"),
        (true, false) => OptionOutcome::NotSet,
        (false, true) => backup(draft, "skip", "pbs-s3"),
        (false, false) => backup(draft, "skip", "pbs-s3")
            .noted("not set; it followed BACKUP_DATASTORE_CONFIGS, which is off"),
    }
}

pub fn time(_: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    let valid = value.split_once(':').is_some_and(|(hour, minute)| {
        hour.parse::<u8>().is_ok_and(|hour| hour < 24) && minute.parse::<u8>().is_ok_and(|minute| minute < 60)
    });
    if !valid {
        return OptionOutcome::invalid(format!("'{value}' is no time of day; the old tool took 02:00"));
    }
    OptionOutcome::instead(format!(
        "`systemctl edit proxmox-backup-extra.timer`, there [Timer], OnCalendar= and OnCalendar=*-*-* {value}:00"
    ))
}

// The security preflight

/// Whether a look at the host comes before each backup, and what it may end.
pub fn preflight(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let word = match (env::boolean(value), goes_on(from)) {
        (false, _) => "off",
        (true, true) => "warn",
        (true, false) => "stop",
    };
    backup(draft, "preflight", word)
}

/// The newer of the two names says it, else the older one, whose sense is the other way round.
fn goes_on(from: &LegacyContext) -> bool {
    if from.is_set("CONTINUE_ON_SECURITY_ISSUES") {
        return from.on("CONTINUE_ON_SECURITY_ISSUES");
    }
    from.is_set("ABORT_ON_SECURITY_ISSUES") && !from.on("ABORT_ON_SECURITY_ISSUES")
}

pub fn preflight_stops(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    preflight(from, &from.text("SECURITY_CHECK_ENABLED"), draft)
}

pub fn preflight_aborts(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    if from.is_set("CONTINUE_ON_SECURITY_ISSUES") {
        return OptionOutcome::not_needed("CONTINUE_ON_SECURITY_ISSUES goes before it");
    }
    preflight_stops(from, "", draft)
}

pub fn network(_: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    if env::boolean(value) {
        return OptionOutcome::instead(
            "`pbx-config check --network` looks at ports, packet filter and programs when it is asked",
        );
    }
    OptionOutcome::not_needed("it was off")
}

pub fn of_network(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("CHECK_NETWORK_SECURITY") {
        return OptionOutcome::not_needed("CHECK_NETWORK_SECURITY was off, and this with it");
    }
    network(from, value, draft)
}

const CHECK: (&str, &str) = ("check", "main");

/// A line for each.
fn check(draft: &mut Draft, key: &str, values: &[String]) -> OptionOutcome {
    let lines: Vec<String> = values.iter().map(|value| draft.set(CHECK.0, CHECK.1, key, value)).collect();
    if lines.is_empty() {
        OptionOutcome::not_needed("the list is empty")
    } else {
        OptionOutcome::taken(lines.join(", "))
    }
}

pub fn ports(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let ports = env::numbers(value).into_iter().filter(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    check(draft, "port-suspicious", &ports.collect::<Vec<_>>())
}

pub fn allowed_ports(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let named = |text: &String| {
        text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port > 0)
            && !text.starts_with(':')
    };
    let (good, bad): (Vec<String>, Vec<String>) = env::list(value).into_iter().partition(named);
    let outcome = check(draft, "port-allow", &good);
    if bad.is_empty() {
        outcome
    } else {
        OptionOutcome::invalid(format!("{}: no SERVICE:PORT", bad.join(", ")))
    }
}

pub fn processes(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    check(draft, "process-suspicious", &env::list(value))
}

pub fn allowed_processes(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    // Kernel threads are told from programs by what the kernel says, not by their names.
    let (bad, good): (Vec<String>, Vec<String>) = env::list(value)
        .into_iter()
        .partition(|name| name.starts_with("regex:") || name.contains(['^', '$', '\\', '(', '[']));
    let outcome = check(draft, "process-allow", &good);
    if bad.is_empty() {
        return outcome;
    }
    outcome
        .noted(&format!("left out: {}; a name is no regular expression, it may end with a *", bad.join(", ")))
}

// Sealing

/// Of what `AGE_RECIPIENT` and the recipient file name.
fn public_keys(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

pub fn encrypt(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !env::boolean(value) {
        if from.is_set("AGE_RECIPIENT") {
            return backup(draft, "seal", "no");
        }
        return OptionOutcome::not_needed("snapshots are sealed when there is a recipient");
    }
    backup(draft, "seal", "yes").noted("without a recipient a run fails before it reads anything")
}

pub fn recipients(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("ENCRYPT_ARCHIVE") {
        return OptionOutcome::not_needed("nothing was encrypted (ENCRYPT_ARCHIVE)");
    }
    seal_to(env::list(value), from, draft)
}

/// A line for each; what is no public key is not repeated, it may be a secret one.
fn seal_to(keys: Vec<String>, from: &LegacyContext, draft: &mut Draft) -> OptionOutcome {
    let (good, bad): (Vec<String>, Vec<String>) =
        keys.into_iter().partition(|key| key.starts_with("age1") || key.starts_with("ssh-"));
    let mut lines = Vec::new();
    let salt = salt(from);
    for key in &good {
        // Which of several is the passphrase's is not written down; what opens none of them is tried in vain.
        let with = match &salt {
            Some(salt) if key.starts_with("age1") && !key.contains(' ') => {
                format!("{key} $scrypt$ln=15,r=8,p=1${}", BASE64.encode(salt))
            }
            _ => key.clone(),
        };
        lines.push(draft.set(BACKUP.0, BACKUP.1, "recipient", &with));
    }
    let outcome = match (lines.is_empty(), bad.len()) {
        (true, 0) => OptionOutcome::not_needed("it names nobody"),
        (true, _) => OptionOutcome::invalid("it holds no public key of age or SSH"),
        (false, 0) => OptionOutcome::taken(lines.join(", ")),
        (false, bad) => OptionOutcome::invalid(format!(
            "{bad} of its lines are no public keys; the others are {}",
            lines.join(", ")
        )),
    };
    if salt.is_some() && !lines.is_empty() {
        return outcome.noted("the salt of the old passphrase stands beside it, so that the same passphrase opens new snapshots");
    }
    outcome
}

/// The salt of the passphrase: a comment in the recipient file, else the file beside it.
fn salt(from: &LegacyContext) -> Option<String> {
    let text = from.beside.recipients.as_ref().and_then(|read| read.as_ref().ok())?;
    let comment = text.lines().find_map(|line| line.trim().strip_prefix("# passphrase-salt:"));
    let salt = comment.or(from.beside.salt.as_deref())?.trim();
    (!salt.is_empty()).then(|| salt.to_owned())
}

pub fn recipient_file(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("ENCRYPT_ARCHIVE") {
        return OptionOutcome::not_needed("nothing was encrypted (ENCRYPT_ARCHIVE)");
    }
    match &from.beside.recipients {
        Some(Ok(text)) => seal_to(public_keys(text), from, draft),
        Some(Err(why)) => OptionOutcome::invalid(format!("{why}; name its recipients with `recipient`")),
        None if from.is_set("AGE_RECIPIENT") => OptionOutcome::not_needed("there is no such file"),
        None => OptionOutcome::invalid("there is no such file, and encryption is on: name a `recipient`"),
    }
}
