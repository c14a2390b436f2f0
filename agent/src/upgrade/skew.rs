//! Which versions may meet. Pure.
//! Source: Kubernetes documentation, "Version Skew Policy".

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error};

/// So many minor versions a kubelet may be behind its API server.
const BEHIND: u32 = 3;

/// A version of Kubernetes, without what a build says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    /// The second number.
    pub minor: u32,
    patch: u32,
}

impl FromStr for Version {
    type Err = Error;

    /// `1.36.2`, `v1.36.2`, `v1.36.2+k1`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = text.trim_start_matches('v');
        let plain = plain.split(['+', '-']).next().unwrap_or_default();
        let mut numbers = plain.split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        match (next(), next(), next()) {
            (Some(major), Some(minor), Some(patch)) => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => Err(Error::new(
                Code::Skew,
                format!("{text:?} is no version of Kubernetes"),
            )),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Whether a kubelet or kube-proxy may be of this version: no API server is
/// older, and none is too far ahead.
pub fn of_node(own: Version, servers: &[Version]) -> Result<(), String> {
    let (Some(oldest), Some(newest)) = (servers.iter().min(), servers.iter().max()) else {
        return Err("no API server says its version".to_owned());
    };
    if *oldest < own {
        return Err(format!("an API server is {oldest}, older than {own}"));
    }
    if newest.minor > own.minor + BEHIND {
        return Err(format!(
            "an API server is {newest}, too far ahead of {own}: {BEHIND} minor versions at most"
        ));
    }
    Ok(())
}

/// Whether a controller manager or scheduler may be of this version: its API
/// server is not older.
pub fn of_controller(own: Version, server: Version) -> Result<(), String> {
    match server < own {
        true => Err(format!("the API server is {server}, older than {own}")),
        false => Ok(()),
    }
}

/// Whether an API server may be of this version beside others and these
/// kubelets, each with its Node.
pub fn of_server(
    own: Version,
    others: &[Version],
    kubelets: &[(String, Version)],
) -> Result<(), String> {
    if let Some(far) = others
        .iter()
        .find(|other| other.minor.abs_diff(own.minor) > 1)
    {
        return Err(format!(
            "an API server is {far}, and {own} is more than one minor version from it: go by way of each"
        ));
    }
    for (node, kubelet) in kubelets {
        if kubelet.minor + BEHIND < own.minor {
            return Err(format!(
                "the kubelet of {node} is {kubelet}, more than {BEHIND} minor versions behind {own}: \
                 upgrade it first"
            ));
        }
        if kubelet.minor > own.minor {
            return Err(format!(
                "the kubelet of {node} is {kubelet}, newer than {own}: it goes back first"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn a_version_is_read_as_programs_print_it() {
        assert_eq!(version("v1.36.2+k1").to_string(), "1.36.2");
        assert!(version("1.36.10") > version("v1.36.9"));
        assert_eq!("1.36".parse::<Version>().unwrap_err().code(), Code::Skew);
    }

    #[test]
    fn a_kubelet_is_never_newer_than_any_api_server() {
        let own = version("1.36.2");
        let both = [version("v1.36.2"), version("v1.35.6")];
        assert!(of_node(own, &both).unwrap_err().contains("1.35.6, older"));
        assert!(
            of_node(own, &[version("v1.36.1")]).is_err(),
            "masters first"
        );
        assert!(of_node(own, &[version("v1.39.0")]).is_ok());
        assert!(of_node(own, &[version("v1.40.0")]).is_err());
        assert!(of_node(own, &[]).is_err());
    }

    #[test]
    fn controllers_follow_their_api_server() {
        let own = version("1.36.2");
        assert!(of_controller(own, version("1.36.1")).is_err());
        assert!(of_controller(own, version("1.36.2")).is_ok());
    }

    #[test]
    fn an_api_server_goes_one_minor_version_at_a_time_and_leaves_no_kubelet_behind() {
        let own = version("1.37.0");
        let node = |text: &str| [("n".to_owned(), version(text))];
        assert!(of_server(own, &[version("1.36.2")], &node("1.34.0")).is_ok());
        assert!(of_server(own, &[version("1.35.2")], &[]).is_err());
        let behind = of_server(own, &[], &node("1.33.9")).unwrap_err();
        assert!(behind.contains("kubelet of n"), "{behind}");
        let back = of_server(version("1.36.2"), &[], &node("1.37.0"));
        assert!(back.unwrap_err().contains("goes back first"));
    }
}
