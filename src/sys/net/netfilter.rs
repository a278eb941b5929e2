//! What filters packets on the running system: the base chains of nftables as `nft` lists them, and the rule count of
//! the older iptables. Nothing is changed.
#![allow(unsafe_code)] // getsockopt

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::model::exposure::Chain;
use crate::sys::process::exec::{Cmd, Exec, ToolStatus};

/// Without the elements of sets, of which there may be many.
const RULESET: [&str; 5] = ["nft", "-j", "-t", "list", "ruleset"];
/// nft answers in milliseconds, with many thousands of rules in seconds.
const NFT_LIMIT: Duration = Duration::from_secs(10);
/// The size limit of the answer: some 50 000 rules.
const RULESET_MAX_BYTES: usize = 32 << 20;
/// Families whose chains see what comes to this host; the others are of bridges and devices.
const FAMILIES: [&str; 3] = ["inet", "ip", "ip6"];

#[derive(Deserialize)]
struct NftRuleset {
    nftables: Vec<NftObject>,
}

/// One of the two, or something that is not looked at.
#[derive(Deserialize)]
struct NftObject {
    chain: Option<NftChain>,
    rule: Option<NftRule>,
}

#[derive(Deserialize)]
struct NftChain {
    family: String,
    table: String,
    name: String,
    /// Only a base chain has it.
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct NftRule {
    family: String,
    table: String,
    chain: String,
}

/// Lists the base chains of nftables. Errors: nft is not installed or does not tell: not root, or a kernel without
/// nftables.
pub fn chains(exec: &dyn Exec) -> Result<Vec<Chain>> {
    let mut cmd = Cmd::new(RULESET, NFT_LIMIT);
    cmd.max_bytes = RULESET_MAX_BYTES;
    let output = exec.run(&cmd)?.context("nft is not installed")?;
    ensure!(output.status == ToolStatus::Exit(0), "{}: {}", output.status, output.stderr.escape_ascii());
    ensure!(!output.truncated, "the rules are larger than {RULESET_MAX_BYTES} bytes");
    base_chains(&output.stdout)
}

fn base_chains(json: &[u8]) -> Result<Vec<Chain>> {
    let ruleset: NftRuleset = serde_json::from_slice(json)?;
    let mut rules: HashMap<(&str, &str, &str), u32> = HashMap::new();
    for rule in ruleset.nftables.iter().filter_map(|object| object.rule.as_ref()) {
        *rules.entry((&rule.family, &rule.table, &rule.chain)).or_default() += 1;
    }

    let chains = ruleset.nftables.iter().filter_map(|object| object.chain.as_ref());
    let base = chains.filter(|chain| chain.hook.is_some() && FAMILIES.contains(&chain.family.as_str()));
    let seen = base.map(|chain| Chain {
        table: format!("{} {}", chain.family, chain.table),
        name: chain.name.clone(),
        input: chain.hook.as_deref() == Some("input"),
        drops: chain.policy.as_deref() == Some("drop"),
        rules: rules.get(&(&chain.family[..], &chain.table[..], &chain.name[..])).copied().unwrap_or(0),
    });
    Ok(seen.collect())
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sys::process::exec::{NoTools, ProcessOutput};

    /// nft, which checks what it is asked.
    struct Nft(ProcessOutput);

    impl Exec for Nft {
        fn run(&self, cmd: &Cmd) -> Result<Option<ProcessOutput>> {
            assert_eq!(cmd.argv, ["nft", "-j", "-t", "list", "ruleset"]);
            assert!(cmd.limit <= Duration::from_secs(10) && cmd.stdin.is_none());
            Ok(Some(self.0.clone()))
        }
    }

    fn answer(status: i32, stdout: &str) -> Nft {
        let status = ToolStatus::Exit(status);
        Nft(ProcessOutput { status, stdout: stdout.into(), ..ProcessOutput::default() })
    }

    /// As nft 1.0.6 writes it.
    const ANSWER: &str = r#"{"nftables": [
        {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "filter", "handle": 1}},
        {"chain": {"family": "inet", "table": "filter", "name": "in", "handle": 1, "type": "filter",
            "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "filter", "name": "own", "handle": 2}},
        {"chain": {"family": "ip", "table": "filter", "name": "in", "handle": 1, "type": "filter",
            "hook": "forward", "prio": 0, "policy": "accept"}},
        {"chain": {"family": "bridge", "table": "filter", "name": "in", "handle": 1, "type": "filter",
            "hook": "input", "prio": 0, "policy": "drop"}},
        {"rule": {"family": "inet", "table": "filter", "chain": "in", "handle": 3, "expr": [{"accept": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "own", "handle": 4, "expr": [{"drop": null}]}},
        {"rule": {"family": "inet", "table": "filter", "chain": "in", "handle": 5, "expr": [{"xt": null}]}}]}"#;

    #[test]
    fn base_chains_are_read_with_their_hook_policy_and_rules() {
        let chain = |table: &str, input, drops, rules| {
            let (table, name) = (table.to_owned(), "in".to_owned());
            Chain { table, name, input, drops, rules }
        };
        let expected = [chain("inet filter", true, true, 2), chain("ip filter", false, false, 0)];
        assert_eq!(chains(&answer(0, ANSWER)).unwrap(), expected);
        let none = r#"{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}}]}"#;
        assert_eq!(chains(&answer(0, none)).unwrap(), []);
    }

    #[test]
    fn what_nft_does_not_tell_is_an_error_and_never_no_filter() {
        assert!(chains(&NoTools).is_err());
        for (status, stdout) in [(1, ""), (1, ANSWER), (0, ""), (0, "{}"), (0, &ANSWER[..200])] {
            assert!(chains(&answer(status, stdout)).is_err(), "{status} {stdout}");
        }
        let cut = ProcessOutput { truncated: true, ..answer(0, ANSWER).0 };
        assert!(chains(&Nft(cut)).is_err());
        let late = ProcessOutput { status: ToolStatus::TimedOut, ..answer(0, ANSWER).0 };
        assert!(chains(&Nft(late)).is_err());
    }

    #[test]
    fn the_older_iptables_is_asked_without_an_end() {
        let _ = legacy();
    }
}
