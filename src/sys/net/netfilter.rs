//! What filters packets on the running system: the base chains of nftables over netlink, and the rule count of the
//! older iptables. Nothing is changed, no tool is run.
#![allow(unsafe_code)] // netlink and getsockopt

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::model::exposure::Chain;

const SUBSYSTEM: u16 = 10;
const GET_CHAIN: u16 = 4;
const NEW_CHAIN: u16 = 3;
const HEADER_BYTES: usize = 16;
/// Family, version, resource.
const FAMILY_BYTES: usize = 4;
const ATTRIBUTE_BYTES: usize = 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_USE: u16 = 6;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_LOCAL_IN`, of the families that have it.
const LOCAL_IN: u32 = 1;
const FAMILIES: [(u8, &str); 3] = [(1, "inet"), (2, "ip"), (10, "ip6")];
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;
const WAIT_SECONDS: i64 = 2;
const MESSAGES_MAX: usize = 10_000;

/// Base chains of nftables. Errors: not root, or a kernel without nftables.
pub fn chains() -> io::Result<Vec<Chain>> {
    // SAFETY: a plain system call; the descriptor is owned at once.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let limit = libc::timeval { tv_sec: WAIT_SECONDS, tv_usec: 0 };
    let size = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap_or(0);

    // SAFETY: the value lives through the call and has the length that is told.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const limit).cast(),
            size,
        );
    }

    let mut request = Vec::new();
    let length = u32::try_from(HEADER_BYTES + FAMILY_BYTES).unwrap_or(0);
    request.extend(length.to_ne_bytes());
    request.extend((SUBSYSTEM << 8 | GET_CHAIN).to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or(0);
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8 + FAMILY_BYTES]);

    // SAFETY: as above.
    if unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }

    let mut buffer = vec![0_u8; 64 << 10];
    let mut found = Vec::new();
    for _ in 0..MESSAGES_MAX {
        // SAFETY: the buffer lives through the call and has the length that is told.
        let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let Ok(got) = usize::try_from(got) else { return Err(io::Error::last_os_error()) };
        if got == 0 || messages(&buffer[..got], &mut found)? {
            return Ok(found);
        }
    }
    Err(io::Error::other("netlink does not end"))
}

/// True after the last one.
fn messages(mut data: &[u8], found: &mut Vec<Chain>) -> io::Result<bool> {
    const DONE: u16 = 3;
    const ERROR: u16 = 2;

    while data.len() >= HEADER_BYTES {
        let length = number(data).unwrap_or(0) as usize;
        let kind = short(&data[4..]).unwrap_or(0);
        if length < HEADER_BYTES || length > data.len() {
            return Err(io::Error::other("a message of netlink is cut"));
        }
        let body = &data[HEADER_BYTES..length];
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let code = number(body).map_or(0, u32::cast_signed);
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            kind if kind == SUBSYSTEM << 8 | NEW_CHAIN => found.extend(chain(body)),
            _ => {}
        }
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// None for a chain that no hook enters, and for families of bridges and devices.
fn chain(body: &[u8]) -> Option<Chain> {
    let family = FAMILIES.iter().find(|(number, _)| body.first() == Some(number))?.1;
    let mut chain = Chain { table: String::new(), name: String::new(), input: false, drops: false, rules: 0 };
    let mut is_base = false;

    for (kind, value) in attributes(body.get(FAMILY_BYTES..)?) {
        match kind {
            CHAIN_TABLE => chain.table = format!("{family} {}", text(value)),
            CHAIN_NAME => chain.name = text(value),
            // Nobody jumps to a base chain: what uses it are its rules.
            CHAIN_USE => chain.rules = big(value)?,
            CHAIN_POLICY => chain.drops = big(value)? == 0,
            CHAIN_HOOK => {
                is_base = true;
                let mut hooks = attributes(value);
                chain.input = hooks.any(|(kind, value)| kind == HOOK_NUMBER && big(value) == Some(LOCAL_IN));
            }
            _ => {}
        }
    }
    is_base.then_some(chain)
}

fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(data)?);
        let kind = short(data.get(2..)?)? & TYPE_MASK;
        let value = data.get(ATTRIBUTE_BYTES..length)?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn short(data: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(..2)?.try_into().ok()?))
}

fn number(data: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(..4)?.try_into().ok()?))
}

fn big(data: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(..4)?.try_into().ok()?))
}

fn text(data: &[u8]) -> String {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    String::from_utf8_lossy(&data[..end]).into_owned()
}

/// Rules in the `filter` tables of the older iptables, where the kernel has such tables.
pub fn legacy() -> Vec<(&'static str, u32)> {
    const TABLES: [(&str, &str, libc::c_int, libc::c_int); 2] = [
        ("ip", "/proc/net/ip_tables_names", libc::AF_INET, libc::IPPROTO_IP),
        ("ip6", "/proc/net/ip6_tables_names", libc::AF_INET6, libc::IPPROTO_IPV6),
    ];
    // To ask for a table makes the kernel load it: only for what is there.
    let there =
        |path: &str| fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == "filter"));
    let tables = TABLES.iter().filter(|(_, path, ..)| there(path));
    tables.filter_map(|(name, _, family, level)| Some((*name, entries(*family, *level)?))).collect()
}

/// `IPT_SO_GET_INFO`: a table without rules has three policies and an end.
fn entries(family: libc::c_int, level: libc::c_int) -> Option<u32> {
    const GET_INFO: libc::c_int = 64;
    const FIXED: u32 = 4;
    #[repr(C)]
    struct Info {
        name: [u8; 32],
        hooks: u32,
        entries: [u32; 5],
        underflows: [u32; 5],
        count: u32,
        size: u32,
    }
    let mut info = Info { name: [0; 32], hooks: 0, entries: [0; 5], underflows: [0; 5], count: 0, size: 0 };
    info.name[..6].copy_from_slice(b"filter");
    let mut length = libc::socklen_t::try_from(size_of::<Info>()).ok()?;

    // SAFETY: the structure is the kernel's `ipt_getinfo`, lives through the call and has the length that is told.
    let said = unsafe {
        let fd = libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW);
        if fd < 0 {
            return None;
        }
        let socket = OwnedFd::from_raw_fd(fd);
        libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut length)
    };
    (said == 0).then(|| info.count.saturating_sub(FIXED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE_BYTES + value.len()).unwrap_or(0);
        let mut data = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        data.extend(value);
        data.resize(data.len().next_multiple_of(4), 0);
        data
    }

    #[test]
    fn a_base_chain_is_read_with_its_hook_policy_and_rules() {
        let mut body = vec![1, 0, 0, 0];
        body.extend(attribute(CHAIN_TABLE, b"filter\0"));
        body.extend(attribute(CHAIN_NAME, b"in\0"));
        body.extend(attribute(CHAIN_HOOK | 0x8000, &attribute(HOOK_NUMBER, &LOCAL_IN.to_be_bytes())));
        body.extend(attribute(CHAIN_POLICY, &0_u32.to_be_bytes()));
        body.extend(attribute(CHAIN_USE, &12_u32.to_be_bytes()));
        let expected =
            Chain { table: "inet filter".into(), name: "in".into(), input: true, drops: true, rules: 12 };
        assert_eq!(chain(&body), Some(expected));
        for cut in 0..body.len() {
            let _ = chain(&body[..cut]);
        }
    }

    #[test]
    fn what_the_kernel_answers_ends() {
        // Not root, or a kernel without it: an error, and no hang.
        let _ = (chains(), legacy());
    }
}
