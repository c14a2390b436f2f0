//! What is known of a service before it is restarted, kept for whoever asks
//! why: `/var/lib/knode/evidence/TIME-SERVICE/` (F17).
//!
//! Capped in number and bytes, the oldest goes first; made beside its place
//! and renamed, so that what is there is whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::{Code, Context as _, Result};
use crate::scrub::scrub;
use crate::sys::program;
use crate::sys::root::Root;
use units::node_config::Service;

/// Where it is kept, 0700.
pub const DIRECTORY: &str = "/var/lib/knode/evidence";
/// So many folders are kept.
const KEPT: usize = 16;
/// A file's last bytes are kept.
const FILE: u64 = 256 * 1024;
/// How long one program may take to answer; of several, none may keep a
/// frozen service waiting.
const LIMIT: Duration = Duration::from_secs(3);
/// What unfinished folders are called.
const PARTIAL: &str = ".partial-";

/// What is shown of a unit; its environment may hold a proxy's password.
const PROPERTIES: &str = "--property=Id,ActiveState,SubState,Result,MainPID,InvocationID,\
    NRestarts,StatusText,ExecMainStartTimestamp,ExecMainExitTimestamp,ExecMainCode,\
    ExecMainStatus,WatchdogUSec,WatchdogTimestamp,ControlGroup,MemoryCurrent,MemoryPeak,\
    CPUUsageNSec,TasksCurrent";

/// Of the whole machine.
const MACHINE: [&str; 5] = [
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
    "/proc/loadavg",
    "/proc/meminfo",
];
/// Of the service's cgroup (cgroup v2).
const CGROUP: [&str; 5] = [
    "memory.events",
    "memory.current",
    "memory.max",
    "cpu.stat",
    "memory.pressure",
];
/// Of its main process.
const PROCESS: [&str; 4] = ["status", "wchan", "stack", "limits"];

/// A folder that is being filled.
#[derive(Debug)]
pub struct Evidence {
    root: Root,
    service: Service,
    name: String,
}

impl Evidence {
    /// Begins a folder with all that is known while the process still runs:
    /// why, the unit, the machine's pressure, the process. Waits for the disk
    /// and for programs.
    ///
    /// # Errors
    ///
    /// [`Code::Disk`], [`Code::DiskFull`]: it cannot be written.
    pub fn begin(root: &Root, service: Service, why: &str, now: OffsetDateTime) -> Result<Self> {
        let form = format_description!("[year][month][day]T[hour][minute][second]Z");
        let time = now.to_offset(time::UtcOffset::UTC).format(&form);
        let time = time.context(Code::Disk, || "writing down the time".to_owned())?;
        root.create_dir(DIRECTORY, 0o700)?;
        let evidence = Self {
            root: root.clone(),
            service,
            name: format!("{time}-{service}"),
        };
        root.create_dir(evidence.partial(), 0o700)?;
        evidence.write("reason.txt", &format!("{why}\n"))?;
        let unit = program::output(
            &[
                "systemctl",
                "show",
                "--no-pager",
                PROPERTIES,
                service.unit(),
            ],
            LIMIT,
            FILE,
        );
        evidence.write("unit.txt", &unit)?;
        evidence.write("machine.txt", &evidence.files(&MACHINE.map(PathBuf::from)))?;
        if let Some(group) = property(&unit, "ControlGroup") {
            let group = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/'));
            let files = CGROUP.map(|name| group.join(name));
            evidence.write("cgroup.txt", &evidence.files(&files))?;
        }
        if let Some(pid) = property(&unit, "MainPID").filter(|pid| *pid != "0") {
            let files = PROCESS.map(|name| Path::new("/proc").join(pid).join(name));
            evidence.write("process.txt", &evidence.files(&files))?;
        }
        Ok(evidence)
    }

    /// Adds the journal, a goroutine dump in it, and puts the folder into its
    /// place; older ones go. Returns where it is.
    ///
    /// # Errors
    ///
    /// As [`Evidence::begin`].
    pub fn finish(self) -> Result<PathBuf> {
        let unit = format!("--unit={}", self.service.unit());
        let journal = [
            "journalctl",
            "--no-pager",
            "--output=short-precise",
            "--lines=1500",
            &unit,
        ];
        self.write("journal.txt", &program::output(&journal, LIMIT, FILE))?;
        let kernel = [
            "journalctl",
            "--no-pager",
            "--dmesg",
            "--lines=50",
            "--grep=[Oo]ut of memory|oom|Killed process|blocked for more than|I/O error",
        ];
        self.write("kernel.txt", &program::output(&kernel, LIMIT, FILE))?;
        let place = Path::new(DIRECTORY).join(&self.name);
        // Twice in one second: the first is as good.
        self.root.remove_tree(&place)?;
        self.root.rename(self.partial(), &place)?;
        prune(&self.root)?;
        Ok(place)
    }

    fn partial(&self) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{PARTIAL}{}", self.name))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let text = scrub(text);
        let path = self.partial().join(name);
        self.root.write_atomic(path, text.as_bytes(), 0o600)?;
        Ok(())
    }

    /// Small files in one, each under its name; what is not there is left out.
    fn files(&self, paths: &[PathBuf]) -> String {
        let mut text = String::new();
        for path in paths {
            if let Ok(content) = self.root.read(path) {
                let content = String::from_utf8_lossy(&content);
                text.push_str(&format!("== {}\n{}\n", path.display(), content.trim_end()));
            }
        }
        text
    }
}

/// A value in what `systemctl show` says; none where it is empty.
fn property<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.next().filter(|value| !value.is_empty())
}

/// Removes what a killed predecessor left half-done.
///
/// # Errors
///
/// [`Code::Disk`]: it cannot be removed.
pub fn sweep(root: &Root) -> Result<()> {
    if root.exists(DIRECTORY)? {
        for name in names(root, |name| name.starts_with(PARTIAL))? {
            root.remove_tree(Path::new(DIRECTORY).join(name))?;
        }
    }
    Ok(())
}

/// Removes the oldest; a name begins with its time.
fn prune(root: &Root) -> Result<()> {
    let names = names(root, |name| !name.starts_with('.'))?;
    let old = names.len().saturating_sub(KEPT);
    for name in names.iter().take(old) {
        root.remove_tree(Path::new(DIRECTORY).join(name))?;
    }
    Ok(())
}

/// The names in the folder, sorted.
fn names(root: &Root, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let entries = root.list(DIRECTORY)?.into_iter();
    let names = entries.map(|entry| entry.name.to_string_lossy().into_owned());
    Ok(names.filter(|name| wanted(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn evidence_is_whole_closed_and_capped() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        fs::create_dir_all(folder.path().join("proc/pressure")).unwrap();
        fs::write(folder.path().join("proc/pressure/memory"), "full avg10=97").unwrap();
        let begin = OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap();
        let mut last = PathBuf::new();
        for second in 0..KEPT as i64 + 4 {
            let now = begin + time::Duration::seconds(second);
            let why = "no answer, token: abcdef.0123456789abcdef";
            let evidence = Evidence::begin(&root, Service::Kubelet, why, now).unwrap();
            last = evidence.finish().unwrap();
        }
        assert_eq!(root.list(DIRECTORY).unwrap().len(), KEPT);
        let read = |name: &str| root.read_to_string(last.join(name)).unwrap();
        assert_eq!(read("reason.txt"), "no answer, token: [redacted]\n");
        assert!(read("machine.txt").contains("full avg10=97"));
        assert!(root.exists(last.join("journal.txt")).unwrap());
        let mode = fs::metadata(root.path(DIRECTORY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn properties_are_found() {
        let text = "MainPID=7\nControlGroup=/system.slice/kubelet.service\nResult=\n";
        assert_eq!(property(text, "MainPID"), Some("7"));
        assert_eq!(property(text, "Result"), None);
        assert_eq!(property(text, "Main"), None);
    }
}
