//! What knode knows of this machine, for Prometheus: a file in its text
//! format, which node_exporter's textfile collector reads. A file costs
//! nothing while nothing changes, and no port.
//! Source: Prometheus documentation, "Exposition formats"; metric and label
//! naming.

use std::time::Duration;

use crate::status::{Condition, Report, State, Status};
use crate::sys::root::Root;

/// Where the file is; node_exporter: `--collector.textfile.directory=/run/knode`.
pub const FILE: &str = "/run/knode/metrics.prom";
/// As often as Prometheus usually asks.
const EVERY: Duration = Duration::from_secs(15);

/// Keeps the file as it should be, for ever.
pub async fn run(root: Root, status: Status) {
    let mut last = String::new();
    loop {
        let text = status.read(text);
        if text != last {
            match root.write_atomic(FILE, text.as_bytes(), 0o644) {
                Ok(_) => last = text,
                Err(error) => tracing::debug!("no metrics: {error}"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One kind of metric.
struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
}

impl<'t> Family<'t> {
    fn new(text: &'t mut String, name: &'static str, kind: &str, help: &str) -> Self {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Self { text, name }
    }

    fn put(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            let value = value.replace('\n', "\\n");
            self.text.push_str(&format!("{label}=\"{value}\""));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.text.push_str(&format!(" {value}\n"));
    }
}

/// The report in Prometheus' words.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let text = &mut text;
    let flag = |is: bool| f64::from(u8::from(is));
    let node = report.node.as_ref().map_or("", |node| node.as_str());
    let role = report.role.map_or("", |role| role.as_str());
    let labels = [
        ("version", report.version.as_str()),
        ("node", node),
        ("role", role),
    ];
    Family::new(
        text,
        "knode_info",
        "gauge",
        "Which knode, and which machine.",
    )
    .put(&labels, 1.0);
    let help = "Whether the machine is a healthy member of its cluster.";
    Family::new(text, "knode_ready", "gauge", help).put(&[], flag(report.ready));
    if let Some(after) = report.ready_after {
        let help = "Seconds from knode's start to the machine's being ready.";
        Family::new(text, "knode_ready_after_seconds", "gauge", help).put(&[], after);
    }
    let help = "The first failure: 1 with its place and code; no sample while nothing fails.";
    let mut first = Family::new(text, "knode_failure", "gauge", help);
    if let Some((place, failure)) = report.first_failure() {
        first.put(&[("place", place), ("code", &failure.code)], 1.0);
    }
    let help = "Whether a step has brought about what it is for.";
    let mut done = Family::new(text, "knode_step_done", "gauge", help);
    for step in &report.steps {
        // One that looks again is done until it finds otherwise.
        let is = step.failure.is_none() && (step.state == State::Done || step.took.is_some());
        done.put(&[("step", &step.name)], flag(is));
    }
    let help = "How often a step failed since it last succeeded.";
    let mut failures = Family::new(text, "knode_step_failures", "gauge", help);
    for step in &report.steps {
        failures.put(&[("step", &step.name)], f64::from(step.failures));
    }
    let help = "Seconds from a step's beginning to its first success.";
    let mut took = Family::new(text, "knode_step_seconds", "gauge", help);
    for step in &report.steps {
        if let Some(seconds) = step.took {
            took.put(&[("step", &step.name)], seconds);
        }
    }
    let help = "Whether a service answers its health check.";
    let mut healthy = Family::new(text, "knode_service_healthy", "gauge", help);
    for service in &report.services {
        let is = service.condition == Condition::Healthy;
        healthy.put(&[("service", &service.name)], flag(is));
    }
    let help = "Restarts of a service, by systemd since its last job and by knode since its start.";
    let mut restarts = Family::new(text, "knode_service_restarts", "gauge", help);
    for service in &report.services {
        for (by, count) in [("systemd", service.restarts), ("knode", service.restarted)] {
            restarts.put(&[("service", &service.name), ("by", by)], f64::from(count));
        }
    }
    std::mem::take(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};
    use crate::status::{Failure, ServiceReport};

    #[test]
    fn every_family_is_announced_and_the_first_failure_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let status = Status::new(Root::new(folder.path()), ["fetch", "start"]);
        status.begin("fetch");
        status.done("fetch", "");
        let error = Error::new(Code::CrashLoop, "kube-proxy starts and ends");
        status.service(ServiceReport {
            name: "kube-proxy".to_owned(),
            condition: Condition::Crashing,
            restarts: 7,
            restarted: 0,
            failure: Some(Failure::from(&error)),
        });
        let text = status.read(text);
        for line in [
            "knode_ready 0",
            "knode_failure{place=\"kube-proxy\",code=\"E-CRASH-LOOP\"} 1",
            "knode_step_done{step=\"fetch\"} 1",
            "knode_step_done{step=\"start\"} 0",
            "knode_service_healthy{service=\"kube-proxy\"} 0",
            "knode_service_restarts{service=\"kube-proxy\",by=\"systemd\"} 7",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in:\n{text}");
        }
        for sample in text.lines().filter(|line| !line.starts_with('#')) {
            let name = sample.split(['{', ' ']).next().unwrap();
            let announced = format!("# TYPE {name} gauge");
            assert!(text.lines().any(|l| l == announced), "{sample}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = String::new();
        Family::new(&mut text, "x", "gauge", "Help.").put(&[("a", "\\ \" \n")], 0.5);
        assert!(text.ends_with("x{a=\"\\\\ \\\" \\n\"} 0.5\n"), "{text}");
    }
}
