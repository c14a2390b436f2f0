//! Time servers, for whichever of systemd-timesyncd and chrony an image has;
//! each reads its own file alone.
//! Sources: timesyncd.conf(5); chrony.conf(5), "sourcedir".

use super::files::public;
use super::{Parts, PlannedFile};

/// The unit that lets a clock that runs already know of its servers.
pub const UNIT: &str = "knode-ntp.service";

/// A drop-in of timesyncd's, a file of chrony's sources, and a unit: files may
/// come after the clock was started.
pub fn files(parts: Parts<'_>) -> Vec<PlannedFile> {
    let servers = &parts.system.ntp_servers;
    if servers.is_empty() {
        return Vec::new();
    }
    let sources: String = servers
        .iter()
        .map(|server| format!("server {server} iburst\n"))
        .collect();
    vec![
        public(
            "/etc/systemd/timesyncd.conf.d/10-kgen.conf",
            format!("[Time]\nNTP={}\nFallbackNTP=\n", servers.join(" ")),
        ),
        public("/etc/chrony/sources.d/kgen.sources", sources),
        public(
            format!("/etc/systemd/system/{UNIT}"),
            "[Unit]\n\
             Description=Tell the clock its time servers\n\
             After=systemd-timesyncd.service chrony.service\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             # Restarts what runs, and starts nothing.\n\
             ExecStart=-/bin/systemctl try-restart systemd-timesyncd.service chrony.service\n",
        ),
    ]
}
