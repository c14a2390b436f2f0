//! What masters made from their folders, so that what leaves a folder leaves
//! the cluster: a ConfigMap with a list for each master. The idea is that of
//! kubectl's ApplySets.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::error::Result;
use crate::sys::api::Api;
use units::types::NodeName;

const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const NAME: &str = "knode-objects";

/// An object by its name; only what a master made itself has one here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `ConfigMap`.
    pub kind: String,
    /// Its namespace; empty where it is in none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Id {
    /// One line of a list. None of its parts holds a blank.
    fn line(&self) -> String {
        let Self {
            api_version,
            kind,
            namespace,
            name,
        } = self;
        format!("{api_version} {kind} {namespace}/{name}\n")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let (api_version, kind) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let (namespace, name) = parts.next()?.split_once('/')?;
        Some(Self {
            api_version,
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.line().trim_end())
    }
}

/// What the masters made.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// This master's list.
    pub own: BTreeSet<Id>,
    /// All lists of other masters that still are.
    pub others: BTreeSet<Id>,
    /// Lists of masters that are no longer.
    pub gone: Vec<String>,
    /// Whether there is a ConfigMap at all.
    there: bool,
}

impl Inventory {
    /// Reads the lists. `masters` are those of the settings.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn read(api: &Api, own: &NodeName, masters: &BTreeSet<String>) -> Result<Self> {
        let found = api.get(&format!("{CONFIG_MAPS}/{NAME}")).await?;
        Ok(Self::of(found.as_ref(), own.as_str(), masters))
    }

    fn of(found: Option<&Value>, own: &str, masters: &BTreeSet<String>) -> Self {
        let mut inventory = Self {
            there: found.is_some(),
            ..Self::default()
        };
        let lists = found.and_then(|map| map["data"].as_object());
        for (master, list) in lists.into_iter().flatten() {
            let ids = list.as_str().unwrap_or_default().lines();
            let ids = ids.filter_map(Id::parse);
            if master == own {
                inventory.own.extend(ids);
            } else if masters.contains(master) {
                inventory.others.extend(ids);
            } else {
                inventory.gone.push(master.clone());
                // What it made is nobody's now; this master takes it over.
                inventory.own.extend(ids);
            }
        }
        inventory
    }

    /// Makes this master's list the given one.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn write(&mut self, api: &Api, own: &NodeName, ids: BTreeSet<Id>) -> Result<()> {
        if self.there && self.gone.is_empty() && self.own == ids {
            return Ok(());
        }
        let list: String = ids.iter().map(Id::line).collect();
        let mut data = json!({own.as_str(): list});
        for gone in self.gone.drain(..) {
            data[gone] = Value::Null;
        }
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "labels": {super::keep::LABEL: super::keep::OURS}},
            "data": data,
        });
        if !self.there {
            // Another master may be quicker: then its map is changed.
            api.create(CONFIG_MAPS, &map).await?;
            self.there = true;
        }
        api.merge(&format!("{CONFIG_MAPS}/{NAME}"), &json!({"data": data}))
            .await?;
        self.own = ids;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_were_written() {
        let id = |namespace: &str, name: &str| Id {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let (a, b, c) = (id("x", "a"), id("", "system:b"), id("y", "c"));
        let map = json!({"data": {
            "m1": a.line(),
            "m2": b.line(),
            "m3": c.line(),
        }});
        let masters = BTreeSet::from(["m1".to_owned(), "m2".to_owned()]);
        let found = Inventory::of(Some(&map), "m1", &masters);
        assert_eq!(found.own, BTreeSet::from([a, c]));
        assert_eq!(found.others, BTreeSet::from([b]));
        assert_eq!(found.gone, ["m3"]);
        assert_eq!(Inventory::of(None, "m1", &masters), Inventory::default());
    }
}
