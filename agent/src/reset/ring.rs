//! This machine's place in etcd's ring, and whether the others do without it.

use super::plan::Ring;
use crate::error::{Error, Result};
use crate::etcd::config::Config;
use crate::etcd::ring;
use crate::sys::etcd::{Gateway, LOCAL, Member};
use crate::sys::root::Root;
use units::paths;

/// What etcd.yaml says; nothing on machines without one.
///
/// # Errors
///
/// [`Code::Disk`](crate::error::Code::Disk),
/// [`Code::ConfigInvalid`](crate::error::Code::ConfigInvalid).
pub fn settings(root: &Root) -> Result<Option<Config>> {
    match root.exists(paths::ETCD_CONFIG)? {
        true => Config::read(root).map(Some),
        false => Ok(None),
    }
}

/// This machine's place in the ring, and why it may not leave, if that is so.
///
/// # Errors
///
/// [`Code::Disk`](crate::error::Code::Disk): the data cannot be looked at.
pub async fn look(root: &Root, config: &Config) -> Result<(Ring, Option<String>)> {
    if !config.has_data(root)? {
        return Ok((Ring::None, None));
    }
    let asked = async {
        let gateway = Gateway::new(root)?;
        let members = gateway.members(LOCAL).await?;
        let healthy = ring::healthy(&gateway, &members).await;
        let healthy: Vec<u64> = healthy.iter().map(|member| member.id).collect();
        Ok::<_, Error>(stand(&members, &config.name, &healthy))
    };
    Ok(match asked.await {
        Ok(Stand::NoMember) => (Ring::None, None),
        Ok(Stand::Alone) => (Ring::Alone, None),
        Ok(Stand::Free) => (Ring::Member, None),
        Ok(Stand::Needed(why)) => (Ring::Member, Some(why)),
        Err(_) if config.members.len() < 2 => (Ring::Alone, None),
        Err(error) => (Ring::Member, Some(error.story())),
    })
}

/// Leaves, by the word of one that stays: this one stops before it could answer.
///
/// # Errors
///
/// [`Code::Etcd`](crate::error::Code::Etcd): it does not answer, or refuses.
pub async fn leave(root: &Root, name: &str) -> Result<()> {
    let gateway = Gateway::new(root)?;
    let members = gateway.members(LOCAL).await?;
    let healthy = ring::healthy(&gateway, &members).await;
    let Some(own) = members.iter().find(|member| member.name == name) else {
        return Ok(());
    };
    let stays = healthy
        .into_iter()
        .find(|member| member.id != own.id && !member.learner);
    let by = stays.map_or(LOCAL, ring::url);
    gateway.remove(by, own.id).await
}

#[derive(Debug, PartialEq, Eq)]
enum Stand {
    NoMember,
    Alone,
    Free,
    Needed(String),
}

/// Whether the others are a ring without it. A learner has no vote, so the ring
/// is none by it, and does without it.
fn stand(members: &[Member], name: &str, healthy: &[u64]) -> Stand {
    let Some(own) = members.iter().find(|member| member.name == name) else {
        return Stand::NoMember;
    };
    let voters = members
        .iter()
        .filter(|one| one.id != own.id && !one.learner);
    let (well, ill): (Vec<&Member>, Vec<&Member>) =
        voters.partition(|member| healthy.contains(&member.id));
    let others = well.len() + ill.len();
    if others == 0 {
        return Stand::Alone;
    }
    let majority = others / 2 + 1;
    if own.learner || well.len() >= majority {
        return Stand::Free;
    }
    let silent: Vec<&str> = ill.iter().map(|member| member.name.as_str()).collect();
    Stand::Needed(format!(
        "of the {others} other members of etcd {} are healthy and {majority} have to be; not {}",
        well.len(),
        silent.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: &[&str]) -> Vec<Member> {
        let members = names.iter().zip(1..).map(|(name, id)| Member {
            id,
            name: (*name).to_owned(),
            peer_urls: vec![format!("https://{name}:2380")],
            client_urls: vec![format!("https://{name}:2379")],
            learner: false,
        });
        members.collect()
    }

    #[test]
    fn a_member_leaves_where_the_others_are_a_ring_without_it() {
        let mut three = ring(&["a", "b", "c"]);
        assert_eq!(stand(&three, "a", &[1, 2, 3]), Stand::Free);
        let Stand::Needed(why) = stand(&three, "a", &[1, 2]) else {
            panic!("one of two is no majority");
        };
        assert!(
            why.contains("1 are healthy and 2 have to be; not c"),
            "{why}"
        );
        assert_eq!(stand(&three, "d", &[1, 2, 3]), Stand::NoMember);
        assert_eq!(stand(&ring(&["a"]), "a", &[]), Stand::Alone);
        assert_eq!(stand(&ring(&["a", "b"]), "a", &[2]), Stand::Free);
        // Without its vote, c is no reason to stay; and without a's, a is none.
        three[2].learner = true;
        assert_eq!(stand(&three, "a", &[1, 2]), Stand::Free);
        assert_eq!(stand(&three, "c", &[]), Stand::Free);
    }

    #[test]
    fn a_machine_without_etcd_has_no_settings_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(settings(&root).unwrap(), None);
    }
}
