//! Names that resolve without DNS: a block of /etc/hosts, put back when it is
//! lost; all else in the file is left as it is, byte for byte (P9).

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::name;
use crate::error::Result;
use crate::graph::Step;
use crate::machine::Machine;
use crate::sys::root::Root;
use crate::sys::{Changed, clock};
use units::node_config::HostAlias;

const HOSTS: &str = "/etc/hosts";
const BEGIN: &str = "# BEGIN knode";
const END: &str = "# END knode";
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(15);

pub struct Hosts;

impl Step<Machine> for Hosts {
    fn name(&self) -> &'static str {
        name::HOSTS
    }

    fn after(&self) -> &[&'static str] {
        &[]
    }

    fn converge<'a>(&'a self, machine: &'a Machine) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move {
            let aliases = &machine.config.host_aliases;
            let old = machine.root.read_if_exists(HOSTS)?;
            let new = with_block(old.as_deref().unwrap_or_default(), aliases);
            // Where there is neither a file nor a name, none is made.
            if old.is_some() || !new.is_empty() {
                machine.root.rewrite(HOSTS, &new)?;
            }
            Ok(format!("{} addresses with names", aliases.len()))
        })
    }

    fn again<'a>(&'a self, _machine: &'a Machine) -> BoxFuture<'a, ()> {
        Box::pin(clock::pause(LOOK))
    }
}

/// The file as it is without our block, if there is one in it.
///
/// # Errors
///
/// [`crate::error::Code::Disk`].
pub(crate) fn without_block(root: &Root) -> Result<Option<Vec<u8>>> {
    let old = root.read_if_exists(HOSTS)?;
    let new = old.as_deref().map(|old| with_block(old, &[]));
    Ok(new.filter(|new| old.as_ref() != Some(new)))
}

/// Our block goes.
///
/// # Errors
///
/// [`crate::error::Code::Disk`].
pub(crate) fn clear(root: &Root) -> Result<Changed> {
    match without_block(root)? {
        Some(new) => Ok(root.rewrite(HOSTS, &new)?),
        None => Ok(Changed::No),
    }
}

/// The file with our block as it should be: where it was, else at the end.
fn with_block(text: &[u8], aliases: &[HostAlias]) -> Vec<u8> {
    let block = block(aliases);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let is = |line: &[u8], mark: &str| line.trim_ascii() == mark.as_bytes();
    let mut new = Vec::with_capacity(text.len() + block.len());
    let mut placed = false;
    let mut rest = lines.as_slice();
    while let [line, after @ ..] = rest {
        rest = after;
        if !is(line, BEGIN) {
            // An end without a beginning is what is left of a block of ours.
            if !is(line, END) {
                new.extend_from_slice(line);
            }
            continue;
        }
        // A beginning without an end: nobody knows which lines are ours.
        let next = |mark| rest.iter().position(|line| is(line, mark));
        let end = next(END).filter(|end| next(BEGIN).is_none_or(|begin| begin > *end));
        if let Some(end) = end {
            rest = &rest[end + 1..];
        }
        if !placed {
            new.extend_from_slice(block.as_bytes());
            placed = true;
        }
    }
    if !placed && !block.is_empty() {
        if new.last().is_some_and(|byte| *byte != b'\n') {
            new.push(b'\n');
        }
        new.extend_from_slice(block.as_bytes());
    }
    new
}

/// Source: hosts(5).
fn block(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines: String = aliases
        .iter()
        .map(|alias| format!("{} {}\n", alias.ip, alias.hostnames.join(" ")))
        .collect();
    format!("{BEGIN}\n{lines}{END}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(names: &[&str]) -> Vec<HostAlias> {
        let alias = |name: &&str| HostAlias {
            ip: "10.0.0.1".parse().unwrap(),
            hostnames: vec![(*name).to_owned(), format!("{name}.example.com")],
        };
        names.iter().map(alias).collect()
    }

    fn with(text: &str, names: &[&str]) -> String {
        String::from_utf8(with_block(text.as_bytes(), &aliases(names))).unwrap()
    }

    /// P9: what was there stays, whatever it is.
    #[test]
    fn the_block_comes_changes_and_goes_and_all_else_stays() {
        let before = "127.0.0.1\tlocalhost  \r\n\n# mine\n::1 localhost";
        let first = with(before, &["m"]);
        assert_eq!(
            first,
            format!("{before}\n# BEGIN knode\n10.0.0.1 m m.example.com\n# END knode\n")
        );
        assert_eq!(with(&first, &["m"]), first);
        let after = format!("{first}10.9.9.9 later\n");
        let second = with(&after, &["m", "n"]);
        assert!(second.starts_with(before) && second.ends_with("# END knode\n10.9.9.9 later\n"));
        assert!(second.contains("10.0.0.1 n n.example.com\n"));
        assert_eq!(with(&second, &[]), format!("{before}\n10.9.9.9 later\n"));
        assert_eq!(with("", &[]), "");
        assert_eq!(with(before, &[]), before, "no newline is added");
        let odd = b"10.0.0.2 \xff\n";
        assert_eq!(with_block(odd, &[]), odd);
    }

    #[test]
    fn damaged_and_doubled_blocks_are_mended_and_no_others_line_is_lost() {
        let whole = with("a\n", &["m"]);
        let no_end = whole.replace("# END knode\n", "10.9.9.9 mine\n");
        let mended = with(&no_end, &["m"]);
        assert!(mended.contains("10.9.9.9 mine\n"), "{mended}");
        assert_eq!(with(&mended, &["m"]), mended, "it does not grow");
        let no_begin = whole.replace("# BEGIN knode\n", "");
        assert_eq!(with(&no_begin, &["m"]).matches("# END knode").count(), 1);
        let twice = format!("{whole}b\n{}", with("", &["m"]));
        assert_eq!(with(&twice, &["m"]), format!("{whole}b\n"));
        let open = format!("# BEGIN knode\nmine\n{}", with("", &["m"]));
        assert!(with(&open, &["m"]).contains("mine\n"));
    }
}
