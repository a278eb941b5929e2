//! Converters of the places where snapshots are kept, and of retention.

use super::{Draft, LegacyContext, OptionOutcome, SectionName, env};

/// The primary store.
pub const LOCAL: SectionName = ("dir", "local");
const SECONDARY: SectionName = ("dir", "secondary");
/// The cloud copy on a remote of rclone.
pub const CLOUD: SectionName = ("rclone", "cloud");
/// The cloud copy in a directory.
const CLOUD_FOLDER: SectionName = ("dir", "cloud");
const DEFAULT_STORE: &str = "/var/lib/proxmox-backup-extra/store";
/// The legacy GFS kept one snapshot a year without a limit when its number was 0.
const FOR_EVER: &str = "1000";
const MOUNT_POINT: &str =
    "if it is a mount point, set `mountpoint yes`, so that nothing is written when the disk is missing";

/// Returns the number of an option, or its default when the value is not a number.
fn number(context: &LegacyContext, key: &str) -> i64 {
    context.text(key).parse().unwrap_or(0)
}

pub fn local(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let path = context.default(value);
    let path = if path.is_empty() { context.default("${BASE_DIR}/backup") } else { path };
    let inside = std::path::Path::new(&path).starts_with(&context.env.base_dir);
    if inside {
        let outcome = draft.set(LOCAL, "path", DEFAULT_STORE);
        return outcome.noted(&format!(
            "{path} is in the old installation and is removed with it; `pbx-config list {path}` shows its archives, \
             and archives that you move to the new store are in every list"
        ));
    }
    if !path.starts_with('/') {
        draft.set(LOCAL, "path", DEFAULT_STORE);
        return OptionOutcome::invalid(format!(
            "'{path}' is not an absolute path, so snapshots are saved in {DEFAULT_STORE}"
        ));
    }
    draft.set(LOCAL, "path", &path).noted(MOUNT_POINT)
}

/// Returns the path of the second copy. Errors: the legacy program refused to run with it.
fn secondary_place(context: &LegacyContext) -> Result<String, String> {
    let path = context.text("SECONDARY_PATH");
    if path.is_empty() {
        return Err(
            "SECONDARY_ENABLED without a SECONDARY_PATH; the legacy program refused to run".to_owned()
        );
    }
    if !path.starts_with('/') || path.starts_with("//") {
        return Err(format!("'{path}' is not a directory of this host; the legacy program refused to run"));
    }
    Ok(path)
}

pub fn secondary(context: &LegacyContext, _: &str, _: &mut Draft) -> OptionOutcome {
    match secondary_place(context) {
        Ok(path) => OptionOutcome::taken(format!("dir: {} ({path})", SECONDARY.1)),
        Err(why) => OptionOutcome::invalid(why),
    }
}

pub fn secondary_path(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    match secondary_place(context) {
        Ok(path) => draft.set(SECONDARY, "path", &path).noted(MOUNT_POINT),
        Err(why) => OptionOutcome::invalid(why),
    }
}

/// Place of the cloud copy: a remote of rclone, or a directory.
enum Place {
    Remote(String),
    Folder(String),
    None,
}

fn cloud_place(context: &LegacyContext) -> Place {
    let (remote, below) = (context.text("CLOUD_REMOTE"), context.text("CLOUD_REMOTE_PATH"));
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

pub fn cloud(context: &LegacyContext, _: &str, _: &mut Draft) -> OptionOutcome {
    match cloud_place(context) {
        Place::Remote(place) => OptionOutcome::taken(format!("rclone: cloud ({place})")),
        Place::Folder(place) => OptionOutcome::taken(format!("dir: cloud ({place})")),
        Place::None => OptionOutcome::invalid(
            "CLOUD_ENABLED without a valid CLOUD_REMOTE; the legacy program refused to run",
        ),
    }
}

pub fn cloud_remote(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    match cloud_place(context) {
        Place::Remote(place) => draft.set(CLOUD, "remote", &place),
        Place::Folder(place) => draft.set(CLOUD_FOLDER, "path", &place),
        Place::None => {
            OptionOutcome::invalid("not a valid remote or directory; the legacy program refused to run")
        }
    }
}

pub fn check_remote(context: &LegacyContext) -> Result<(), OptionOutcome> {
    match cloud_place(context) {
        Place::Remote(_) => Ok(()),
        _ => Err(OptionOutcome::not_needed("the copy is not on a remote")),
    }
}

pub fn cloud_checksum(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if context.on("CLOUD_VERIFY_DOWNLOAD") {
        return OptionOutcome::not_needed("CLOUD_VERIFY_DOWNLOAD is on and replaces it");
    }
    draft.set(CLOUD, "checksum", if env::boolean(value) { "remote" } else { "no" })
}

pub fn cloud_download(_: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    draft.set(CLOUD, "checksum", "download")
}

pub fn cloud_timeout(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    let seconds = value.parse::<u64>().unwrap_or(0).min(u16::MAX.into());
    if seconds == 0 {
        return OptionOutcome::instead(
            "a timeout is required here; the default of 300 s is extended by the size of the transfer",
        );
    }
    draft.set(CLOUD, "timeout", &seconds.to_string())
}

/// Leaves out the flags of statistics, which we set ourselves.
pub fn cloud_flags(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
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

    let mut lines = Vec::new();
    if !kept.is_empty() {
        lines.push(draft.line(CLOUD, "flags", &kept.join(" ")));
    }
    lines.extend(file.map(|file| draft.line(CLOUD, "config", file)));
    if lines.is_empty() {
        return OptionOutcome::not_needed("the value is empty");
    }

    let outcome = OptionOutcome::taken(lines.join(", "));
    if ours.is_empty() {
        return outcome;
    }
    outcome.noted(&format!("without {}, which is always set here", ours.join(" ")))
}

// Retention

pub fn policy(_: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    match value.to_ascii_lowercase().as_str() {
        "gfs" => OptionOutcome::taken("keep-last, keep-weekly, keep-monthly and keep-yearly of every store"),
        _ => OptionOutcome::taken("keep-last of every store"),
    }
}

/// Returns the store whose snapshots this option counted, when the legacy program wrote to it.
fn counted_store(context: &LegacyContext, key: &str) -> Option<SectionName> {
    match (key, cloud_place(context)) {
        ("MAX_LOCAL_BACKUPS", _) => Some(LOCAL),
        ("MAX_SECONDARY_BACKUPS", _) => secondary_place(context).is_ok().then_some(SECONDARY),
        (_, Place::Remote(_)) => Some(CLOUD),
        (_, Place::Folder(_)) => Some(CLOUD_FOLDER),
        (_, Place::None) => None,
    }
}

fn gfs(context: &LegacyContext) -> bool {
    context.text("RETENTION_POLICY").eq_ignore_ascii_case("gfs")
}

/// Converts the number of snapshots of one store. GFS ignored it.
pub fn keep(context: &LegacyContext, key: &str, value: &str, draft: &mut Draft) -> OptionOutcome {
    let Some(store) = counted_store(context, key) else {
        return OptionOutcome::not_needed("the legacy program did not use this store");
    };
    if gfs(context) {
        keep_generations(context, store, draft);
        return OptionOutcome::not_needed("RETENTION_POLICY=gfs does not use it");
    }

    let count: i64 = value.parse().unwrap_or(0);
    let mut outcome = if count <= 0 {
        OptionOutcome::taken(format!(
            "{}: {} without a keep option, which keeps all snapshots",
            store.0, store.1
        ))
    } else {
        draft.set(store, "keep-last", &count.min(100_000).to_string())
    };
    if !context.is_set(key) {
        outcome = outcome.noted("not set; the default of the legacy program");
    }

    // Versions of 2025 used GFS as soon as one of these was set. Both are kept, so that nothing is deleted too early.
    let counters = ["RETENTION_WEEKLY", "RETENTION_MONTHLY", "RETENTION_YEARLY"];
    if count > 0 && !context.is_set("RETENTION_POLICY") && counters.iter().any(|key| number(context, key) > 0)
    {
        for (counter, word) in counters.iter().zip(["keep-weekly", "keep-monthly", "keep-yearly"]) {
            if number(context, counter) > 0 {
                draft.set(store, word, &number(context, counter).to_string());
            }
        }
        outcome =
            outcome.noted("only old versions used RETENTION_* without RETENTION_POLICY; both are taken over");
    }

    outcome
}

/// Keeps the newest D snapshots, then one for each week, month and year before.
fn keep_generations(context: &LegacyContext, store: SectionName, draft: &mut Draft) {
    draft.set(store, "keep-last", &number(context, "RETENTION_DAILY").clamp(1, 100_000).to_string());
    for (key, word) in [("RETENTION_WEEKLY", "keep-weekly"), ("RETENTION_MONTHLY", "keep-monthly")] {
        let count = number(context, key);
        if count > 0 {
            draft.set(store, word, &count.min(100_000).to_string());
        }
    }
    let years = number(context, "RETENTION_YEARLY");
    let years = if years > 0 { years.min(100_000).to_string() } else { FOR_EVER.to_owned() };
    draft.set(store, "keep-yearly", &years);
}

/// Reports an option of GFS, which is the same for each store: `key` is ours, `note` names the difference.
pub fn generation(context: &LegacyContext, key: &str, value: &str, note: &str) -> OptionOutcome {
    let count: i64 = value.parse().unwrap_or(0);
    if gfs(context) {
        let is_same = key == "keep-yearly" && count > 0;
        let outcome = OptionOutcome::taken(format!("{key} of every store"));
        return if is_same { outcome } else { outcome.noted(note) };
    }

    if context.is_set("RETENTION_POLICY") || count <= 0 {
        return OptionOutcome::not_needed("RETENTION_POLICY is not gfs");
    }
    let note = "only old versions used it without RETENTION_POLICY=gfs";
    if key == "keep-last" {
        return OptionOutcome::not_needed(note);
    }
    OptionOutcome::taken(format!("{key} {count} of every store")).noted(note)
}
