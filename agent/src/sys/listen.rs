//! A listening socket that outlives the process: systemd keeps it while the
//! agent is restarted, and connections wait in its queue.
//!
//! Beneath: sd-notify and listenfd. Source: sd_pid_notify_with_fds(3),
//! sd_listen_fds(3), systemd.service(5) on `FileDescriptorStoreMax=`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use listenfd::ListenFd;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use sd_notify::NotifyState;

/// What systemd knows the socket by.
const NAME: &str = "balancer";

/// Listens on `address`, with the socket that systemd kept if it is that.
///
/// # Errors
///
/// The kernel's: the address is in use, or none of this machine's.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    for listener in kept() {
        if listener.local_addr().is_ok_and(|kept| kept == address) {
            return Ok(listener);
        }
    }
    forget();
    // The standard library sets SO_REUSEADDR: what is left of old connections
    // is not in the way.
    let listener = TcpListener::bind(address)?;
    keep(&listener);
    Ok(listener)
}

/// What systemd kept and handed over at the start of the process. Each is there
/// once: its number may mean another file afterwards.
fn kept() -> Vec<TcpListener> {
    static KEPT: LazyLock<Mutex<Vec<TcpListener>>> = LazyLock::new(|| {
        let mut fds = ListenFd::from_env();
        let count = fds.len();
        let kept: Vec<TcpListener> = (0..count)
            .filter_map(|index| fds.take_tcp_listener(index).ok().flatten())
            .collect();
        // No program that the agent runs gets it.
        let ours =
            |listener: &TcpListener| fcntl(listener, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_ok();
        Mutex::new(kept.into_iter().filter(ours).collect())
    });
    std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Without systemd, or with a unit that keeps nothing, a restart closes the
/// port for a moment.
fn keep(listener: &TcpListener) {
    let state = [NotifyState::FdStore, NotifyState::FdName(NAME)];
    if let Err(error) = sd_notify::notify_with_fds(&state, &[listener.as_fd()]) {
        tracing::debug!("systemd does not keep the balancer's socket: {error}");
    }
}

/// What systemd keeps is not needed any more.
pub fn forget() {
    let state = [NotifyState::FdStoreRemove, NotifyState::FdName(NAME)];
    if let Err(error) = sd_notify::notify(&state) {
        tracing::debug!("systemd keeps the balancer's old socket: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    /// Says to the process that this test starts which address it listens on.
    const ROLE: &str = "KNODE_TEST_LISTEN";

    /// Runs this test once more in a process of its own, as systemd would: with
    /// `kept` as its third file, or nothing.
    fn as_service(address: SocketAddr, kept: Option<&TcpListener>, notify: &std::path::Path) {
        let hand_over = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
        let script = if kept.is_some() {
            hand_over
        } else {
            "exec \"$@\""
        };
        let mut service = Command::new("sh");
        service
            .args(["-c", script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "sys::listen::tests::systemd_keeps_the_socket"])
            .env(ROLE, address.to_string())
            .env("NOTIFY_SOCKET", notify);
        if let Some(kept) = kept {
            let fd = OwnedFd::from(kept.try_clone().unwrap());
            service.stdin(Stdio::from(fd));
        }
        let output = service.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }

    #[test]
    fn systemd_keeps_the_socket() {
        if let Ok(address) = std::env::var(ROLE) {
            let address = address.parse().unwrap();
            let listener = tcp(address).unwrap();
            assert_eq!(listener.local_addr().unwrap(), address);
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let heard = || {
            let mut buffer = [0; 256];
            let count = systemd.recv(&mut buffer).unwrap_or(0);
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // While this process has the port, only the socket itself will do.
        as_service(address, Some(&listener), &path);
        assert_eq!(heard(), "", "systemd has it already");

        drop(listener);
        as_service(address, None, &path);
        assert!(heard().contains("FDSTOREREMOVE=1"));
        let kept = heard();
        assert!(
            kept.contains("FDSTORE=1") && kept.contains("FDNAME=balancer"),
            "{kept}"
        );

        // One that is kept for another address is not used, and let go.
        let old = TcpListener::bind("127.0.0.1:0").unwrap();
        as_service(address, Some(&old), &path);
        assert!(heard().contains("FDSTOREREMOVE=1"));
        assert!(heard().contains("FDSTORE=1"));
    }
}
