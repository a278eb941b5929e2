//! The keys of an `rclone` section: what may stand in a file that others read, what becomes the environment, and
//! what helps against rclone's errors. Nothing is run here.

use serde::Deserialize;

use super::tool::SLOWEST_BYTES_PER_SECOND;
use crate::model::secret::Secret;
use crate::model::section::{Section, SyntaxError};

/// `rclone: ID`. What is secret stands in secrets.cfg, under the names that rclone.conf gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Options {
    /// `NAME:path`, or a connection string `:backend,key=value:path`.
    pub remote: String,
    /// rclone's own configuration file.
    pub config: Option<String>,
    /// A rate as `--bwlimit` takes it.
    pub bandwidth: Option<String>,
    #[serde(default = "four")]
    pub transfers: u16,
    /// Seconds until a connection stands.
    #[serde(default = "half_a_minute")]
    pub connect_timeout: u64,
    /// Seconds that an operation may last; a transfer lasts longer as its bytes want it.
    #[serde(default = "five_minutes")]
    pub timeout: u64,
    #[serde(default = "three")]
    pub retries: u16,
    /// Further options of rclone, blanks between them.
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    pub checksum: Checksum,
    /// The number of snapshots that are deleted at a time, and the seconds between.
    #[serde(default = "twenty")]
    batch_size: u16,
    #[serde(default = "one")]
    pub batch_pause: u64,
}

fn four() -> u16 {
    4
}
fn half_a_minute() -> u64 {
    30
}
fn five_minutes() -> u64 {
    300
}
fn three() -> u16 {
    3
}
fn twenty() -> u16 {
    20
}
fn one() -> u64 {
    1
}

/// The proof that an upload is whole.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Checksum {
    /// The hash that the remote itself tells.
    #[default]
    Remote,
    /// Reading it back.
    Download,
    /// Its size alone.
    No,
}

impl Options {
    pub fn flags(&self) -> impl Iterator<Item = String> {
        self.flags.iter().flat_map(|line| line.split_whitespace()).map(str::to_owned)
    }

    pub fn batch_size(&self) -> usize {
        usize::from(self.batch_size.max(1))
    }

    /// Bytes a second below which a transfer is given up: half of what `bandwidth` allows, when that is little.
    pub fn slowest(&self) -> u64 {
        let limit = self.bandwidth.as_deref().into_iter().flat_map(|text| text.split([' ', ',', ':', ';']));
        let least = limit.filter_map(rate).filter(|rate| *rate > 0).min();
        least.map_or(SLOWEST_BYTES_PER_SECOND, |rate| (rate / 2).clamp(1, SLOWEST_BYTES_PER_SECOND))
    }
}

/// `10M`, `512k`, `1.5Mi`: bytes a second. A number alone counts KiB. The times of a timetable look like numbers, too,
/// and only make the limit longer.
fn rate(word: &str) -> Option<u64> {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at(end);
    let shift = match unit.chars().next().map(|c| c.to_ascii_lowercase()) {
        Some('b') => 0,
        None | Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        Some('t') => 40,
        _ => return None,
    };
    let whole: u64 = number.split('.').next()?.parse().ok()?;
    Some(whole.max(1).saturating_mul(1 << shift))
}

/// Flags that change what is done, not how: with them a run would say ok and have stored nothing, or hide snapshots.
const REFUSED: [&str; 22] = [
    "-n",
    "--dry-run",
    "-i",
    "--interactive",
    "--config",
    "--include",
    "--exclude",
    "--filter",
    "--files-from",
    "--min-age",
    "--max-age",
    "--min-size",
    "--max-size",
    "--max-depth",
    "--max-transfer",
    "--max-duration",
    "--log",
    "--rc",
    "--use-json-log",
    "--stats",
    "--suffix",
    "--backup-dir",
];

/// The rules between keys, and what no public file may hold.
pub(super) fn check(section: &Section, options: &Options) -> Result<(), SyntaxError> {
    let Some(end) = options.remote.find(':') else {
        let error =
            section.error_at("remote", "remote: must be NAME:path, see `rclone listremotes` for the names");
        return Err(error.hinted("use a 'dir' store for a directory of this host"));
    };
    if options.remote.starts_with('-') || options.remote.contains(|c: char| c.is_control()) {
        return Err(section
            .error_at("remote", "remote: must be NAME:path")
            .hinted("see `rclone listremotes`"));
    }

    let secret = if end == 0 {
        let unquoted = has_password(&options.remote).then_some(("url", ""));
        connection_words(&options.remote).find(|(key, value)| tells(key, value)).or(unquoted)
    } else {
        None
    };
    if let Some((key, _)) = secret {
        let message = format!("remote: '{key}' is a secret, and others can read this file");
        let hint = format!(
            "create a new one, because others could read this one, and put `{key} …` under 'rclone: {}' in secrets.cfg",
            section.id
        );
        return Err(section.error_at("remote", &message).hinted(hint));
    }

    for flag in options.flags() {
        let name = flag.split('=').next().unwrap_or_default();
        let value = flag.split_once('=').map(|(_, value)| value).unwrap_or_default();
        if tells(name.trim_start_matches('-'), value) {
            let message = format!("flags: '{name}' is a secret, and every process list would show it");
            let hint =
                format!("put it under 'rclone: {}' in secrets.cfg, as rclone.conf names it", section.id);
            return Err(section.error_at("flags", &message).hinted(hint));
        }
        let same =
            |refused: &str| name == refused || refused.len() > 2 && name.starts_with(&format!("{refused}-"));
        if REFUSED.iter().any(|refused| same(refused)) {
            let message = format!("flags: '{name}' is not allowed for a store");
            return Err(section.error_at("flags", &message).hinted("it changes what is done, not how"));
        }
    }

    for (key, value) in [("timeout", options.timeout), ("connect-timeout", options.connect_timeout)] {
        if value == 0 {
            let error =
                section.error_at(key, &format!("{key}: without a limit a silent server would stop all runs"));
            return Err(error.hinted("set a number of seconds"));
        }
    }

    if options.retries == 0 || options.transfers == 0 {
        let key = if options.retries == 0 { "retries" } else { "transfers" };
        return Err(section.error_at(key, &format!("{key}: must be at least 1")));
    }
    Ok(())
}

/// The `key=value` pairs of `:backend,key=value,key="va:lue":path`.
fn connection_words(remote: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut quote = None;
    let inner = remote.strip_prefix(':').unwrap_or(remote);
    let parts = inner.split(move |c: char| {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        quote.is_none() && (c == ',' || c == ':')
    });
    parts.filter_map(|part| part.split_once('=')).map(|(key, value)| (key, value.trim_matches(['"', '\''])))
}

/// True for a key that names a secret, or an address with a password in it.
fn tells(key: &str, value: &str) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    let of_file =
        ["_file", "_command", "_id", "_path", "_use_agent", "_url"].iter().any(|end| key.ends_with(end));
    let named = ["pass", "secret", "token", "credential", "cookie"].iter().any(|word| key.contains(word))
        || key.ends_with("key")
        || key.ends_with("key_pem")
        || key == "auth"
        || key.ends_with("_headers")
        || key == "headers";
    named && !of_file || has_password(value)
}

/// `scheme://user:password@host`.
fn has_password(address: &str) -> bool {
    let user = address.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.split_once('@'));
    user.is_some_and(|(user, _)| user.contains(':'))
}

/// The secrets as rclone finds them: `RCLONE_CONFIG_NAME_KEY` for a remote of the file, `RCLONE_BACKEND_KEY` for a
/// connection string. `config-pass` opens an encrypted rclone.conf.
pub(super) fn environment(remote: &str, secrets: Vec<(String, Secret)>) -> Vec<(String, Secret)> {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = match remote.strip_prefix(':') {
        Some(inline) => format!("RCLONE_{}", upper(inline.split([',', ':']).next().unwrap_or_default())),
        None => format!("RCLONE_CONFIG_{}", upper(remote.split([',', ':']).next().unwrap_or_default())),
    };
    let name = |key: &str| match upper(key) {
        key if key == "CONFIG_PASS" => "RCLONE_CONFIG_PASS".to_owned(),
        key => format!("{prefix}_{key}"),
    };
    secrets.into_iter().map(|(key, value)| (name(&key), value)).collect()
}

/// Returns the hint for an error of rclone, given in lower case.
pub(super) fn hint(said: &str) -> Option<&'static str> {
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));

    if any(&["didn't find section in config file"]) {
        Some("`rclone listremotes` shows the remotes; `config` names another configuration file")
    } else if any(&["no space left", "disk space", "insufficient storage", "quota", "507 "]) {
        Some("free some space there, or keep fewer snapshots")
    } else if any(&["unauthorized", "401", "403", "accessdenied", "access denied", "couldn't connect ssh"]) {
        Some("the server refused; are the credentials right, and do they allow to write there?")
    } else if any(&["connection refused", "no such host", "i/o timeout", "no route to host", "dial tcp"]) {
        Some("the server does not answer; is it up, and is the name right?")
    } else if any(&["is it obscured"]) {
        Some("rclone needs obscured passwords: put the output of `rclone obscure -` into secrets.cfg")
    } else if any(&["couldn't decrypt configuration", "unable to decrypt"]) {
        Some("put rclone's configuration password as `config-pass` into secrets.cfg")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::section::parse;

    fn checked(lines: &str) -> Result<(), String> {
        let section = parse("f", &format!("rclone: x\n{lines}")).unwrap().remove(0);
        let options: Options = section.read().map_err(|error| error.to_string())?;
        check(&section, &options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_has_no_place_in_a_public_file() {
        for remote in [
            ":webdav,url=http://h,pass=abcdef:path",
            ":s3,access_key_id=a,secret_access_key='x,y':bucket",
            ":webdav,url=\"http://user:word@host/\":path",
            ":webdav,url=http://user:word@host/:path",
            ":drive,token={}:",
        ] {
            let error = checked(&format!("\tremote {remote}\n")).unwrap_err();
            assert!(error.contains("is a secret"), "{error}");
            assert!(!error.contains("abcdef") && !error.contains("word"), "{error}");
        }
        for flag in ["--webdav-pass=abcdef", "--s3-secret-access-key abcdef", "--header=x --drive-token={}"] {
            let error = checked(&format!("\tremote a:b\n\tflags {flag}\n")).unwrap_err();
            assert!(error.contains("is a secret") && !error.contains("abcdef"), "{error}");
        }
    }

    #[test]
    fn a_password_that_is_not_obscured_is_told_from_a_configuration_that_is_locked() {
        let said = "couldn't decrypt password: input too short when revealing password - is it obscured?";
        assert!(hint(said).unwrap().contains("rclone obscure"));
        assert!(
            hint("couldn't decrypt configuration, most likely wrong password")
                .unwrap()
                .contains("config-pass")
        );
    }

    #[test]
    fn what_is_no_secret_may_stand_there() {
        for lines in [
            "\tremote b2:bucket/path\n",
            "\tremote :sftp,host=h,user=u,key_file=/root/.ssh/id:path\n",
            "\tremote :webdav,url=\"http://host:80/x\":path\n",
            "\tremote a:\n\tflags --fast-list --password-command=/bin/x\n",
            "\tremote :s3,provider=Minio,access_key_id=a,env_auth=true:b\n",
        ] {
            checked(lines).unwrap();
        }
    }

    #[test]
    fn a_flag_that_would_make_a_run_say_ok_for_nothing_is_refused() {
        for flag in ["--dry-run", "-n", "--max-size=1", "--include=*", "--filter-from=x", "--rc-addr=:80"] {
            assert!(
                checked(&format!("\tremote a:b\n\tflags {flag}\n"))
                    .unwrap_err()
                    .contains("not allowed for a store")
            );
        }
    }

    #[test]
    fn limits_are_there_and_a_remote_has_a_colon() {
        assert!(checked("\tremote a:b\n\ttimeout 0\n").unwrap_err().contains("without a limit"));
        assert!(checked("\tremote /mnt/x\n").unwrap_err().contains("NAME:path"));
        assert!(checked("\tremote a:b\n\tretries 0\n").unwrap_err().contains("at least 1"));
    }

    #[test]
    fn secrets_get_the_names_that_rclone_reads() {
        let names = |remote: &str| -> Vec<String> {
            let secrets = ["pass", "config-pass", "secret_access_key"]
                .map(|key| (key.to_owned(), "v".to_owned().into()));
            environment(remote, secrets.into()).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(
            names("my-b2:x"),
            ["RCLONE_CONFIG_MY_B2_PASS", "RCLONE_CONFIG_PASS", "RCLONE_CONFIG_MY_B2_SECRET_ACCESS_KEY"]
        );
        assert_eq!(names(":webdav,url=http://h:path")[0], "RCLONE_WEBDAV_PASS");
    }

    #[test]
    fn a_narrow_bandwidth_makes_the_limit_longer() {
        let slowest = |text: &str| {
            let section =
                parse("f", &format!("rclone: x\n\tremote a:\n\tbandwidth {text}\n")).unwrap().remove(0);
            section.read::<Options>().unwrap().slowest()
        };
        assert_eq!(slowest("10M"), SLOWEST_BYTES_PER_SECOND);
        assert_eq!(slowest("8k"), 4 << 10);
        assert_eq!(slowest("8k:10M"), 4 << 10);
        assert_eq!(slowest("off"), SLOWEST_BYTES_PER_SECOND);
    }
}
