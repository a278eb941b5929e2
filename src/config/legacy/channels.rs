//! Converters of notifications, metrics and health checks.

use super::env::{self, OptionValue};
use super::{CHANNEL_OFF, Draft, LegacyContext, OptionOutcome, OptionReport, SectionName};
use crate::model::secret::MASK;

pub const TELEGRAM: SectionName = ("telegram", "telegram");
const MAIL: SectionName = ("sendmail", "mail");
const PROXMOX: SectionName = ("proxmox", "proxmox");
pub const GOTIFY: SectionName = ("gotify", "gotify");
const METRICS: SectionName = ("prometheus", "textfile");
const GENERIC: &str = "generic";
const FORMATS: [&str; 5] = ["discord", "slack", "teams", GENERIC, "pushover"];
const METHODS: [&str; 4] = ["post", "put", "patch", "get"];
const HEALTH: SectionName = ("healthchecks", "backup");

/// Sets the address of a server. The legacy program accepted any address, also without TLS.
pub fn address(draft: &mut Draft, section: (&str, &str), private: bool, value: &str) -> OptionOutcome {
    let outcome =
        if private { draft.set_secret(section, "url", value) } else { draft.set(section, "url", value) };
    if !value.to_ascii_lowercase().starts_with("http://") {
        return outcome;
    }
    draft.line(section, "allow-http", "yes");
    outcome.noted("without TLS, as before: others on the network can read it")
}

// Telegram

fn is_own_bot(context: &LegacyContext) -> bool {
    context.text("BOT_TELEGRAM_TYPE").eq_ignore_ascii_case("personal")
}

/// Rejects the central bot, which serves the legacy program only.
pub fn check_own_bot(context: &LegacyContext) -> Result<(), OptionOutcome> {
    if is_own_bot(context) {
        return Ok(());
    }
    Err(OptionOutcome::not_needed("the central bot works with the legacy program only"))
}

pub fn telegram(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    if is_own_bot(context) {
        return draft.section(TELEGRAM);
    }
    OptionOutcome::instead(
        "the central bot works with the legacy program only: create your own bot with @BotFather, then add `telegram: NAME`",
    )
}

pub fn telegram_type(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if value.eq_ignore_ascii_case("personal") {
        return OptionOutcome::not_needed("every bot is your own here");
    }
    telegram(context, value, draft)
}

// Mail

/// Delivery method of the legacy program.
enum Way {
    Relay,
    Local,
    Proxmox,
}

fn way(context: &LegacyContext) -> Way {
    match &*context.text("EMAIL_DELIVERY_METHOD").to_ascii_lowercase() {
        "sendmail" | "local" | "mta" | "local-mta" => Way::Local,
        "pmf" | "pfm" | "proxmox" | "proxmox-notifications" | "proxmox-mail-forward" => Way::Proxmox,
        _ => Way::Relay,
    }
}

pub fn email(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    match way(context) {
        Way::Proxmox => draft.section(PROXMOX),
        Way::Relay | Way::Local => draft.section(MAIL),
    }
}

pub fn email_method(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    match way(context) {
        Way::Local => draft.section(MAIL),
        Way::Proxmox => draft.section(PROXMOX).noted("the host's own notification targets"),
        Way::Relay => OptionOutcome::instead(
            "the relay is a server of the legacy program's author; mail is now sent by this host's own mail system \
             (sendmail: mail), or by a server in `smtp: NAME`",
        ),
    }
}

pub fn email_to(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if let Way::Proxmox = way(context) {
        return OptionOutcome::not_needed("the notification targets of Proxmox define the recipients");
    }
    let all = env::list(value);
    if all.is_empty() {
        return OptionOutcome::not_needed("the address of root@pam in Proxmox is used, as before");
    }
    draft.set_each(MAIL, "to", &all)
}

pub fn email_from(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    // The address of the legacy program's author, which only his relay may use.
    if value.is_empty() || value.ends_with("tis24.it") {
        return OptionOutcome::not_needed("the sender is the address of this host");
    }
    if let Way::Proxmox = way(context) {
        return OptionOutcome::not_needed("the notification targets of Proxmox define the recipients");
    }

    // `Name <address>`
    match value.split_once('<').and_then(|(_, rest)| rest.trim_end().strip_suffix('>')) {
        Some(address) => draft.set(MAIL, "from", address.trim()).noted("only the address, without the name"),
        None => draft.set(MAIL, "from", value),
    }
}

// Gotify

fn is_gotify_complete(context: &LegacyContext) -> bool {
    context.is_set("GOTIFY_SERVER_URL") && context.is_set("GOTIFY_TOKEN")
}

pub fn check_gotify(context: &LegacyContext) -> Result<(), OptionOutcome> {
    if is_gotify_complete(context) {
        return Ok(());
    }
    Err(OptionOutcome::invalid("the channel is incomplete; the legacy program sent nothing"))
}

pub fn gotify(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    if is_gotify_complete(context) {
        return draft.section(GOTIFY);
    }
    OptionOutcome::invalid("GOTIFY_SERVER_URL or GOTIFY_TOKEN is not set; the legacy program sent nothing")
}

// Webhooks

pub fn webhook(context: &LegacyContext, _: &str, _: &mut Draft) -> OptionOutcome {
    let (whole, bad): (Vec<String>, Vec<String>) = env::list(&context.text("WEBHOOK_ENDPOINTS"))
        .into_iter()
        .partition(|name| Endpoint::of(context, name).is_whole());
    let made = whole.iter().map(|name| format!("webhook: {}", id(name))).collect::<Vec<_>>().join(", ");
    match (&whole[..], &bad[..]) {
        ([], []) => OptionOutcome::invalid("WEBHOOK_ENDPOINTS is empty; the legacy program sent nothing"),
        (_, []) => OptionOutcome::taken(made),
        ([], _) => OptionOutcome::invalid(
            "no endpoint in WEBHOOK_ENDPOINTS has a URL; the legacy program sent nothing",
        ),
        (_, bad) => OptionOutcome::taken(made).noted(&format!("skipped, without a URL: {}", bad.join(", "))),
    }
}

/// Converts a name to the id of a section.
fn id(name: &str) -> String {
    let id: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let id = id.trim_start_matches(['.', '_', '-']).to_ascii_lowercase();
    if id.is_empty() { "webhook".to_owned() } else { id }
}

/// Converts the keys of each endpoint, `WEBHOOK_NAME_KEY`. The names are the user's.
pub fn endpoints(context: &LegacyContext, draft: &mut Draft) -> Vec<OptionReport> {
    let mut reports = Vec::new();
    let on = context.on("WEBHOOK_ENABLED");
    for name in env::list(&context.text("WEBHOOK_ENDPOINTS")) {
        let endpoint = Endpoint::of(context, &name);
        for (key, is_secret) in Endpoint::KEYS {
            let Some(value) = endpoint.value(key) else { continue };
            let outcome = if on {
                endpoint.key(key, &value.text, draft)
            } else {
                OptionOutcome::not_needed(format!("{CHANNEL_OFF} (WEBHOOK_ENABLED)"))
            };
            let shown = if is_secret { MASK.to_owned() } else { value.text };
            let (key, line) = (value.name, value.line);
            reports.push(OptionReport { key, written_as: None, line, value: shown, outcome });
        }

        if on && endpoint.is_whole() {
            let format = endpoint.known_format();
            draft.line(("webhook", &endpoint.id), "format", format.as_deref().unwrap_or(GENERIC));
        }
    }
    reports
}

struct Endpoint<'a> {
    context: &'a LegacyContext<'a>,
    prefix: String,
    id: String,
}

/// Reports whether the key may belong to an endpoint, named or not.
pub fn is_of_endpoint(key: &str) -> bool {
    let Some(rest) = key.strip_prefix("WEBHOOK_") else { return false };
    Endpoint::KEYS.iter().any(|(end, _)| {
        rest.strip_suffix(end).and_then(|name| name.strip_suffix('_')).is_some_and(|name| !name.is_empty())
    })
}

impl<'a> Endpoint<'a> {
    /// The end of the name, and true for a secret.
    #[rustfmt::skip]
    const KEYS: [(&'static str, bool); 10] = [
        ("URL", true), ("FORMAT", false), ("METHOD", false), ("HEADERS", true), ("AUTH_TYPE", false),
        ("AUTH_TOKEN", true), ("AUTH_USER", true), ("AUTH_PASS", true), ("AUTH_SECRET", true), ("PRIORITY", false),
    ];

    fn of(context: &'a LegacyContext<'a>, name: &str) -> Self {
        let prefix = format!("WEBHOOK_{}_", name.to_uppercase().replace('-', "_"));
        Self { context, prefix, id: id(name) }
    }

    fn value(&self, key: &str) -> Option<OptionValue> {
        self.context.env.value(&[&format!("{}{key}", self.prefix)], false, true)
    }

    fn text(&self, key: &str) -> String {
        self.value(key).map(|value| value.text).unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        !self.text("URL").is_empty()
    }

    fn format(&self) -> String {
        let own = self.text("FORMAT");
        let format = if own.is_empty() { self.context.text("WEBHOOK_FORMAT") } else { own };
        format.to_ascii_lowercase()
    }

    fn known_format(&self) -> Option<String> {
        Some(self.format()).filter(|format| FORMATS.contains(&&**format))
    }

    fn key(&self, key: &str, value: &str, draft: &mut Draft) -> OptionOutcome {
        if !self.is_whole() {
            return OptionOutcome::invalid("the endpoint has no URL; the legacy program sent nothing to it");
        }

        let section = ("webhook", &*self.id);
        match key {
            "URL" => address(draft, section, true, value),
            "FORMAT" => match self.known_format() {
                Some(format) => draft.set(section, "format", &format),
                None => OptionOutcome::invalid(format!(
                    "'{value}' is not a valid format; the legacy program used generic"
                )),
            },
            "METHOD" if self.format() != GENERIC => {
                OptionOutcome::not_needed("the format defines the method")
            }
            "METHOD" if METHODS.contains(&&*value.to_ascii_lowercase()) => {
                draft.set(section, "method", &value.to_ascii_lowercase())
            }
            "METHOD" => OptionOutcome::instead("use post, put, patch or get"),
            "HEADERS" => headers(value, section, draft),
            "PRIORITY" => OptionOutcome::not_needed("the result of the run defines the priority"),
            _ => self.login(key, value, draft),
        }
    }

    fn login(&self, key: &str, value: &str, draft: &mut Draft) -> OptionOutcome {
        let section = ("webhook", &*self.id);
        let auth = self.text("AUTH_TYPE").to_ascii_lowercase();
        let is_pushover = self.format() == "pushover";
        match (key, &*auth) {
            ("AUTH_TOKEN", _) if is_pushover => draft.set_secret(section, "token", value),
            ("AUTH_USER", _) if is_pushover => draft.set_secret(section, "user", value),
            ("AUTH_TYPE", _) if is_pushover => OptionOutcome::not_needed("pushover uses token and user"),
            ("AUTH_TYPE", "bearer" | "basic" | "hmac") => draft.set(section, "auth", &auth),
            ("AUTH_TYPE", _) => OptionOutcome::not_needed("no authentication"),
            ("AUTH_TOKEN", "bearer") | ("AUTH_PASS", "basic") | ("AUTH_SECRET", "hmac") => {
                draft.set_secret(section, "secret", value)
            }
            ("AUTH_USER", "basic") => draft.set(section, "username", value),
            _ => OptionOutcome::not_needed("the AUTH_TYPE or FORMAT does not use it"),
        }
    }
}

/// Stores each header as a secret.
fn headers(value: &str, section: (&str, &str), draft: &mut Draft) -> OptionOutcome {
    let headers = value.split(',').map(str::trim).filter(|line| line.contains(':'));
    let outcomes: Vec<_> = headers.map(|line| draft.set_secret(section, "secret-header", line)).collect();
    outcomes.into_iter().next_back().unwrap_or_else(|| OptionOutcome::not_needed("it contains no header"))
}

// Monitoring

pub fn metrics(_: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    draft.section(METRICS)
}

pub fn metrics_path(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if value.is_empty() {
        return OptionOutcome::not_needed("the directory of node_exporter is detected");
    }
    let outcome = draft.set(METRICS, "path", value);
    if std::path::Path::new(value).starts_with(&context.env.base_dir) {
        return outcome.noted(
            "it is in the old installation: set another directory here and in node_exporter before you remove that",
        );
    }
    outcome
}

fn is_own_health(context: &LegacyContext) -> bool {
    context.text("HEALTHCHECK_MODE").eq_ignore_ascii_case("self")
}

/// Returns `HEALTHCHECK_BACKUP_URL`, or the address made of endpoint, key and id.
fn health_address(context: &LegacyContext) -> Option<String> {
    let url = context.text("HEALTHCHECK_BACKUP_URL");
    if !url.is_empty() {
        return Some(url);
    }
    let id = context.text("HEALTHCHECK_BACKUP_ID");
    if id.is_empty() {
        return None;
    }
    let (endpoint, key) = (context.text("HEALTHCHECK_PING_ENDPOINT"), context.text("HEALTHCHECK_PING_KEY"));
    let parts = [endpoint.trim_end_matches('/'), &key, &id];
    Some(parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/"))
}

pub fn check_own_health(context: &LegacyContext) -> Result<(), OptionOutcome> {
    if is_own_health(context) {
        return Ok(());
    }
    Err(OptionOutcome::not_needed("the central portal works with the legacy program only"))
}

pub fn health(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if !is_own_health(context) {
        return OptionOutcome::instead(
            "the central portal works with the legacy program only: use `healthchecks: NAME` with the URL of any such service",
        );
    }
    health_url(context, value, draft)
}

pub fn health_mode(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if value.eq_ignore_ascii_case("self") {
        return OptionOutcome::not_needed("every service is your own here");
    }
    health(context, value, draft)
}

pub fn health_url(context: &LegacyContext, _: &str, draft: &mut Draft) -> OptionOutcome {
    match health_address(context) {
        Some(url) => address(draft, HEALTH, true, &url),
        None => OptionOutcome::invalid(
            "neither HEALTHCHECK_BACKUP_URL nor HEALTHCHECK_BACKUP_ID is set; the legacy program sent nothing",
        ),
    }
}

pub fn health_part(context: &LegacyContext, value: &str, draft: &mut Draft) -> OptionOutcome {
    if value.is_empty() || context.is_set("HEALTHCHECK_BACKUP_URL") {
        return OptionOutcome::not_needed("HEALTHCHECK_BACKUP_URL is used instead, or the value is empty");
    }
    health_url(context, value, draft)
}
