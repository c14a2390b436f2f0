//! One run of a node: nspawn and the systemd it started.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::{self, Version};
use crate::network::{BRIDGE, Network};
use crate::{command, wait};

/// Where the programs of a machine are.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// nspawn's own status when the container asked for a reboot and `--keep-unit` is given.
const REBOOT: i32 = 133;

/// How a node went off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It powered itself off.
    PoweredOff,
    /// It asked to be booted again.
    AskedForReboot,
    /// Anything else, with nspawn's status.
    Broke(i32),
}

/// What a container is started from.
pub(crate) struct Plan<'a> {
    pub(crate) network: &'a Network,
    pub(crate) machine: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) root: &'a Path,
    pub(crate) group: &'a str,
    pub(crate) console: &'a Path,
}

/// A running container. Dropping it kills everything in it.
#[derive(Debug)]
pub(crate) struct Container {
    nspawn: Child,
    init: i32,
    group: String,
    ended: Option<ExitStatus>,
}

impl Container {
    pub(crate) fn start(plan: &Plan) -> Result<Self> {
        let version = cgroup::version()?;
        let console = open_console(plan.console)?;
        let mut nspawn = joining(&cgroup::create(plan.group)?);
        nspawn
            .env_clear()
            .env("PATH", PATH)
            // The kubelet writes sysctls.
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes")
            .env(
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY",
                if version == Version::V2 { "1" } else { "0" },
            )
            .args(["nsenter", &plan.network.entry(), "--", "systemd-nspawn"])
            .args(["--register=no", "--keep-unit", "--boot"])
            .arg(format!("--directory={}", plan.root.display()))
            .arg(format!("--machine={}", plan.machine))
            .arg(format!("--hostname={}", plan.hostname))
            .arg(format!("--network-bridge={BRIDGE}"))
            .args(["--capability=all", "--system-call-filter=@known"])
            .args(["--bind=/dev/kmsg", "--link-journal=no"])
            .args(["--resolv-conf=off", "--timezone=off"])
            // A terminal of its own, so that what goes to /dev/console is seen.
            .arg("--console=read-only");
        if version == Version::V1 {
            // systemd 257 refuses to boot on version 1 unless told so. In a container it
            // takes its own arguments for the kernel's command line.
            nspawn.args(["--", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]);
        }
        // Away from the terminal's process group: ctrl-C is for the test, whose leftovers
        // the next sweep removes.
        let nspawn = nspawn
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .process_group(0)
            .spawn()
            .context("starting nspawn")?;
        let mut container = Self {
            nspawn,
            init: 0,
            group: plan.group.to_owned(),
            ended: None,
        };
        let console = plan.console;
        container.init = wait::until("systemd", Duration::from_secs(30), || {
            container.find_init(console)
        })?;
        if version == Version::V1 {
            container.unlock_cgroups()?;
        }
        Ok(container)
    }

    /// systemd's process number on the host.
    pub(crate) fn init(&self) -> i32 {
        self.init
    }

    /// A command that runs a program inside, in the cgroup of the container's PID 1.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = joining(&cgroup::of(self.init)?);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .arg("nsenter")
            .arg(format!("--target={}", self.init))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"])
            .arg("--");
        Ok(command)
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn ended(&mut self) -> Result<Option<Ended>> {
        if self.ended.is_none() {
            self.ended = self
                .nspawn
                .try_wait()
                .context("asking for nspawn's status")?;
        }
        Ok(self.ended.map(|status| match status.code() {
            Some(0) => Ended::PoweredOff,
            Some(REBOOT) => Ended::AskedForReboot,
            Some(code) => Ended::Broke(code),
            None => Ended::Broke(128 + status.signal().unwrap_or_default()),
        }))
    }

    /// Kills nspawn, systemd and all the rest at once, as a power failure would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        for group in cgroup::find(&self.group)? {
            cgroup::kill(&group)?;
        }
        if self.ended.is_none() {
            self.ended = Some(self.nspawn.wait().context("waiting for nspawn")?);
        }
        cgroup::remove(&self.group)
    }

    fn find_init(&mut self, console: &Path) -> Result<Option<i32>> {
        if let Some(ended) = self.ended()? {
            bail!("nspawn ended ({ended:?}): {}", last_words(console));
        }
        let nspawn = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"))
            .context("reading nspawn's children")?;
        for child in children.split_whitespace() {
            let program = fs::read_link(format!("/proc/{child}/exe")).unwrap_or_default();
            if program.ends_with("systemd/systemd") || program.ends_with("sbin/init") {
                return Ok(Some(child.parse()?));
            }
        }
        Ok(None)
    }

    /// nspawn gives the controllers of version 1 read-only, but runc makes groups in them.
    fn unlock_cgroups(&self) -> Result<()> {
        let script = r#"for path in /sys/fs/cgroup/*/; do
            path=${path%/}
            [ -L "$path" ] || mount -o remount,bind,rw,nosuid,nodev,noexec "$path" || exit 1
        done"#;
        let mut command = self.command()?;
        command.args(["sh", "-c", script]);
        command::run(&mut command).context("making the node's cgroups writable")?;
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("killing {}: {error:#}", self.group);
        }
    }
}

/// The end of what a node wrote to its console.
pub(crate) fn last_words(console: &Path) -> String {
    let bytes = fs::read(console).unwrap_or_default();
    command::tail(&String::from_utf8_lossy(&bytes), 3000).to_owned()
}

/// A command whose arguments are a program to run in the cgroups behind these doors.
fn joining(doors: &[PathBuf]) -> Command {
    let script = r#"while [ "$1" != -- ]; do echo $$ >"$1" || exit 125; shift; done
        shift
        exec "$@""#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).args(doors).arg("--");
    command
}

fn open_console(path: &Path) -> Result<File> {
    ensure!(
        path.parent().is_some_and(Path::is_dir),
        "no folder for the console"
    );
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}
