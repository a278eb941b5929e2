//! Records of a PAX header, `LENGTH KEY=VALUE\n`, byte-exact: the `tar` crate's own reader splits values at
//! newlines. Not here: what a key means; each kind of archive says that itself.

use anyhow::{Context, Result, ensure};

/// Appends one record. Its length counts itself.
pub fn write(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Hands out each key with its value. Errors: what is no record, what `take` says.
pub fn read(mut data: &[u8], mut take: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    while !data.is_empty() {
        let space = data.iter().position(|b| *b == b' ').context("no length")?;
        let length: usize = std::str::from_utf8(&data[..space])?.parse()?;
        ensure!(length > space + 1 && length <= data.len(), "bad length");
        let (record, rest) = data.split_at(length);
        data = rest;
        let body = record[space + 1..].strip_suffix(b"\n").context("no end")?;
        let equals = body.iter().position(|b| *b == b'=').context("no '='")?;
        take(&body[..equals], &body[equals + 1..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_of_every_length_come_back() {
        let values = [0, 1, 92, 93, 94, 95, 991, 992, 993].map(|length| vec![b'\n'; length]);
        let mut records = Vec::new();
        for value in &values {
            write(&mut records, "path", value);
        }
        let mut found = Vec::new();
        read(&records, |key, value| {
            assert_eq!(key, b"path");
            found.push(value.to_vec());
            Ok(())
        })
        .unwrap();
        assert_eq!(found, values);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        for text in [
            "x",
            "9 a=b\n",
            "5 a=b\n",
            "6 a=b ",
            "6 ab=\n7 abc\n",
            "3 \n",
            "-1 a=b\n",
            "99999999999999999999 a=b\n",
        ] {
            assert!(read(text.as_bytes(), |_, _| Ok(())).is_err(), "{text}");
        }
    }
}
