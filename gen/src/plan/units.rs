//! Drop-ins for the static units: what differs between machines.

use ::units::node_config::{RuntimeSource, Service};
use ::units::paths;

use super::PlannedFile;
use super::files::public;
use crate::cluster::Cluster;

/// A drop-in of ours for a service.
pub fn drop_in(service: Service, text: String) -> PlannedFile {
    let path = format!("/etc/systemd/system/{}.d/10-kgen.conf", service.unit());
    public(path, text)
}

/// How the distribution's containerd is started anew: as our own unit is, which
/// is not there then. It is enabled, and would crash until knode has written its
/// configuration; then knode starts it.
const RESTARTS: &str = "\
Restart=always
RestartSec=250ms
RestartSteps=6
RestartMaxDelaySec=20
KillMode=process

[Unit]
StartLimitIntervalSec=0
ConditionPathExists=/etc/kubernetes/containerd.toml
";

/// The distribution's containerd with the configuration that knode writes.
pub fn runtime(cluster: &Cluster) -> Option<PlannedFile> {
    (cluster.runtime_source == RuntimeSource::Distribution).then(|| {
        let config = ["--config", paths::CONTAINERD_CONFIG].map(str::to_owned);
        let text = exec_start("/usr/bin/containerd", &config) + RESTARTS;
        drop_in(Service::Containerd, text)
    })
}

/// A `[Service]` section that replaces the unit's command line, one argument
/// a line. Source: systemd.service(5), "Command lines".
pub fn exec_start(program: &str, args: &[String]) -> String {
    let mut text = format!("[Service]\nExecStart=\nExecStart={program}");
    for arg in args {
        text.push_str(" \\\n  ");
        text.push_str(&escape(arg));
    }
    text.push('\n');
    text
}

/// An argument that systemd hands over unchanged.
fn escape(arg: &str) -> String {
    let mut escaped = String::with_capacity(arg.len() + 2);
    let quoted = arg.is_empty()
        || arg.starts_with(['#', ';'])
        || arg.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'');
    if quoted {
        escaped.push('"');
    }
    for c in arg.chars() {
        match c {
            '%' => escaped.push_str("%%"),
            '$' => escaped.push_str("$$"),
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            c => escaped.push(c),
        }
    }
    if quoted {
        escaped.push('"');
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F18: both containerds are started anew in the same way.
    #[test]
    fn f18_the_distributions_containerd_is_restarted_as_ours_is() {
        let ours = ::units::embedded::unit(Service::Containerd, RuntimeSource::Artifact);
        let ours = ours.unwrap();
        assert!(RESTARTS.contains(paths::CONTAINERD_CONFIG));
        let lines = RESTARTS.lines().filter(|line| line.contains('='));
        for line in lines.filter(|line| !line.starts_with("ConditionPathExists=")) {
            assert!(
                ours.content.lines().any(|l| l == line),
                "our unit: no {line}"
            );
        }
    }

    #[test]
    fn arguments_reach_the_program_unchanged() {
        for (arg, escaped) in [
            ("--a=b", "--a=b"),
            ("--a=50%", "--a=50%%"),
            ("--a=$HOME", "--a=$$HOME"),
            ("--a=b c", "\"--a=b c\""),
            ("--a=\"b\\", "\"--a=\\\"b\\\\\""),
            ("", "\"\""),
            (";", "\";\""),
            (
                "--controllers=*,bootstrapsigner",
                "--controllers=*,bootstrapsigner",
            ),
        ] {
            assert_eq!(escape(arg), escaped);
        }
        let text = exec_start("/bin/x", &["--a".to_owned(), "--b".to_owned()]);
        assert_eq!(
            text,
            "[Service]\nExecStart=\nExecStart=/bin/x \\\n  --a \\\n  --b\n"
        );
    }
}
