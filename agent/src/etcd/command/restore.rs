//! `knode etcd restore`: a ring of one from a snapshot, into which the others
//! come as into every ring.
//! Source: etcd documentation, "Disaster recovery".

use std::path::Path;
use std::time::Duration;

use super::{Command, confirm, etcdutl, print};
use crate::error::{Code, Context as _, Error, Result};
use crate::etcd::mark::{self, Mark};
use crate::etcd::{join, ring};
use crate::sys::bus::Bus;
use crate::sys::etcd::{LOCAL, verify};
use crate::sys::program;
use crate::sys::root::Root;
use units::node_config::Service;

/// How long unpacking may take: some seconds for each gibibyte.
const LIMIT: Duration = Duration::from_secs(1800);
/// By how much revisions go on, so that no watch takes the restored past for
/// what it knows. Source: etcd documentation, the same.
const BUMP: &str = "1000000000";

impl Command {
    /// Every other member is taken out of the ring first, while it has a
    /// majority: otherwise the others would go on with what is to be replaced.
    pub(super) async fn restore(&self, file: &Path, yes: bool) -> Result<()> {
        self.as_service()?;
        let (root, config) = (&self.root, &self.config);
        let doing = || format!("opening {}", file.display());
        let file = std::path::absolute(file).context(Code::Disk, doing)?;
        let size = verify(&mut Root::default().open(&file)?)?;
        if !config.is_at_its_place() {
            let story = "etcd.config has another data-dir or wal-dir: restore with etcdutl";
            return Err(Error::new(Code::Etcd, story));
        }
        if !root.exists(etcdutl())? {
            let story = format!("{} is not there", etcdutl().display());
            return Err(Error::new(Code::Etcd, story));
        }
        let name = &config.name;
        print(&format!("{} is whole: {size} bytes\n", file.display()))?;
        let question =
            format!("All that {name} and its ring have will be replaced by this snapshot. Go on?");
        confirm(yes, &question)?;
        self.fence().await?;
        let _lock = self.hold().await?;
        self.stop().await?;
        let stamp = join::stamp();
        let new = config.data.join(format!("restore-{stamp}"));
        let text = |path: &Path| root.path(path).display().to_string();
        let cluster = format!("--initial-cluster={name}={}", config.peer_url);
        // A ring of its own, which takes none of the old one's members for its.
        let token = format!("--initial-cluster-token={}-{stamp}", config.token);
        let said = program::filter(
            &[
                &text(&etcdutl()),
                "snapshot",
                "restore",
                &file.display().to_string(),
                &format!("--data-dir={}", text(&new)),
                &format!("--name={name}"),
                &cluster,
                &token,
                &format!("--initial-advertise-peer-urls={}", config.peer_url),
                &format!("--bump-revision={BUMP}"),
                "--mark-compacted",
            ],
            b"",
            LIMIT,
        );
        said.context(Code::EtcdSnapshot, || "restoring with etcdutl".to_owned())?;
        self.tell_aside(join::set_aside(root, config)?)?;
        root.rename(new.join("member"), config.data.join("member"))?;
        root.remove_tree(&new)?;
        join::as_documented(root, config)?;
        mark::keep(root, &Mark::default())?;
        let unit = Service::Etcd.unit();
        let starting = || format!("starting {unit}");
        let bus = Bus::connect().await.context(Code::Bus, starting)?;
        bus.start(unit).await.context(Code::UnitFailed, starting)?;
        self.until_back().await?;
        print("next, on each other machine of the ring: knode etcd rejoin\n")
    }

    async fn fence(&self) -> Result<()> {
        let Ok(members) = self.gateway.members(LOCAL).await else {
            return Ok(());
        };
        let own = self.gateway.status(LOCAL).await?.id;
        // Those that are gone already first: the rest keeps its majority.
        let healthy = ring::healthy(&self.gateway, &members).await;
        let mut others: Vec<_> = members.iter().filter(|one| one.id != own).collect();
        others.sort_by_key(|member| healthy.contains(member));
        for member in others {
            self.gateway.remove(LOCAL, member.id).await?;
            print(&format!("{} is out of the ring\n", member.name))?;
        }
        Ok(())
    }
}
