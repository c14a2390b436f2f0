//! What can go wrong on a node, each cause with a stable code.
//!
//! A code never changes its meaning: operators grep for it in journals, and
//! docs/errors.md lists each one with its cause and its cure. [`Code::ALL`] is
//! the source of that list.

use std::fmt;

/// The result of agent work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Declares [`Code`] with each code's text, cause and cure in one place.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $cure:literal;)+) => {
        /// A stable code for one cause of failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code as it is logged and documented: `E-…`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What an operator does about it, one sentence.
            pub fn cure(self) -> &'static str {
                match self { $(Self::$name => $cure,)+ }
            }
        }
    };
}

codes! {
    /// `/etc/knode/node.yaml` is missing or cannot be read.
    ConfigRead = "E-CONFIG-READ", "Check that the user-data was applied: node.yaml is one of its files.";
    /// `/etc/knode/node.yaml` is not a NodeConfig that this knode knows.
    ConfigInvalid = "E-CONFIG-INVALID", "Generate the user-data again with kgen, and use the knode that it names.";
    /// The document is for several machines, and this one's host name is none of theirs.
    HostName = "E-HOST-NAME", "Give the machine one of the named host names, or list it in the settings and render again.";
    /// A file of the user-data is missing or not as kgen wrote it.
    ConfigAltered = "E-CONFIG-ALTERED", "Compare the user-data on the machine with kgen's: it was cut or altered on its way.";
    /// A certificate on the node is expired, for another name, or of another CA.
    IdentityCert = "E-IDENTITY-CERT", "Generate this machine's user-data again; it brings a fresh certificate.";
    /// The token by which a new machine asks for its certificate has expired or is refused.
    BootstrapToken = "E-BOOTSTRAP-TOKEN", "Render the pool's user-data again: it brings a new token, and the masters' brings its object.";
    /// Another machine that is Ready has this machine's name in the cluster.
    NodeName = "E-NODE-NAME", "Give this machine another host name; if the other one is gone, delete its Node.";
    /// The clock is before a certificate's first day.
    Clock = "E-CLOCK", "Set the machine's clock, or let it reach its time servers.";
    /// The name servers do not answer, or fail.
    Dns = "E-DNS", "Check the machine's name servers, or use an address instead of the name.";
    /// The name servers answer that there is no such host name.
    NoName = "E-NO-NAME", "Check how the name is written in the settings, and that its zone has it.";
    /// A server could not be reached.
    Connect = "E-CONNECT", "Check routes, firewalls and that the server runs.";
    /// A TLS handshake failed.
    Tls = "E-TLS", "Check that the server's certificate is of the expected authority and for the name used.";
    /// A mirror answered with an error status.
    FetchHttp = "E-FETCH-HTTP", "Check that the mirror has the file at the address in kgen.lock.";
    /// A download made no progress for too long.
    FetchStall = "E-FETCH-STALL", "The mirror or the network is stuck; knode goes on with the next mirror.";
    /// Downloaded bytes do not have the pinned checksum.
    FetchHash = "E-FETCH-HASH", "The mirror has other bytes than kgen.lock pins: find out which is right before changing either.";
    /// A download ended early or is too long.
    FetchSize = "E-FETCH-SIZE", "The mirror or a proxy cut or replaced the file; knode tries again.";
    /// An archive could not be unpacked, or lacks a file.
    FetchUnpack = "E-FETCH-UNPACK", "Check that kgen.lock describes the archive that its checksum pins.";
    /// A file could not be read or written.
    Disk = "E-DISK", "Check that the disk is healthy and the path is writable.";
    /// The disk is full.
    DiskFull = "E-DISK-FULL", "Make room on the named file system.";
    /// The place for programs is read-only, or nothing on it can be executed.
    Mount = "E-MOUNT", "Mount the named place read-write and without noexec.";
    /// The machine has no cgroup v2, or it lacks a controller.
    Cgroup = "E-CGROUP", "Boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or use an image that does.";
    /// Swap is on, and the kubelet is not told to bear it.
    Swap = "E-SWAP", "Turn swap off, or set failSwapOn: false in the kubelet's configuration.";
    /// A port that a service needs is taken by another program.
    Port = "E-PORT", "Stop the named program, or give it another port.";
    /// Packets of pods are larger than the way between the machines carries.
    Mtu = "E-MTU", "Leave network.mtu out of the settings, or make it smaller.";
    /// systemd is older than what our units are written for.
    Systemd = "E-SYSTEMD", "Use an image with a newer systemd.";
    /// A kernel feature is missing.
    Kernel = "E-KERNEL", "Load the named module, or use a kernel that has it.";
    /// containerd should come with the machine, and is not there.
    RuntimeMissing = "E-RUNTIME-MISSING", "Install containerd, or set runtime.source to artifact.";
    /// The container runtime does not answer.
    Runtime = "E-RUNTIME", "See the journal of containerd.service.";
    /// The kernel refused a change of links, addresses or routes.
    Netlink = "E-NETLINK", "See the message; it holds the kernel's reason.";
    /// The kernel refused the nftables rules.
    Nft = "E-NFT", "Use a kernel with nf_tables and NAT.";
    /// No address of this machine can be told to be its own.
    Address = "E-ADDRESS", "Name the machine's address in the settings.";
    /// The Node has no pod range, or another than the settings say.
    PodRange = "E-POD-RANGE", "Delete the Node object if the settings are right, else put its range into the settings.";
    /// systemd could not be reached.
    Bus = "E-BUS", "Check that dbus.service runs.";
    /// A unit did not start.
    UnitFailed = "E-UNIT-FAILED", "See the named unit's journal.";
    /// A service runs, and fails its health check for longer than it may.
    Unhealthy = "E-UNHEALTHY", "knode restarts what had answered before; see the evidence in /var/lib/knode/evidence and the unit's journal.";
    /// A service starts and ends over and over.
    CrashLoop = "E-CRASH-LOOP", "See the message for how it ends, and the named unit's journal.";
    /// A new program or document did not become healthy; the one before it is back.
    RolledBack = "E-ROLLED-BACK", "See the evidence in /var/lib/knode/evidence; the new one is tried again with another node.yaml.";
    /// A static pod of the control plane does not come up.
    StaticPod = "E-STATIC-POD", "See the named container's log in /var/log/pods, and the kubelet's journal: it pulls the image.";
    /// The API server is not there or not ready.
    ApiUnreachable = "E-API-UNREACHABLE", "Boot a master, and check that this machine reaches it; knode keeps waiting.";
    /// The API server refused a request.
    ApiRefused = "E-API-REFUSED", "See the message; it holds the API server's reason.";
    /// etcd is not healthy.
    Etcd = "E-ETCD", "Check that most members of the ring run and reach each other.";
    /// The data of this machine's member of etcd are gone, and nobody has them.
    EtcdLost = "E-ETCD-LOST", "Bring the ring's other members back; if there are none, restore a snapshot: knode etcd restore FILE.";
    /// Most members of the ring are away, and this one has no data.
    EtcdQuorum = "E-ETCD-QUORUM", "Bring the missing members back; if the data of most are gone, restore a snapshot: knode etcd restore FILE.";
    /// A member's data are gone, and it is not safe to bring it back by itself.
    EtcdRejoin = "E-ETCD-REJOIN", "Mend what the message names; or bring this member back in any case: knode etcd rejoin.";
    /// This machine's member was taken out of its ring.
    EtcdRemoved = "E-ETCD-REMOVED", "Take the machine out of the settings; or bring it into the ring again: knode etcd rejoin.";
    /// etcd's database has reached its quota, and nothing is written any more.
    EtcdSpace = "E-ETCD-NOSPACE", "Delete what fills it, or raise quota-backend-bytes in etcd.config; knode then ends the alarm.";
    /// A snapshot of etcd could not be made, or is not whole.
    EtcdSnapshot = "E-ETCD-SNAPSHOT", "See the message; take another snapshot, or use an older one.";
    /// The Node is registered but not Ready.
    NotReady = "E-NOT-READY", "See the message; it holds the kubelet's reason.";
    /// A service's version does not go with those of others yet.
    Skew = "E-SKEW", "Upgrade the masters first, one minor version after the other; knode waits for its turn.";
    /// Another master restarts its control plane, or is not well.
    Turn = "E-TURN", "Wait, or mend the named master; take one that is gone out of the settings.";
    /// Pods do not leave a machine before its kubelet's new version.
    Drain = "E-DRAIN", "See the message; a PodDisruptionBudget may allow none to go.";
    /// The machine may not be reset as it was asked for.
    Reset = "E-RESET", "See the message; it says what to do before.";
    /// What was waited for did not come in time.
    WaitTimeout = "E-WAIT-TIMEOUT", "Check the named target, or wait longer.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: its code, what was being done, and what lies beneath.
#[derive(Debug)]
pub struct Error {
    code: Code,
    doing: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure that knows its cause.
    pub fn new(code: Code, doing: impl Into<String>) -> Self {
        Self {
            code,
            doing: doing.into(),
            source: None,
        }
    }

    /// The same with what lies beneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The whole story on one line, without the code: what was being done,
    /// then each cause beneath.
    pub fn story(&self) -> String {
        let mut story = self.doing.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries repeat their source in their own text.
            if !story.ends_with(&text) {
                story.push_str(": ");
                story.push_str(&text);
            }
            next = cause.source();
        }
        story
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// Gives a failure of another kind its code and says what was being done.
pub trait Context<T> {
    /// Turns the error into ours.
    ///
    /// # Errors
    ///
    /// The same failure, with `code` and what `doing` says.
    fn context(self, code: Code, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T>
    for std::result::Result<T, E>
{
    fn context(self, code: Code, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::new(code, doing()).because(source))
    }
}

impl From<crate::sys::root::Error> for Error {
    fn from(source: crate::sys::root::Error) -> Self {
        let code = if source.is_out_of_space() {
            Code::DiskFull
        } else {
            Code::Disk
        };
        Self::new(code, source.to_string()).because_of(&source)
    }
}

impl Error {
    /// Keeps the cause beneath a source whose own text is already told.
    fn because_of(mut self, told: &dyn std::error::Error) -> Self {
        self.source = told.source().map(|cause| cause.to_string().into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_tells_each_cause_once() {
        let inner = std::io::Error::other("no route to host");
        let error = Error::new(Code::Connect, "asking the API server").because(inner);
        assert_eq!(error.story(), "asking the API server: no route to host");
        assert_eq!(error.to_string(), "asking the API server");
    }

    #[test]
    fn every_code_is_documented() {
        let docs = include_str!("../../docs/errors.md");
        for code in Code::ALL {
            assert!(
                docs.contains(&format!("`{code}`")),
                "docs/errors.md lacks {code}"
            );
            assert!(
                docs.contains(code.cure()),
                "docs/errors.md lacks the cure of {code}"
            );
        }
    }
}
