//! What a node leaves behind for whoever asks why a test failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result};

use crate::node::Node;
use crate::{command, scope};

const LIMIT: Duration = Duration::from_secs(20);

/// File name and the command, inside the node, whose output it gets.
const QUESTIONS: [(&str, &str); 8] = [
    (
        "journal.txt",
        "journalctl --no-pager --output=short-precise --all",
    ),
    (
        "units.txt",
        "systemctl --no-pager list-units --all; systemctl --no-pager --failed",
    ),
    ("jobs.txt", "systemctl --no-pager list-jobs"),
    (
        "network.txt",
        "ip address; ip route; networkctl --no-pager status --all; nft list ruleset",
    ),
    ("processes.txt", "ps -ef --forest"),
    (
        "containers.txt",
        "ctr -n k8s.io containers list; ctr -n k8s.io tasks list; ctr -n k8s.io images list",
    ),
    ("cloud-init-status.json", "cloud-init status --format json"),
    ("status.json", "cat /run/knode/status.json"),
];

const FILES: [&str; 3] = [
    "var/log/cloud-init.log",
    "var/log/cloud-init-output.log",
    "var/lib/cloud/data/status.json",
];

impl Node {
    /// Writes the node's console, journal, status and cloud-init logs into a folder.
    /// What cannot be had is said in the file that lacks it.
    pub fn evidence(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        for file in FILES {
            let source = self.disk().join(file);
            if source.exists() {
                let name = file.replace('/', "-");
                fs::copy(&source, directory.join(name))
                    .with_context(|| format!("saving {}", source.display()))?;
            }
        }
        fs::copy(self.console_path(), directory.join("console.log"))
            .context("saving the console")?;
        if self.is_on() {
            for (name, script) in QUESTIONS {
                let answer = match self.exec_within(&["sh", "-c", script], b"", LIMIT) {
                    Ok(output) => format!("{}{}", output.stdout, output.stderr),
                    Err(error) => format!("{error:#}\n"),
                };
                fs::write(directory.join(name), answer)?;
            }
        } else {
            let mut journal = Command::new("chroot");
            journal.arg(self.disk()).args(["journalctl", "--no-pager"]);
            journal.args(["--all", "--directory=/var/log/journal"]);
            let answer = command::run_within(&mut journal, b"", LIMIT)
                .map_or_else(|error| format!("{error:#}\n"), |output| output.stdout);
            fs::write(directory.join("journal.txt"), answer)?;
        }
        Ok(())
    }

    /// For a node that is about to go: saves its evidence when the test panics, or when
    /// `$KNODE_TEST_EVIDENCE` asks for it always.
    pub(crate) fn leave_evidence(&self) {
        let wanted = env::var_os("KNODE_TEST_EVIDENCE").filter(|value| !value.is_empty());
        if wanted.is_none() && !thread::panicking() {
            return;
        }
        let base = wanted.map_or_else(|| scope::base().join("evidence"), PathBuf::from);
        let directory = base.join(self.scope_name()).join(self.name());
        match self.evidence(&directory) {
            Ok(()) => eprintln!("evidence of {}: {}", self.name(), directory.display()),
            Err(error) => eprintln!("saving the evidence of {}: {error:#}", self.name()),
        }
    }
}
