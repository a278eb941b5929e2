//! Sockets that wait for others, as /proc/net tells them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::model::exposure::{Listener, Protocol};
use crate::sys::fs::files;

/// A host with a hundred thousand connections has some 15 MB.
const TABLE_MAX_BYTES: u64 = 64 << 20;
const TABLES: [(&str, Protocol, &str); 4] = [
    ("/proc/net/tcp", Protocol::Tcp, LISTENING),
    ("/proc/net/tcp6", Protocol::Tcp, LISTENING),
    ("/proc/net/udp", Protocol::Udp, UNCONNECTED),
    ("/proc/net/udp6", Protocol::Udp, UNCONNECTED),
];
/// `TCP_LISTEN` and `TCP_CLOSE` of the kernel.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// Lists the listeners of this process's network namespace. A kernel without IPv6 has no table of it.
pub fn listeners(root: &Path) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for (table, protocol, state) in TABLES {
        match files::read_small(root, table, TABLE_MAX_BYTES) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                found.extend(text.lines().skip(1).filter_map(|line| parse(line, protocol, state)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `sl local rem st queues timer retransmits uid timeout inode …`, addresses as words of the machine's order.
fn parse(line: &str, protocol: Protocol, state: &str) -> Option<Listener> {
    let words: Vec<&str> = line.split_whitespace().take(10).collect();
    let [_, local, _, now, _, _, _, _, _, inode] = words[..] else { return None };
    if now != state {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let address = address_of(address)?;
    Some(Listener {
        protocol,
        address: address.to_string(),
        loopback: address.to_canonical().is_loopback(),
        port: u16::from_str_radix(port, 16).ok()?,
        inode: inode.parse().ok()?,
    })
}

fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for n in 0..4 {
                bytes[n * 4..n * 4 + 4].copy_from_slice(&word(n * 8)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_listens_is_found_with_its_address_and_its_socket() {
        let mine = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("[::1]:0").unwrap();
        let all = listeners(Path::new("/")).unwrap();
        for listener in [mine, other] {
            let address = listener.local_addr().unwrap();
            let found = all
                .iter()
                .find(|one| (&one.address, one.port) == (&address.ip().to_string(), address.port()))
                .unwrap();
            assert!(found.loopback);
            let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener));
            let link = std::fs::read_link(link).unwrap().to_string_lossy().into_owned();
            assert_eq!(link, format!("socket:[{}]", found.inode));
        }
    }

    #[test]
    fn a_line_that_is_none_is_passed_over() {
        assert_eq!(parse("", Protocol::Tcp, LISTENING), None);
        assert_eq!(parse("0: zz:1F90 0:0 0A 0 0 0 0 0 1 1", Protocol::Tcp, LISTENING), None);
        let line = "0: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000 0 0 1234 1";
        assert_eq!(parse(line, Protocol::Tcp, LISTENING), None);
    }
}
