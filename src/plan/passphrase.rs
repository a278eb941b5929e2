//! Strength of a passphrase that encrypts. An encrypted file lies where others can try at leisure, so it is
//! judged as against somebody who has the file, not as at a login.

/// The least strength: nobody makes so many guesses (as a power of two) at a quarter of a second and of a GiB each.
const BITS_MIN: f64 = 50.0;
/// Bits that a word adds that everyone tries first, whatever its length.
const COMMON_BITS: f64 = 8.0;
/// Words that everyone tries first. Longer ones before those that they contain.
const COMMON: [&str; 44] = [
    "correct horse battery staple",
    "correcthorsebatterystaple",
    "administrator",
    "passphrase",
    "geheimnis",
    "password",
    "passwort",
    "passw0rd",
    "p@ssw0rd",
    "p@ssword",
    "changeme",
    "iloveyou",
    "football",
    "baseball",
    "princess",
    "sunshine",
    "starwars",
    "superman",
    "trustno1",
    "proxmox",
    "welcome",
    "letmein",
    "monkey",
    "dragon",
    "master",
    "shadow",
    "secret",
    "hunter2",
    "hunter",
    "backup",
    "server",
    "qwertz",
    "qwerty",
    "azerty",
    "summer",
    "winter",
    "spring",
    "autumn",
    "hallo",
    "hello",
    "admin",
    "login",
    "root",
    "test",
];
/// Rows of keyboards and of counting; three neighbours in them are one guess.
const ROWS: [&str; 6] =
    ["abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "qwertzuiop", "asdfghjkl", "yxcvbnmzxcvbnm"];

/// Returns what is wrong with it. None: it is strong enough. `host`: names that everyone tries who knows whose it is.
pub fn weakness(passphrase: &str, host: &[&str]) -> Option<String> {
    let bits = bits(passphrase, host);
    if bits >= BITS_MIN {
        return None;
    }
    let more = "five random words, or 12 random letters and digits, are enough";
    Some(format!("is too weak (about 2^{bits:.0} guesses, it takes 2^{BITS_MIN:.0}): {more}"))
}

/// Counts the bits that a guesser needs who knows such lists and rows.
fn bits(passphrase: &str, host: &[&str]) -> f64 {
    let mut rest = passphrase.trim().to_lowercase();
    let mut bits = 0.0;
    let names = host.iter().map(|name| name.to_lowercase()).filter(|name| name.chars().count() >= 3);
    for word in COMMON.iter().map(|word| (*word).to_owned()).chain(names) {
        while let Some(at) = rest.find(&word) {
            // Its place is left empty, so that no word is made of what stood around it.
            rest.replace_range(at..at + word.len(), "\0");
            bits += COMMON_BITS;
        }
    }
    bits + fresh(&rest) * pool(passphrase).log2()
}

/// Counts the characters that are no repetition and no neighbour of those before.
fn fresh(text: &str) -> f64 {
    let mut fresh = 0.0;
    let mut before: Vec<char> = Vec::new();
    for c in text.chars() {
        fresh += match before.as_slice() {
            _ if c == '\0' => 0.0,
            [.., last] if *last == c => 0.2,
            [.., last] if neighbours(*last, c) => 0.3,
            seen if seen.contains(&c) => 0.8,
            _ => 1.0,
        };
        before.push(c);
    }

    // A text said twice is one text.
    let half = text.len() / 2;
    let twice = text.len().is_multiple_of(2) && text.is_char_boundary(half) && text[..half] == text[half..];
    if twice { fresh / 2.0 } else { fresh }
}

fn neighbours(a: char, b: char) -> bool {
    ROWS.iter().any(|row| {
        let place = |c| row.find(c);
        matches!((place(a), place(b)), (Some(a), Some(b)) if a.abs_diff(b) == 1)
    })
}

/// Counts the characters that a guesser must try at each place.
fn pool(text: &str) -> f64 {
    let has = |is: fn(char) -> bool| text.chars().any(is);
    let mut pool = 0.0;
    for (is_there, size) in [
        (has(|c| c.is_ascii_lowercase()), 26.0),
        (has(|c| c.is_ascii_uppercase()), 26.0),
        (has(|c| c.is_ascii_digit()), 10.0),
        (has(|c| c == ' '), 1.0),
        (has(|c| c.is_ascii_punctuation()), 20.0),
        (has(|c| !c.is_ascii()), 40.0),
    ] {
        if is_there {
            pool += size;
        }
    }

    // Words are not random letters: a letter of one is worth two bits and a half or so.
    if has(char::is_whitespace) { f64::min(pool, 6.0) } else { f64::max(pool, 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_first_is_refused() {
        for weak in [
            "",
            "short",
            "password",
            "Passw0rd!2024",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "1234567890123456789012345",
            "qwertzuiopasdfghjkl",
            "abcdefghijklmnopqrstuvwxyz",
            "correct horse battery staple",
            "proxmox-backup-2026",
            "pve1.example.com",
            "20261122",
            "admin admin admin admin",
            "secretsecretsecret",
        ] {
            assert!(weakness(weak, &["pve1", "example.com"]).is_some(), "{weak} {}", bits(weak, &[]));
        }
    }

    #[test]
    fn what_is_random_enough_is_taken() {
        for strong in [
            "Kx7#mQ2vLp9w",
            "gable thirsty omen lantern squash",
            "vjr8x2mq0zhd",
            "Über sieben Brücken musst du gehn",
            "tr4pezoid&marmalade&0x",
        ] {
            assert_eq!(weakness(strong, &["pve1"]), None, "{strong} {}", bits(strong, &["pve1"]));
        }
    }
}
