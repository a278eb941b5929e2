//! Converters of where snapshots are kept, and for how long.

use super::env;
use super::{Draft, LegacyContext, OptionOutcome};

/// The primary store.
pub const LOCAL: &str = "local";
const SECONDARY: &str = "secondary";
const CLOUD: &str = "cloud";
const DEFAULT_STORE: &str = "/var/lib/proxmox-backup-extra/store";
/// Old GFS kept one a year for ever when it was told none.
const FOR_EVER: &str = "1000";
const MOUNT_POINT: &str =
    "where it is a mount point, `mountpoint yes` keeps a missing disk from being taken for an empty one";
const SECONDARY_OFF: &str = "the second copy is off (SECONDARY_ENABLED)";
const CLOUD_OFF: &str = "the cloud is off (CLOUD_ENABLED)";

/// The number of an option that is one, its default when it is not.
fn number(from: &LegacyContext, key: &str) -> i64 {
    from.text(key).parse().unwrap_or(0)
}

pub fn local(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let path = from.default(value);
    let path = if path.is_empty() { from.default("${BASE_DIR}/backup") } else { path };
    let inside = std::path::Path::new(&path).starts_with(&from.env.base_dir);
    if inside {
        let line = draft.set("dir", LOCAL, "path", DEFAULT_STORE);
        let note = format!(
            "{path} belongs to the old installation and goes with it; `pbx-config list {path}` shows what is there, \
             and archives that are moved to the new place stand in every list"
        );
        return OptionOutcome::Taken { becomes: line, note };
    }
    if !path.starts_with('/') {
        draft.set("dir", LOCAL, "path", DEFAULT_STORE);
        return OptionOutcome::invalid(format!(
            "'{path}' is no absolute path, so snapshots go to {DEFAULT_STORE}"
        ));
    }
    OptionOutcome::taken(draft.set("dir", LOCAL, "path", &path)).noted(MOUNT_POINT)
}

/// What the old tool took for a folder of this machine.
fn secondary_place(from: &LegacyContext) -> Result<String, String> {
    let path = from.text("SECONDARY_PATH");
    if path.is_empty() {
        return Err("SECONDARY_ENABLED without a SECONDARY_PATH; the old tool refused to run".to_owned());
    }
    if !path.starts_with('/') || path.starts_with("//") {
        return Err(format!("'{path}' is no folder of this machine; the old tool refused to run"));
    }
    Ok(path)
}

pub fn secondary(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    match (env::boolean(value), secondary_place(from)) {
        (false, _) => OptionOutcome::not_needed("there is no second copy"),
        (true, Ok(path)) => OptionOutcome::taken(format!("dir: {SECONDARY}, which is {path}")),
        (true, Err(why)) => OptionOutcome::invalid(why),
    }
}

pub fn secondary_path(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("SECONDARY_ENABLED") {
        return OptionOutcome::not_needed(SECONDARY_OFF);
    }
    match secondary_place(from) {
        Ok(path) => OptionOutcome::Taken {
            becomes: draft.set("dir", SECONDARY, "path", &path),
            note: MOUNT_POINT.to_owned(),
        },
        Err(why) => OptionOutcome::invalid(why),
    }
}

/// Where the cloud is: a remote of rclone, or a folder.
enum Place {
    Remote(String),
    Folder(String),
    None,
}

fn cloud_place(from: &LegacyContext) -> Place {
    let (remote, below) = (from.text("CLOUD_REMOTE"), from.text("CLOUD_REMOTE_PATH"));
    let below = below.trim_matches('/');
    let joined = |start: &str| {
        let start = start.trim_end_matches('/');
        [start, below].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/")
    };
    if remote.is_empty() || format!("{remote}/{below}").split('/').any(|part| part == "..") {
        return Place::None;
    }
    if remote.starts_with('/') {
        return Place::Folder(joined(&remote));
    }
    let (name, path) = remote.split_once(':').unwrap_or((&remote, ""));
    Place::Remote(format!("{name}:{}", joined(path).trim_start_matches('/')))
}

pub fn cloud(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    if !env::boolean(value) {
        return OptionOutcome::not_needed("there is no cloud copy");
    }
    match cloud_place(from) {
        Place::Remote(place) => OptionOutcome::taken(format!("rclone: {CLOUD}, which is {place}")),
        Place::Folder(place) => OptionOutcome::taken(format!("dir: {CLOUD}, which is {place}")),
        Place::None => OptionOutcome::invalid(
            "CLOUD_ENABLED without a CLOUD_REMOTE that can be; the old tool refused to run",
        ),
    }
}

pub fn cloud_remote(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("CLOUD_ENABLED") {
        return OptionOutcome::not_needed(CLOUD_OFF);
    }
    match cloud_place(from) {
        Place::Remote(place) => OptionOutcome::taken(draft.set("rclone", CLOUD, "remote", &place)),
        Place::Folder(place) => OptionOutcome::taken(draft.set("dir", CLOUD, "path", &place)),
        Place::None => OptionOutcome::invalid("names no place that can be; the old tool refused to run"),
    }
}

pub fn cloud_path(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    cloud_remote(from, "", draft)
}

/// A key of the remote, when there is one.
fn remote(from: &LegacyContext, draft: &mut Draft, key: &str, value: &str) -> OptionOutcome {
    if !from.on("CLOUD_ENABLED") {
        return OptionOutcome::not_needed(CLOUD_OFF);
    }
    match cloud_place(from) {
        Place::Remote(_) if value.is_empty() => OptionOutcome::not_needed("it is empty"),
        Place::Remote(_) => OptionOutcome::taken(draft.set("rclone", CLOUD, key, value)),
        _ => OptionOutcome::not_needed("the copy goes to a folder"),
    }
}

pub fn cloud_checksum(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if from.on("CLOUD_VERIFY_DOWNLOAD") {
        return OptionOutcome::not_needed("CLOUD_VERIFY_DOWNLOAD is on and says more");
    }
    remote(from, draft, "checksum", if env::boolean(value) { "remote" } else { "no" })
}

pub fn cloud_download(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if env::boolean(value) {
        remote(from, draft, "checksum", "download")
    } else {
        OptionOutcome::not_needed("it is off")
    }
}

/// A number that is at least `least`; the old tool put that in place of a smaller one.
fn at_least(from: &LegacyContext, draft: &mut Draft, key: &str, value: &str, least: i64) -> OptionOutcome {
    let number = value.parse().unwrap_or(least).clamp(least, i64::from(u16::MAX));
    remote(from, draft, key, &number.to_string())
}

pub fn cloud_batch(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    at_least(from, draft, "batch-size", value, 1)
}

pub fn cloud_pause(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    at_least(from, draft, "batch-pause", value, 0)
}

pub fn cloud_connect(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    at_least(from, draft, "connect-timeout", value, 1)
}

pub fn cloud_timeout(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if value.parse::<i64>().unwrap_or(0) <= 0 && from.on("CLOUD_ENABLED") {
        return OptionOutcome::instead(
            "without a limit is not possible here; the default of 300 s grows with the bytes",
        );
    }
    at_least(from, draft, "timeout", value, 1)
}

pub fn cloud_bandwidth(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    remote(from, draft, "bandwidth", value)
}

pub fn cloud_transfers(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    at_least(from, draft, "transfers", value, 1)
}

pub fn cloud_retries(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    at_least(from, draft, "retries", value, 1)
}

/// What the template sets for statistics is ours to set.
pub fn cloud_flags(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let (mut ours, mut kept, mut file) = (Vec::new(), Vec::new(), None);
    let mut words = value.split_whitespace();
    while let Some(word) = words.next() {
        match word.strip_prefix("--config") {
            Some("") => file = words.next(),
            Some(path) if path.starts_with('=') => file = Some(&path[1..]),
            _ if word.starts_with("--stats") => ours.push(word),
            _ => kept.push(word),
        }
    }
    let outcome = match (remote(from, draft, "flags", &kept.join(" ")), file) {
        (outcome, None) => outcome,
        (OptionOutcome::Taken { becomes: flags, .. }, Some(file)) => {
            match remote(from, draft, "config", file) {
                OptionOutcome::Taken { becomes, .. } => OptionOutcome::taken(format!("{flags}, {becomes}")),
                other => other,
            }
        }
        (_, Some(file)) => remote(from, draft, "config", file),
    };
    match (ours.is_empty(), &outcome) {
        (false, OptionOutcome::Taken { .. }) => {
            outcome.noted(&format!("without {}, which is set here anyway", ours.join(" ")))
        }
        _ => outcome,
    }
}

pub fn space(_: &LegacyContext, _: &str, _: &mut Draft) -> OptionOutcome {
    OptionOutcome::not_needed(
        "a store that has no room for the snapshot is a problem of that store, and nothing is left of it",
    )
}

// Retention

pub fn policy(_: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    match value.to_ascii_lowercase().as_str() {
        "gfs" => OptionOutcome::taken("keep-last, keep-weekly, keep-monthly and keep-yearly of every store"),
        _ => OptionOutcome::taken("keep-last of every store"),
    }
}

/// The stores that a run of the old tool wrote to, with the option that counted for each.
fn stores(from: &LegacyContext) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut stores = vec![("dir", LOCAL, "MAX_LOCAL_BACKUPS")];
    if from.on("SECONDARY_ENABLED") && secondary_place(from).is_ok() {
        stores.push(("dir", SECONDARY, "MAX_SECONDARY_BACKUPS"));
    }
    if from.on("CLOUD_ENABLED") {
        match cloud_place(from) {
            Place::Remote(_) => stores.push(("rclone", CLOUD, "MAX_CLOUD_BACKUPS")),
            Place::Folder(_) => stores.push(("dir", CLOUD, "MAX_CLOUD_BACKUPS")),
            Place::None => {}
        }
    }
    stores
}

fn gfs(from: &LegacyContext) -> bool {
    from.text("RETENTION_POLICY").eq_ignore_ascii_case("gfs")
}

/// The counter of one store; under GFS it did not count.
fn keep(from: &LegacyContext, key: &str, value: &str, off: &'static str, draft: &mut Draft) -> OptionOutcome {
    let stores = stores(from);
    let Some((kind, id, _)) = stores.iter().find(|(_, _, counter)| *counter == key) else {
        return OptionOutcome::not_needed(off);
    };
    if gfs(from) {
        keep_gfs(from, kind, id, draft);
        return OptionOutcome::not_needed("RETENTION_POLICY=gfs does not look at it");
    }
    let count: i64 = value.parse().unwrap_or(0);
    let mut outcome = if count <= 0 {
        OptionOutcome::taken(format!("{kind}: {id} without a keep option, which keeps all"))
    } else {
        OptionOutcome::taken(draft.set(kind, id, "keep-last", &count.min(100_000).to_string()))
    };
    if !from.is_set(key) {
        outcome = outcome.noted("not set; this was the default of the old tool");
    }
    // Versions of 2025 took GFS for switched on by any of these; more is kept for those who have one.
    let counters = ["RETENTION_WEEKLY", "RETENTION_MONTHLY", "RETENTION_YEARLY"];
    if count > 0 && !from.is_set("RETENTION_POLICY") && counters.iter().any(|key| number(from, key) > 0) {
        for (counter, word) in counters.iter().zip(["keep-weekly", "keep-monthly", "keep-yearly"]) {
            if number(from, counter) > 0 {
                draft.set(kind, id, word, &number(from, counter).to_string());
            }
        }
        outcome = outcome.noted(
            "RETENTION_* beside it counted without RETENTION_POLICY in old versions only; both are kept",
        );
    }
    outcome
}

/// The newest D backups, then one of each week, month and year before.
fn keep_gfs(from: &LegacyContext, kind: &str, id: &str, draft: &mut Draft) {
    draft.set(kind, id, "keep-last", &number(from, "RETENTION_DAILY").clamp(1, 100_000).to_string());
    for (key, word) in [("RETENTION_WEEKLY", "keep-weekly"), ("RETENTION_MONTHLY", "keep-monthly")] {
        let count = number(from, key);
        if count > 0 {
            draft.set(kind, id, word, &count.min(100_000).to_string());
        }
    }
    let years = number(from, "RETENTION_YEARLY");
    let years = if years > 0 { years.min(100_000).to_string() } else { FOR_EVER.to_owned() };
    draft.set(kind, id, "keep-yearly", &years);
}

pub fn keep_local(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    keep(from, "MAX_LOCAL_BACKUPS", value, "", draft)
}

pub fn keep_secondary(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    keep(from, "MAX_SECONDARY_BACKUPS", value, SECONDARY_OFF, draft)
}

pub fn keep_cloud(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    keep(from, "MAX_CLOUD_BACKUPS", value, CLOUD_OFF, draft)
}

fn gfs_part(from: &LegacyContext, word: &str, value: &str, note: &str) -> OptionOutcome {
    let count: i64 = value.parse().unwrap_or(0);
    if gfs(from) {
        return OptionOutcome::Taken { becomes: format!("{word} of every store"), note: note.to_owned() };
    }
    if !from.is_set("RETENTION_POLICY") && count > 0 {
        let note = "without RETENTION_POLICY=gfs only old versions looked at it";
        return match word {
            "keep-last" => OptionOutcome::not_needed(note),
            _ => OptionOutcome::Taken {
                becomes: format!("{word} {count} of every store"),
                note: note.to_owned(),
            },
        };
    }
    OptionOutcome::not_needed("RETENTION_POLICY is not gfs")
}

pub fn gfs_daily(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    let note =
        "it counted backups, not days, and at least one: that is keep-last, and keep-daily would be days";
    gfs_part(from, "keep-last", value, note)
}

pub fn gfs_weekly(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    let note = "the old weeks were those before the current one; here the weeks count that have a snapshot";
    gfs_part(from, "keep-weekly", value, note)
}

pub fn gfs_monthly(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    let note = "a snapshot that a week keeps counts for its month too, where the old tool kept a second one";
    gfs_part(from, "keep-monthly", value, note)
}

pub fn gfs_yearly(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    let endless = value.parse::<i64>().unwrap_or(0) <= 0;
    let note = if endless { "0 kept one a year for ever, which is keep-yearly 1000" } else { "" };
    gfs_part(from, "keep-yearly", value, note)
}
