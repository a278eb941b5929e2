//! Converters of what is told, where and how: mail, chats, webhooks, metrics, health checks.

use super::env;
use super::table::Rule;
use super::{Draft, LegacyContext, OptionOutcome, OptionReport};

pub const NO_DAEMON: Rule =
    Rule::NotNeeded("there is no daemon whose heart beats; the runs are what is watched");
pub const NO_UPDATES: Rule = Rule::NotNeeded("updates are apt's");
pub const NO_CHANNEL_CHECKS: Rule =
    Rule::NotNeeded("a channel that fails is a problem of the run, and so of the check of the runs");

const MAIL: (&str, &str) = ("sendmail", "mail");
const GOTIFY: (&str, &str) = ("gotify", "gotify");

fn set(draft: &mut Draft, section: (&str, &str), key: &str, value: &str) -> OptionOutcome {
    OptionOutcome::taken(draft.set(section.0, section.1, key, value))
}

fn secret(draft: &mut Draft, section: (&str, &str), key: &str, value: &str) -> OptionOutcome {
    OptionOutcome::taken(draft.secret(section.0, section.1, key, value))
}

/// The address of a server. The old tool spoke to any, also without TLS.
fn address(draft: &mut Draft, section: (&str, &str), private: bool, value: &str) -> OptionOutcome {
    let outcome =
        if private { secret(draft, section, "url", value) } else { set(draft, section, "url", value) };
    if !value.to_ascii_lowercase().starts_with("http://") {
        return outcome;
    }
    draft.set(section.0, section.1, "allow-http", "yes");
    outcome.noted("without TLS, as before: whoever is on the way can read it")
}

/// An option of a channel that is off has no effect.
fn off(switch: &str) -> OptionOutcome {
    OptionOutcome::not_needed(format!("the channel is off ({switch})"))
}

// Telegram

const TELEGRAM: (&str, &str) = ("telegram", "telegram");

fn personal(from: &LegacyContext) -> bool {
    from.text("BOT_TELEGRAM_TYPE").eq_ignore_ascii_case("personal")
}

/// The bot of the old tool's author knows only the old tool.
fn telegram_key(from: &LegacyContext, convert: impl FnOnce() -> OptionOutcome) -> OptionOutcome {
    if !from.on("TELEGRAM_ENABLED") {
        return off("TELEGRAM_ENABLED");
    }
    if !personal(from) {
        return OptionOutcome::not_needed("the central bot belongs to the old tool");
    }
    convert()
}

pub fn telegram(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    if !env::boolean(value) {
        return OptionOutcome::not_needed("it is off");
    }
    if personal(from) {
        return OptionOutcome::taken("telegram: telegram");
    }
    OptionOutcome::instead(
        "the central bot belongs to the old tool: make one of your own with @BotFather, then `telegram: NAME`",
    )
}

pub fn telegram_type(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    if !from.on("TELEGRAM_ENABLED") {
        return off("TELEGRAM_ENABLED");
    }
    if value.eq_ignore_ascii_case("personal") {
        return OptionOutcome::not_needed("every bot is your own");
    }
    telegram(from, "yes", &mut Draft { sections: Vec::new() })
}

pub fn telegram_token(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    telegram_key(from, || secret(draft, TELEGRAM, "token", value))
}

pub fn telegram_chat(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    telegram_key(from, || set(draft, TELEGRAM, "chat", value))
}

// Mail

/// By which way the old tool sent mail.
enum Way {
    Relay,
    Local,
    Proxmox,
}

fn way(from: &LegacyContext) -> Way {
    match &*from.text("EMAIL_DELIVERY_METHOD").to_ascii_lowercase() {
        "sendmail" | "local" | "mta" | "local-mta" => Way::Local,
        "pmf" | "pfm" | "proxmox" | "proxmox-notifications" | "proxmox-mail-forward" => Way::Proxmox,
        _ => Way::Relay,
    }
}

pub fn email(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !env::boolean(value) {
        return OptionOutcome::not_needed("it is off");
    }
    match way(from) {
        Way::Proxmox => OptionOutcome::taken(draft.section("proxmox", "proxmox")),
        _ => OptionOutcome::taken(draft.section(MAIL.0, MAIL.1)),
    }
}

pub fn email_method(from: &LegacyContext, _: &str, _: &mut Draft) -> OptionOutcome {
    if !from.on("EMAIL_ENABLED") {
        return off("EMAIL_ENABLED");
    }
    match way(from) {
        Way::Local => OptionOutcome::taken("sendmail: mail"),
        Way::Proxmox => OptionOutcome::taken("proxmox: proxmox").noted("the host's own notification targets"),
        Way::Relay => OptionOutcome::instead(
            "the relay is a server of the old tool's author; mail goes out through this host's own mail system now \
             (sendmail: mail), or through a server that `smtp: NAME` names",
        ),
    }
}

pub fn email_to(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("EMAIL_ENABLED") {
        return off("EMAIL_ENABLED");
    }
    if let Way::Proxmox = way(from) {
        return OptionOutcome::not_needed("Proxmox's own targets say who is told");
    }
    let all = env::list(value);
    if all.is_empty() {
        return OptionOutcome::not_needed("root's address is looked up in Proxmox's users, as before");
    }
    OptionOutcome::taken(
        all.iter().map(|one| draft.set(MAIL.0, MAIL.1, "to", one)).collect::<Vec<_>>().join(", "),
    )
}

pub fn email_from(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("EMAIL_ENABLED") {
        return off("EMAIL_ENABLED");
    }
    // The author's address, which nobody but his relay may use.
    if value.is_empty() || value.ends_with("tis24.it") {
        return OptionOutcome::not_needed("the host's own address is the sender");
    }
    if let Way::Proxmox = way(from) {
        return OptionOutcome::not_needed("Proxmox's own targets say who is told");
    }
    // `Name <address>`
    match value.split_once('<').and_then(|(_, rest)| rest.trim_end().strip_suffix('>')) {
        Some(address) => set(draft, MAIL, "from", address.trim()).noted("without the name before it"),
        None => set(draft, MAIL, "from", value),
    }
}

// Gotify

fn gotify_key(from: &LegacyContext, convert: impl FnOnce() -> OptionOutcome) -> OptionOutcome {
    if from.on("GOTIFY_ENABLED") { convert() } else { off("GOTIFY_ENABLED") }
}

pub fn gotify(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    if !env::boolean(value) {
        return OptionOutcome::not_needed("it is off");
    }
    if from.is_set("GOTIFY_SERVER_URL") && from.is_set("GOTIFY_TOKEN") {
        return OptionOutcome::taken("gotify: gotify");
    }
    OptionOutcome::invalid("it has no GOTIFY_SERVER_URL or no GOTIFY_TOKEN; the old tool sent nothing")
}

fn gotify_whole(from: &LegacyContext) -> bool {
    from.is_set("GOTIFY_SERVER_URL") && from.is_set("GOTIFY_TOKEN")
}

pub fn gotify_url(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    gotify_key(from, || if gotify_whole(from) { address(draft, GOTIFY, false, value) } else { half() })
}

pub fn gotify_token(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    gotify_key(from, || if gotify_whole(from) { secret(draft, GOTIFY, "token", value) } else { half() })
}

fn half() -> OptionOutcome {
    OptionOutcome::invalid("the channel is configured by half; the old tool sent nothing")
}

fn gotify_priority(
    from: &LegacyContext,
    value: &str,
    default: &str,
    key: &str,
    draft: &mut Draft,
) -> OptionOutcome {
    gotify_key(from, || {
        let number: i64 = value.parse().unwrap_or(0);
        let number = if number <= 0 { default.to_owned() } else { number.min(10).to_string() };
        if gotify_whole(from) { set(draft, GOTIFY, key, &number) } else { half() }
    })
}

pub fn gotify_success(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    gotify_priority(from, value, "2", "priority-ok", draft)
}

pub fn gotify_warning(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    gotify_priority(from, value, "5", "priority-warning", draft)
}

pub fn gotify_failure(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    gotify_priority(from, value, "8", "priority-failure", draft)
}

// Webhooks

pub fn webhook(from: &LegacyContext, value: &str, _: &mut Draft) -> OptionOutcome {
    if !env::boolean(value) {
        return OptionOutcome::not_needed("it is off");
    }
    let (whole, bad): (Vec<String>, Vec<String>) = env::list(&from.text("WEBHOOK_ENDPOINTS"))
        .into_iter()
        .partition(|name| Endpoint::of(from, name).is_whole());
    let made = whole.iter().map(|name| format!("webhook: {}", id(name))).collect::<Vec<_>>().join(", ");
    match (&whole[..], &bad[..]) {
        ([], []) => OptionOutcome::invalid("WEBHOOK_ENDPOINTS names none; the old tool sent nothing"),
        (_, []) => OptionOutcome::taken(made),
        ([], _) => OptionOutcome::invalid("none of WEBHOOK_ENDPOINTS has a URL; the old tool sent nothing"),
        (_, bad) => {
            OptionOutcome::taken(made).noted(&format!("without a URL, so never told: {}", bad.join(", ")))
        }
    }
}

pub fn webhook_endpoints(from: &LegacyContext, _: &str, _: &mut Draft) -> OptionOutcome {
    if from.on("WEBHOOK_ENABLED") {
        webhook(from, "yes", &mut Draft { sections: Vec::new() })
    } else {
        off("WEBHOOK_ENABLED")
    }
}

pub fn webhook_part(from: &LegacyContext, _: &str, _: &mut Draft) -> OptionOutcome {
    if from.on("WEBHOOK_ENABLED") {
        OptionOutcome::taken("`format` of the webhooks that name none")
    } else {
        off("WEBHOOK_ENABLED")
    }
}

/// A name as a section's id.
fn id(name: &str) -> String {
    let id: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let id = id.trim_start_matches(['.', '_', '-']).to_ascii_lowercase();
    if id.is_empty() { "webhook".to_owned() } else { id }
}

/// The keys of each endpoint, `WEBHOOK_NAME_KEY`, whose names are the user's.
pub fn endpoints(from: &LegacyContext, draft: &mut Draft) -> Vec<OptionReport> {
    let mut accounts = Vec::new();
    let on = from.on("WEBHOOK_ENABLED");
    for name in env::list(&from.text("WEBHOOK_ENDPOINTS")) {
        let endpoint = Endpoint::of(from, &name);
        for key in Endpoint::KEYS {
            let full = format!("{}{key}", endpoint.prefix);
            let Some(value) = from.env.value(&[&full], false, true) else { continue };
            let outcome = if on { endpoint.key(key, &value.text, draft) } else { off("WEBHOOK_ENABLED") };
            let secret =
                matches!(key, "URL" | "HEADERS" | "AUTH_TOKEN" | "AUTH_USER" | "AUTH_PASS" | "AUTH_SECRET");
            let shown = if secret { crate::model::secret::MASK.to_owned() } else { value.text };
            accounts.push(OptionReport {
                key: full,
                written_as: None,
                line: value.line,
                value: shown,
                outcome,
            });
        }
        if on && endpoint.is_whole() {
            endpoint.standing(draft);
        }
    }
    accounts
}

struct Endpoint<'a> {
    from: &'a LegacyContext<'a>,
    prefix: String,
    id: String,
}

/// True for a key that an endpoint may have, whoever names it.
pub fn is_of_endpoint(key: &str) -> bool {
    let Some(rest) = key.strip_prefix("WEBHOOK_") else { return false };
    Endpoint::KEYS.iter().any(|end| {
        rest.strip_suffix(end).and_then(|name| name.strip_suffix('_')).is_some_and(|name| !name.is_empty())
    })
}

impl<'a> Endpoint<'a> {
    fn of(from: &'a LegacyContext<'a>, name: &str) -> Self {
        let prefix = format!("WEBHOOK_{}_", name.to_uppercase().replace('-', "_"));
        Self { from, prefix, id: id(name) }
    }
    const KEYS: [&'static str; 10] = [
        "URL",
        "FORMAT",
        "METHOD",
        "HEADERS",
        "AUTH_TYPE",
        "AUTH_TOKEN",
        "AUTH_USER",
        "AUTH_PASS",
        "AUTH_SECRET",
        "PRIORITY",
    ];

    fn text(&self, key: &str) -> String {
        let full = format!("{}{key}", self.prefix);
        self.from.env.value(&[&full], false, true).map(|value| value.text).unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        !self.text("URL").is_empty()
    }

    fn format(&self) -> String {
        let own = self.text("FORMAT");
        let format = if own.is_empty() { self.from.text("WEBHOOK_FORMAT") } else { own };
        format.to_ascii_lowercase()
    }

    /// What the section has although no key of its own says so.
    fn standing(&self, draft: &mut Draft) {
        let format = self.format();
        let known = ["discord", "slack", "teams", "generic", "pushover"].contains(&&*format);
        draft.set("webhook", &self.id, "format", if known { &format } else { "generic" });
    }

    fn key(&self, key: &str, value: &str, draft: &mut Draft) -> OptionOutcome {
        let section = ("webhook", &*self.id);
        let auth = self.text("AUTH_TYPE").to_ascii_lowercase();
        if !self.is_whole() {
            return OptionOutcome::invalid("the endpoint has no URL; the old tool sent nothing to it");
        }
        match (key, &*auth) {
            ("URL", _) => address(draft, section, true, value),
            ("FORMAT", _)
                if ["discord", "slack", "teams", "generic", "pushover"].contains(&&*self.format()) =>
            {
                set(draft, section, "format", &self.format())
            }
            ("FORMAT", _) => {
                OptionOutcome::invalid(format!("'{value}' is no format; the old tool sent the generic one"))
            }
            ("METHOD", _) if self.format() != "generic" => {
                OptionOutcome::not_needed("the format says how it is sent")
            }
            ("METHOD", _) if ["post", "put", "patch", "get"].contains(&&*value.to_ascii_lowercase()) => {
                set(draft, section, "method", &value.to_ascii_lowercase())
            }
            ("METHOD", _) => OptionOutcome::instead("post, put, patch and get are what there is"),
            ("HEADERS", _) => {
                let headers = value.split(',').map(str::trim).filter(|line| line.contains(':'));
                let lines = headers.map(|line| draft.secret(section.0, section.1, "secret-header", line));
                let lines: Vec<String> = lines.collect();
                if lines.is_empty() {
                    OptionOutcome::not_needed("it names none")
                } else {
                    OptionOutcome::taken(lines.join(", "))
                }
            }
            ("AUTH_TOKEN", _) if self.format() == "pushover" => secret(draft, section, "token", value),
            ("AUTH_USER", _) if self.format() == "pushover" => secret(draft, section, "user", value),
            ("AUTH_TYPE", _) if self.format() == "pushover" => {
                OptionOutcome::not_needed("its token and user say it")
            }
            ("AUTH_TYPE", "bearer" | "basic" | "hmac") => set(draft, section, "auth", &auth),
            ("AUTH_TYPE", _) => OptionOutcome::not_needed("no authorization"),
            ("AUTH_TOKEN", "bearer") | ("AUTH_PASS", "basic") | ("AUTH_SECRET", "hmac") => {
                secret(draft, section, "secret", value)
            }
            ("AUTH_USER", "basic") => set(draft, section, "username", value),
            ("PRIORITY", _) => OptionOutcome::not_needed("the outcome of the run says how urgent it is"),
            _ => OptionOutcome::not_needed("its AUTH_TYPE or FORMAT does not use it"),
        }
    }
}

// Watching

pub fn metrics(_: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if env::boolean(value) {
        return OptionOutcome::taken(draft.section("prometheus", "textfile"));
    }
    OptionOutcome::not_needed("it is off")
}

pub fn metrics_path(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("METRICS_ENABLED") {
        return off("METRICS_ENABLED");
    }
    if value.is_empty() {
        return OptionOutcome::not_needed("the folder of node_exporter is looked for");
    }
    let outcome = set(draft, ("prometheus", "textfile"), "path", value);
    if std::path::Path::new(value).starts_with(&from.env.base_dir) {
        return outcome.noted(
            "it belongs to the old installation: give node_exporter and this another one before that goes",
        );
    }
    outcome
}

/// `HEALTHCHECK_BACKUP_URL`, or an endpoint with its key and id.
fn health_place(from: &LegacyContext) -> Option<String> {
    let url = from.text("HEALTHCHECK_BACKUP_URL");
    if !url.is_empty() {
        return Some(url);
    }
    let id = from.text("HEALTHCHECK_BACKUP_ID");
    if id.is_empty() {
        return None;
    }
    let (endpoint, key) = (from.text("HEALTHCHECK_PING_ENDPOINT"), from.text("HEALTHCHECK_PING_KEY"));
    let parts = [endpoint.trim_end_matches('/'), &key, &id];
    Some(parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/"))
}

const HEALTH: (&str, &str) = ("healthchecks", "backup");

fn health_key(from: &LegacyContext, convert: impl FnOnce(String) -> OptionOutcome) -> OptionOutcome {
    if !from.on("HEALTHCHECK_ENABLED") {
        return off("HEALTHCHECK_ENABLED");
    }
    if !from.text("HEALTHCHECK_MODE").eq_ignore_ascii_case("self") {
        return OptionOutcome::not_needed("the central portal belongs to the old tool");
    }
    match health_place(from) {
        Some(place) => convert(place),
        None => OptionOutcome::invalid(
            "neither HEALTHCHECK_BACKUP_URL nor HEALTHCHECK_BACKUP_ID is set; nothing was told",
        ),
    }
}

pub fn health(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !env::boolean(value) {
        return OptionOutcome::not_needed("it is off");
    }
    if !from.text("HEALTHCHECK_MODE").eq_ignore_ascii_case("self") {
        return OptionOutcome::instead(
            "the central portal belongs to the old tool: `healthchecks: NAME` takes the URL of any such service",
        );
    }
    health_key(from, |place| address(draft, HEALTH, true, &place))
}

pub fn health_mode(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !from.on("HEALTHCHECK_ENABLED") {
        return off("HEALTHCHECK_ENABLED");
    }
    if value.eq_ignore_ascii_case("self") {
        OptionOutcome::not_needed("every service is your own")
    } else {
        health(from, "yes", draft)
    }
}

pub fn health_url(from: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    health_key(from, |place| address(draft, HEALTH, true, &place))
}

pub fn health_part(from: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if value.is_empty() || from.is_set("HEALTHCHECK_BACKUP_URL") {
        return OptionOutcome::not_needed("HEALTHCHECK_BACKUP_URL says it whole, or it is empty");
    }
    health_url(from, "", draft)
}

pub fn health_log(from: &LegacyContext, _: &str, _: &mut Draft) -> OptionOutcome {
    health_key(from, |_| OptionOutcome::not_needed("the end of the log goes with it"))
}
