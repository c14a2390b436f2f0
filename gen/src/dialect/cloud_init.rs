//! cloud-init, that of Debian, Ubuntu and most others.
//!
//! Its schema is strict since 23.4, so there is nothing in a document that it
//! does not know. Files come early in the boot; the target is started in the
//! last stage without waiting, since that stage is part of the boot itself.

use anyhow::Result;
use serde::Serialize;
use units::types::NodeName;

use super::{Document, head, write_files};
use crate::format::Format;
use crate::plan::NodePlan;

#[derive(Serialize)]
struct CloudConfig<'p> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'p str>,
    preserve_hostname: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    ssh_authorized_keys: &'p [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<User<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_update: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    packages: Vec<&'p str>,
    // Before the files, which follow: an upload that was cut on its way still starts knode,
    // which says what is missing (F30).
    runcmd: Vec<Vec<&'p str>>,
}

/// An account; the image's own stays where `default` is in the list.
#[derive(Serialize)]
#[serde(untagged)]
enum User<'p> {
    Default(&'static str),
    Named {
        name: &'p str,
        lock_passwd: bool,
        ssh_authorized_keys: &'p [String],
    },
}

/// Writes the document.
pub fn render(plan: &NodePlan) -> Result<Document> {
    let mut runcmd = vec![vec!["systemctl", "daemon-reload"]];
    for name in &plan.enabled {
        runcmd.push(vec!["systemctl", "enable", name]);
    }
    runcmd.push(vec![
        "systemctl",
        "enable",
        "--now",
        "--no-block",
        plan.target,
    ]);
    // Without a user they are those of the image's own.
    let (keys, users) = match &plan.ssh.user {
        Some(name) => {
            let named = User::Named {
                name,
                lock_passwd: true,
                ssh_authorized_keys: &plan.ssh.authorized_keys,
            };
            (&[][..], vec![User::Default("default"), named])
        }
        None => (&plan.ssh.authorized_keys[..], Vec::new()),
    };
    let head = head(&CloudConfig {
        // Without one it is the cloud's.
        hostname: plan.hostname.as_ref().map(NodeName::as_str),
        preserve_hostname: false,
        ssh_authorized_keys: keys,
        users,
        package_update: (!plan.packages.is_empty()).then_some(true),
        packages: plan.packages.iter().map(|p| p.name.as_str()).collect(),
        runcmd,
    })?;
    write_files::append(&head, plan.files.iter(), Format::CloudInit)
}
