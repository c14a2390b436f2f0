//! The report as people read it.

use units::types::{NodeName, Role};

use super::{Condition, Report, State};
use crate::balancer::Health;

/// The report as a table for people.
pub fn table(report: &Report) -> String {
    let name = report
        .node
        .as_ref()
        .map_or("this machine", NodeName::as_str);
    let role = report.role.map_or("no role yet", Role::as_str);
    let mut text = format!("{name} ({role}): ");
    match report.ready_after {
        Some(after) if report.ready => {
            text.push_str(&format!("Ready, {after:.1} s after knode started\n"));
        }
        _ => text.push_str("not Ready\n"),
    }
    let width = report.steps.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for step in &report.steps {
        let state = match step.state {
            State::Pending => "waits",
            State::Running => "runs",
            State::Failed => "FAILS",
            State::Done => "done",
        };
        let took = step
            .took
            .map_or(String::new(), |took| format!("{took:.1} s"));
        let line = format!(
            "  {:width$}  {state:5}  {took:>7}  {}",
            step.name, step.detail
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    // Services that are well need no line.
    for service in &report.services {
        let restarts = match (service.restarts, service.restarted) {
            (0, 0) => String::new(),
            (all, ours) => format!(", {all} restarts by systemd, {ours} by knode"),
        };
        let condition = match service.condition {
            Condition::Healthy if restarts.is_empty() => continue,
            Condition::Healthy => "healthy",
            Condition::Down => "down",
            Condition::Starting => "starting",
            Condition::Doubtful => "doubtful",
            Condition::Unhealthy => "UNHEALTHY",
            Condition::Crashing => "CRASHES",
        };
        let name = &service.name;
        text.push_str(&format!("  {name}: {condition}{restarts}\n"));
    }
    if !report.api_servers.is_empty() {
        text.push_str("\nAPI servers:\n");
    }
    for server in &report.api_servers {
        let health = match server.health {
            Health::Unknown => "not asked yet",
            Health::Healthy => "healthy",
            Health::Out => "OUT",
        };
        let line = format!("  {}  {health}  {}", server.server, server.reason);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if let Some((step, failure)) = report.first_failure() {
        text.push_str(&format!(
            "\n{step}: {}: {}\n{}\n",
            failure.code, failure.message, failure.cure
        ));
    }
    text
}
