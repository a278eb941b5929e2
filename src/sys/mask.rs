//! What looks like a secret, replaced: in what the program says, and in lines of files that are shown. A last line of
//! defence: our own values never get as far as a text.
//! Not here: which files are secret as a whole (the catalogue).

use std::borrow::Cow;
use std::ops::Range;

const MASK: &str = "***";
/// Words after which (and `=` or `:`) a value is a secret.
const SECRET_KEYS: [&str; 19] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "psk",
    "_pass",
    "_pwd",
    "authorization",
    "apikey",
    "api-key",
    "api_key",
    "access-key",
    "access_key",
    "private-key",
    "private_key",
    "privatekey",
    "preshared-key",
    "presharedkey",
];
/// Beginnings that are secrets in themselves.
const SECRET_HEADS: [&str; 3] = ["AGE-SECRET-KEY-", "PVEAPIToken=", "PBSAPIToken="];

/// Masks a message: values after a telling word and `=` or `:`, and secrets in addresses.
pub fn mask(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    let suspicious = SECRET_KEYS.iter().any(|key| lower.contains(key))
        || SECRET_HEADS.iter().any(|head| text.contains(head))
        || text.contains("://");
    if !suspicious {
        return Cow::Borrowed(text);
    }

    let mut out = String::with_capacity(text.len());
    let mut hide_next = false;
    for word in text.split_inclusive(char::is_whitespace) {
        let body = word.trim_end();
        let space = &word[body.len()..];
        if hide_next && !body.is_empty() {
            out.push_str(MASK);
            hide_next = body.eq_ignore_ascii_case("bearer") || body.eq_ignore_ascii_case("basic");
        } else {
            let (shown, hide) = mask_word(body);
            out.push_str(&shown);
            hide_next = hide;
        }
        out.push_str(space);
    }
    Cow::Owned(out)
}

/// A word with its secret replaced, and whether the next word is the secret.
fn mask_word(word: &str) -> (String, bool) {
    if let Some((head, at)) = SECRET_HEADS.iter().find_map(|head| Some((head, word.find(head)?))) {
        return (format!("{}{head}{MASK}", &word[..at]), false);
    }

    let lower = word.to_ascii_lowercase();
    for key in SECRET_KEYS {
        let Some(at) = lower.find(key) else { continue };
        // "/etc/pam.d/passwd: permission denied" speaks of a file.
        if lower[..at].contains('/') && !lower[..at].contains(['=', '?']) {
            continue;
        }
        let end = at + key.len();
        let rest = word[end..].trim_start_matches('"');
        if let Some(value) = rest.strip_prefix(['=', ':']) {
            let kept = &word[..word.len() - value.len()];
            return if value.is_empty() { (word.to_owned(), true) } else { (format!("{kept}{MASK}"), false) };
        }
    }

    // user:secret@ in an address. The last @ before the path ends the secret; when there is none, a secret
    // with a slash in it may lie before the first one behind.
    if let Some((scheme, rest)) = word.split_once("://")
        && let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest)
        && let Some(at) = authority.rfind('@').or_else(|| rest.find('@'))
        && let (credentials, host) = (&rest[..at], &rest[at + 1..])
        && let Some((user, _)) = credentials.split_once(':')
    {
        return (format!("{scheme}://{user}:{MASK}@{host}"), false);
    }
    (word.to_owned(), false)
}

/// Programs that take a secret by a short option, and how. Others mean a port by the same one.
const PROGRAMS: [(&[&str], Options); 8] = [
    (&["mysql", "mariadb"], Options { names: &["-p"], takes: Takes::Attached }),
    (&["7z"], Options { names: &["-p"], takes: Takes::Attached }),
    (&["sshpass"], Options { names: &["-p"], takes: Takes::Word }),
    (&["redis-cli"], Options { names: &["-a"], takes: Takes::Word }),
    (&["ldapsearch", "ldapmodify", "ldapadd", "ldapwhoami"], Options { names: &["-w"], takes: Takes::Word }),
    (&["mosquitto_", "ipmitool", "unzip"], Options { names: &["-P"], takes: Takes::Word }),
    (&["curl", "wget"], Options { names: &["--user", "--proxy-user", "-u", "-U"], takes: Takes::After(':') }),
    (&["smbclient", "rpcclient"], Options { names: &["--user", "-U"], takes: Takes::After('%') }),
];
/// What runs behind another program in one line, with options of its own.
const OTHERS: [&str; 4] = ["ssh", "scp", "sftp", "rsync"];
/// Endings of names whose value is a secret.
const SECRET_NAMES: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "token", "psk", "apikey", "_pass", "-pass"];
/// What is before `key` when that is a secret.
const SECRET_KINDS: [&str; 7] = ["private", "preshared", "api", "access", "secret", "wireless", "wep"];
/// Programs, when a line begins with them.
const COMMANDS: [&str; 2] = ["passwd", "token"];
/// What is behind `password` in a file of PAM.
const PAM_CONTROLS: [&str; 6] = ["required", "requisite", "sufficient", "optional", "include", "substack"];

#[derive(Debug, Clone, Copy)]
struct Options {
    names: &'static [&'static str],
    takes: Takes,
}

/// Place of an option's secret.
#[derive(Debug, Clone, Copy)]
enum Takes {
    /// Right behind it: `-pX`. Alone it asks for it.
    Attached,
    /// Right behind it, or the next word.
    Word,
    /// The same places, behind this letter: `-u name:X`.
    After(char),
}

/// What of that which comes next is hidden.
#[derive(Debug, Clone, Copy)]
enum Hide {
    Nothing,
    Word,
    After(char),
    /// All, but a sign before it.
    Rest,
}

/// Masks a line of a configuration or script: also `wpa-psk X`, `password = X`, `--password X`, options of programs.
pub fn mask_line(line: &str) -> String {
    let words = words(line);
    let mut out = String::with_capacity(line.len());
    let (mut end, mut hide, mut options) = (0, Hide::Nothing, None);

    for (n, at) in words.iter().enumerate() {
        let word = &line[at.clone()];
        out.push_str(&line[end..at.start]);
        end = at.end;
        match hide {
            Hide::Nothing => {
                let shown = named(word).or_else(|| attached(word, options));
                // A word with a semicolon is the last of its program, and still its own.
                options = options_of(word, options);
                out.push_str(shown.as_deref().unwrap_or(word));
                if shown.is_none() {
                    hide = following(word, options, line, &words[..n], &words[n + 1..]);
                }
            }
            Hide::Rest if is_sign(word) => out.push_str(word),
            Hide::Rest => {
                out.push_str(MASK);
                return mask(&out).into_owned();
            }
            Hide::Word => {
                out.push_str(MASK);
                hide = Hide::Nothing;
            }
            Hide::After(letter) => {
                out.push_str(&after(word, letter));
                hide = Hide::Nothing;
            }
        }
    }

    out.push_str(&line[end..]);
    mask(&out).into_owned()
}

/// Returns the places of the words; text in quotes belongs to one word.
fn words(line: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    for (at, c) in line.char_indices() {
        let begin = *start.get_or_insert(at);
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '"' | '\'') && line[at + 1..].contains(c) {
            quote = Some(c);
        } else if quote.is_none() && c.is_whitespace() {
            words.extend((begin < at).then_some(begin..at));
            start = None;
        }
    }

    words.extend(start.map(|start| start..line.len()));
    words
}

fn is_sign(word: &str) -> bool {
    matches!(word, "=" | ":" | ":=")
}

fn after(word: &str, letter: char) -> String {
    word.split_once(letter).map_or(word.to_owned(), |(user, _)| format!("{user}{letter}{MASK}"))
}

/// Reports whether the value of this name is a secret.
fn is_secret(name: &str) -> bool {
    let name = name.trim_matches(['#', ';', '"', '\'', '-', '$', '{', '(']).to_ascii_lowercase();
    if name.contains('/') {
        return false;
    }
    let key = name.strip_suffix("key").map(|kind| kind.trim_end_matches(['-', '_']));
    key.is_some_and(|kind| SECRET_KINDS.iter().any(|secret| kind.ends_with(secret)))
        || SECRET_NAMES.iter().any(|end| name.ends_with(end))
}

/// `password="two words"`, `"password":"x"`
fn named(word: &str) -> Option<String> {
    let (name, value) = word.split_at(word.find(['=', ':'])? + 1);
    (is_secret(&name[..name.len() - 1]) && !value.is_empty()).then(|| format!("{name}{MASK}"))
}

/// `-pX`, `-uname:X`, `--user=name:X`
fn attached(word: &str, options: Option<Options>) -> Option<String> {
    let options = options?;
    let bare = word.trim_end_matches(';');
    let name = options.names.iter().find(|name| bare.starts_with(**name) && bare != **name)?;
    let shown = match options.takes {
        Takes::Attached | Takes::Word => Some(format!("{name}{MASK}")),
        Takes::After(letter) => bare.contains(letter).then(|| after(bare, letter)),
    };
    shown.map(|shown| format!("{shown}{}", &word[bare.len()..]))
}

/// Returns the options that the next words may be, after this word. None: those of no known program.
fn options_of(word: &str, now: Option<Options>) -> Option<Options> {
    let bare = word.trim_start_matches(['(', '$', '`', '"', '\'', '@']);
    let bare = bare.rsplit('/').next().unwrap_or(bare);
    let of = |(programs, _): &&(&[&str], Options)| programs.iter().any(|program| bare.starts_with(program));
    if let Some((_, options)) = PROGRAMS.iter().find(of) {
        return Some(*options);
    }
    let is_end = matches!(word, "|" | "||" | "&&" | "&") || word.ends_with(';') || OTHERS.contains(&bare);
    now.filter(|_| !is_end)
}

fn following(
    word: &str,
    options: Option<Options>,
    line: &str,
    before: &[Range<usize>],
    next: &[Range<usize>],
) -> Hide {
    if let Some(options) = options.filter(|options| options.names.contains(&word)) {
        return match options.takes {
            Takes::Attached => Hide::Nothing,
            Takes::Word => Hide::Word,
            Takes::After(letter) => Hide::After(letter),
        };
    }

    if word.strip_suffix(':').is_some_and(is_secret) {
        return Hide::Word;
    }
    let Some(value) = next.first().map(|at| &line[at.clone()]).filter(|_| is_secret(word)) else {
        return Hide::Nothing;
    };
    if is_sign(value) {
        return Hide::Rest;
    }
    if word.starts_with("--") {
        return if value.starts_with('-') { Hide::Nothing } else { Hide::Word };
    }

    // `machine host login name password X`
    if before.len() >= 2 && &line[before[before.len() - 2].clone()] == "login" {
        return Hide::Word;
    }

    let is_remark =
        word.starts_with(['#', ';']) || before.iter().any(|at| line[at.clone()].starts_with(['#', ';']));
    // A remark with more words is a sentence.
    let begins = if is_remark { next.len() == 1 } else { before.is_empty() };
    let is_pam = value.starts_with('[') || PAM_CONTROLS.contains(&value);
    if begins && !is_pam && !COMMANDS.contains(&word) { Hide::Rest } else { Hide::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_every_usual_shape() {
        for (text, masked) in [
            ("password=hunter2 user=bob", "password=*** user=bob"),
            ("Password: hunter2", "Password: ***"),
            ("\"token\":\"abc\"", "\"token\":***"),
            ("Authorization: Bearer abc.def", "Authorization: *** ***"),
            ("https://bob:pw@host/x", "https://bob:***@host/x"),
            ("https://bob:p@ss@host", "https://bob:***@host"),
            ("https://bob:p@ss@host/x@y?z@a", "https://bob:***@host/x@y?z@a"),
            ("https://bob:p/ss@host/x", "https://bob:***@host/x"),
            ("key AGE-SECRET-KEY-1ABC", "key AGE-SECRET-KEY-***"),
            ("PVEAPIToken=root@pam!x=0-1", "PVEAPIToken=***"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }

    #[test]
    fn ordinary_talk_is_left_alone() {
        for text in ["snapshot pve1/2026 written", "https://example.org/x", "/etc/pam.d/passwd: gone"] {
            assert_eq!(mask(text), text);
        }
    }

    #[test]
    fn a_key_and_a_blank_tell_a_secret_in_a_line_of_a_file() {
        for (line, masked) in [
            ("    wpa-psk hunter2", "    wpa-psk ***"),
            ("\twpa-passphrase \"two words\"", "\twpa-passphrase ***"),
            ("psk=\"x\"", "psk=***"),
            ("#psk hunter2", "#psk ***"),
            ("# psk hunter2", "# psk ***"),
            ("auth_pass 1111", "auth_pass ***"),
            ("PrivateKey = abc=", "PrivateKey = ***"),
            ("node.session.auth.password = x", "node.session.auth.password = ***"),
            ("wireless-key s:abc", "wireless-key ***"),
            ("password: \"two words\" # x", "password: *** # x"),
            ("{\"password\":\"a b\",", "{\"password\":***"),
            ("machine h login u password x", "machine h login u password ***"),
            ("export AWS_SECRET_ACCESS_KEY=x", "export AWS_SECRET_ACCESS_KEY=***"),
            ("MYSQL_PWD=x mysqldump -A", "MYSQL_PWD=*** mysqldump -A"),
        ] {
            assert_eq!(mask_line(line), masked);
        }
    }

    #[test]
    fn options_that_take_secrets_are_masked_and_ports_are_not() {
        for (line, masked) in [
            (
                "0 1 * * * root curl -u admin:hunter2 https://h/x",
                "0 1 * * * root curl -u admin:*** https://h/x",
            ),
            ("curl -sf -uadmin:x h", "curl -sf -uadmin:*** h"),
            ("curl --user 'a:b c' h", "curl --user 'a:*** h"),
            ("curl --user=a:b h", "curl --user=a:*** h"),
            ("/usr/bin/mysqldump -u root -phunter2 --all", "/usr/bin/mysqldump -u root -p*** --all"),
            ("sshpass -p x ssh -p 22 root@h", "sshpass -p *** ssh -p 22 root@h"),
            ("sshpass -px rsync -p a b", "sshpass -p*** rsync -p a b"),
            ("redis-cli -a x ping", "redis-cli -a *** ping"),
            ("smbclient -U bob%x //h/s", "smbclient -U bob%*** //h/s"),
            ("tool --password x --user y", "tool --password *** --user y"),
            ("mysqldump -px; ssh -p 22 h", "mysqldump -p***; ssh -p 22 h"),
            ("curl -ua:x; ssh -p 22 h", "curl -ua:***; ssh -p 22 h"),
            ("mysql -px | gzip -p", "mysql -p*** | gzip -p"),
        ] {
            assert_eq!(mask_line(line), masked);
        }
    }

    #[test]
    fn lines_without_a_secret_are_left_alone() {
        for line in [
            "ssh -p 22 user@host",
            "rsync -u host:/a /b",
            "docker run -u 1000:1000 -p 80:80 x",
            "mysql -P 3306 -p db",
            "user root",
            "password requisite pam_pwquality.so retry=3",
            "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt",
            "unix password sync = yes",
            "PasswordAuthentication no",
            "wpa-key-mgmt WPA-PSK",
            "# password of the backup user is in the vault",
            "passwd root",
            "/srv/secret /mnt ext4 defaults 0 0",
            "iface vmbr0 inet static",
            "address 192.0.2.1/24",
            "sign-key /etc/ssl/key.pem",
        ] {
            assert_eq!(mask_line(line), line);
        }
    }
}
