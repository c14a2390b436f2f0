//! What kubelet and kube-proxy leave in iptables: chains `KUBE-…` of their own,
//! and the rules that lead there. Others' chains and rules stay.
//!
//! A kubelet makes some wherever iptables is, whatever mode kube-proxy has.
//! Source: Kubernetes, pkg/kubelet/kubelet_network_linux.go; iptables-restore(8).

use std::time::Duration;

use crate::error::{Code, Context as _, Result};
use crate::sys::Changed;
use crate::sys::program;

/// The programs of each family that tell and set.
const FAMILIES: [(&str, &str); 2] = [
    ("iptables-save", "iptables-restore"),
    ("ip6tables-save", "ip6tables-restore"),
];
/// What their chains begin with.
const OURS: &str = "KUBE-";
const LIMIT: Duration = Duration::from_secs(30);

/// Whether there is anything of theirs. Waits for programs.
pub fn is_there() -> bool {
    FAMILIES
        .iter()
        .any(|(save, _)| !removal(&said(save)).is_empty())
}

/// Removes what is theirs. Waits for programs.
///
/// # Errors
///
/// [`Code::Nft`]: a program does not succeed.
pub fn clean() -> Result<Changed> {
    let mut changed = Changed::No;
    for (save, restore) in FAMILIES {
        let script = removal(&said(save));
        if !script.is_empty() {
            let command = [restore, "--noflush"];
            program::filter(&command, script.as_bytes(), LIMIT)
                .context(Code::Nft, || format!("running {restore}"))?;
            changed = Changed::Yes;
        }
    }
    Ok(changed)
}

/// What a program says; nothing on a machine that lacks it.
fn said(save: &str) -> String {
    let said = program::filter(&[save], b"", LIMIT);
    said.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// What removes theirs from tables as iptables-save shows them, for
/// iptables-restore without flushing. Pure.
fn removal(tables: &str) -> String {
    let mut script = String::new();
    for table in tables.split_inclusive("COMMIT\n") {
        let lines = || table.lines().map(str::trim_end);
        let Some(name) = lines().find(|line| line.starts_with('*')) else {
            continue;
        };
        let chains: Vec<&str> = lines()
            .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
            .filter(|chain| chain.starts_with(OURS))
            .collect();
        if chains.is_empty() {
            continue;
        }
        script.push_str(&format!("{name}\n"));
        // Naming a chain empties it, so that none leads to another.
        for chain in &chains {
            script.push_str(&format!(":{chain} - [0:0]\n"));
        }
        for rule in lines().filter_map(|line| line.strip_prefix("-A ")) {
            let words: Vec<&str> = rule.split(' ').collect();
            let leads = |pair: &[&str]| pair[0] == "-j" && pair[1].starts_with(OURS);
            if !rule.starts_with(OURS) && words.windows(2).any(leads) {
                script.push_str(&format!("-D {rule}\n"));
            }
        }
        for chain in &chains {
            script.push_str(&format!("-X {chain}\n"));
        }
        script.push_str("COMMIT\n");
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_chains_go_and_others_stay() {
        let tables = "# Generated\n*mangle\n:PREROUTING ACCEPT [0:0]\n\
            :KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n# Completed\n\
            *filter\n:INPUT ACCEPT [0:0]\n:MINE - [0:0]\n:KUBE-FIREWALL - [0:0]\n\
            -A INPUT -j MINE\n-A INPUT -m comment --comment \"a b\" -j KUBE-FIREWALL\n\
            -A KUBE-FIREWALL ! -s 127.0.0.0/8 -j DROP\n-A MINE -j ACCEPT\nCOMMIT\n\
            *nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n";
        assert_eq!(
            removal(tables),
            "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n-X KUBE-KUBELET-CANARY\nCOMMIT\n\
             *filter\n:KUBE-FIREWALL - [0:0]\n\
             -D INPUT -m comment --comment \"a b\" -j KUBE-FIREWALL\n-X KUBE-FIREWALL\nCOMMIT\n"
        );
        assert_eq!(removal(""), "");
    }
}
