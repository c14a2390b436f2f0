//! What a language cannot express is told, and never left out.

use crate::format::Format;
use crate::plan::NodePlan;
use crate::report::Report;

/// Everything of a plan that a language has no words for.
pub fn check(plan: &NodePlan, format: Format) -> Result<(), Report> {
    let mut report = Report::default();
    if format != Format::CloudInit {
        for package in &plan.packages {
            let message = format!("{format} installs no packages ({})", package.name);
            let help = "its systems have no package manager: bring the program as a file, or \
                        fetch it in hooks.beforeKnode; format: cloud-init installs packages";
            report.add(package.origin.finding(message).help(help));
        }
    }
    for file in &plan.files {
        let (Some(owner), Some(origin)) = (&file.owner, &file.origin) else {
            continue;
        };
        let unknown = owner.names().find(|name| !is_there(name, format));
        if let Some(name) = unknown {
            let message = format!(
                "{}: {name} may not be there when {format} writes files, which fails then",
                file.path
            );
            let help = "give the owner as numbers, as in owner: \"1000:1000\"";
            report.add(origin.finding(message).help(help));
        }
    }
    report.into_result()
}

/// Whether an account is there when files are written: cloud-init can write
/// some of them late.
fn is_there(name: &str, format: Format) -> bool {
    match format {
        Format::CloudInit => true,
        Format::Coreos | Format::Ignition => ["root", "core"].contains(&name),
    }
}
