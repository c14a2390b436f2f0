//! What this master applied, and which of it is still as it was then: told by
//! the resource versions of all labelled objects of a kind, which are read at
//! once and without what is in the objects. A round in which nobody changed
//! anything so applies nothing.
//!
//! Source: Kubernetes documentation, "Kubernetes API Concepts", resource
//! versions and metadata-only fetches.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::discovery::{Discovery, Place, collection};
use super::inventory::Id;
use super::keep::{LABEL, OURS};
use crate::error::Result;
use crate::sys::api::Api;

/// What was applied.
#[derive(Debug, Default)]
pub struct Applied {
    marks: BTreeMap<Id, Mark>,
}

#[derive(Debug, PartialEq, Eq)]
struct Mark {
    wanted: Wanted,
    version: String,
}

/// What an object should be, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted([u8; 32]);

impl Wanted {
    /// Of a whole object.
    pub fn of(object: &Value) -> Self {
        Self(Sha256::digest(object.to_string()).into())
    }
}

/// The resource versions of labelled objects as they are now.
#[derive(Debug, Default)]
pub struct Live {
    versions: BTreeMap<Id, String>,
}

impl Applied {
    /// The kinds of what was applied, each with its version of the API.
    fn kinds(&self) -> BTreeSet<(String, String)> {
        let ids = self.marks.keys();
        ids.map(|id| (id.api_version.clone(), id.kind.clone()))
            .collect()
    }

    /// Whether the object was applied like this, and nobody changed it since.
    pub fn holds(&self, id: &Id, wanted: Wanted, live: &Live) -> bool {
        let mark = self.marks.get(id);
        mark.zip(live.versions.get(id))
            .is_some_and(|(mark, version)| mark.wanted == wanted && mark.version == *version)
    }

    /// Remembers what was applied, by the API's answer.
    pub fn remember(&mut self, id: Id, wanted: Wanted, answer: &Value) {
        let version = text(answer, "resourceVersion");
        self.marks.insert(id, Mark { wanted, version });
    }

    /// Forgets what was removed.
    pub fn forget(&mut self, id: &Id) {
        self.marks.remove(id);
    }
}

impl Live {
    /// Reads those of every kind that was applied.
    ///
    /// # Errors
    ///
    /// As every request; see [`Api::get`].
    pub async fn read(api: &Api, applied: &Applied, discovery: &mut Discovery) -> Result<Self> {
        let mut live = Self::default();
        for (api_version, kind) in applied.kinds() {
            if let Some(place) = discovery.place(api, &api_version, &kind).await? {
                live.read_kind(api, &api_version, &kind, &place).await?;
            }
        }
        Ok(live)
    }

    async fn read_kind(
        &mut self,
        api: &Api,
        api_version: &str,
        kind: &str,
        place: &Place,
    ) -> Result<()> {
        let path = collection(place, api_version);
        api.list_metadata(&path, Some((LABEL, OURS)), |object| {
            let id = Id {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                namespace: text(object, "namespace"),
                name: text(object, "name"),
            };
            self.versions.insert(id, text(object, "resourceVersion"));
        })
        .await
    }
}

fn text(object: &Value, field: &str) -> String {
    let text = object["metadata"][field].as_str();
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_as_it_was_applied_is_held() {
        let id = Id {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: "default".to_owned(),
            name: "a".to_owned(),
        };
        let wanted = Wanted::of(&json!({"data": {"a": "2"}}));
        let live = |version: &str| Live {
            versions: BTreeMap::from([(id.clone(), version.to_owned())]),
        };
        let mut applied = Applied::default();
        assert!(!applied.holds(&id, wanted, &live("7")), "never applied");
        let answer = json!({"metadata": {"resourceVersion": "7"}});
        applied.remember(id.clone(), wanted, &answer);
        let kind = ("v1".to_owned(), "ConfigMap".to_owned());
        assert_eq!(applied.kinds(), BTreeSet::from([kind]));
        assert!(applied.holds(&id, wanted, &live("7")));
        assert!(!applied.holds(&id, wanted, &live("8")), "changed");
        assert!(!applied.holds(&id, wanted, &Live::default()), "removed");
        let other = Wanted::of(&json!({"data": {"a": "3"}}));
        assert!(!applied.holds(&id, other, &live("7")), "wanted otherwise");
        applied.forget(&id);
        assert!(!applied.holds(&id, wanted, &live("7")), "forgotten");
    }
}
