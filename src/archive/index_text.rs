//! The index of a payload while it streams by: entry by entry, within limits of count and of memory. A few KB of a
//! hostile file unpack to any number of empty words, and each of them would take a word's memory.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};

use crate::model::index::{ENTRIES_MAX, ENTRIES_MAX_BYTES, Entry, Index};

/// The size limit of what is not an entry: facts, outputs, what was absent, problems.
const REST_MAX_BYTES: usize = 4 << 20;
/// The size limit of one entry: its attributes are limited, and in JSON four times as long.
const ENTRY_MAX_BYTES: usize = 8 << 20;
const BLOCK_BYTES: usize = 64 << 10;

/// Reads an index to its end. `check` is given each entry.
/// Errors: no index, more than any host has, what `check` says.
pub fn read(input: &mut dyn Read, check: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<Index> {
    let mut text = JsonText { input, block: Vec::new(), at: 0 };
    let mut rest = b"{\"entries\":[]".to_vec();
    let mut entries = None;
    text.pass(b'{')?;

    loop {
        let key = text.value(REST_MAX_BYTES)?.to_vec();
        text.pass(b':')?;
        if key == b"\"entries\"" {
            ensure!(entries.is_none(), "its entries are in it twice");
            entries = Some(read_entries(&mut text, check)?);
        } else {
            let value = text.value(REST_MAX_BYTES)?;
            ensure!(
                rest.len() + key.len() + value.len() <= REST_MAX_BYTES,
                "has more to tell beside its entries than any host"
            );
            rest.extend([b",", &key[..], b":", value].concat());
        }
        match text.next()? {
            Some(b',') => {}
            Some(b'}') => break,
            _ => bail!("there is something between two of its values"),
        }
    }

    ensure!(text.next()?.is_none(), "there is something after it");
    rest.push(b'}');
    let index: Index = serde_json::from_slice(&rest)?;
    Ok(Index { entries: entries.context("has no entries")?, ..index })
}

fn read_entries(text: &mut JsonText, check: &mut dyn FnMut(&Entry) -> Result<()>) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut memory = 0;
    text.pass(b'[')?;
    if text.peek()? == Some(b']') {
        text.pass(b']')?;
        return Ok(entries);
    }

    loop {
        let mut entry: Entry = serde_json::from_slice(text.value(ENTRY_MAX_BYTES)?)?;
        entry.xattrs.iter_mut().for_each(|xattr| xattr.value.shrink_to_fit());
        entry.xattrs.shrink_to_fit();
        memory += entry.memory();
        ensure!(
            entries.len() < ENTRIES_MAX && memory <= ENTRIES_MAX_BYTES,
            "has more entries, or longer ones, than any host"
        );
        check(&entry)?;
        entries.push(entry);
        match text.next()? {
            Some(b',') => {}
            Some(b']') => return Ok(entries),
            _ => bail!("there is something between two of its entries"),
        }
    }
}

/// Finds where the values of a JSON text begin and end; whether they are right, their parser says.
struct JsonText<'a> {
    input: &'a mut dyn Read,
    /// The bytes that were read; those before `at` are passed.
    block: Vec<u8>,
    at: usize,
}

impl JsonText<'_> {
    /// Reads one more block behind what is there. False: there is no more.
    fn fill(&mut self) -> Result<bool> {
        self.block.drain(..self.at);
        self.at = 0;
        let n = self.input.take(BLOCK_BYTES as u64).read_to_end(&mut self.block)?;
        Ok(n > 0)
    }

    /// Returns the next byte that is not blank, without passing it.
    fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            while let Some(byte) = self.block.get(self.at) {
                if !byte.is_ascii_whitespace() {
                    return Ok(Some(*byte));
                }
                self.at += 1;
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn next(&mut self) -> Result<Option<u8>> {
        let byte = self.peek()?;
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    fn pass(&mut self, wanted: u8) -> Result<()> {
        ensure!(self.next()? == Some(wanted), "there is no '{}' where one must be", char::from(wanted));
        Ok(())
    }

    /// Returns the text of the next value, and passes it. Errors: it is longer than `max`, or has no end.
    fn value(&mut self, max: usize) -> Result<&[u8]> {
        self.peek()?;
        let mut extent = Extent::default();
        let mut len = 0;
        loop {
            let (passed, ended) = extent.go_through(&self.block[self.at + len..]);
            len += passed;
            ensure!(len <= max, "has a longer value than any host");
            if ended {
                break;
            }
            ensure!(self.fill()?, "it ends too early");
        }

        let from = self.at;
        self.at += len;
        Ok(&self.block[from..self.at])
    }
}

/// The way through one value.
#[derive(Default)]
struct Extent {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Extent {
    /// Returns how many bytes belong to the value, and whether it ends with them.
    fn go_through(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (n, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => continue,
                }
                if !self.in_string && self.depth == 0 {
                    return (n + 1, true);
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' | b']' => return (n + self.depth, true),
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => return (n, true),
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}
